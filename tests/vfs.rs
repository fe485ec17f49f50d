//! One suite for every file system: what the engine relies on must hold in the operating system and in its twins.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use mlrs_db::vfs::memory::Tree;
use mlrs_db::vfs::power::Keep;
use mlrs_db::vfs::{FaultVfs, MemoryVfs, OpenMode, OsVfs, Vfs};

/// Runs a check on each file system, in an empty directory of it.
fn everywhere(check: impl Fn(&dyn Vfs, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    check(&OsVfs, directory.path());
    let memory = MemoryVfs::new();
    memory.create_dir_all(Path::new("/root")).unwrap();
    check(&memory, Path::new("/root"));
    let faulty = FaultVfs::with_power_model(MemoryVfs::new()).unwrap();
    faulty.create_dir_all(Path::new("/root")).unwrap();
    check(&faulty, Path::new("/root"));
    // Whatever was done, a crash in which everything arrived leaves just what is there. (Two names of one file come
    // back as two files, and what lock files say is not recorded.)
    let arrived = faulty.disk().after_crash(|_, _| Keep::Whole).tree();
    let files = |tree: Tree| tree.into_iter().filter(|(path, _)| !path.ends_with("lock")).collect::<Tree>();
    assert_eq!(files(arrived), files(faulty_tree(&faulty)));
}

fn faulty_tree(vfs: &dyn Vfs) -> Tree {
    fn walk(vfs: &dyn Vfs, directory: &Path, tree: &mut Tree) {
        for entry in vfs.list(directory).unwrap() {
            let path = directory.join(&entry.name);
            tree.insert(path.clone(), (!entry.is_dir).then(|| read(vfs, &path)));
            if entry.is_dir {
                walk(vfs, &path, tree);
            }
        }
    }
    let mut tree = Tree::new();
    walk(vfs, Path::new(""), &mut tree);
    tree
}

fn write(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) {
    vfs.open(path, OpenMode::CreateNew).unwrap().write_all_at(bytes, 0).unwrap();
}

fn read(vfs: &dyn Vfs, path: &Path) -> Vec<u8> {
    let file = vfs.open(path, OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn names(vfs: &dyn Vfs, directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = vfs.list(directory).unwrap().into_iter().map(|e| e.name).collect();
    names.sort();
    names
}

#[test]
fn a_file_reads_back_what_was_written_and_ends_where_it_ends() {
    everywhere(|vfs, root| {
        let file = vfs.open(&root.join("a"), OpenMode::CreateNew).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_all_at(b"hello", 3).unwrap();
        assert_eq!(file.len().unwrap(), 8);
        let mut buffer = [9u8; 16];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 8);
        assert_eq!(&buffer[..9], b"\0\0\0hello\x09");
        assert_eq!(file.read_at(&mut buffer, 8).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, 1 << 40).unwrap(), 0);
        file.write_all_at(b"", 100).unwrap();
        assert_eq!(file.len().unwrap(), 8);
        file.sync_data().unwrap();
    });
}

#[test]
fn open_modes_mean_what_they_say() {
    everywhere(|vfs, root| {
        let path = root.join("a");
        for mode in [OpenMode::Read, OpenMode::ReadWrite] {
            assert_eq!(vfs.open(&path, mode).unwrap_err().kind(), ErrorKind::NotFound);
        }
        write(vfs, &path, b"x");
        assert_eq!(vfs.open(&path, OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(vfs.open(&path, OpenMode::Read).unwrap().write_all_at(b"y", 0).is_err());
        vfs.open(&path, OpenMode::ReadWrite).unwrap().write_all_at(b"y", 1).unwrap();
        assert_eq!(read(vfs, &path), b"xy");
        let missing = root.join("no-such-directory/a");
        assert_eq!(vfs.open(&missing, OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn directories_are_made_with_their_parents_and_listed() {
    everywhere(|vfs, root| {
        let deep = root.join("x/y");
        vfs.create_dir_all(&deep).unwrap();
        vfs.create_dir_all(&deep).unwrap();
        write(vfs, &deep.join("file"), b"1");
        assert_eq!(names(vfs, root), ["x"]);
        assert!(vfs.list(root).unwrap()[0].is_dir);
        assert_eq!(names(vfs, &deep), ["file"]);
        assert!(!vfs.list(&deep).unwrap()[0].is_dir);
        vfs.sync_dir(&deep).unwrap();
        let missing = root.join("missing");
        assert_eq!(vfs.list(&missing).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(vfs.sync_dir(&missing).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(vfs.create_dir_all(&deep.join("file/below")).is_err());
        assert!(vfs.open(&root.join("x"), OpenMode::ReadWrite).is_err());
    });
}

#[test]
fn a_rename_replaces_and_open_handles_keep_their_file() {
    everywhere(|vfs, root| {
        let (a, b) = (root.join("a"), root.join("b"));
        write(vfs, &a, b"new");
        write(vfs, &b, b"old");
        let old = vfs.open(&b, OpenMode::ReadWrite).unwrap();
        let identity = vfs.metadata(&a).unwrap().identity;
        assert_ne!(identity, old.metadata().unwrap().identity);
        vfs.rename(&a, &b).unwrap();
        assert_eq!(names(vfs, root), ["b"]);
        assert_eq!(read(vfs, &b), b"new");
        assert_eq!(vfs.metadata(&b).unwrap().identity, identity);
        assert_eq!(old.metadata().unwrap().links, 0);
        old.write_all_at(b"ghost", 0).unwrap();
        assert_eq!(read(vfs, &b), b"new");
        assert_eq!(vfs.rename(&a, &b).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(vfs.rename(&b, &root.join("missing/b")).is_err());
        assert_eq!(read(vfs, &b), b"new");
    });
}

#[test]
fn a_removed_file_has_no_link_but_its_handle_works() {
    everywhere(|vfs, root| {
        let path = root.join("a");
        let file = vfs.open(&path, OpenMode::CreateNew).unwrap();
        assert_eq!(file.metadata().unwrap().links, 1);
        vfs.remove_file(&path).unwrap();
        assert_eq!(vfs.metadata(&path).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(vfs.remove_file(&path).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(file.metadata().unwrap().links, 0);
        file.write_all_at(b"still", 0).unwrap();
        assert_eq!(file.len().unwrap(), 5);
        // The name can be used again, by another file.
        write(vfs, &path, b"second");
        assert_ne!(vfs.metadata(&path).unwrap().identity, file.metadata().unwrap().identity);
    });
}

#[test]
fn a_hard_link_is_the_same_file_and_a_copy_is_not() {
    everywhere(|vfs, root| {
        let (a, link, copy) = (root.join("a"), root.join("link"), root.join("copy"));
        write(vfs, &a, b"one");
        vfs.hard_link(&a, &link).unwrap();
        vfs.copy_file(&a, &copy).unwrap();
        vfs.open(&a, OpenMode::ReadWrite).unwrap().write_all_at(b"two", 0).unwrap();
        assert_eq!((read(vfs, &link), read(vfs, &copy)), (b"two".to_vec(), b"one".to_vec()));
        assert_eq!(vfs.metadata(&a).unwrap().links, 2);
        assert_eq!(vfs.hard_link(&a, &copy).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(vfs.copy_file(&a, &link).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(read(vfs, &link), b"two");
        let missing = root.join("missing");
        assert_eq!(vfs.copy_file(&missing, &root.join("c")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(vfs.hard_link(&missing, &root.join("c")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(names(vfs, root), ["a", "copy", "link"]);
    });
}

#[test]
fn a_lock_excludes_other_handles_of_this_process_and_names_its_holder() {
    everywhere(|vfs, root| {
        let path = root.join("lock");
        assert_eq!(vfs.lock_holder(&path), "");
        let held = vfs.try_lock(&path, "pid 1 host a, a longer line than the next").unwrap().unwrap();
        assert!(vfs.try_lock(&path, "pid 2 host b").unwrap().is_none());
        assert_eq!(vfs.lock_holder(&path), "pid 1 host a, a longer line than the next");
        drop(held);
        let next = vfs.try_lock(&path, "pid 2 host b").unwrap().unwrap();
        assert_eq!(vfs.lock_holder(&path), "pid 2 host b");
        drop(next);
        // Nobody holds it now; the line names the last holder.
        assert_eq!(vfs.lock_holder(&path), "pid 2 host b");
    });
}

#[test]
fn a_file_can_be_locked_through_any_of_its_handles_but_only_once() {
    everywhere(|vfs, root| {
        let path = root.join("w.live");
        let first = vfs.open(&path, OpenMode::CreateNew).unwrap();
        let second = vfs.open(&path, OpenMode::ReadWrite).unwrap();
        let held = first.try_lock().unwrap().unwrap();
        assert!(first.try_lock().unwrap().is_none());
        assert!(second.try_lock().unwrap().is_none());
        // Locking one file does not lock another, and the content is left alone.
        let other = vfs.open(&root.join("x.live"), OpenMode::CreateNew).unwrap();
        assert!(other.try_lock().unwrap().is_some());
        first.write_all_at(b"data", 0).unwrap();
        assert_eq!(read(vfs, &path), b"data");
        // Closing an unrelated handle of the file must not lose the lock (POSIX record locks would).
        drop(second);
        assert!(vfs.open(&path, OpenMode::ReadWrite).unwrap().try_lock().unwrap().is_none());
        drop(held);
        let again = vfs.open(&path, OpenMode::ReadWrite).unwrap();
        assert!(again.try_lock().unwrap().is_some());
        // Also by a handle whose file has lost its name.
        vfs.remove_file(&path).unwrap();
        assert!(again.try_lock().unwrap().is_some());
    });
}

#[test]
fn threads_write_disjoint_ranges_of_one_file() {
    everywhere(|vfs, root| {
        let file = vfs.open(&root.join("a"), OpenMode::CreateNew).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let file = Arc::clone(&file);
                scope.spawn(move || {
                    for i in 0..64u64 {
                        file.write_all_at(&[thread + 1; 100], (i * 4 + u64::from(thread)) * 100).unwrap();
                    }
                });
            }
        });
        let bytes = read(vfs, &root.join("a"));
        assert_eq!(bytes.len(), 25_600);
        assert!(bytes.chunks(100).enumerate().all(|(i, c)| c.iter().all(|b| usize::from(*b) == i % 4 + 1)));
    });
}
