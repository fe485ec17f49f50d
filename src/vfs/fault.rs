//! A file system that fails on order and remembers what a power cut would lose.
//!
//! Contract: passes every call on to another file system, unless a [`Plan`] is due: then the call has no effect (or
//! half of it, [`Fault::Short`]) and the chosen error is returned. With [`FaultVfs::with_power_model`] a
//! [`super::power::Disk`] follows every change. Clones share everything.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::sync::{Condvar, Mutex, MutexGuard};

use super::memory::MemoryVfs;
use super::power::{Disk, Named};
use super::{Entry, FileSystem, HeldLock, Metadata, OpenMode, SharedWords, Vfs, VfsFile};

/// The kinds of calls that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the call of that name")]
pub enum Call {
    Open,
    List,
    CreateDirectory,
    Remove,
    Rename,
    HardLink,
    Copy,
    SyncDirectory,
    Metadata,
    Lock,
    Read,
    Write,
    Sync,
    Map,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Open,
        Self::List,
        Self::CreateDirectory,
        Self::Remove,
        Self::Rename,
        Self::HardLink,
        Self::Copy,
        Self::SyncDirectory,
        Self::Metadata,
        Self::Lock,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::Map,
    ];

    /// Whether the call changes something; a full disk refuses only these.
    pub fn changes(self) -> bool {
        !matches!(self, Self::List | Self::Metadata | Self::Read | Self::Lock | Self::Open)
    }
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With this `errno`, without effect.
    Error(i32),
    /// A write stores its first half, then fails with this `errno`; other calls fail without effect.
    Short(i32),
    /// The call returns only after [`FaultVfs::heal`], as if nothing had been: a disk or a server that hangs.
    Hang,
}

/// When which call fails.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Counted calls; None counts all.
    pub call: Option<Call>,
    /// The how-manieth such call from now on fails; 1 is the next.
    pub nth: u64,
    /// How.
    pub fault: Fault,
    /// Whether all later ones fail too.
    pub forever: bool,
}

/// What becomes of a call that fails.
struct Failure {
    code: i32,
    is_half_done: bool,
}

type SyncHook = Arc<dyn Fn(&Disk) + Send + Sync>;

/// See the module.
#[derive(Clone)]
pub struct FaultVfs {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Arc<dyn Vfs>,
    state: Mutex<State>,
    healed: Condvar,
    /// Held across a change and its recording, so that the model sees changes in the order in which they happen.
    disk: Option<Mutex<Disk>>,
}

#[derive(Default)]
struct State {
    plans: Vec<Plan>,
    counts: std::collections::BTreeMap<Call, u64>,
    injected: u64,
    /// How often it was healed, so that a call that hangs waits for the next time.
    healings: u64,
    before_sync: Option<SyncHook>,
}

impl fmt::Debug for FaultVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultVfs").field("inner", &self.shared.inner).finish_non_exhaustive()
    }
}

impl FaultVfs {
    /// Fails calls to `inner`; no power model.
    pub fn new(inner: Arc<dyn Vfs>) -> Self {
        Self::of(inner, None)
    }

    /// Fails calls to `memory` and models its power cuts; what `memory` holds now counts as durable.
    ///
    /// # Errors
    /// When the files change meanwhile.
    pub fn with_power_model(memory: MemoryVfs) -> io::Result<Self> {
        let disk = Some(Mutex::new(Disk::holding(&memory)?));
        Ok(Self::of(Arc::new(memory), disk))
    }

    fn of(inner: Arc<dyn Vfs>, disk: Option<Mutex<Disk>>) -> Self {
        Self { shared: Arc::new(Shared { inner, state: Mutex::default(), healed: Condvar::new(), disk }) }
    }

    /// Adds a plan; several may be due at once, the first one added wins.
    pub fn fail(&self, plan: Plan) {
        self.state().plans.push(plan);
    }

    /// Forgets all plans: space is back, the disk is healthy, and what hangs goes on.
    pub fn heal(&self) {
        let mut state = self.state();
        state.plans.clear();
        state.healings += 1;
        drop(state);
        self.shared.healed.notify_all();
    }

