//! INT: a column of integers as differences of some order, packed per block of 128 with few outliers aside.
//!
//! Contract: any sequence comes back, whatever overflows (arithmetic wraps in the lane's width). Layout:
//!
//! ```text
//! INT   := u8 order (0..4) | 0x08 if the remainder is constant
//!          order x zigzag seed                      first value, first difference, ...
//!          zigzag c                                 when constant: every remaining difference
//!          | block*                                 else, 128 differences each, the last block shorter
//! block := u8 width | 0x80 if patched
//!          zigzag base                              relative to the base of the block before (0 for the first)
//!          [u8 k, k x { u8 index, varint high }]    when patched: add high << width at index
//!          ceil(count * width / 8) bytes            differences minus base, least significant bit first
//! ```
//!
//! The count of values is not stored: the caller knows it. No values take no bytes.

use super::bits::{BLOCK, Lane, pack, packed_len};
use super::bytes::{Reader, put_varint, put_zigzag, varint_len, zigzag};
use super::simd::{Block, plan_block, range, unpack};
use crate::error::Malformed;

/// Differences of higher order than this are not tried: they amplify noise.
pub const ORDER_MAX: usize = 4;
const ORDER_MASK: u8 = 0x07;
const CONSTANT: u8 = 0x08;
/// Bit of the first byte that the owner of a column may use for itself.
pub const OWNER_FLAG: u8 = 0x40;
const PATCHED: u8 = 0x80;

/// Columns of more blocks than this choose their order by a sample of blocks.
const SAMPLED_BLOCKS: usize = 4;
/// Every how many-eth block that is.
const SAMPLE_STRIDE: usize = 3;
/// Columns whose values span less than this are coded in 32-bit lanes, to the same bytes: no difference of order 4
/// overflows there.
const NARROW_RANGE: u64 = 1 << 26;

/// Encoder of a column in one lane's width; reuse it, then encoding allocates nothing.
#[derive(Debug, Default)]
pub struct Planner<L> {
    thorough: bool,
    sample: Vec<L>,
    differences: Vec<L>,
    blocks: Vec<Block<L>>,
    seeds: [L; ORDER_MAX],
    order: usize,
    constant: bool,
}

impl<L: Lane> Planner<L> {
    /// Whether all blocks of a long column are looked at to find its order: slower, a little smaller.
    pub fn set_thorough(&mut self, thorough: bool) {
        self.thorough = thorough;
    }

    /// Finds the order whose blocks take the fewest bytes, and returns the size. The values must be the same when
    /// [`Planner::write`] is called.
    pub fn plan(&mut self, values: &[L]) -> usize {
        self.differences.clear();
        self.differences.extend_from_slice(values);
        self.order = choose_order(values, self.thorough, &mut self.sample);
        let mut bytes = 1;
        for order in 0..self.order {
            let seed = self.differences.get(order).copied().unwrap_or_default();
            bytes += varint_len(zigzag(seed.widen()));
            self.seeds[order] = seed;
            // In place: difference `order + 1` at position i needs the values up to i only, so go from the end.
            differentiate(&mut self.differences, order);
        }
        let remainder = self.differences.get(self.order..).unwrap_or_default();
        let (blocks, constant) = plan_blocks(remainder, &mut self.blocks);
        self.constant = constant;
        if values.is_empty() { 0 } else { bytes + blocks }
    }

    /// Appends the planned column; `flags` may carry [`OWNER_FLAG`].
    pub fn write(&self, flags: u8, out: &mut Vec<u8>) {
        self.write_shifted(0, flags, out);
    }

