//! Batches as a whole: every point comes back bit for bit, damage is an error and never a panic, and the bytes of the
//! format hold still.

#[path = "support/chance.rs"]
mod chance;

use mlrs_db::codec::Compression;
use mlrs_db::codec::axis::Axis;
use mlrs_db::codec::bytes::Reader;
use mlrs_db::codec::extra::Extra;
use mlrs_db::codec::summary::Summary;
use mlrs_db::codec::value;
use mlrs_db::format::batch::{self, ColumnInput, Scratch};
use proptest::prelude::*;

use chance::Random;

/// Failures are seeds in the output; no files beside the tests.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

const SPECIAL: [u64; 12] = [
    0,
    0x8000_0000_0000_0000, // -0.0
    0x7ff0_0000_0000_0000, // inf
    0xfff0_0000_0000_0000, // -inf
    0x7ff8_0000_0000_0000, // NaN
    0x7ff0_0000_0000_0001, // signalling NaN
    0xfff8_0000_dead_beef, // NaN with a payload
    0x7ff0_0000_2000_0000, // signalling NaN whose payload would fit f32
    1,                     // least subnormal
    0x000f_ffff_ffff_ffff, // greatest subnormal
    0x7fef_ffff_ffff_ffff, // greatest finite
    0x36a0_0000_0000_0000, // least subnormal of f32
];

/// The kinds of series that training writes, and the ones it should not.
fn fill(kind: u32, len: usize, seed: u64) -> Vec<f64> {
    let mut noise = Random(seed);
    let divisor = [1.0, 8.0, 100.0, 397.0, 1e5, 44.0, 1e9, 0.003][seed as usize % 8];
    let slope = noise.unit() * 1e-3;
    let mut sum = 0.0;
    (0..len)
        .map(|i| match kind {
            0 => 0.25 + divisor,
            1 => (noise.word() % 5000) as f64 / divisor,
            2 => i as f64 / divisor,
            3 => slope * (1.0 - i as f64 / len as f64),
            4 => f64::from(noise.unit() as f32),
            5 => f64::from((noise.word() % 300) as f32 / 301.0),
            6 => noise.unit() * 3.0 - 1.0,
            7 => (i as f64 * 0.01).sin(),
            8 => f64::from_bits(noise.word()),
            9 => f64::from(f32::from_bits(noise.word() as u32)),
            10 => {
                sum += 0.1;
                sum
            }
            11 => 2.0 / (1.0 + i as f64),
            12 => (noise.word() as i64 >> (seed % 40)) as f64,
            _ => f64::from_bits(SPECIAL[noise.word() as usize % SPECIAL.len()]),
        })
        .collect()
}

fn column() -> impl Strategy<Value = Vec<f64>> {
    let len = prop_oneof![
        Just(1usize),
        Just(2),
        Just(3),
        Just(127),
        Just(128),
        Just(129),
        Just(1000),
        Just(4096),
        1usize..600
    ];
    (0u32..14, len, any::<u64>(), 0usize..6, 0u32..14).prop_map(|(kind, len, seed, specials, other)| {
        let mut values = fill(kind, len, seed);
        let mut noise = Random(!seed);
        for _ in 0..specials {
            values[noise.word() as usize % len] =
                f64::from_bits(SPECIAL[noise.word() as usize % SPECIAL.len()]);
        }
        if specials == 5 {
            let half = len / 2;
            values.truncate(len - half);
            values.extend(fill(other, half, seed));
        }
        values
    })
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), Just(Compression::Zstd)]
}

fn encoded(values: &[f64], compression: Compression) -> Vec<u8> {
    let mut out = Vec::new();
    value::encode(values, compression, &mut value::Scratch::default(), &mut out);
    out
}

/// Also through a scratch that other columns used before: no state may leak.
#[test]
fn one_scratch_serves_all_columns() {
    let mut scratch = value::Scratch::default();
    let mut noise = Random(7);
    for round in 0..600 {
        let len = [1, 2, 129, 1024, 3, 4096, 128][round % 7];
        let values = fill(noise.word() as u32 % 14, len, noise.word());
        let compression = if round % 2 == 0 { Compression::None } else { Compression::Zstd };
        let mut bytes = Vec::new();
        value::encode(&values, compression, &mut scratch, &mut bytes);
        assert_eq!(bytes, encoded(&values, compression), "round {round}");
        let mut read = vec![0.0; len];
        value::decode(&bytes, &mut read, &mut scratch).unwrap();
        assert_eq!(bits(&values), bits(&read), "round {round}");
    }
}