    /// How many calls were made so far, of one kind or in all: the N to loop over.
    pub fn calls(&self, call: Option<Call>) -> u64 {
        let state = self.state();
        state.counts.iter().filter(|(kind, _)| call.is_none_or(|c| c == **kind)).map(|(_, count)| count).sum()
    }

    /// How many calls were made to fail: 0 says that a plan was never due.
    pub fn injected(&self) -> u64 {
        self.state().injected
    }

    /// What a power cut now would meet.
    ///
    /// # Panics
    /// Without a power model.
    pub fn disk(&self) -> Disk {
        let disk = self.shared.disk.as_ref().expect("FaultVfs::with_power_model"); // tidy: allow(unwrap): documented
        disk.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls `hook` with the disk before every sync of a file or directory: the moments of greatest danger.
    pub fn before_sync(&self, hook: impl Fn(&Disk) + Send + Sync + 'static) {
        self.state().before_sync = Some(Arc::new(hook));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and finds out whether it fails; waits if it hangs.
    fn due(&self, call: Call) -> Option<Failure> {
        let mut state = self.state();
        *state.counts.entry(call).or_default() += 1;
        let mut due = None;
        for plan in state.plans.iter_mut().filter(|plan| plan.call.is_none_or(|c| c == call)) {
            plan.nth = plan.nth.saturating_sub(1);
            if plan.nth == 0 {
                due = due.or(Some(plan.fault));
            }
        }
        // A plan that is not for ever ends with the call it was due at.
        state.plans.retain(|plan| plan.nth > 0 || plan.forever);
        state.injected += u64::from(due.is_some());
        match due? {
            Fault::Error(code) => Some(Failure { code, is_half_done: false }),
            Fault::Short(code) => Some(Failure { code, is_half_done: true }),
            Fault::Hang => {
                let healings = state.healings;
                while state.healings == healings {
                    state = self.shared.healed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                None
            }
        }
    }

    fn check(&self, call: Call) -> io::Result<()> {
        match self.due(call) {
            None => Ok(()),
            Some(failure) => Err(io::Error::from_raw_os_error(failure.code)),
        }
    }

    /// Runs a change and records it in the model.
    fn change<T>(
        &self,
        run: impl FnOnce() -> io::Result<T>,
        record: impl FnOnce(&mut Disk, &T),
    ) -> io::Result<T> {
        let mut disk =
            self.shared.disk.as_ref().map(|disk| disk.lock().unwrap_or_else(PoisonError::into_inner));
        let done = run()?;
        if let Some(disk) = disk.as_deref_mut() {
            record(disk, &done);
        }
        Ok(done)
    }

    fn show_before_sync(&self) {
        let hook = self.state().before_sync.clone();
        if let Some(hook) = hook.filter(|_| self.shared.disk.is_some()) {
            hook(&self.disk());
        }
    }

    fn identity(&self, path: &Path) -> io::Result<u64> {
        Ok(self.shared.inner.metadata(path)?.identity)
    }
}

impl Vfs for FaultVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        self.check(Call::Open)?;
        let open = || {
            let file = self.shared.inner.open(path, mode)?;
            let identity = file.metadata()?.identity;
            Ok(Arc::new(FaultFile { vfs: self.clone(), file, identity }))
        };
        let record = |disk: &mut Disk, file: &Arc<FaultFile>| {
            if mode == OpenMode::CreateNew {
                disk.named(path, Some(Named::File(file.identity)));
            }
        };
        Ok(self.change(open, record)?)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<Entry>> {
        self.check(Call::List)?;
        self.shared.inner.list(directory)
    }

    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        self.check(Call::CreateDirectory)?;
        let missing: Vec<PathBuf> = directory
            .ancestors()
            .take_while(|p| self.shared.inner.metadata(p).is_err())
            .map(Path::to_path_buf)
            .collect();
        self.change(
            || self.shared.inner.create_dir_all(directory),
            |disk, ()| missing.iter().rev().for_each(|path| disk.named(path, Some(Named::Directory))),
        )
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.check(Call::Remove)?;
        self.change(|| self.shared.inner.remove_file(path), |disk, ()| disk.named(path, None))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Call::Rename)?;
        let rename = || {
            let file = self.identity(from)?;
            // rename(2) does nothing if both names are one file.
            let moves = self.identity(to).ok() != Some(file);
            self.shared.inner.rename(from, to)?;
            Ok(moves.then_some(file))
        };
        let record = |disk: &mut Disk, file: &Option<u64>| {
            if let Some(file) = file {
                disk.renamed(from, to, *file);
            }
        };
        self.change(rename, record).map(drop)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Call::HardLink)?;
        let link = || {
            self.shared.inner.hard_link(from, to)?;
            self.identity(to)
        };
        self.change(link, |disk, file| disk.named(to, Some(Named::File(*file)))).map(drop)
    }

    fn copy_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Call::Copy)?;
        let copy = || {
            self.shared.inner.copy_file(from, to)?;
            let file = self.shared.inner.open(to, OpenMode::Read)?;
            let mut bytes = Vec::new();
            if self.shared.disk.is_some() {
                bytes.resize(usize::try_from(file.len()?).unwrap_or(0), 0);
                file.read_at(&mut bytes, 0)?;
            }
            Ok((file.metadata()?.identity, bytes))
        };
        let record = |disk: &mut Disk, (file, bytes): &(u64, Vec<u8>)| {
            disk.named(to, Some(Named::File(*file)));
            disk.wrote(*file, 0, bytes);
        };
        self.change(copy, record).map(drop)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.show_before_sync();
        self.check(Call::SyncDirectory)?;
        self.change(|| self.shared.inner.sync_dir(directory), |disk, ()| disk.synced_directory(directory))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.check(Call::Metadata)?;
        self.shared.inner.metadata(path)
    }

    fn file_system(&self, path: &Path) -> FileSystem {
        self.shared.inner.file_system(path)
    }

    fn try_lock(&self, path: &Path, holder: &str) -> io::Result<Option<Box<dyn HeldLock>>> {
        self.check(Call::Lock)?;
        let existed = self.shared.inner.metadata(path).is_ok();
        self.change(
            || self.shared.inner.try_lock(path, holder),
            |disk, lock| {
                // What a lock file says is for people; that it exists is a name like any other.
                if let (false, Some(_), Ok(file)) = (existed, lock, self.identity(path)) {
                    disk.named(path, Some(Named::File(file)));
                }
            },
        )
    }

    fn lock_holder(&self, path: &Path) -> String {
        self.shared.inner.lock_holder(path)
    }

    fn open_os_file(&self, path: &Path, mode: OpenMode) -> io::Result<std::fs::File> {
        self.check(Call::Open)?;
        self.shared.inner.open_os_file(path, mode)
    }
}

