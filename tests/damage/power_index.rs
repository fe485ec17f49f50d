//! Power cuts and the index: it is never ahead of what is durable in segments, and never changes an answer.
//!
//! Contract: a store with an index is written, closed and compacted again and again. At every sync boundary the index is
//! taken as it is at that moment, which is as far ahead as it can be, and as it was before; the disk is rebuilt without
//! what was not durable, with all of it, and with mixtures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use mlrs_db::format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use mlrs_db::id::{SegmentId, StoreId};
use mlrs_db::index::{INDEX_FILE, Index};
use mlrs_db::vfs::power::{Disk, Keep};
use mlrs_db::vfs::{
    Entry, FaultVfs, FileSystem, HeldLock, MemoryVfs, Metadata, OpenMode, OsVfs, Vfs, VfsFile,
};
use mlrs_db::{RunData, RunOptions, RunSearch, Store};

use crate::chance::{number, random};
use crate::*;

/// From 256 entities on there is an index.
const RUNS: usize = 270;
const ROUNDS: u64 = 6;
const MIXTURES: u64 = 2;

/// A file system in memory whose index is a file of the system, because redb wants one.
#[derive(Clone, Debug)]
struct WithIndex {
    files: Arc<dyn Vfs>,
    index: PathBuf,
}

impl WithIndex {
    fn is_index(path: &Path) -> bool {
        path.file_name().is_some_and(|name| name == INDEX_FILE)
    }
}

impl Vfs for WithIndex {
    fn open(&self, path: &Path, mode: OpenMode) -> std::io::Result<Arc<dyn VfsFile>> {
        self.files.open(path, mode)
    }

    fn list(&self, directory: &Path) -> std::io::Result<Vec<Entry>> {
        self.files.list(directory)
    }

    fn create_dir_all(&self, directory: &Path) -> std::io::Result<()> {
        self.files.create_dir_all(directory)
    }

    fn remove_file(&self, path: &Path) -> std::io::Result<()> {
        if Self::is_index(path) { OsVfs.remove_file(&self.index) } else { self.files.remove_file(path) }
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.files.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.files.hard_link(from, to)
    }

    fn copy_file(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.files.copy_file(from, to)
    }

    fn sync_dir(&self, directory: &Path) -> std::io::Result<()> {
        self.files.sync_dir(directory)
    }

    fn metadata(&self, path: &Path) -> std::io::Result<Metadata> {
        match Self::is_index(path) {
            // An index knows its file; here an older state of it counts as the same file.
            true => OsVfs.metadata(&self.index).map(|metadata| Metadata { identity: 1, ..metadata }),
            false => self.files.metadata(path),
        }
    }

    fn file_system(&self, path: &Path) -> FileSystem {
        self.files.file_system(path)
    }

    fn try_lock(&self, path: &Path, holder: &str) -> std::io::Result<Option<Box<dyn HeldLock>>> {
        self.files.try_lock(path, holder)
    }

    fn lock_holder(&self, path: &Path) -> String {
        self.files.lock_holder(path)
    }

    fn open_os_file(&self, _path: &Path, mode: OpenMode) -> std::io::Result<std::fs::File> {
        OsVfs.open_os_file(&self.index, mode)
    }
}

/// A moment before a sync: the disk, and the index as it is.
type Moment = (Disk, Vec<u8>);

/// Segments of a disk, each with how much of it is there: in its own file, or in one that says it replaces it.
fn segments(image: &MemoryVfs) -> HashMap<SegmentId, u64> {
    let log = Path::new(ROOT).join("log");
    let mut all = HashMap::new();
    for entry in image.list(&log).unwrap_or_default() {
        let file = image.open(&log.join(&entry.name), OpenMode::Read).unwrap();
        let mut header = [0; SEGMENT_HEADER_BYTES];
        if file.read_at(&mut header, 0).unwrap() == header.len()
            && let Ok(header) = SegmentHeader::decode(&header)
        {
            all.insert(header.id, file.len().unwrap());
        }
    }
    all
}

fn runs(store: &Store) -> mlrs_db::Result<Vec<RunData>> {
    let search = RunSearch { max_results: 50_000, ..RunSearch::default() };
    let mut runs: Vec<RunData> =
        store.search_runs(&search)?.items.iter().map(|run| RunData::clone(run)).collect();
    runs.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(runs)
}

