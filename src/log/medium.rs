//! What the file system under a store is trusted with.
//!
//! Contract: resolved once, when a store is opened, and asked by everything that maps, locks or indexes; so a store
//! never does one thing in one place and another elsewhere.

use std::path::Path;

use crate::log::LIVE_DIR;
use crate::vfs::{FileSystem, Vfs};

/// How a store works with its file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Medium {
    /// Shared mappings and locks hold what they promise: the live file is mapped.
    #[default]
    Mapped,
    /// Locks do, mappings may not: the live file is written by `pwrite`.
    Plain,
    /// Neither, and what another host sees may be old: plain writes, no index, nobody's files are recovered or taken
    /// for abandoned, no lock is waited for.
    Network,
}

impl Medium {
    /// The medium of the store at `root`; options may forbid mapping, or say that it is a network.
    pub(crate) fn of(vfs: &dyn Vfs, root: &Path, may_map: bool, is_network: bool) -> Self {
        let kinds = [vfs.file_system(root), vfs.file_system(&root.join(LIVE_DIR))];
        if is_network || kinds.contains(&FileSystem::Network) {
            Self::Network
        } else if !may_map || kinds.contains(&FileSystem::Local) {
            Self::Plain
        } else {
            Self::Mapped
        }
    }

    /// Whether a lock says anything about who lives.
    pub(crate) fn trusts_locks(self) -> bool {
        self != Self::Network
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{MemoryVfs, OsVfs};

    #[test]
    fn options_can_only_ask_for_less() {
        let of = |may_map, is_network| Medium::of(&OsVfs, Path::new("/dev/shm/none"), may_map, is_network);
        assert_eq!(of(true, false), Medium::Mapped, "tmpfs");
        assert_eq!(of(false, false), Medium::Plain);
        assert_eq!((of(true, true), of(false, true)), (Medium::Network, Medium::Network));
        assert!(!Medium::Network.trusts_locks() && Medium::Plain.trusts_locks());
        // The twin has no maps, whatever it is asked.
        let memory = Medium::of(&MemoryVfs::new(), Path::new("store"), true, false);
        assert_ne!(memory, Medium::Network);
    }
}
