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

use super::bits::{BLOCK, Lane, pack, packed_len, unpack};
use super::bytes::{Reader, put_varint, put_zigzag, varint_len, zigzag};
use crate::error::Malformed;

/// Differences of higher order than this are not tried: they amplify noise.
pub const ORDER_MAX: usize = 4;
const ORDER_MASK: u8 = 0x07;
const CONSTANT: u8 = 0x08;
/// Bit of the first byte that the owner of a column may use for itself.
pub const OWNER_FLAG: u8 = 0x40;
const PATCHED: u8 = 0x80;
/// More outliers than this in a block never pay.
const PATCHES_MAX: usize = 40;

/// How one block will be written.
#[derive(Clone, Copy, Debug)]
struct Block<L> {
    base: L,
    width: u8,
    patches: u8,
}

/// Working space of the encoder; reuse it, then encoding allocates nothing.
#[derive(Debug, Default)]
pub struct Planner<L> {
    differences: [Vec<L>; 2],
    blocks: [Vec<Block<L>>; 2],
    seeds: [L; ORDER_MAX],
    order: usize,
    constant: bool,
    bytes: usize,
}

impl<L: Lane> Planner<L> {
    /// Finds the order whose blocks take the fewest bytes, and returns that size. The values must be the same when
    /// [`Planner::write`] is called.
    pub fn plan(&mut self, values: &[L]) -> usize {
        (self.order, self.constant, self.bytes) = (0, false, 0);
        if values.is_empty() {
            return 0;
        }
        let (bytes, constant) = plan_blocks(values, &mut self.blocks[0]);
        (self.bytes, self.constant) = (1 + bytes, constant);
        let mut seed_bytes = 1;
        for order in 1..=ORDER_MAX.min(values.len() - 1) {
            if self.constant {
                break;
            }
            let [even, odd] = &mut self.differences;
            let (previous, next) = if order % 2 == 1 { (even, odd) } else { (odd, even) };
            let previous = if order == 1 { values } else { previous.as_slice() };
            let Some(seed) = previous.first().copied() else { break };
            next.clear();
            next.extend(previous.iter().zip(previous.iter().skip(1)).map(|(a, b)| b.minus(*a)));
            seed_bytes += varint_len(zigzag(seed.widen()));
            let (bytes, constant) = plan_blocks(next, &mut self.blocks[order % 2]);
            // Past the best order every further one adds noise: stop at the first that does not help.
            if seed_bytes + bytes >= self.bytes {
                break;
            }
            self.seeds[order - 1] = seed;
            (self.order, self.constant, self.bytes) = (order, constant, seed_bytes + bytes);
        }
        self.bytes
    }

    /// Appends the planned column; `flags` may carry [`OWNER_FLAG`].
    pub fn write(&self, values: &[L], flags: u8, out: &mut Vec<u8>) {
        if values.is_empty() {
            return;
        }
        out.push(self.order as u8 | if self.constant { CONSTANT } else { 0 } | flags);
        for seed in &self.seeds[..self.order] {
            put_zigzag(out, seed.widen());
        }
        let remainder = if self.order == 0 { values } else { &self.differences[self.order % 2] };
        if self.constant {
            put_zigzag(out, remainder.first().map_or(0, |c| c.widen()));
            return;
        }
        let mut previous = L::default();
        for (values, block) in remainder.chunks(BLOCK).zip(&self.blocks[self.order % 2]) {
            write_block(values, block, previous, out);
            previous = block.base;
        }
    }

    /// Plans and writes.
    pub fn encode(&mut self, values: &[L], flags: u8, out: &mut Vec<u8>) {
        self.plan(values);
        self.write(values, flags, out);
    }
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

fn range<L: Lane>(values: &[L]) -> (L, L) {
    let first = values.first().copied().unwrap_or_default();
    values.iter().fold((first, first), |(low, high), v| (low.min(*v), high.max(*v)))
}

/// Chooses the width and how many values stand aside; the size is that of patches and packed bits.
fn plan_block<L: Lane>(values: &[L]) -> (Block<L>, usize) {
    let (base, high) = range(values);
    let bits = |top: L| 64 - top.minus(base).to_bits().leading_zeros() as usize;
    let widest = bits(high);
    let mut best = (Block { base, width: widest as u8, patches: 0 }, packed_len(values.len(), widest));
    let mut width = widest;
    // Each turn puts aside the values of the greatest width left, and goes on with the next greatest.
    while width > 1 {
        let limit = base.plus(L::from_bits((1u64 << (width - 1)) - 1));
        let (mut aside, mut top) = (0usize, base);
        for value in values {
            aside += usize::from(*value > limit);
            top = top.max(if *value > limit { base } else { *value });
        }
        width = bits(top);
        let size = 1 + aside * (1 + (widest - width).div_ceil(7)) + packed_len(values.len(), width);
        if size < best.1 {
            best = (Block { base, width: width as u8, patches: aside as u8 }, size);
        }
        if aside > PATCHES_MAX || size > best.1 + 48 {
            break;
        }
    }
    best
}

fn write_block<L: Lane>(values: &[L], block: &Block<L>, previous: L, out: &mut Vec<u8>) {
    let width = usize::from(block.width);
    out.push(block.width | if block.patches > 0 { PATCHED } else { 0 });
    put_zigzag(out, block.base.minus(previous).widen());
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
        planner.write(values, 0, &mut out);
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
