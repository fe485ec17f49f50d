//! The points of a series in blocks, as an exporter takes them.
//!
//! Contract: a block has at most `BLOCK_POINTS` points and is lent for one call; extra columns stay with their points.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::id::Uid;
use crate::limits::COLUMN_POINTS_MAX;
use crate::log::ColumnReader;
use crate::mlruns::{Extra, ExtraColumn, PointBlock};
use crate::query::history::{HistoryStream, PointFilter};
use crate::query::snapshot::OriginParts;

/// Points handed to an exporter at a time.
const BLOCK_POINTS: usize = COLUMN_POINTS_MAX;

/// One origin, in blocks.
pub(super) fn read_origin(
    parts: &OriginParts,
    from: u64,
    skip_damage: bool,
    sink: &mut dyn FnMut(&PointBlock<'_>) -> Result<()>,
) -> Result<()> {
    let mut reader = ColumnReader::default();
    reader.holes_allowed = skip_damage;
    let mut stream = parts.stream(&mut reader, from..u64::MAX)?.allow_holes(skip_damage);
    while let Some(column) = stream.next(&mut reader, BLOCK_POINTS)? {
        sink(&PointBlock {
            steps: &column.steps,
            timestamps: &column.timestamps_ms,
            values: &column.values,
            extras: &column.extras,
        })?;
    }
    Ok(())
}

/// Several origins, merged; extra columns are put together anew.
pub(super) fn read_merged(
    run: Uid,
    key: &str,
    origins: &[OriginParts],
    skip_damage: bool,
    sink: &mut dyn FnMut(&PointBlock<'_>) -> Result<()>,
) -> Result<()> {
    let mut stream = HistoryStream::new(&run.to_string(), key, origins, None, skip_damage)?;
    let filter = PointFilter::default();
    loop {
        let (mut steps, mut timestamps, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let mut extras: BTreeMap<u8, ExtraColumn> = BTreeMap::new();
        let more = stream.next_points(&filter, BLOCK_POINTS, &mut |point, columns, at| {
            for extra in columns {
                extras.entry(extra.kind).or_default().set(steps.len(), extra.get(at).to_vec());
            }
            steps.push(point.step);
            timestamps.push(point.timestamp_ms);
            values.push(point.value);
        })?;
        let extras: Vec<Extra> =
            extras.into_iter().filter_map(|(kind, mut column)| column.take(kind, steps.len())).collect();
        sink(&PointBlock { steps: &steps, timestamps: &timestamps, values: &values, extras: &extras })?;
        if !more {
            return Ok(());
        }
    }
}