#[test]
fn the_index_is_never_ahead_of_what_is_durable() {
    let (seed, mut random) = random("power-index");
    let rounds = number("MLRS_SOAK_CYCLES").unwrap_or(ROUNDS);
    println!("power-index: seed {seed}, {rounds} rounds");
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("now");
    let memory = MemoryVfs::new();
    let with_index = |files: Arc<dyn Vfs>, index: &Path| -> Arc<dyn Vfs> {
        Arc::new(WithIndex { files, index: index.to_path_buf() })
    };
    let ids: Vec<String> = {
        let store = quiet(with_index(Arc::new(memory.clone()), &index)).open(ROOT).unwrap();
        let experiment = store.experiment("power").unwrap();
        let start = |n| experiment.start_run(RunOptions::new().name(format!("run {n}"))).unwrap();
        (0..RUNS).map(|n| start(n).id().to_owned()).collect()
    };
    assert!(index.exists(), "{RUNS} runs are worth an index");
    let store_id: StoreId = quiet(Arc::new(memory.clone())).read_only(true).open(ROOT).unwrap().id();
    let vfs = FaultVfs::with_power_model(memory).unwrap();
    let moments: Arc<Mutex<Vec<Moment>>> = Arc::default();
    let (seen, index_now) = (Arc::clone(&moments), index.clone());
    vfs.before_sync(move |disk| {
        seen.lock().unwrap().push((disk.clone(), std::fs::read(&index_now).unwrap_or_default()));
    });
    let (mut boundaries, mut marks_checked, mut images, mut refused) = (0u64, 0u64, 0u64, 0u64);
    let mut before: Vec<u8> = Vec::new();
    for _ in 0..rounds {
        let store = quiet(with_index(Arc::new(vfs.clone()), &index)).segment_bytes_max(1).open(ROOT).unwrap();
        for _ in 0..random.between(1, 12) {
            let run = store.run(&ids[random.index(ids.len())]).unwrap();
            run.set_tag("round", &random.below(100).to_string()).unwrap();
            run.log_metric("loss", random.below(9) as i64, random.unit()).unwrap();
        }
        if random.one_in(3) {
            store.compact(&mut |_| {}).unwrap();
        }
        store.close().unwrap();
        for (disk, ahead) in std::mem::take(&mut *moments.lock().unwrap()) {
            boundaries += 1;
            let copy = folder.path().join("copy");
            std::fs::write(&copy, &ahead).unwrap();
            // What is surely there.
            let durable = disk.after_crash(|_, _| Keep::Lost);
            let there = segments(&durable);
            let marks = Index::open_read(
                with_index(Arc::new(durable.clone()), &copy).as_ref(),
                &Path::new(ROOT).join(INDEX_FILE),
                &store_id,
            )
            .and_then(|index| index.marks());
            for mark in marks.expect("an index between two commits can be read") {
                marks_checked += 1;
                let len = there.get(&mark.segment).copied();
                assert!(
                    len.is_some_and(|len| len >= mark.offset),
                    "boundary {boundaries}: the index covers {mark:?}, durable are {len:?} bytes of it"
                );
            }
            let all = disk.after_crash(|_, _| Keep::Whole);
            let mixtures = (0..MIXTURES).map(|_| {
                let mut mixture = Random(random.word());
                disk.after_crash(|_, _| [Keep::Lost, Keep::Whole, Keep::Zeros][mixture.index(3)])
            });
            for image in [durable, all].into_iter().chain(mixtures.collect::<Vec<_>>()) {
                let said = runs(&quiet(Arc::new(image.clone())).read_only(true).open(ROOT).unwrap());
                for bytes in [&ahead, &before] {
                    images += 1;
                    std::fs::write(&copy, bytes).unwrap();
                    let store = quiet(with_index(Arc::new(image.clone()), &copy)).read_only(true);
                    match (runs(&store.open(ROOT).unwrap()), &said) {
                        (Ok(with), Ok(without)) => assert_eq!(&with, without, "boundary {boundaries}"),
                        // Damage that the index covers is not read, so it is not met.
                        (Ok(_), Err(_)) | (Err(_), Err(_)) => refused += 1,
                        (Err(error), Ok(_)) => panic!("boundary {boundaries}: only with the index: {error}"),
                    }
                }
            }
            before = ahead;
        }
    }
    println!(
        "power-index: seed {seed}: {rounds} rounds, {boundaries} boundaries: {marks_checked} marks of the index, all durable; \
         {images} disks with the index as it was then and before: same answers ({refused} with damage)"
    );
    assert!(marks_checked > 0 && images > refused, "nothing was tried");
}