#[derive(Debug)]
struct FaultFile {
    vfs: FaultVfs,
    file: Arc<dyn VfsFile>,
    identity: u64,
}

impl FaultFile {
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let write = || self.file.write_all_at(bytes, offset);
        self.vfs.change(write, |disk, ()| disk.wrote(self.identity, offset, bytes))
    }
}

impl VfsFile for FaultFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.vfs.check(Call::Read)?;
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.vfs.due(Call::Write) {
            None => self.write(bytes, offset),
            Some(failure) => {
                if failure.is_half_done {
                    self.write(bytes.get(..bytes.len() / 2).unwrap_or_default(), offset)?;
                }
                Err(io::Error::from_raw_os_error(failure.code))
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.vfs.check(Call::Metadata)?;
        self.file.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.vfs.show_before_sync();
        if let Err(error) = self.vfs.check(Call::Sync) {
            return self
                .vfs
                .change(|| Ok(()), |disk, ()| disk.failed_to_sync_file(self.identity))
                .and(Err(error));
        }
        self.vfs.change(|| self.file.sync_data(), |disk, ()| disk.synced_file(self.identity))
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.vfs.check(Call::Metadata)?;
        self.file.metadata()
    }

    fn map(&self, offset: u64, len: usize) -> io::Result<Arc<dyn SharedWords>> {
        self.vfs.check(Call::Map)?;
        self.file.map(offset, len)
    }

    fn try_lock(&self) -> io::Result<Option<Box<dyn HeldLock>>> {
        self.vfs.check(Call::Lock)?;
        self.file.try_lock()
    }

    fn is_locked(&self) -> io::Result<bool> {
        self.vfs.check(Call::Lock)?;
        self.file.is_locked()
    }
}
