//! The inner loops of the codec, compiled twice: for any x86-64 (or other) machine, and with AVX2.
//!
//! Contract: both twins are the same Rust code and give the same answer (a test compares them); the wider one is used
//! where the processor has it.
#![allow(unsafe_code)]

use super::bits::{self, Lane, packed_len};
use super::grid::{from_ordinal, from_ordinal32};

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

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn has_wide() -> bool {
    std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("bmi1")
        && std::is_x86_feature_detected!("bmi2")
        && std::is_x86_feature_detected!("lzcnt")
}

/// Defines the dispatch to a function of [`portable`], compiled for AVX2 or as it is.
macro_rules! twins {
    ($(#[$doc:meta])* $name:ident $(<$lane:ident>)? ($($arg:ident: $type:ty),*) $(-> $out:ty)?) => {
        $(#[$doc])*
        #[inline]
        pub fn $name$(<$lane: Lane>)?($($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
                fn wide$(<$lane: Lane>)?($($arg: $type),*) $(-> $out)? {
                    portable::$name($($arg),*)
                }
                if has_wide() {
                    // SAFETY: `has_wide` just found every feature that `wide` is compiled for.
                    return unsafe { wide($($arg),*) };
                }
            }
            portable::$name($($arg),*)
        }
    };
}

twins! {
    /// Chooses the width and how many values stand aside; the size is that of patches and packed bits.
    plan_block<L>(values: &[L]) -> (Block<L>, usize)
}
twins! {
    /// As [`bits::unpack`].
    unpack<L>(packed: &[u8], base: L, width: usize, out: &mut [L])
}
twins! {
    /// The floats of ordinals of f32.
    floats32(ordinals: &[i32], out: &mut [f64])
}
twins! {
    /// The floats of ordinals.
    floats64(ordinals: &[i64], out: &mut [f64])
}
twins! {
    /// `k / divisor`, through f32 if `single`.
    quotients(positions: &[i32], divisor: f64, single: bool, out: &mut [f64])
}

/// Least and greatest value (0 and 0 of none).
#[inline(always)]
pub fn range<L: Lane>(values: &[L]) -> (L, L) {
    let first = values.first().copied().unwrap_or_default();
    values.iter().fold((first, first), |(low, high), v| (low.min(*v), high.max(*v)))
}

/// The one definition; the twins differ in the instructions the compiler may use.
mod portable {
    use super::*;

    #[inline(always)]
    pub fn plan_block<L: Lane>(values: &[L]) -> (Block<L>, usize) {
        let (base, high) = range(values);
        let bits = |offset: L| 64 - offset.to_bits().leading_zeros() as usize;
        let widest = bits(high.minus(base));
        let mut best = (Block { base, width: widest as u8, patches: 0 }, packed_len(values.len(), widest));
        let mut width = widest;
        // Each turn puts aside the values of the greatest width left, and goes on with the next greatest. Offsets of
        // the lane's full width have no sign to spare for the comparison, and nothing to gain.
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

    #[inline(always)]
    pub fn unpack<L: Lane>(packed: &[u8], base: L, width: usize, out: &mut [L]) {
        bits::unpack(packed, base, width, out);
    }

    #[inline(always)]
    pub fn floats32(ordinals: &[i32], out: &mut [f64]) {
        for (value, ordinal) in out.iter_mut().zip(ordinals) {
            *value = f64::from(from_ordinal32(*ordinal));
        }
    }

    #[inline(always)]
    pub fn floats64(ordinals: &[i64], out: &mut [f64]) {
        for (value, ordinal) in out.iter_mut().zip(ordinals) {
            *value = from_ordinal(*ordinal);
        }
    }

    #[inline(always)]
    pub fn quotients(positions: &[i32], divisor: f64, single: bool, out: &mut [f64]) {
        for (value, k) in out.iter_mut().zip(positions) {
            *value = f64::from(*k) / divisor;
            if single {
                *value = f64::from(*value as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_twins_agree(
            values in prop::collection::vec((any::<i64>(), 0u32..64), 1..=128), shift in 0u32..64, width in 0usize..=64,
            packed in prop::collection::vec(any::<u8>(), 0..2000), divisor in 1e-3..1e6f64, single: bool,
        ) {
            let wide: Vec<i64> = values.iter().map(|(v, more)| v >> shift.max(*more)).collect();
            let narrow: Vec<i32> = wide.iter().map(|v| *v as i32).collect();
            prop_assert_eq!(plan_block(&wide), portable::plan_block(&wide));
            prop_assert_eq!(plan_block(&narrow), portable::plan_block(&narrow));

            let (mut a, mut b) = (wide.clone(), wide.clone());
            unpack(&packed, 5, width, &mut a);
            portable::unpack(&packed, 5, width, &mut b);
            prop_assert_eq!(a, b);

            let compare = |twin: &dyn Fn(&mut [f64]), portable: &dyn Fn(&mut [f64])| {
                let (mut a, mut b) = (vec![0.0; wide.len()], vec![0.0; wide.len()]);
                twin(&mut a);
                portable(&mut b);
                a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits())
            };
            // Ordinals past infinity are NaN, which only damaged bytes hold: which NaN is not promised.
            let finite: Vec<i32> = narrow.iter().map(|o| (*o).clamp(-0x7f80_0000, 0x7f80_0000)).collect();
            prop_assert!(compare(&|o| floats32(&finite, o), &|o| portable::floats32(&finite, o)));
            prop_assert!(compare(&|o| floats64(&wide, o), &|o| portable::floats64(&wide, o)));
            prop_assert!(compare(
                &|o| quotients(&narrow, divisor, single, o), &|o| portable::quotients(&narrow, divisor, single, o),
            ));
        }
    }
}
