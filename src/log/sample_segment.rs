//! Segments for tests of those who read them.

use std::path::Path;
use std::sync::Arc;

use crate::codec::Compression;
use crate::codec::axis::Axis;
use crate::format::declare::{Declaration, SeriesKey};
use crate::format::segment::{SegmentHeader, SegmentKind};
use crate::id::{SegmentId, StoreId, Uid, WriterId};
use crate::log::{BatchColumn, SegmentWriter};
use crate::vfs::Vfs;

/// Whose points they are.
pub(super) const SAMPLE_RUN: Uid = Uid::from_bytes([7; 16]);
/// Points of each.
pub(super) const SAMPLE_POINTS: u64 = 10;

/// A header without a predecessor.
pub(super) fn sample_header(writer: WriterId, number: u64, kind: SegmentKind) -> SegmentHeader {
    SegmentHeader {
        features: 0,
        kind,
        id: SegmentId::random().unwrap(),
        writer,
        number,
        predecessor: SegmentId::default(),
        predecessor_len: 0,
        created_ms: 1,
        store: StoreId::default(),
    }
}

/// Writes a closed segment of batches of one point with ordinals from `first` on, each of which was a live record of
/// the same number; returns its length after half of them.
pub(super) fn write_sample(vfs: &Arc<dyn Vfs>, log_dir: &Path, header: SegmentHeader, first: u64) -> u64 {
    let origin = header.writer.into();
    let mut segment = SegmentWriter::create(Arc::clone(vfs), log_dir, header, Compression::Zstd).unwrap();
    let series = SeriesKey::of_run(SAMPLE_RUN, "loss");
    let declaration = Arc::new(Declaration { number: 0, series, origin, attributes: Vec::new() });
    let mut half = 0;
    for ordinal in first..first + SAMPLE_POINTS {
        let step = i64::try_from(ordinal).unwrap();
        let axes = [Axis { steps: &[step], timestamps_ms: &[step] }];
        let values = [ordinal as f64];
        let column = BatchColumn {
            declaration: &declaration,
            first_ordinal: ordinal,
            axis: 0,
            values: &values,
            extras: &[],
        };
        segment.append_batch(&axes, &[column], ordinal + 1).unwrap();
        if ordinal + 1 == first + SAMPLE_POINTS / 2 {
            half = segment.len();
        }
    }
    segment.finish().unwrap();
    half
}
