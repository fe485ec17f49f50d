//! Keys and values of the index.
//!
//! Contract: one table. A key is a kind byte and 16 bytes of identity; a value is a crc (of key and payload) and a
//! payload, so a value found under a wrong key is no value. Per kind a tally (count, bytes and sum of hashes of all
//! entries) is kept in the same transaction, so a scan that misses or repeats an entry, or mixes two states, is
//! noticed.

use redb::TableDefinition;

use super::Mark;
use crate::id::{SegmentId, StoreId, Uid};

/// Raised when keys or values change their meaning; another version is a miss, and a writer starts afresh.
pub(super) const FORMAT: u32 = 1;

pub(super) const TABLE: TableDefinition<'_, &[u8; 17], &[u8]> = TableDefinition::new("mlrs-index");

/// The singletons: the header under 16 zeros, the tally of kind `k` under `k` and 15 zeros.
const META: u8 = 0;
pub(super) const MARK: u8 = 1;
pub(super) const POSTING: u8 = 2;
/// Rows of the caller's kind `k` have the kind byte `ROW_FIRST + k`.
const ROW_FIRST: u8 = 16;

pub(super) type Key = [u8; 17];

pub(super) fn key(kind: u8, id: &[u8; 16]) -> Key {
    let mut key = [0; 17];
    let (first, rest) = key.split_at_mut(1);
    first.fill(kind);
    rest.copy_from_slice(id);
    key
}

pub(super) fn id_of(key: &Key) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(key.get(1..).unwrap_or_default());
    id
}

/// The kind byte of the caller's row kind; None if there is no such kind.
pub(super) fn row_kind(kind: u8) -> Option<u8> {
    kind.checked_add(ROW_FIRST)
}

pub(super) fn row_key(kind: u8, uid: &Uid) -> Option<Key> {
    Some(key(row_kind(kind)?, uid.as_bytes()))
}

pub(super) fn header_key() -> Key {
    key(META, &[0; 16])
}

pub(super) fn tally_key(kind: u8) -> Key {
    let mut id = [0; 16];
    if let Some(first) = id.first_mut() {
        *first = kind;
    }
    key(META, &id)
}

fn crc(seed: u8, key: &Key, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[seed]);
    hasher.update(key);
    hasher.update(payload);
    hasher.finalize()
}

/// The stored value of a payload.
pub(super) fn seal(key: &Key, payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(4 + payload.len());
    value.extend_from_slice(&crc(0, key, payload).to_le_bytes());
    value.extend_from_slice(payload);
    value
}

/// The payload of a stored value; None if it is not what was stored under this key.
pub(super) fn unseal<'a>(key: &Key, value: &'a [u8]) -> Option<&'a [u8]> {
    let (stored, payload) = value.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*stored) == crc(0, key, payload)).then_some(payload)
}

/// Count, bytes and sum of hashes of a set of entries; the same in whichever order they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    count: u64,
    /// Of the values.
    pub(super) bytes: u64,
    sum: u64,
}

impl Tally {
    pub(super) fn add(&mut self, key: &Key, value: &[u8]) {
        self.count = self.count.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(value.len() as u64);
        self.sum = self.sum.wrapping_add(hash(key, value));
    }

    pub(super) fn remove(&mut self, key: &Key, value: &[u8]) {
        self.count = self.count.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(value.len() as u64);
        self.sum = self.sum.wrapping_sub(hash(key, value));
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.count, self.bytes, self.sum].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let [count, bytes, sum] = words else { return None };
        let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        rest.is_empty().then(|| Self { count: word(count), bytes: word(bytes), sum: word(sum) })
    }
}

/// The value holds one crc of key and payload already; this adds a second over all of it.
fn hash(key: &Key, value: &[u8]) -> u64 {
    let first = value.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    u64::from(first) << 32 | u64::from(crc(1, key, value))
}

/// What a file must say to be used: the version, the store, and the file itself (device and inode). A copy is no good:
/// a file copied while a writer was at work is a mixture of states, each of its blocks valid.
pub(super) fn header(store: &StoreId, identity: u64) -> Vec<u8> {
    [&FORMAT.to_le_bytes()[..], store.as_bytes(), &identity.to_le_bytes()].concat()
}

pub(super) fn mark_payload(mark: &Mark) -> Vec<u8> {
    [&mark.offset.to_le_bytes()[..], &mark.crc.to_le_bytes()].concat()
}

pub(super) fn mark(key: &Key, payload: &[u8]) -> Option<Mark> {
    let (offset, rest) = payload.split_first_chunk::<8>()?;
    Some(Mark {
        segment: SegmentId::from_bytes(id_of(key)),
        offset: u64::from_le_bytes(*offset),
        crc: u32::from_le_bytes(rest.try_into().ok()?),
    })
}

pub(super) fn posting_payload(segments: &[SegmentId]) -> Vec<u8> {
    segments.iter().flat_map(|segment| segment.as_bytes().iter().copied()).collect()
}

pub(super) fn posting(payload: &[u8]) -> Option<Vec<SegmentId>> {
    let (ids, rest) = payload.as_chunks::<16>();
    rest.is_empty().then(|| ids.iter().map(|id| SegmentId::from_bytes(*id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_valid_only_under_its_key_and_whole() {
        let (a, b) = (key(MARK, &[1; 16]), key(MARK, &[2; 16]));
        let value = seal(&a, b"payload");
        assert_eq!(unseal(&a, &value), Some(b"payload".as_slice()));
        assert_eq!(unseal(&b, &value), None);
        for i in 0..value.len() {
            let mut bad = value.clone();
            bad[i] ^= 1;
            assert_eq!((unseal(&a, &bad), unseal(&a, &value[..i])), (None, None));
        }
    }

    #[test]
    fn a_tally_is_the_set_whatever_the_order() {
        let entries: Vec<_> = (0..9u8).map(|i| key(MARK, &[i; 16])).map(|k| (k, seal(&k, &k))).collect();
        let mut forward = Tally::default();
        entries.iter().for_each(|(k, v)| forward.add(k, v));
        let mut backward = Tally::default();
        entries.iter().rev().for_each(|(k, v)| backward.add(k, v));
        assert_eq!(forward, backward);
        assert_eq!(Tally::from_bytes(&forward.to_bytes()), Some(forward));
        backward.remove(&entries[3].0, &entries[3].1);
        assert_ne!(forward, backward);
        backward.add(&entries[4].0, &entries[4].1);
        assert_ne!(forward, backward, "one missing and one doubled is not the same set");
        entries.iter().for_each(|(k, v)| forward.remove(k, v));
        assert_eq!(forward, Tally::default());
    }

    #[test]
    fn marks_and_postings_come_back() {
        let mark_in = Mark { segment: SegmentId::from_bytes([7; 16]), offset: u64::MAX - 1, crc: 5 };
        assert_eq!(mark(&key(MARK, &[7; 16]), &mark_payload(&mark_in)), Some(mark_in));
        let segments = [SegmentId::from_bytes([1; 16]), SegmentId::from_bytes([2; 16])];
        assert_eq!(posting(&posting_payload(&segments)).unwrap(), segments);
        assert_eq!(posting(&[0; 17]), None);
        assert_eq!(posting(&[]).unwrap(), []);
    }
}
