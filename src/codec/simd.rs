//! The inner loop of the encoder, compiled twice: for any x86-64 (or other) machine, and with AVX2.
//!
//! Contract: both twins are the same Rust code and give the same answer (a test compares them); the wider one is used
//! where the processor has it.
#![allow(unsafe_code)]

use super::bits::{Lane, packed_len};

/// More outliers than this in a block never pay.
const PATCHES_MAX: usize = 40;

/// How one block of at most 128 values will be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<L> {
    /// The least value.
    pub base: L,
    /// Bits of each offset from it.
    pub width: u8,
    /// How many values need more bits.
    pub patches: u8,
}

/// Chooses the width and how many values stand aside; the size is that of patches and packed bits.
#[inline]
pub fn plan_block<L: Lane>(values: &[L]) -> (Block<L>, usize) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("lzcnt") {
        // SAFETY: the processor has both features, as just detected; the function needs nothing else.
        return unsafe { plan_avx2(values) };
    }
    plan_portable(values)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,lzcnt")]
fn plan_avx2<L: Lane>(values: &[L]) -> (Block<L>, usize) {
    plan_portable(values)
}

/// Least and greatest value (0 and 0 of none).
#[inline(always)]
pub fn range<L: Lane>(values: &[L]) -> (L, L) {
    let first = values.first().copied().unwrap_or_default();
    values.iter().fold((first, first), |(low, high), v| (low.min(*v), high.max(*v)))
}

/// The one definition; the twins differ in the instructions the compiler may use.
#[inline(always)]
fn plan_portable<L: Lane>(values: &[L]) -> (Block<L>, usize) {
    let (base, high) = range(values);
    let bits = |offset: L| 64 - offset.to_bits().leading_zeros() as usize;
    let widest = bits(high.minus(base));
    let mut best = (Block { base, width: widest as u8, patches: 0 }, packed_len(values.len(), widest));
    let mut width = widest;
    // Each turn puts aside the values of the greatest width left, and goes on with the next greatest. Offsets of the
    // lane's full width have no sign to spare for the comparison, and nothing to gain.
    while width > 1 && widest < L::BITS {
        let limit = L::from_bits((1u64 << (width - 1)) - 1);
        let (mut aside, mut rest) = (L::default(), L::default());
        for value in values {
            let offset = value.minus(base);
            let is_aside = limit.minus(offset).sign();
            aside = aside.minus(is_aside);
            rest = rest.or(offset.and_not(is_aside));
        }
        let aside = aside.to_bits() as usize;
        width = bits(rest);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_twins_agree(
            values in prop::collection::vec((any::<i64>(), 0u32..64), 1..=128), shift in 0u32..64,
        ) {
            let wide: Vec<i64> = values.iter().map(|(v, more)| v >> shift.max(*more)).collect();
            let narrow: Vec<i32> = wide.iter().map(|v| *v as i32).collect();
            prop_assert_eq!(plan_block(&wide), plan_portable(&wide));
            prop_assert_eq!(plan_block(&narrow), plan_portable(&narrow));
        }
    }
}