    /// Appends the column of the planned values plus `shift`.
    fn write_shifted(&self, shift: i64, flags: u8, out: &mut Vec<u8>) {
        let remainder = self.differences.get(self.order..).unwrap_or_default();
        let Some(first) = remainder.first() else { return };
        out.push(self.order as u8 | if self.constant { CONSTANT } else { 0 } | flags);
        // Only what is a value, not a difference, moves with the shift: the first seed, or the bases of order 0.
        for (i, seed) in self.seeds[..self.order].iter().enumerate() {
            put_zigzag(out, seed.widen().wrapping_add(if i == 0 { shift } else { 0 }));
        }
        let mut shift = if self.order == 0 { shift } else { 0 };
        if self.constant {
            put_zigzag(out, first.widen().wrapping_add(shift));
            return;
        }
        let mut previous = L::default();
        for (values, block) in remainder.chunks(BLOCK).zip(&self.blocks) {
            let base = block.base.minus(previous).widen().wrapping_add(shift);
            write_block(values, block, base, out);
            (previous, shift) = (block.base, 0);
        }
    }
}

/// Encoder of i64 columns: in 32-bit lanes when their range allows, to the same bytes.
#[derive(Debug, Default)]
pub struct WidePlanner {
    wide: Planner<i64>,
    narrow: Planner<i32>,
    values: Vec<i32>,
    shift: Option<i64>,
}

impl WidePlanner {
    /// As [`Planner::set_thorough`].
    pub fn set_thorough(&mut self, thorough: bool) {
        self.wide.set_thorough(thorough);
        self.narrow.set_thorough(thorough);
    }

    /// As [`Planner::plan`].
    pub fn plan(&mut self, values: &[i64]) -> usize {
        let (low, high) = range(values);
        self.shift =
            (high.wrapping_sub(low) as u64 <= NARROW_RANGE).then(|| values.first().copied().unwrap_or(0));
        let Some(shift) = self.shift else { return self.wide.plan(values) };
        self.values.clear();
        self.values.extend(values.iter().map(|v| v.wrapping_sub(shift) as i32));
        self.narrow.plan(&self.values) + varint_len(zigzag(shift)) - 1
    }

    /// Whether the planned column can be read in 32-bit lanes, as far as its values fit them.
    pub fn is_narrow(&self) -> bool {
        self.shift.is_some()
    }

    /// As [`Planner::write`].
    pub fn write(&self, flags: u8, out: &mut Vec<u8>) {
        match self.shift {
            Some(shift) => self.narrow.write_shifted(shift, flags, out),
            None => self.wide.write(flags, out),
        }
    }
}

/// `values[from..]` are differences of order `from`; makes those after the first differences of the next order.
#[inline]
fn differentiate<L: Lane>(values: &mut [L], from: usize) {
    let Some(mut before) = values.get(from).copied() else { return };
    for value in values.iter_mut().skip(from + 1) {
        let now = *value;
        *value = now.minus(before);
        before = now;
    }
}

/// The order whose differences pack best, by some blocks of long columns unless `thorough`; `sample` is working space.
fn choose_order<L: Lane>(values: &[L], thorough: bool, sample: &mut Vec<L>) -> usize {
    let stride = if thorough || values.len() <= SAMPLED_BLOCKS * BLOCK { 1 } else { SAMPLE_STRIDE };
    sample.clear();
    values.chunks(BLOCK).step_by(stride).for_each(|chunk| sample.extend_from_slice(chunk));
    let mut best = (0, usize::MAX);
    for order in 0..=ORDER_MAX.min(values.len().saturating_sub(1)) {
        let mut total = 0;
        for chunk in sample.chunks_mut(BLOCK) {
            if order > 0 {
                differentiate(chunk, order - 1);
            }
            let Some(remainder) = chunk.get(order..).filter(|r| !r.is_empty()) else { continue };
            let (block, size) = plan_block(remainder);
            // Scaled to the whole block, so that every order is judged by as many values.
            total += size * chunk.len() / remainder.len() + varint_len(zigzag(block.base.widen()));
        }
        if total < best.1 {
            best = (order, total);
        } else if total > best.1 + best.1 / 32 {
            // Past the best order each further one adds noise.
            break;
        }
    }
    best.0
}

