//! What can be asked of an entity.
//!
//! Contract: answers are winners only, in key order, and borrow from the entity.

use std::borrow::Cow;

use super::Entity;
use crate::format::event::{Field, ValueRef};
use crate::id::{Stamp, Uid};
use crate::model::Lifecycle;

/// A param that was acknowledged to somebody and lost to an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Losing<'a> {
    /// The property.
    pub field: Field,
    /// The key.
    pub key: &'a str,
    /// The value that stands.
    pub kept: ValueRef<'a>,
    /// The value that lost.
    pub lost: ValueRef<'a>,
    /// When the losing value was written.
    pub lost_stamp: Stamp,
}

impl Entity {
    /// Active, unless the lifecycle register says "deleted".
    pub fn lifecycle(&self) -> Lifecycle {
        match self.text(Field::LIFECYCLE) {
            Some("deleted") => Lifecycle::Deleted,
            _ => Lifecycle::Active,
        }
    }

    /// The value of a register; `key` is empty for fields without keys. A register that was emptied is `Absent`.
    pub fn get(&self, field: Field, key: &str) -> Option<ValueRef<'_>> {
        self.find(field, key).map(|r| self.value(r))
    }

    /// When a register was last set (for params: first).
    pub fn stamp(&self, field: Field, key: &str) -> Option<Stamp> {
        self.find(field, key).map(|r| self.stamp_of(r))
    }

    /// The text of a field without keys.
    pub fn text(&self, field: Field) -> Option<&str> {
        self.get(field, "")?.text()
    }

    /// The integer of a field without keys.
    pub fn integer(&self, field: Field) -> Option<i64> {
        self.get(field, "")?.integer()
    }

    /// The reference in a field without keys.
    pub fn reference(&self, field: Field) -> Option<Uid> {
        match self.get(field, "")? {
            ValueRef::Uid(uid) => Some(uid),
            _ => None,
        }
    }

    /// Key, stamp and value of every register of a keyed field, by key; winners only, emptied ones included.
    pub fn entries(&self, field: Field) -> impl Iterator<Item = (&str, Stamp, ValueRef<'_>)> {
        let from = self.registers.partition_point(|r| r.field < field);
        let mut last = None;
        self.registers
            .get(from..)
            .unwrap_or_default()
            .iter()
            .take_while(move |r| r.field == field)
            .filter(move |r| {
                let key = Some(self.key(r));
                std::mem::replace(&mut last, key) != key
            })
            .map(|r| (self.key(r), self.stamp_of(r), self.value(r)))
    }

    /// Field, key, stamp and value of every register, by field and key; winners only, emptied ones included.
    pub fn all_entries(&self) -> impl Iterator<Item = (Field, &str, Stamp, ValueRef<'_>)> {
        let mut last = None;
        let winners = self.registers.iter().filter(move |r| {
            let key = Some((r.field, self.key(r)));
            std::mem::replace(&mut last, key) != key
        });
        winners.map(|r| (r.field, self.key(r), self.stamp_of(r), self.value(r)))
    }

    /// The tags that are set, by key.
    pub fn tags(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        self.entries(Field::TAG).filter_map(|(key, _, value)| Some((key, value.lossy_text()?)))
    }

    /// The params that stand, by key.
    pub fn params(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        self.entries(Field::PARAM).filter_map(|(key, _, value)| Some((key, value.lossy_text()?)))
    }

    /// The losing values of first-wins registers.
    pub fn conflicts(&self) -> impl Iterator<Item = Losing<'_>> {
        self.registers.windows(2).filter_map(|pair| {
            let [before, lost] = pair else { return None };
            let same = before.field == lost.field && self.key(before) == self.key(lost);
            same.then(|| (lost, self.find(lost.field, self.key(lost)))).and_then(|(lost, winner)| {
                Some(Losing {
                    field: lost.field,
                    key: self.key(lost),
                    kept: self.value(winner?),
                    lost: self.value(lost),
                    lost_stamp: self.stamp_of(lost),
                })
            })
        })
    }

    /// The greatest stamp among the registers whose field and key pass `filter`.
    pub fn newest_stamp(&self, filter: impl Fn(Field, &str) -> bool) -> Option<Stamp> {
        self.registers.iter().filter(|r| filter(r.field, self.key(r))).map(|r| self.stamp_of(r)).max()
    }
}
