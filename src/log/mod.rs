//! Live files and segments: append, seal, follow, recover.
//!
//! Contract: the log is the database. A writer owns its files (random writer id) and nobody else modifies them; readers
//! need no lock and write nothing. A snapshot is taken against the flow of data: live windows first, then segments to
//! the end found now, and live points that frames cover are dropped. Every column states origin and first ordinal, so a
//! point that is seen twice counts once.

mod background;
mod blob_reader;
mod blob_writer;
mod check;
mod check_directory;
mod column_reader;
mod coverage;
#[cfg(all(test, loom))]
mod interleavings;
mod listing;
mod live_blocks;
mod live_file;
mod live_handover;
mod live_image;
mod live_reader;
mod live_tail;
mod live_writer;
mod medium;
mod origin_stream;
mod reader;
mod recover;
mod salvage;
#[cfg(test)]
mod sample_segment;
mod seal;
mod segment_reader;
mod segment_scan;
mod segment_sync;
mod segment_writer;
mod sync_gate;
mod writer;
mod writer_state;

use std::path::{Path, PathBuf};

pub(crate) use blob_writer::blob_address;
pub(crate) use check::{ColumnSpan, SegmentCheck, check_segment};
pub(crate) use column_reader::{ColumnReader, DecodedColumn};
pub(crate) use live_image::live_image;
pub(crate) use live_reader::{LiveRecord, LiveWindow, read_live_header, read_live_window, read_live_windows};
pub(crate) use live_tail::{LiveTail, News};
pub(crate) use medium::Medium;
pub(crate) use origin_stream::OriginStream;
pub(crate) use reader::{EntityPlace, LogReader, SeriesPart, View, event_offsets, read_intact_event};
pub(crate) use recover::{RecoverReport, Which, recover_dead_writers};
pub(crate) use salvage::{Remains, salvage_segment};
pub(crate) use seal::{compact_segments, holds_points_of, is_understood, is_worth_sealing};
pub(crate) use segment_reader::{Damage, Segment, SegmentState};
pub(crate) use writer::{BulkColumn, LogWriter, SeriesNumber, WriterOptions};
#[cfg(test)]
pub(crate) use {
    live_writer::{LiveOptions, LiveWriter},
    seal::seal_segment,
    segment_writer::{BatchColumn, SegmentWriter},
};

use crate::id::WriterId;

/// Name of the folder of segments.
pub(crate) const LOG_DIR: &str = "log";
/// Name of the folder of live files.
pub(crate) const LIVE_DIR: &str = "live";

/// Where a writer's segment is.
pub(crate) fn segment_path(log_dir: &Path, writer: WriterId, number: u64) -> PathBuf {
    log_dir.join(format!("{writer}-{number}.seg"))
}

/// Reads a segment's file name.
pub(crate) fn parse_segment_name(name: &str) -> Option<(WriterId, u64)> {
    let (writer, number) = name.strip_suffix(".seg")?.split_once('-')?;
    let parsed = number.parse().ok()?;
    // One file, one name: "-007" is none of ours.
    (number == u64::to_string(&parsed)).then_some(())?;
    Some((writer.parse().ok()?, parsed))
}

/// Where a writer's live file is.
pub(crate) fn live_path(live_dir: &Path, writer: WriterId) -> PathBuf {
    live_dir.join(format!("{writer}.live"))
}

/// Reads a live file's name.
pub(crate) fn parse_live_name(name: &str) -> Option<WriterId> {
    name.strip_suffix(".live")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_not_ours() {
        let writer = WriterId::from_bytes([0xab; 16]);
        let path = segment_path(Path::new("log"), writer, 12);
        let name = path.file_name().and_then(|n| n.to_str()).unwrap();
        assert_eq!(parse_segment_name(name), Some((writer, 12)));
        for other in [
            "x.seg",
            "abababababababababababababababab-012.seg",
            "abababababababababababababababab-1.seg.tmp",
        ] {
            assert_eq!(parse_segment_name(other), None, "{other}");
        }
        let path = live_path(Path::new("live"), writer);
        assert_eq!(parse_live_name(path.file_name().and_then(|n| n.to_str()).unwrap()), Some(writer));
    }
}
