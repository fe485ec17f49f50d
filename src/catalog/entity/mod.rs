//! One entity: registers that keep their stamps.
//!
//! Contract: the state is a function of the *set* of events applied, not of their order, number or grouping: applying
//! is commutative, associative and idempotent, and so is [`Entity::merge`]. Per register the greatest (stamp, value)
//! wins; for [`Field::first_wins`] the smallest does, and the smallest [`CANDIDATES_MAX`] different values are kept, so
//! that a losing, acknowledged param can be reported. [`Field::PURGED`] wins over everything and for ever: only the
//! tombstone stays. Unknown kinds, fields and value types are carried along.
//!
//! Memory: all text of an entity is one string, all other values one byte vector, and a register is 24 bytes; a copy
//! (copy on write, under readers that hold the old state) is four `memcpy`s.

mod read;

use std::cmp::Ordering;
use std::mem::size_of;

pub use read::Losing;

use crate::error::Malformed;
use crate::format::entity_row::{RowRegister, decode_row, encode_row};
use crate::format::event::{EntityKind, Field, OperationRef, ValueRef};
use crate::id::{Stamp, Uid};

/// Different values kept of one first-wins register: the winner and the smallest losers.
pub const CANDIDATES_MAX: usize = 16;

/// From this many operations on, sorting once beats inserting one by one.
const BULK_MIN: usize = 16;
/// Dead bytes an entity may carry before it is packed.
const GARBAGE_MIN: usize = 512;

/// An experiment, a run, a data set, ...: see the module.
#[derive(Clone, Debug)]
pub struct Entity {
    kind: EntityKind,
    uid: Uid,
    created: Stamp,
    text: String,
    bytes: Vec<u8>,
    stamps: Vec<Stamp>,
    /// Sorted by (field, key), candidates of one first-wins register by (stamp, value).
    registers: Vec<Register>,
    garbage: usize,
    refused: u32,
}

#[derive(Clone, Copy, Debug)]
struct Register {
    key_at: u32,
    key_len: u32,
    /// In `text` for texts, else in `bytes`.
    value_at: u32,
    value_len: u32,
    stamp: u32,
    field: Field,
    tag: u8,
}

const _: () = assert!(size_of::<Register>() == 24);

impl Entity {
    /// An entity without registers, first heard of at `created`.
    pub fn new(kind: EntityKind, uid: Uid, created: Stamp) -> Self {
        Self {
            kind,
            uid,
            created,
            text: String::new(),
            bytes: Vec::new(),
            stamps: Vec::new(),
            registers: Vec::new(),
            garbage: 0,
            refused: 0,
        }
    }

    /// What it is.
    pub fn kind(&self) -> EntityKind {
        self.kind
    }

    /// Which it is.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// The smallest stamp of all events that named it: the older of two claimants has the smaller one.
    pub fn created(&self) -> Stamp {
        self.created
    }

    /// Whether it was removed for good.
    pub fn is_purged(&self) -> bool {
        self.registers.first().is_some_and(|r| r.field == Field::PURGED)
    }

    /// Registers that had no room: one entity holds at most 4 GiB of text and 4 GiB of other values.
    pub fn refused(&self) -> u32 {
        self.refused
    }

    /// Applies what one event did to this entity: its operations on it, in their order.
    ///
    /// Of several operations on one register the last counts, for first-wins registers the first.
    pub fn apply(&mut self, stamp: Stamp, operations: &[OperationRef<'_>]) {
        let register = |o: &OperationRef<'_>, p: &OperationRef<'_>| (o.field, o.key).cmp(&(p.field, p.key));
        if self.registers.is_empty() {
            self.reserve(operations.iter().map(|o| (o.key, o.value)));
        }
        if operations.is_sorted_by(|a, b| register(a, b).is_lt()) {
            let items = operations.iter().map(|o| (o.field, o.key, stamp, o.value));
            self.absorb(stamp, operations.len(), true, items);
            return;
        }
        let mut sorted = operations.to_vec();
        sorted.sort_by(register);
        let chosen = sorted.chunk_by(|a, b| register(a, b).is_eq()).filter_map(|group| {
            let purge = |o: &&OperationRef<'_>| o.field == Field::PURGED && o.value == ValueRef::Flag(true);
            let ordinary = || group.first().filter(|o| o.field.first_wins()).or_else(|| group.last());
            let operation = group.iter().find(purge).or_else(ordinary)?;
            Some((operation.field, operation.key, stamp, operation.value))
        });
        self.absorb(stamp, operations.len(), true, chosen);
    }

    /// Takes over what another state of the same entity knows: as if all its events were applied here.
    ///
    /// # Panics
    /// When it is another entity.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!((self.kind, self.uid), (other.kind, other.uid), "merging two entities");
        let all = other.registers.iter().map(|r| (r.field, other.key(r), other.stamp_of(r), other.value(r)));
        self.absorb(other.created, other.registers.len(), false, all);
    }

