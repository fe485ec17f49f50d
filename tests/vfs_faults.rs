//! The fault plans and the power-cut model do what the tests built on them believe.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mlrs_db::vfs::fault::{Call, Fault, Plan};
use mlrs_db::vfs::power::{Change, Disk, Keep};
use mlrs_db::vfs::{FaultVfs, MemoryVfs, OpenMode, OsVfs, Vfs};
use proptest::prelude::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn powered() -> FaultVfs {
    FaultVfs::with_power_model(MemoryVfs::new()).unwrap()
}

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn content(vfs: &MemoryVfs, name: &str) -> Option<Vec<u8>> {
    vfs.tree().remove(path(name)).flatten()
}

#[test]
fn the_nth_call_fails_once_or_for_good() {
    let vfs = FaultVfs::new(Arc::new(MemoryVfs::new()));
    let file = vfs.open(path("a"), OpenMode::CreateNew).unwrap();
    vfs.fail(Plan { call: Some(Call::Write), nth: 2, fault: Fault::Error(EIO), forever: false });
    file.write_all_at(b"one", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(file.write_all_at(b"two", 3).unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(file.len().unwrap(), 3, "a failed call has no effect");
    file.write_all_at(b"two", 3).unwrap();

    vfs.fail(Plan { call: Some(Call::Write), nth: 1, fault: Fault::Short(ENOSPC), forever: true });
    for _ in 0..3 {
        assert_eq!(file.write_all_at(b"3456", 6).unwrap_err().raw_os_error(), Some(ENOSPC));
    }
    assert_eq!(file.len().unwrap(), 8, "half of a short write arrived");
    vfs.heal();
    file.write_all_at(b"3456", 6).unwrap();
    let mut bytes = [0; 10];
    file.read_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, vfs.injected()), (b"onetwo3456", 4));
}

#[test]
fn any_call_can_be_the_one_that_fails() {
    // The loop that the engine's tests use: count the calls of a script, then fail each in turn.
    let script = |vfs: &FaultVfs| -> std::io::Result<()> {
        vfs.create_dir_all(path("log"))?;
        let file = vfs.open(path("log/a"), OpenMode::CreateNew)?;
        file.write_all_at(b"x", 0)?;
        file.sync_data()?;
        vfs.sync_dir(path("log"))?;
        vfs.rename(path("log/a"), path("log/b"))?;
        vfs.hard_link(path("log/b"), path("log/c"))?;
        vfs.copy_file(path("log/b"), path("log/d"))?;
        vfs.remove_file(path("log/c"))?;
        drop(vfs.try_lock(path("lock"), "me")?);
        vfs.metadata(path("lock"))?;
        vfs.list(path("log"))?;
        file.read_at(&mut [0], 0).map(drop)
    };
    let whole = FaultVfs::new(Arc::new(MemoryVfs::new()));
    script(&whole).unwrap();
    assert_eq!(whole.calls(None), 13);
    for nth in 1..=13 {
        let vfs = FaultVfs::new(Arc::new(MemoryVfs::new()));
        vfs.fail(Plan { call: None, nth, fault: Fault::Error(EIO), forever: false });
        assert_eq!(script(&vfs).unwrap_err().raw_os_error(), Some(EIO), "call {nth}");
        assert_eq!((vfs.injected(), vfs.calls(None)), (1, nth));
    }
    // Every kind of call but the map, which memory has not.
    assert!(Call::ALL.iter().all(|call| whole.calls(Some(*call)) == u64::from(*call != Call::Map)));
}

#[test]
fn maps_of_real_files_go_through() {
    let directory = tempfile::tempdir().unwrap();
    let vfs = FaultVfs::new(Arc::new(OsVfs));
    let file = vfs.open(&directory.path().join("live"), OpenMode::CreateNew).unwrap();
    file.write_all_at(&[0; 4096], 0).unwrap();
    vfs.fail(Plan { call: Some(Call::Map), nth: 1, fault: Fault::Error(12), forever: false });
    assert!(file.map(0, 4096).is_err());
    assert_eq!(file.map(0, 4096).unwrap().words().len(), 512);
}