proptest! {
    #![proptest_config(config(1024))]

    #[test]
    fn every_value_comes_back_bit_for_bit(values in column(), compression in compression()) {
        let bytes = encoded(&values, compression);
        let mut read = vec![0.0; values.len()];
        value::decode(&bytes, &mut read, &mut value::Scratch::default()).unwrap();
        prop_assert_eq!(bits(&values), bits(&read));
        prop_assert!(bytes.len() <= 40 + values.len() * 9 + values.len() / 8, "{} bytes", bytes.len());
    }

    #[test]
    fn damaged_columns_never_panic(
        values in column(), compression in compression(), cut: prop::sample::Index,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), len in 0usize..4200,
    ) {
        let mut bytes = encoded(&values, compression);
        let mut scratch = value::Scratch::default();
        for (at, byte) in flips {
            let at = at.index(bytes.len().min(40));
            bytes[at] = byte;
        }
        let _ = value::decode(&bytes, &mut vec![0.0; values.len()], &mut scratch);
        let _ = value::decode(&bytes, &mut vec![0.0; len], &mut scratch);
        bytes.truncate(cut.index(bytes.len()));
        let _ = value::decode(&bytes, &mut vec![0.0; values.len()], &mut scratch);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 1..400), kind in 0u8..6, packed: bool, len in 0usize..5000,
    ) {
        bytes[0] = kind | if packed { 0x80 } else { 0 };
        let _ = value::decode(&bytes, &mut vec![0.0; len], &mut value::Scratch::default());
    }

    #[test]
    fn a_truncated_column_is_damage(values in column(), compression in compression()) {
        let bytes = encoded(&values, compression);
        // A constant drops zero bytes, so a shorter one is another constant: the checksum's and length's matter.
        if bytes[0] != 0 {
            let mut read = vec![0.0; values.len()];
            for cut in [1, bytes.len() / 2, bytes.len() - 1] {
                prop_assert!(value::decode(&bytes[..cut], &mut read, &mut value::Scratch::default()).is_err());
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Series {
    number: u32,
    first_ordinal: u64,
    axis: usize,
    values: Vec<f64>,
    extras: Vec<Extra>,
}

#[derive(Clone, Debug)]
struct Batch {
    axes: Vec<(Vec<i64>, Vec<i64>)>,
    series: Vec<Series>,
}

fn a_batch() -> impl Strategy<Value = Batch> {
    (any::<u64>(), 1usize..5, 1usize..12).prop_map(|(seed, n_axes, n_series)| {
        let mut noise = Random(seed);
        let common = 1 + noise.word() as usize % 300;
        let axes: Vec<(Vec<i64>, Vec<i64>)> = (0..n_axes)
            .map(|_| {
                let len =
                    if noise.word().is_multiple_of(3) { 1 + noise.word() as usize % 4096 } else { common };
                let wild = noise.word().is_multiple_of(5);
                let mut time = 1_700_000_000_000 + (noise.word() % 1000) as i64;
                (0..len as i64)
                    .map(|i| {
                        time += 100 + (noise.word() % 7) as i64;
                        if wild { (noise.word() as i64, noise.word() as i64) } else { (i * 10, time) }
                    })
                    .unzip()
            })
            .collect();
        let series = (0..n_series)
            .map(|i| {
                let axis = noise.word() as usize % n_axes;
                let len = axes[axis].0.len();
                let extras = if noise.word().is_multiple_of(3) {
                    let words = 1 + noise.word() as usize % 3.min(len);
                    vec![Extra {
                        kind: noise.word() as u8,
                        dictionary: (0..words).map(|w| vec![b'w'; w]).collect(),
                        indices: (0..len).map(|_| (noise.word() % words as u64) as u32).collect(),
                    }]
                } else {
                    Vec::new()
                };
                let values = fill(noise.word() as u32 % 14, len, noise.word());
                // Out of order on purpose; some series twice.
                let number = (noise.word() % 9) as u32 * 1000;
                Series { number, first_ordinal: 4096 * i as u64, axis, values, extras }
            })
            .collect();
        Batch { axes, series }
    })
}

fn write(batch: &Batch, compression: Compression) -> (Vec<u8>, usize) {
    let axes: Vec<Axis<'_>> = batch.axes.iter().map(|(s, t)| Axis { steps: s, timestamps_ms: t }).collect();
    let columns: Vec<ColumnInput<'_>> = batch
        .series
        .iter()
        .map(|s| ColumnInput {
            series: s.number,
            seed: s.number ^ 0x5eed,
            first_ordinal: s.first_ordinal,
            axis: s.axis,
            values: &s.values,
            extras: &s.extras,
        })
        .collect();
    let mut out = b"before".to_vec();
    let head_len = batch::encode(&axes, &columns, compression, &mut Scratch::default(), &mut out);
    (out.split_off(6), head_len)
}

/// As a reader with `pread` does: the pieces of one column only.
fn read_one(payload: &[u8], head: &batch::Head, at: usize) -> (Vec<i64>, Vec<i64>, Vec<f64>, Vec<Extra>) {
    let column = &head.columns[at];
    let entry = &head.axes[column.axis];
    let read_axis = |entry: &batch::AxisEntry, first: Option<(&[i64], &[i64])>| {
        let (mut steps, mut times) = (vec![0; entry.points], vec![0; entry.points]);
        let first = first.map(|(steps, timestamps_ms)| Axis { steps, timestamps_ms });
        let bytes = &payload[entry.offset..entry.offset + entry.len];
        batch::read_axis(bytes, entry, first, &mut steps, &mut times).unwrap();
        (steps, times)
    };
    let first = entry.refers_to_first.then(|| read_axis(&head.axes[0], None));
    let (steps, times) = read_axis(entry, first.as_ref().map(|(s, t)| (s.as_slice(), t.as_slice())));
    let mut values = vec![0.0; column.points];
    let bytes = &payload[column.offset..column.offset + column.len];
    let extras =
        batch::read_column(bytes, column, column.series ^ 0x5eed, &mut values, &mut Scratch::default())
            .unwrap();
    (steps, times, values, extras)
}

proptest! {
    #![proptest_config(config(512))]

    #[test]
    fn each_column_can_be_read_alone(batch in a_batch(), compression in compression()) {
        let (payload, head_len) = write(&batch, compression);
        let head = batch::decode_head(&payload[..head_len], payload.len()).unwrap();
        let mut expected = batch.series.clone();
        expected.sort_by_key(|s| (s.number, s.first_ordinal));
        prop_assert_eq!(head.columns.len(), expected.len());
        for (at, series) in expected.iter().enumerate() {
            let entry = &head.columns[at];
            prop_assert_eq!((entry.series, entry.first_ordinal), (series.number, series.first_ordinal));
            prop_assert!(head.of_series(series.number).contains(entry));
            let (steps, times, values, extras) = read_one(&payload, &head, at);
            prop_assert_eq!(&steps, &batch.axes[series.axis].0);
            prop_assert_eq!(&times, &batch.axes[series.axis].1);
            prop_assert_eq!(bits(&values), bits(&series.values));
            prop_assert_eq!(&extras, &series.extras);
        }
    }

    #[test]
    fn a_flipped_bit_or_a_wrong_seed_is_noticed(batch in a_batch(), at: prop::sample::Index, bit in 0u32..8) {
        let (mut payload, head_len) = write(&batch, Compression::Zstd);
        let head = batch::decode_head(&payload[..head_len], payload.len()).unwrap();
        let entry = head.columns[at.index(head.columns.len())];
        let mut values = vec![0.0; entry.points];
        let seed = entry.series ^ 0x5eed;
        let piece = entry.offset..entry.offset + entry.len;
        let mut read = |bytes: &[u8], seed| batch::read_column(bytes, &entry, seed, &mut values, &mut Scratch::default());
        prop_assert_eq!(read(&payload[piece.clone()], seed).err(), None);
        prop_assert!(read(&payload[piece.clone()], seed ^ 1).is_err());
        payload[entry.offset + at.index(entry.len)] ^= 1 << bit;
        prop_assert!(read(&payload[piece], seed).is_err());
    }

    #[test]
    fn a_damaged_head_never_panics(
        batch in a_batch(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let (payload, head_len) = write(&batch, Compression::None);
        let mut head = payload[..head_len].to_vec();
        for (at, byte) in flips {
            let at = at.index(head.len());
            head[at] = byte;
        }
        if let Ok(head) = batch::decode_head(&head, payload.len()) {
            for entry in &head.columns {
                prop_assert!(entry.offset + entry.len <= payload.len() && entry.axis < head.axes.len());
            }
        }
        head.truncate(cut.index(head.len()));
        prop_assert!(batch::decode_head(&head, payload.len()).is_err());
    }

    #[test]
    fn any_head_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0usize..70_000_000) {
        let _ = batch::decode_head(&bytes, len);
    }

    #[test]
    fn shared_axes_are_the_equal_ones(picks in prop::collection::vec((0usize..4, any::<bool>()), 1..20)) {
        let kinds: Vec<Vec<i64>> = [(5, 0), (9, 0), (9, 1), (9, 2)]
            .iter().map(|(n, middle)| (0..*n).map(|i| if i == 2 { i + middle } else { i }).collect()).collect();
        let copies: Vec<Vec<i64>> = picks.iter().map(|(kind, _)| kinds[*kind].clone()).collect();
        let axes: Vec<Axis<'_>> = picks.iter().zip(&copies).map(|((kind, copied), copy)| {
            let steps = if *copied { copy } else { &kinds[*kind] };
            Axis { steps, timestamps_ms: &kinds[*kind] }
        }).collect();
        let shared = batch::share_axes(&axes);
        let distinct: std::collections::BTreeSet<usize> = picks.iter().map(|p| p.0).collect();
        prop_assert_eq!(shared.axes.len(), distinct.len());
        for (axis, of) in axes.iter().zip(&shared.of_series) {
            let found = axes[shared.axes[*of]];
            prop_assert_eq!((axis.steps, axis.timestamps_ms), (found.steps, found.timestamps_ms));
        }
        if distinct.len() > 2 {
            prop_assert_eq!(axes[shared.axes[0]].steps.len(), 9);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The format holds still: these bytes are on disks. The decoder must read them for ever; the encoder may only change
/// if what it writes is still read by every release.
#[test]
fn golden_bytes_of_every_kind_of_column() {
    let of = |n: usize, f: &dyn Fn(f64) -> f64| (0..n).map(|i| f(i as f64)).collect::<Vec<f64>>();
    let mut patched = of(8, &|i| i * i % 5.0);
    patched[3] = 1000.0;
    let mut nan = of(6, &|i| f64::from((0.1 * i) as f32));
    nan[2] = f64::from_bits(0x7ff0_0000_0000_0001);
    let mut grid_nan = of(64, &|i| i / 4.0);
    grid_nan[2] = -0.0;
    grid_nan[5] = f64::from_bits(0xfff8_0000_dead_beef);
    let mut sum = 0.0;
    let sums = of(12, &|_| 0.1).into_iter().map(|v| {
        sum += v;
        sum
    });
    let cases: [(&str, Vec<f64>, Compression, &str); 11] = [
        ("constant", vec![0.5; 3], Compression::None, "003fe0"),
        ("constant zero", vec![0.0; 3], Compression::None, "00"),
        ("binary grid", of(5, &|i| i * i / 8.0), Compression::None, "0110020a000204"),
        (
            "decimal grid, patched block",
            patched.iter().map(|v| v / 10.0).collect(),
            Compression::None,
            "01140200830001037d081184",
        ),
        (
            "grid with exceptions",
            grid_nan,
            Compression::None,
            "01080a02000000000000008002efbeadde0000f8ff010081000202010501c9ffffffffffff7f",
        ),
        ("grid with residuals", sums.collect(), Compression::None, "011403090202000201651540"),
        ("ramp", of(8, &|i| 3e-4 * (1.0 - i / 8.0)), Compression::None, "0180dac409030af02eed0500000101f7"),
        (
            "grid of f32",
            of(9, &|i| f64::from((i * 7.0 % 44.0 / 44.0) as f32)),
            Compression::None,
            "045802010006492ccbb22c0bb0",
        ),
        (
            "f32",
            of(5, &|i| f64::from((i as f32).sqrt())),
            Compression::None,
            "0200001f00000000000000c0df3c41edef7ab6fb0700000004",
        ),
        (
            "f64",
            of(4, &|i| (i + 1.0).sqrt()),
            Compression::None,
            "030b80808080808080f07f9aeff9e7cca7d006dfabb1cabcb0c501d2b5a6a7cf9a5f",
        ),
        (
            "zstd",
            of(500, &|i| f64::from(i as u32 / 7 * 37 % 11)),
            Compression::Zstd,
            "81600500d5020082c51118a0356d60111061495431400c1003340d4143d0107049580a9f8faa2266d6dd81cc4f56d5c0cc886810d1ee2677f73f50553323ba3b338faa626600221291b0bb7757fcffbc940500808391b11170062a0ea4209de10c",
        ),
    ];
    let mut wrong = String::new();
    for (name, values, compression, golden) in &cases {
        let bytes = encoded(values, *compression);
        // What zstd writes may change with its release; what it reads does not.
        if *compression == Compression::None && hex(&bytes) != *golden {
            wrong += &format!("{name}: {}\n", hex(&bytes));
        }
        let mut read = vec![0.0; values.len()];
        let golden: Vec<u8> = golden.as_bytes().chunks(2).map(parse).collect();
        if value::decode(&golden, &mut read, &mut value::Scratch::default()).is_err()
            || bits(&read) != bits(values)
        {
            wrong += &format!("{name}: the golden bytes do not give the values\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn parse(pair: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()
}

/// One batch: a shared axis, one that refers to it, extras, a gap in the series' numbers.
#[test]
fn golden_bytes_of_a_batch() {
    let steps: Vec<i64> = (0..10).collect();
    let times: Vec<i64> =
        (0..10i64).map(|i| 1_700_000_000_000 + 1000 * i + i * i * i * 7919 % 1009).collect();
    let later: Vec<i64> = times.iter().map(|t| t + 3).collect();
    let column = |number, axis, values: &[f64], extras| Series {
        number,
        first_ordinal: 20,
        axis,
        values: values.to_vec(),
        extras,
    };
    let extra = Extra {
        kind: 1,
        dictionary: vec![b"a".to_vec(), b"bc".to_vec()],
        indices: vec![0, 1, 0, 1, 1, 0, 0, 0, 0, 1],
    };
    let batch = Batch {
        axes: vec![(steps.clone(), times), (steps.clone(), later)],
        series: vec![
            column(3, 0, &[0.25; 10], Vec::new()),
            column(300, 1, &steps.iter().map(|s| *s as f64).collect::<Vec<_>>(), vec![extra]),
        ],
    };
    let (payload, head_len) = write(&batch, Compression::Zstd);
    assert_eq!(
        (head_len, hex(&payload).as_str()),
        (
            31,
            "0202141a011d382515053a217519030028038aac08a6a902030013e20ce2be0900020180a0abfef9620be005d0d511bc20c097a1951500d8020900024806003fd001010201610262630001001a02010202090002"
        )
    );
}

#[test]
fn golden_bytes_of_a_summary() {
    let summary = Summary::of(&[0, 1, 2, 9], &[1000, 1010, 1020, 1015], &[2.5, f64::NAN, 0.5, 0.1]).unwrap();
    let mut bytes = Vec::new();
    summary.encode(&mut bytes);
    let golden = "041406010012d00f1e2800000000000004409a9999999999b93fcdcccccccccc0840";
    assert_eq!(hex(&bytes), golden);
    let golden: Vec<u8> = golden.as_bytes().chunks(2).map(parse).collect();
    assert_eq!(Summary::decode(&mut Reader::new(&golden)), Ok(summary));
}

/// A small frame that inflates to much more than its column can need is refused before anything is allocated for it.
#[test]
fn a_compression_bomb_is_damage() {
    let frame = zstd::bulk::compress(&vec![0u8; 64 << 20], 1).unwrap();
    let bytes = [&[0x81][..], &frame[4..]].concat();
    let mut values = vec![0.0; 4096];
    let damage = value::decode(&bytes, &mut values, &mut value::Scratch::default()).unwrap_err();
    assert_eq!(damage.found, 64 << 20);
    // One that does not say its size is refused too.
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    compressor.include_contentsize(false).unwrap();
    let frame = compressor.compress(&[0u8; 1000]).unwrap();
    let bytes = [&[0x81][..], &frame[4..]].concat();
    assert!(value::decode(&bytes, &mut values, &mut value::Scratch::default()).is_err());
}