    /// Appends the entity as a row of the index; equal states give equal bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut stamps: Vec<Stamp> = self.registers.iter().map(|r| self.stamp_of(r)).collect();
        stamps.sort_unstable();
        stamps.dedup();
        let registers = self.registers.iter().map(|r| RowRegister {
            field: r.field,
            key: self.key(r),
            stamp: self.stamp_of(r),
            value: self.value(r),
        });
        encode_row((self.kind, self.uid, self.created), &stamps, registers, out);
    }

    /// Reads a row of the index.
    ///
    /// # Errors
    /// [`Malformed`]; a row whose registers are in disorder is put in order, never believed.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let row = decode_row(bytes)?;
        super::check_stamp(row.created)?;
        row.registers.iter().try_for_each(|r| super::check_stamp(r.stamp))?;
        let mut entity = Self::new(row.kind, row.uid, row.created);
        entity.reserve(row.registers.iter().map(|r| (r.key, r.value)));
        let rising = row.registers.is_sorted_by(|a, b| (a.field, a.key) < (b.field, b.key));
        let registers = row.registers.iter().map(|r| (r.field, r.key, r.stamp, r.value));
        entity.absorb(row.created, row.registers.len(), rising, registers);
        Ok(entity)
    }

    /// Bytes of memory this entity holds.
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.text.capacity()
            + self.bytes.capacity()
            + self.stamps.capacity() * size_of::<Stamp>()
            + self.registers.capacity() * size_of::<Register>()
    }

    /// Takes in registers; `rising` promises that (field, key) strictly rises, so that an empty entity need not look.
    fn absorb<'a>(
        &mut self,
        seen: Stamp,
        count: usize,
        rising: bool,
        items: impl Iterator<Item = (Field, &'a str, Stamp, ValueRef<'a>)>,
    ) {
        self.created = self.created.min(seen);
        let fresh = rising && self.registers.is_empty();
        let bulk = count >= BULK_MIN && !fresh;
        if bulk || self.registers.is_empty() {
            self.registers.reserve_exact(count);
        }
        for (field, key, stamp, value) in items {
            if field == Field::PURGED {
                if value == ValueRef::Flag(true) {
                    self.purge(stamp);
                }
            } else if self.is_purged() {
                continue;
            } else if fresh || bulk {
                let register = self.store(field, key, stamp, value);
                self.registers.extend(register);
            } else {
                self.put(field, key, stamp, value);
            }
        }
        if bulk {
            self.normalise();
        }
        if self.garbage > GARBAGE_MIN.max((self.text.len() + self.bytes.len()) / 2)
            || self.stamps.len() > self.registers.len() * 2 + 16
        {
            self.pack();
        }
    }

    /// Leaves nothing but the tombstone, with the greatest stamp of all purges.
    fn purge(&mut self, stamp: Stamp) {
        let before = if self.is_purged() { self.registers.first().map(|r| self.stamp_of(r)) } else { None };
        let mut tombstone = Self::new(self.kind, self.uid, self.created);
        let stamp = before.map_or(stamp, |before| before.max(stamp));
        let register = tombstone.store(Field::PURGED, "", stamp, ValueRef::Flag(true));
        tombstone.registers.extend(register);
        *self = tombstone;
    }

    fn put(&mut self, field: Field, key: &str, stamp: Stamp, value: ValueRef<'_>) {
        let follows =
            self.registers.last().is_none_or(|r| (r.field, self.key(r)).cmp(&(field, key)) == Ordering::Less);
        let start = if follows { self.registers.len() } else { self.lower_bound(field, key) };
        let same = |r: &&Register| r.field == field && self.key(r) == key;
        let group = self.registers.get(start..).unwrap_or_default();
        let end = start + group.iter().take_while(same).count();
        let group = self.registers.get(start..end).unwrap_or_default();
        if field.first_wins() {
            let mut remove = None;
            if let Some(at) = group.iter().position(|r| self.value(r) == value) {
                if group.get(at).is_some_and(|r| self.stamp_of(r) <= stamp) {
                    return;
                }
                remove = Some(start + at);
            }
            let at = start + group.partition_point(|r| (self.stamp_of(r), self.value(r)) < (stamp, value));
            if at - start >= CANDIDATES_MAX {
                return;
            }
            // The new place of a value moves only towards the front, so the old one lies behind it.
            if let Some(old) = remove {
                self.discard(old);
            } else if end - start == CANDIDATES_MAX {
                self.discard(end - 1);
            }
            self.insert(at, field, key, stamp, value);
        } else {
            match group.first() {
                Some(r) if (self.stamp_of(r), self.value(r)) >= (stamp, value) => {}
                Some(_) => self.replace(start, stamp, value),
                None => self.insert(start, field, key, stamp, value),
            }
        }
    }

    fn insert(&mut self, at: usize, field: Field, key: &str, stamp: Stamp, value: ValueRef<'_>) {
        if let Some(register) = self.store(field, key, stamp, value) {
            if self.registers.len() == self.registers.capacity() {
                self.registers.reserve_exact((self.registers.len() / 8).max(4));
            }
            self.registers.insert(at, register);
        }
    }

    fn replace(&mut self, at: usize, stamp: Stamp, value: ValueRef<'_>) {
        let (Some(placed), Some(stamp)) = (self.store_value(value), self.store_stamp(stamp)) else {
            self.refused = self.refused.saturating_add(1);
            return;
        };
        if let Some(register) = self.registers.get_mut(at) {
            self.garbage += register.value_len as usize;
            (register.tag, register.value_at, register.value_len) = placed;
            register.stamp = stamp;
        }
    }

    fn discard(&mut self, at: usize) {
        let register = self.registers.remove(at);
        self.garbage += register.key_len as usize + register.value_len as usize;
    }

    /// Sorts what was pushed without order and lets each register's rule choose: the definition of the state.
    fn normalise(&mut self) {
        let mut all = std::mem::take(&mut self.registers);
        all.sort_by(|a, b| {
            (a.field, self.key(a), self.stamp_of(a), self.value(a)).cmp(&(
                b.field,
                self.key(b),
                self.stamp_of(b),
                self.value(b),
            ))
        });
        let before = all.len();
        let mut kept: Vec<Register> = Vec::with_capacity(before);
        for group in all.chunk_by(|a, b| a.field == b.field && self.key(a) == self.key(b)) {
            if group.first().is_some_and(|r| r.field.first_wins()) {
                let start = kept.len();
                for register in group {
                    let chosen = kept.get(start..).unwrap_or_default();
                    if chosen.len() < CANDIDATES_MAX
                        && chosen.iter().all(|k| self.value(k) != self.value(register))
                    {
                        kept.push(*register);
                    }
                }
            } else {
                kept.extend(group.last());
            }
        }
        if kept.len() < before {
            let size =
                |rs: &[Register]| rs.iter().map(|r| r.key_len as usize + r.value_len as usize).sum::<usize>();
            self.garbage += size(&all) - size(&kept);
            kept.shrink_to_fit();
        }
        self.registers = kept;
    }

    /// Copies what is alive, dropping dead text, values and stamps.
    fn pack(&mut self) {
        let mut packed = Self::new(self.kind, self.uid, self.created);
        packed.refused = self.refused;
        packed.registers.reserve_exact(self.registers.len());
        packed.reserve(self.registers.iter().map(|r| (self.key(r), self.value(r))));
        for r in &self.registers {
            if let Some(register) = packed.store(r.field, self.key(r), self.stamp_of(r), self.value(r)) {
                packed.registers.push(register);
            }
        }
        *self = packed;
    }

    /// Makes room for exactly these keys and values.
    fn reserve<'a>(&mut self, items: impl Iterator<Item = (&'a str, ValueRef<'a>)>) {
        let (mut text, mut bytes) = (0, 0);
        for (key, value) in items {
            text += key.len();
            match value {
                ValueRef::Text(value) => text += value.len(),
                value => bytes += value.with_bytes(<[u8]>::len),
            }
        }
        self.text.reserve_exact(text);
        self.bytes.reserve_exact(bytes);
    }

    fn store(&mut self, field: Field, key: &str, stamp: Stamp, value: ValueRef<'_>) -> Option<Register> {
        let stored = (|| {
            let key_at = u32::try_from(self.text.len()).ok()?;
            let key_len = u32::try_from(key.len()).ok()?;
            u32::try_from(self.text.len() + key.len()).ok()?;
            self.text.push_str(key);
            let (tag, value_at, value_len) = self.store_value(value)?;
            Some(Register {
                key_at,
                key_len,
                value_at,
                value_len,
                stamp: self.store_stamp(stamp)?,
                field,
                tag,
            })
        })();
        if stored.is_none() {
            self.refused = self.refused.saturating_add(1);
        }
        stored
    }

    fn store_value(&mut self, value: ValueRef<'_>) -> Option<(u8, u32, u32)> {
        let used = if value.text().is_some() { self.text.len() } else { self.bytes.len() };
        let at = u32::try_from(used).ok()?;
        let length = value.with_bytes(|bytes| {
            u32::try_from(used + bytes.len()).ok()?;
            if value.text().is_none() {
                self.bytes.extend_from_slice(bytes);
            }
            u32::try_from(bytes.len()).ok()
        })?;
        if let Some(text) = value.text() {
            self.text.push_str(text);
        }
        Some((value.tag(), at, length))
    }

    fn store_stamp(&mut self, stamp: Stamp) -> Option<u32> {
        let recent = self.stamps.len().saturating_sub(8);
        let known = self.stamps.get(recent..).and_then(|last| last.iter().rposition(|s| *s == stamp));
        let at = known.map_or(self.stamps.len(), |at| recent + at);
        if known.is_none() {
            if self.stamps.is_empty() {
                self.stamps.reserve_exact(1);
            }
            self.stamps.push(stamp);
        }
        u32::try_from(at).ok()
    }

    fn lower_bound(&self, field: Field, key: &str) -> usize {
        self.registers.partition_point(|r| (r.field, self.key(r)) < (field, key))
    }

    fn find(&self, field: Field, key: &str) -> Option<&Register> {
        let register = self.registers.get(self.lower_bound(field, key))?;
        (register.field == field && self.key(register) == key).then_some(register)
    }

    fn key(&self, register: &Register) -> &str {
        slice(register.key_at, register.key_len).and_then(|range| self.text.get(range)).unwrap_or_default()
    }

    fn value(&self, register: &Register) -> ValueRef<'_> {
        let range = slice(register.value_at, register.value_len).unwrap_or_default();
        if register.tag == ValueRef::TEXT_TAG {
            return ValueRef::Text(self.text.get(range).unwrap_or_default());
        }
        let bytes = self.bytes.get(range).unwrap_or_default();
        ValueRef::from_parts(register.tag, bytes).unwrap_or(ValueRef::Absent)
    }

    fn stamp_of(&self, register: &Register) -> Stamp {
        self.stamps.get(register.stamp as usize).copied().unwrap_or_default()
    }
}

fn slice(at: u32, length: u32) -> Option<std::ops::Range<usize>> {
    let at = usize::try_from(at).ok()?;
    Some(at..at.checked_add(usize::try_from(length).ok()?)?)
}