/// Plans every block; returns the bytes without the leading order and seeds, and whether all values are equal.
fn plan_blocks<L: Lane>(values: &[L], blocks: &mut Vec<Block<L>>) -> (usize, bool) {
    blocks.clear();
    let (mut bytes, mut constant, mut previous) = (0, true, L::default());
    for (i, chunk) in values.chunks(BLOCK).enumerate() {
        let (block, size) = plan_block(chunk);
        constant &= block.width == 0 && block.patches == 0 && (i == 0 || block.base == previous);
        bytes += 1 + varint_len(zigzag(block.base.minus(previous).widen())) + size;
        previous = block.base;
        blocks.push(block);
    }
    match blocks.first() {
        Some(first) if constant => (varint_len(zigzag(first.base.widen())), true),
        _ => (bytes, false),
    }
}

fn write_block<L: Lane>(values: &[L], block: &Block<L>, base: i64, out: &mut Vec<u8>) {
    let width = usize::from(block.width);
    out.push(block.width | if block.patches > 0 { PATCHED } else { 0 });
    put_zigzag(out, base);
    if block.patches > 0 {
        out.push(block.patches);
        for (index, value) in values.iter().enumerate() {
            let high = value.minus(block.base).to_bits() >> width;
            if high > 0 {
                out.push(index as u8);
                put_varint(out, high);
            }
        }
    }
    pack(values, block.base, width, out);
}

/// Reads a column of `out.len()` values.
///
/// # Errors
/// When the bytes are not such a column; `out` then holds anything.
pub fn decode<L: Lane>(reader: &mut Reader<'_>, out: &mut [L]) -> Result<(), Malformed> {
    if out.is_empty() {
        return Ok(());
    }
    let head = reader.u8()? & !OWNER_FLAG;
    let order = usize::from(head & ORDER_MASK);
    if order > ORDER_MAX || order >= out.len() || head & !(ORDER_MASK | CONSTANT) != 0 {
        return Err(reader.malformed("differences of order 0 to 4, fewer than values", u64::from(head)));
    }
    let mut seeds = [L::default(); ORDER_MAX];
    for seed in seeds.iter_mut().take(order) {
        *seed = L::narrow(reader.zigzag()?);
    }
    let (_, remainder) = out.split_at_mut(order);
    if head & CONSTANT != 0 {
        remainder.fill(L::narrow(reader.zigzag()?));
    } else {
        let mut base = L::default();
        for block in remainder.chunks_mut(BLOCK) {
            base = read_block(reader, base, block)?;
        }
    }
    match order {
        1 => integrate::<1, L>(&seeds, out),
        2 => integrate::<2, L>(&seeds, out),
        3 => integrate::<3, L>(&seeds, out),
        4 => integrate::<4, L>(&seeds, out),
        _ => {}
    }
    Ok(())
}

#[inline]
fn read_block<L: Lane>(reader: &mut Reader<'_>, previous: L, out: &mut [L]) -> Result<L, Malformed> {
    let head = reader.u8()?;
    let width = usize::from(head & !PATCHED);
    if width > L::BITS {
        return Err(reader.malformed("a width of at most the lane's bits", width as u64));
    }
    let base = previous.plus(L::narrow(reader.zigzag()?));
    if head & PATCHED == 0 {
        let packed = reader.rest();
        reader.take(packed_len(out.len(), width))?;
        unpack(packed, base, width, out);
        return Ok(base);
    }
    let patches = reader.u8()?;
    let mut aside = reader.clone();
    for _ in 0..patches {
        reader.u8()?;
        reader.varint()?;
    }
    let packed = reader.rest();
    reader.take(packed_len(out.len(), width))?;
    unpack(packed, base, width, out);
    for _ in 0..patches {
        let index = aside.u8()?;
        let high = aside.varint()?;
        let Some(value) = out.get_mut(usize::from(index)) else {
            return Err(aside.malformed("a patch inside its block", u64::from(index)));
        };
        *value = value.plus(L::from_bits(high.checked_shl(width as u32).unwrap_or(0)));
    }
    Ok(base)
}