#[test]
fn a_file_needs_its_own_sync_and_its_directory_s() {
    let vfs = powered();
    let file = vfs.open(path("a"), OpenMode::CreateNew).unwrap();
    file.write_all_at(b"data", 0).unwrap();
    let lost = |vfs: &FaultVfs| vfs.disk().after_crash(|_, _| Keep::Lost);
    file.sync_data().unwrap();
    assert_eq!(content(&lost(&vfs), "a"), None, "the name is not durable");
    vfs.sync_dir(path("")).unwrap();
    assert_eq!(content(&lost(&vfs), "a").unwrap(), b"data");
    assert!(vfs.disk().pending().is_empty());

    file.write_all_at(b"DATA", 0).unwrap();
    let other = vfs.open(path("b"), OpenMode::CreateNew).unwrap();
    vfs.sync_dir(path("")).unwrap();
    other.sync_data().unwrap();
    assert_eq!(content(&lost(&vfs), "a").unwrap(), b"data", "another file's sync is not this one's");
}

#[test]
fn a_directory_needs_its_parent_s_sync() {
    let vfs = powered();
    vfs.create_dir_all(path("store/log")).unwrap();
    let file = vfs.open(path("store/log/a"), OpenMode::CreateNew).unwrap();
    file.sync_data().unwrap();
    vfs.sync_dir(path("store/log")).unwrap();
    assert_eq!(vfs.disk().after_crash(|_, _| Keep::Lost).tree().len(), 0);
    vfs.sync_dir(path("store")).unwrap();
    vfs.sync_dir(path("")).unwrap();
    assert_eq!(vfs.disk().after_crash(|_, _| Keep::Lost).tree().len(), 3);
}

#[test]
fn an_unsynced_rename_or_removal_may_not_have_happened() {
    let vfs = powered();
    for (name, text) in [("old", "1"), ("new", "2"), ("gone", "3")] {
        let file = vfs.open(path(name), OpenMode::CreateNew).unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        file.sync_data().unwrap();
    }
    vfs.sync_dir(path("")).unwrap();
    vfs.rename(path("new"), path("old")).unwrap();
    vfs.remove_file(path("gone")).unwrap();
    let disk = vfs.disk();
    let before = disk.after_crash(|_, _| Keep::Lost);
    assert_eq!(
        (content(&before, "old").unwrap(), content(&before, "new").unwrap()),
        (b"1".to_vec(), b"2".to_vec())
    );
    assert_eq!(content(&before, "gone").unwrap(), b"3");
    let renamed = disk.after_crash(|i, _| if i == 0 { Keep::Whole } else { Keep::Lost });
    assert_eq!((content(&renamed, "old").unwrap(), content(&renamed, "new")), (b"2".to_vec(), None));
    assert!(content(&renamed, "gone").is_some());
}

#[test]
fn a_rename_across_directories_can_leave_two_names_or_none() {
    let vfs = powered();
    vfs.create_dir_all(path("a")).unwrap();
    vfs.create_dir_all(path("b")).unwrap();
    vfs.open(path("a/x"), OpenMode::CreateNew).unwrap();
    for directory in ["", "a", "b"] {
        vfs.sync_dir(path(directory)).unwrap();
    }
    vfs.rename(path("a/x"), path("b/x")).unwrap();
    let names: BTreeSet<Vec<PathBuf>> = vfs
        .disk()
        .crash_images(0, 0)
        .map(|(_, image)| image.tree().into_keys().filter(|p| p.ends_with("x")).collect())
        .collect();
    assert_eq!(names.len(), 4);
}

#[test]
fn writes_tear_at_bytes_and_sectors_and_holes_read_as_zeros() {
    let vfs = powered();
    let file = vfs.open(path("a"), OpenMode::CreateNew).unwrap();
    file.sync_data().unwrap();
    vfs.sync_dir(path("")).unwrap();
    file.write_all_at(&[7; 2000], 100).unwrap();
    let crash = |keep| content(&vfs.disk().after_crash(|_, _| keep), "a").unwrap();
    assert_eq!(crash(Keep::Lost), b"");
    assert_eq!(crash(Keep::Prefix(3)), [&[0; 100][..], &[7; 3]].concat());
    assert_eq!(crash(Keep::Zeros), [0; 2100]);
    // Sectors 0 (bytes 100..512) and 2 (1024..1536) only.
    assert_eq!(crash(Keep::Sectors(0b101)), [&[0; 100][..], &[7; 412], &[0; 512], &[7; 512]].concat());
    assert_eq!(crash(Keep::Sectors(u64::MAX)), crash(Keep::Whole));
}

