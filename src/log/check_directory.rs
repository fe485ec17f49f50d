//! Whether a directory says what the frames before it hold.
//!
//! Contract: a part of `check`. Compared only where every frame of the interval is sound; a directory's own checksums
//! are checked in any case.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::codec::summary::Summary;
use crate::format::blob::BLOB_ENTITY;
use crate::format::declare::Declaration;
use crate::format::directory::{DirectoryHead, EntityEntry, FrameEntry, SeriesEntry};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, frame_seed, seeded_crc};
use crate::id::Uid;
use crate::limits::SUMMARY_POINTS_MIN;
use crate::log::check::{Checker, ColumnSpan, damage, malformed};

/// What the frames since the last directory hold, to be compared with what the next one says.
#[derive(Default)]
pub(super) struct Interval {
    pub(super) from: u64,
    pub(super) frames: Vec<FrameEntry>,
    /// By number; points behind a hole apart, as in a directory.
    pub(super) series: BTreeMap<u32, Vec<SeriesSeen>>,
    pub(super) entities: BTreeMap<Uid, Vec<u64>>,
    pub(super) live_to: u64,
    /// Something in it could not be read, so the directory may rightly say more.
    pub(super) damaged: bool,
}

pub(super) struct SeriesSeen {
    declaration: Arc<Declaration>,
    first_ordinal: u64,
    end: u64,
    /// `None` where a column could not be read.
    summary: Option<Summary>,
    pub(super) frames: Vec<u64>,
}

impl Checker<'_> {
    pub(super) fn next_interval(&mut self, from: u64) {
        self.declared.clear();
        let live_to = self.interval.live_to;
        self.interval = Interval { from, live_to, ..Interval::default() };
    }

    pub(super) fn directory(&mut self, offset: u64, header: &FrameHeader, payload: &[u8]) {
        let checked = payload.get(..header.checked_len as usize).unwrap_or_default();
        match DirectoryHead::decode(checked, header.payload_len, offset) {
            Ok(head) => self.directory_head(offset, header, payload, &head),
            Err(m) => self.report(malformed(offset, "a directory", m)),
        }
        self.counted.last_directory = offset;
        self.next_interval(offset + header.frame_len());
    }

    fn directory_head(&mut self, offset: u64, header: &FrameHeader, payload: &[u8], head: &DirectoryHead) {
        let said = |n: u64| n.to_string();
        if head.previous != self.counted.last_directory && self.found.damage.is_empty() {
            let expected = format!("a link to the directory at {}", self.counted.last_directory);
            self.disagrees(offset, expected, said(head.previous));
        }
        if head.covers_from != self.interval.from {
            self.disagrees(offset, format!("cover from {}", self.interval.from), said(head.covers_from));
        }
        if head.frames != self.interval.frames {
            let expected = format!("{} batches as the frames say", self.interval.frames.len());
            self.disagrees(offset, expected, format!("{} others", head.frames.len()));
        }
        // A sealed copy covers more than its own batches say.
        if head.live_to < self.interval.live_to {
            self.disagrees(
                offset,
                format!("live records below {}", self.interval.live_to),
                said(head.live_to),
            );
        }
        let mut filled = header.checked_len;
        let seed = frame_seed(self.segment.header.id, offset);
        let mut known = Vec::new();
        for row in &head.rows {
            let place = offset + FRAME_HEADER_BYTES as u64 + u64::from(row.block_offset);
            let (from, end) = (row.block_offset as usize, (row.block_offset + row.block_len) as usize);
            let block = payload.get(from..end).unwrap_or_default();
            if row.block_offset != filled {
                self.disagrees(place, format!("a block at {filled}"), said(u64::from(row.block_offset)));
            }
            filled = row.block_offset + row.block_len;
            let what = format!("the directory block of {}", row.uid);
            if seeded_crc(seed, block) != row.block_crc {
                self.found.damage.push(damage(place, format!("{what} whose crc fits"), "another crc"));
                continue;
            }
            match head.decode_block(self.segment.header.writer, block) {
                Ok(entry) => known.push((row.uid, row.kind, entry, place)),
                Err(m) => self.found.damage.push(malformed(place, &what, m)),
            }
        }
        if filled != header.payload_len {
            self.disagrees(offset, "blocks that fill the directory", format!("{filled} bytes of them"));
        }
        let rows = head.rows.len();
        let mut uids: Vec<Uid> = self.interval.entities.keys().copied().collect();
        uids.extend(self.interval.series.values().flatten().map(|s| s.declaration.series.run));
        uids.sort_unstable();
        uids.dedup();
        if uids.len() != rows {
            self.disagrees(offset, format!("{} entities as the frames say", uids.len()), said(rows as u64));
        }
        for (uid, kind, entry, place) in known {
            let seen = self.interval.entities.get(&uid).map(Vec::as_slice).unwrap_or_default();
            if seen != entry.events {
                let what = if kind == BLOB_ENTITY { "blob frames" } else { "events" };
                let expected = format!("the {} {what} of {uid} that there are", seen.len());
                self.disagrees(place, expected, format!("{} of them", entry.events.len()));
            }
            self.series(uid, &entry, head, place);
        }
    }

    fn series(&mut self, uid: Uid, entry: &EntityEntry, head: &DirectoryHead, place: u64) {
        let seen =
            self.interval.series.values().flatten().filter(|s| s.declaration.series.run == uid).count();
        let mut wrong = Vec::new();
        if seen != entry.series.len() {
            wrong.push((format!("{seen} series of {uid}"), entry.series.len().to_string()));
        }
        for series in &entry.series {
            let key = &series.declaration.series.key;
            let parts = self.interval.series.get(&series.declaration.number);
            let (first, end) = (series.extent.first_ordinal, series.extent.end());
            let same = |s: &&SeriesSeen| (s.first_ordinal, s.end) == (first, end);
            let likely = |s: &&SeriesSeen| s.first_ordinal == first;
            let parts = parts.map(Vec::as_slice).unwrap_or_default();
            match parts.iter().find(same).or(parts.iter().find(likely)).or(parts.first()) {
                Some(seen) => wrong.extend(seen.disagreement(series, head)),
                None => wrong.push((format!("columns of '{key}' of {uid}"), "none in the frames".into())),
            }
        }
        for (expected, found) in wrong {
            self.disagrees(place, expected, found);
        }
    }
}

