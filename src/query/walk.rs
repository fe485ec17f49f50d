//! The points of one origin, each once, as summaries where these are enough and as columns where not.
//!
//! Contract: pieces come in the order of ordinals. A summary is used only where its points follow what came before, so
//! copies that overlap (a segment that was merged in twice) count once. Points that are missing are [`Error::Gap`],
//! unless holes are allowed.

use crate::codec::bytes::Reader;
use crate::codec::summary::Summary;
use crate::error::{Error, Result};
use crate::log::{ColumnReader, DecodedColumn, SeriesPart};
use crate::query::snapshot::OriginParts;

/// Some consecutive points.
pub(crate) enum Piece {
    /// What a directory says of them.
    Summary(Summary),
    /// The points themselves; at least one.
    Points(DecodedColumn),
}

/// A walk over one origin.
pub(crate) struct Walk<'a> {
    /// For the error of points that are missing.
    pub run: &'a str,
    pub key: &'a str,
    pub holes_allowed: bool,
    /// Whether a summary is enough; otherwise its points are read.
    pub is_enough: &'a dyn Fn(&Summary) -> bool,
    pub take: &'a mut dyn FnMut(Piece),
}

impl Walk<'_> {
    /// Takes all points of an origin.
    pub(crate) fn run(mut self, parts: &OriginParts, reader: &mut ColumnReader) -> Result<()> {
        let mut sorted: Vec<_> = parts.parts.iter().collect();
        // Longer ones first among equals, so that a re-batched copy is read instead of its many sources.
        sorted.sort_by_key(|p| (p.extent.first_ordinal, std::cmp::Reverse(p.extent.points)));
        let mut next = 0;
        for part in sorted {
            if part.end() > next {
                self.part(part, next, reader)?;
                next = part.end();
            }
        }
        if let Some(live) = &parts.live {
            self.joins(next, live.first_ordinal)?;
            // What was recovered from the live file already counts once.
            self.points(live.clone(), next);
        }
        Ok(())
    }

    fn joins(&self, next: u64, first: u64) -> Result<()> {
        match first > next && !self.holes_allowed {
            true => Err(Error::Gap { run: self.run.into(), key: self.key.into(), first: next, next: first }),
            false => Ok(()),
        }
    }

    /// Gives out a summary if it is there and enough.
    fn summary(&mut self, part: &SeriesPart, bytes: &[u8]) -> Result<bool> {
        if bytes.is_empty() {
            return Ok(false);
        }
        let summary = Summary::decode(&mut Reader::new(bytes)).map_err(|m| m.at(&part.segment.path, 0))?;
        let enough = (self.is_enough)(&summary);
        if enough {
            (self.take)(Piece::Summary(summary));
        }
        Ok(enough)
    }

    fn points(&mut self, mut column: DecodedColumn, next: u64) {
        column.drop_front(usize::try_from(next.saturating_sub(column.first_ordinal)).unwrap_or(usize::MAX));
        if !column.values.is_empty() {
            (self.take)(Piece::Points(column));
        }
    }

    /// A part whose points reach beyond `next`.
    fn part(&mut self, part: &SeriesPart, next: u64, reader: &mut ColumnReader) -> Result<()> {
        self.joins(next, part.extent.first_ordinal)?;
        if part.extent.first_ordinal >= next && self.summary(part, &part.extent.summary)? {
            return Ok(());
        }
        let is_described = part.frames.iter().all(|(_, extent)| extent.is_some());
        if !is_described {
            return self.columns(part, next, reader).map(|_| ());
        }
        let mut frames: Vec<_> = part.frames.iter().filter_map(|(f, e)| Some((*f, e.as_ref()?))).collect();
        frames.sort_by_key(|(_, extent)| (extent.first_ordinal, std::cmp::Reverse(extent.points)));
        let mut from = next;
        for (frame, extent) in frames {
            if extent.end() <= from {
                continue;
            }
            self.joins(from, extent.first_ordinal)?;
            if extent.first_ordinal >= from && self.summary(part, &extent.summary)? {
                from = extent.end();
                continue;
            }
            let only = SeriesPart {
                segment: part.segment.clone(),
                declaration: part.declaration.clone(),
                extent: extent.clone(),
                frames: vec![(frame, Some(extent.clone()))],
            };
            from = self.columns(&only, from, reader)?;
        }
        Ok(())
    }

    /// The points of a part from an ordinal on, column by column; returns the ordinal after the last.
    fn columns(&mut self, part: &SeriesPart, next: u64, reader: &mut ColumnReader) -> Result<u64> {
        let mut places = reader.places(part, next..u64::MAX)?;
        places.sort_by_key(|p| (p.column.first_ordinal, std::cmp::Reverse(p.column.points)));
        let mut from = next;
        for place in places.iter().filter(|place| place.column.points > 0) {
            if place.end() <= from {
                continue;
            }
            self.joins(from, place.column.first_ordinal)?;
            let column = match reader.read(place) {
                Err(Error::Corrupt { .. } | Error::TornTail { .. }) if reader.holes_allowed => {
                    place.segment.pass_over(place.frame.offset);
                    continue;
                }
                column => column?,
            };
            self.points(column, from);
            from = place.end();
        }
        Ok(from)
    }
}