#[test]
fn what_a_failed_sync_covered_stays_doubtful_unless_written_again() {
    let vfs = powered();
    let file = vfs.open(path("a"), OpenMode::CreateNew).unwrap();
    vfs.sync_dir(path("")).unwrap();
    file.write_all_at(b"abcdef", 0).unwrap();
    vfs.fail(Plan { call: Some(Call::Sync), nth: 1, fault: Fault::Error(EIO), forever: false });
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    let crash = |keep| content(&vfs.disk().after_crash(|_, _| keep), "a").unwrap();
    assert_eq!(
        (crash(Keep::Lost), crash(Keep::Whole)),
        (b"".to_vec(), b"abcdef".to_vec()),
        "a retried sync lies"
    );
    file.write_all_at(b"CD", 2).unwrap();
    file.sync_data().unwrap();
    assert_eq!((crash(Keep::Lost), crash(Keep::Whole)), (b"\0\0CD".to_vec(), b"abCDef".to_vec()));
}

#[test]
fn the_hook_sees_every_sync_before_it_happens() {
    let vfs = powered();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    vfs.before_sync(move |disk: &Disk| log.lock().unwrap().push(disk.pending().len()));
    let file = vfs.open(path("a"), OpenMode::CreateNew).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    vfs.sync_dir(path("")).unwrap();
    vfs.sync_dir(path("")).unwrap();
    assert_eq!(*seen.lock().unwrap(), [2, 1, 0]);
}

#[test]
fn crash_images_cover_the_table_and_repeat_by_seed() {
    let vfs = powered();
    let file = vfs.open(path("a"), OpenMode::CreateNew).unwrap();
    for i in 0..3u8 {
        file.write_all_at(&[i + 1; 1024], u64::from(i) * 1024).unwrap();
    }
    let disk = vfs.disk();
    let all: Vec<_> = disk.crash_images(7, 40).map(|(text, image)| (text, image.tree())).collect();
    // none, all; each of four changes alone; all but each; the three prefixes in between; the mixtures.
    assert_eq!(all.len(), 2 + 4 + 4 + 3 + 40);
    assert_eq!(all, disk.crash_images(7, 40).map(|(text, image)| (text, image.tree())).collect::<Vec<_>>());
    let distinct: BTreeSet<_> = all.iter().map(|(_, tree)| tree.clone()).collect();
    assert!(distinct.len() > 15, "only {} different images", distinct.len());
    assert!(all[0].1.is_empty() && all[1].1 == disk.after_crash(|_, _| Keep::Whole).tree());
}

#[derive(Clone, Debug)]
enum Op {
    Create(u8),
    Write(u8, u16, u8),
    Rename(u8, u8),
    Remove(u8),
    Sync(u8),
    SyncDir,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (0..4u8).prop_map(Op::Create),
        (0..4u8, 0..1500u16, 1..255u8).prop_map(|(f, at, byte)| Op::Write(f, at, byte)),
        (0..4u8, 0..4u8).prop_map(|(a, b)| Op::Rename(a, b)),
        (0..4u8).prop_map(Op::Remove),
        (0..4u8).prop_map(Op::Sync),
        Just(Op::SyncDir),
    ];
    prop::collection::vec(op, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happened: if all pending changes arrive the crash shows what is in memory, and after syncing
    /// everything no crash can lose anything.
    #[test]
    fn the_model_agrees_with_memory_at_both_ends(ops in ops()) {
        let memory = MemoryVfs::new();
        let vfs = FaultVfs::with_power_model(memory.clone()).unwrap();
        let name = |f: u8| PathBuf::from(format!("f{f}"));
        for op in ops {
            // Missing files are part of the game.
            let _ = match op {
                Op::Create(f) => vfs.open(&name(f), OpenMode::CreateNew).map(drop),
                Op::Write(f, at, byte) => vfs
                    .open(&name(f), OpenMode::ReadWrite)
                    .and_then(|file| file.write_all_at(&[byte; 300], u64::from(at))),
                Op::Rename(a, b) => vfs.rename(&name(a), &name(b)),
                Op::Remove(f) => vfs.remove_file(&name(f)),
                Op::Sync(f) => vfs.open(&name(f), OpenMode::ReadWrite).and_then(|file| file.sync_data()),
                Op::SyncDir => vfs.sync_dir(Path::new("")),
            };
            prop_assert_eq!(vfs.disk().after_crash(|_, _| Keep::Whole).tree(), memory.tree());
        }
        for entry in vfs.list(Path::new("")).unwrap() {
            vfs.open(Path::new(&entry.name), OpenMode::Read).unwrap().sync_data().unwrap();
        }
        vfs.sync_dir(Path::new("")).unwrap();
        let disk = vfs.disk();
        prop_assert_eq!(disk.after_crash(|_, _| Keep::Lost).tree(), memory.tree());
        // Only bytes of files without a name can still be pending.
        let all_writes = disk.pending().iter().all(|change| matches!(change, Change::Write { .. }));
        prop_assert!(all_writes);
    }
}