impl Interval {
    pub(super) fn column(
        &mut self,
        declaration: Arc<Declaration>,
        span: ColumnSpan,
        summary: Option<Summary>,
        frame: u64,
    ) {
        let parts = self.series.entry(declaration.number).or_default();
        match parts.last_mut().filter(|part| part.end == span.first_ordinal) {
            Some(seen) => {
                seen.summary = seen.summary.take().zip(summary).map(|(known, new)| known.merge(&new));
                seen.end = span.end;
                if seen.frames.last() != Some(&frame) {
                    seen.frames.push(frame);
                }
            }
            None => parts.push(SeriesSeen {
                first_ordinal: span.first_ordinal,
                end: span.end,
                summary,
                frames: vec![frame],
                declaration,
            }),
        }
    }
}

impl SeriesSeen {
    /// What a directory says otherwise: (expected, found).
    fn disagreement(&self, said: &SeriesEntry, head: &DirectoryHead) -> Option<(String, String)> {
        let (key, extent) = (&self.declaration.series.key, &said.extent);
        if said.declaration != *self.declaration {
            return Some((format!("the declaration of '{key}'"), format!("{:?}", said.declaration)));
        }
        let end = extent.first_ordinal + extent.points;
        if (extent.first_ordinal, end) != (self.first_ordinal, self.end) {
            let expected = format!("points {}..{} of '{key}'", self.first_ordinal, self.end);
            return Some((expected, format!("{}..{end}", extent.first_ordinal)));
        }
        let frames: Vec<u64> = said
            .postings
            .iter()
            .filter_map(|p| head.frames.get(p.frame as usize))
            .map(|f| f.offset)
            .collect();
        if frames != self.frames {
            return Some((format!("'{key}' in {} batches", self.frames.len()), format!("{}", frames.len())));
        }
        let mut summary = Vec::new();
        self.summary.as_ref().inspect(|s| s.encode(&mut summary));
        let stated = !extent.summary.is_empty() && !summary.is_empty();
        if stated && extent.summary != summary {
            return Some((format!("the summary of '{key}' as its points say"), "another one".into()));
        }
        let short = said.postings.len() > 1
            && said
                .postings
                .iter()
                .filter_map(|p| p.extent.as_ref())
                .any(|e| e.points < SUMMARY_POINTS_MIN as u64);
        short.then(|| (format!("extents of long columns of '{key}'"), "one of a short column".into()))
    }
}