/// Turns differences of order `N` at `out[N..]` into values.
#[inline]
fn integrate<const N: usize, L: Lane>(seeds: &[L; ORDER_MAX], out: &mut [L]) {
    let mut sums = [L::default(); N];
    for (sum, seed) in sums.iter_mut().zip(seeds) {
        *sum = *seed;
    }
    // Each step moves sums[j], difference j, one position on; the highest stay, their next one is in the remainder.
    // After N - 1 steps sums[j] stands at position N - 1 - j, where the loop below takes over.
    let (start, remainder) = out.split_at_mut(N);
    for (i, value) in start.iter_mut().enumerate() {
        *value = sums[0];
        for j in 0..N - 1 - i {
            sums[j] = sums[j].plus(sums[j + 1]);
        }
    }
    for value in remainder {
        let mut carry = *value;
        for sum in sums.iter_mut().rev() {
            *sum = sum.plus(carry);
            carry = *sum;
        }
        *value = carry;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn roundtrip<L: Lane>(values: &[L]) -> Vec<u8> {
        let (mut planner, mut out) = (Planner::default(), Vec::new());
        let planned = planner.plan(values);
        planner.write(0, &mut out);
        assert!(out.len() <= planned, "{} bytes written, {planned} planned", out.len());
        let mut read = vec![L::default(); values.len()];
        let mut reader = Reader::new(&out);
        decode(&mut reader, &mut read).unwrap();
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(values, read);
        out
    }

    #[test]
    fn an_arithmetic_column_takes_a_few_bytes() {
        let steps: Vec<i64> = (0..1024).map(|i| 5000 + 10 * i).collect();
        assert_eq!(roundtrip(&steps).len(), 4);
        let squares: Vec<i64> = (0..4096).map(|i| i * i).collect();
        assert_eq!(roundtrip(&squares).len(), 4);
    }

    #[test]
    fn one_outlier_stands_aside() {
        let mut values: Vec<i64> = (0..128).map(|i| i * i * i * 31 % 17).collect();
        let plain = roundtrip(&values).len();
        values[77] = i64::MAX;
        assert!(roundtrip(&values).len() <= plain + 12);
    }

    fn column() -> impl Strategy<Value = Vec<i64>> {
        let len = prop_oneof![
            Just(1usize),
            Just(2),
            Just(3),
            Just(127),
            Just(128),
            Just(129),
            1usize..700,
            Just(4096)
        ];
        (len, 0u32..64, 0u32..5, any::<u64>(), 0u32..20).prop_map(|(len, shift, order, seed, spikes)| {
            let mut state = seed | 1;
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            let mut values: Vec<i64> = (0..len).map(|_| next() as i64 >> shift).collect();
            for _ in 0..order {
                let mut sum = 0i64;
                for v in &mut values {
                    sum = sum.wrapping_add(*v);
                    *v = sum;
                }
            }
            for _ in 0..spikes {
                let at = next() as usize % len;
                values[at] = next() as i64;
            }
            values
        })
    }

    proptest! {
        #[test]
        fn every_column_comes_back(values in column()) {
            roundtrip(&values);
            let (mut planner, mut either, mut wide) = (WidePlanner::default(), Vec::new(), Vec::new());
            planner.plan(&values);
            planner.write(0, &mut either);
            planner.wide.plan(&values);
            planner.wide.write(0, &mut wide);
            let mut read = vec![0i64; values.len()];
            decode(&mut Reader::new(&either), &mut read).unwrap();
            prop_assert_eq!(&values, &read);
            prop_assert!(either.len() <= wide.len() + wide.len() / 8 + 8, "{} {}", either.len(), wide.len());
            let narrow: Vec<i32> = values.iter().map(|v| *v as i32).collect();
            roundtrip(&narrow);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), len in 0usize..600) {
            let _ = decode(&mut Reader::new(&bytes), &mut vec![0i64; len]);
            let _ = decode(&mut Reader::new(&bytes), &mut vec![0i32; len]);
        }
    }
}
