//! Maps of files in memory, where loom runs the threads.
//!
//! Contract: mapped words are loom's atomics. Who reads the file meanwhile, as another process does by `pread`, loads
//! one word after the other in the order of their addresses, each by itself, with the ordering that the test chose:
//! acquire is what x86 does, relaxed is the weakest of machines. What one read sees comes before what the next one
//! sees. Nothing is locked. As long as a part is mapped nobody writes to it in another way; what was stored is
//! forgotten with the map.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::SharedWords;
use crate::sync::{AtomicU64, fence};

/// The maps of one file. Its own lock is held for no step of a thread, so loom need not know it.
#[derive(Debug, Default)]
pub(super) struct Maps {
    /// None: this file cannot be mapped.
    reads: Option<Ordering>,
    list: Mutex<Vec<(u64, Weak<Words>)>>,
}

#[derive(Debug)]
struct Words(Vec<AtomicU64>);

impl SharedWords for Words {
    fn words(&self) -> &[AtomicU64] {
        &self.0
    }
}

impl Maps {
    pub(super) fn new(reads: Option<Ordering>) -> Self {
        Self { reads, list: Mutex::default() }
    }

    /// Maps what the file holds at `offset`.
    pub(super) fn map(&self, offset: u64, bytes: &[u8]) -> io::Result<Arc<dyn SharedWords>> {
        if self.reads.is_none() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (words, _) = bytes.as_chunks::<8>();
        let words = words.iter().map(|word| AtomicU64::new(u64::from_le_bytes(*word))).collect();
        let words = Arc::new(Words(words));
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push((offset, Arc::downgrade(&words)));
        Ok(words)
    }

    /// What is read of the mapped parts goes over what the file holds itself.
    pub(super) fn read_over(&self, buffer: &mut [u8], offset: u64) {
        let Some(reads) = self.reads else { return };
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mapped = list.iter().filter_map(|(from, words)| Some((*from, words.upgrade()?)));
        for (from, words) in mapped {
            for (at, word) in (0..).zip(&words.0) {
                let place = (from + at * 8).checked_sub(offset).and_then(|place| usize::try_from(place).ok());
                let place = place.and_then(|place| buffer.get_mut(place..place.checked_add(8)?));
                if let Some(place) = place {
                    place.copy_from_slice(&word.load(reads).to_le_bytes());
                }
            }
        }
        // One read after the other: the kernel looks pages up by atomics that order all around them.
        fence(Ordering::Acquire);
    }
}
