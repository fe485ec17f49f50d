//! How a store is opened.
//!
//! Contract: every option has a default that a training run can live with; each says what it costs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::Compression;
use crate::error::Result;
use crate::limits::{LIVE_BYTES_MAX, SEGMENT_BYTES_MAX};
use crate::log::{Medium, WriterOptions};
use crate::store::Store;
use crate::vfs::{OsVfs, Vfs};

/// How old points get before they become batches.
const FLUSH_INTERVAL_MS: u64 = 60_000;
/// The same on a network file system, where other hosts see whole frames sooner than changing blocks.
const NETWORK_FLUSH_INTERVAL_MS: u64 = 5_000;

/// What a returned call survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process, at any moment. A background sync bounds what a power cut costs to about
    /// [`Options::sync_interval_ms`].
    #[default]
    Os,
    /// A power cut: every call returns after its data were synced. Costs one or two syncs a call.
    Sync,
}

/// Whether the live file is mapped into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharedMapping {
    /// On file systems where a mapping keeps its promises (ext4, xfs, tmpfs, overlay on these).
    #[default]
    Auto,
    /// Never: records go out by `pwrite`, about 0.6 us each, with the same promise.
    Off,
}

/// Whether the store is treated as one on a network file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Where the file system is a network's (nfs, cifs, lustre, ...).
    #[default]
    Auto,
    /// Always: for network file systems that look local (some FUSE mounts, 9p, virtiofs). Points are written to the
    /// live file by `pwrite` and become batches every 5 seconds unless said otherwise; there is no index, no lock is
    /// trusted, and files of killed processes stay until [`Store::recover_host`].
    On,
}

/// Options of [`Store::options`]; finish with [`Options::open`].
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) read_only: bool,
    pub(crate) create: bool,
    pub(crate) durability: Durability,
    pub(crate) shared_mapping: SharedMapping,
    pub(crate) network: Network,
    pub(crate) flush_interval_ms: Option<u64>,
    pub(crate) sync_interval_ms: u64,
    pub(crate) live_bytes_max: u64,
    pub(crate) stall_timeout_ms: u64,
    pub(crate) segment_bytes_max: u64,
    pub(crate) use_index: bool,
    pub(crate) skip_damage: bool,
    pub(crate) vfs: Arc<dyn Vfs>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            create: true,
            durability: Durability::Os,
            shared_mapping: SharedMapping::Auto,
            network: Network::Auto,
            flush_interval_ms: None,
            sync_interval_ms: 1_000,
            live_bytes_max: LIVE_BYTES_MAX,
            stall_timeout_ms: 10_000,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            use_index: true,
            skip_damage: false,
            vfs: Arc::new(OsVfs),
        }
    }
}

impl Options {
    /// Opens for reading: nothing is written, no lock is taken, a read-only mount will do.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Whether a missing store is made (default) or an error.
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// What a returned call survives.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Whether the live file is mapped.
    pub fn shared_mapping(mut self, shared_mapping: SharedMapping) -> Self {
        self.shared_mapping = shared_mapping;
        self
    }

    /// Whether the store is treated as one on a network file system: weaker promises, never corrupt
    /// (`docs/durability.md`).
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Points older than this become batches. More often: smaller batches, more bytes. Without it 60 seconds, on a
    /// network file system 5.
    pub fn flush_interval_ms(mut self, flush_interval_ms: u64) -> Self {
        self.flush_interval_ms = Some(flush_interval_ms.max(1));
        self
    }

    /// How often the background syncs under [`Durability::Os`].
    pub fn sync_interval_ms(mut self, sync_interval_ms: u64) -> Self {
        self.sync_interval_ms = sync_interval_ms.max(1);
        self
    }

    /// How far the live file may grow when the disk is behind, in bytes; at least 1 MiB.
    pub fn live_bytes_max(mut self, live_bytes_max: u64) -> Self {
        self.live_bytes_max = live_bytes_max.max(1 << 20);
        self
    }

    /// How long a logging call waits for a disk that is behind before it returns [`crate::Error::Busy`], and a claim
    /// for the store's lock.
    pub fn stall_timeout_ms(mut self, stall_timeout_ms: u64) -> Self {
        self.stall_timeout_ms = stall_timeout_ms;
        self
    }

    /// Segments are closed and sealed at this size, in bytes; at least 64 KiB.
    pub fn segment_bytes_max(mut self, segment_bytes_max: u64) -> Self {
        self.segment_bytes_max = segment_bytes_max.max(64 << 10);
        self
    }

    /// Whether `index.redb` is read and written. Answers are the same without it.
    pub fn use_index(mut self, use_index: bool) -> Self {
        self.use_index = use_index;
        self
    }

    /// Passes over what is damaged, so that the rest can be listed and saved: metadata, points (as with
    /// [`crate::History::allow_gaps`]) and, together with [`Options::read_only`], the file `MLRS`. Otherwise a question
    /// whose answer may lack something is [`crate::Error::Corrupt`] or [`crate::Error::Gap`].
    pub fn skip_damage(mut self, skip_damage: bool) -> Self {
        self.skip_damage = skip_damage;
        self
    }

    /// The file system underneath: the operating system's, or a twin for tests.
    #[doc(hidden)]
    pub fn vfs(mut self, vfs: Arc<dyn Vfs>) -> Self {
        self.vfs = vfs;
        self
    }

    /// Opens the store.
    ///
    /// # Errors
    /// [`crate::Error::NotAStore`] if the directory holds something else, or nothing and it may not be made;
    /// [`crate::Error::NewerFormat`] if a newer program made it; [`crate::Error::Corrupt`] if its file `MLRS` is
    /// damaged.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        Store::open_with(path.as_ref(), self)
    }

    /// What the file system under a store is trusted with.
    pub(crate) fn medium(&self, root: &Path) -> Medium {
        let may_map = self.shared_mapping == SharedMapping::Auto;
        Medium::of(self.vfs.as_ref(), root, may_map, self.network == Network::On)
    }

    pub(crate) fn writer(&self, medium: Medium) -> WriterOptions {
        let flush_interval_ms = match medium {
            Medium::Network => NETWORK_FLUSH_INTERVAL_MS,
            Medium::Mapped | Medium::Plain => FLUSH_INTERVAL_MS,
        };
        WriterOptions {
            sync_always: self.durability == Durability::Sync,
            flush_interval: Duration::from_millis(self.flush_interval_ms.unwrap_or(flush_interval_ms)),
            sync_interval: Duration::from_millis(self.sync_interval_ms),
            live_bytes_max: self.live_bytes_max,
            stall_timeout: Duration::from_millis(self.stall_timeout_ms),
            segment_bytes_max: self.segment_bytes_max,
            medium,
            compression: Compression::Zstd,
        }
    }
}
