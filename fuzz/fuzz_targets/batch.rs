//! The batch decoder: head, axes, columns with their extras, behind checksums that fit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mlrs_db::codec::axis::Axis;
use mlrs_db::codec::summary::Summary;
use mlrs_db::format::batch::{Scratch, decode_head, read_axis, read_column};
use mlrs_db::format::frame::seeded_crc;

const SEED: u32 = 7;
/// Points decoded for one input: a constant column of 4,096 points is a few bytes, and there may be many.
const POINTS_MAX: usize = 64 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some((head_len, payload)) = input.split_first_chunk::<2>() else { return };
    let head_len = usize::from(u16::from_le_bytes(*head_len)).min(payload.len());
    let Ok(mut head) = decode_head(&payload[..head_len], payload.len()) else { return };
    let mut scratch = Scratch::default();
    let mut axes: Vec<Option<(Vec<i64>, Vec<i64>)>> = Vec::new();
    let mut left = POINTS_MAX;
    for entry in &mut head.axes {
        let bytes = &payload[entry.offset..entry.offset + entry.len];
        entry.crc = seeded_crc(0, bytes);
        left = left.saturating_sub(entry.points);
        let (mut steps, mut timestamps_ms) = (vec![0; entry.points], vec![0; entry.points]);
        let first = axes.first().and_then(Option::as_ref);
        let first = first.map(|(steps, timestamps_ms)| Axis { steps, timestamps_ms });
        let read = left > 0 && read_axis(bytes, entry, first, &mut steps, &mut timestamps_ms).is_ok();
        axes.push(read.then_some((steps, timestamps_ms)));
    }
    for entry in &mut head.columns {
        let bytes = &payload[entry.offset..entry.offset + entry.len];
        entry.crc = seeded_crc(SEED, bytes);
        left = left.saturating_sub(entry.points);
        if left == 0 {
            return;
        }
        let mut values = vec![0.0; entry.points];
        let Ok(extras) = read_column(bytes, entry, SEED, &mut values, &mut scratch) else { continue };
        for extra in extras {
            assert_eq!(extra.indices.len(), entry.points);
            assert!(extra.indices.iter().all(|i| (*i as usize) < extra.dictionary.len()));
        }
        if let Some((steps, timestamps_ms)) = &axes[entry.axis] {
            let summary = Summary::of(steps, timestamps_ms, &values).unwrap();
            assert_eq!(summary.count, entry.points as u64);
        }
    }
});
