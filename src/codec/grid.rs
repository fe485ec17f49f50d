//! Grids: the divisor by which a column of floats is a column of integers.
//!
//! Contract: [`find`] only guesses, from a sample; the encoder checks every value, so a wrong guess costs bytes, never
//! a bit. Decoding a grid needs nothing but IEEE division, addition and the order of floats.

/// Values looked at when guessing.
pub const SAMPLE: usize = 128;
/// Grid positions are below this in magnitude: there `k as f64` and its inverse are one addition.
pub const POSITION_MAX: i64 = 1 << 51;
/// 1.5 * 2^52: adding it to |x| < 2^51 leaves the rounded x in the low bits.
const MAGIC: f64 = 6_755_399_441_055_744.0;
/// Residuals are in units of the last place; past this a value is an exception.
pub const RESIDUAL_MAX: u64 = 1 << 20;
/// Units of the last place by which a sampled value may miss the grid.
const MISS_F64: u64 = 32;
const MISS_F32: u64 = 2;
const DENOMINATOR_MAX: f64 = 1e6;
/// A fraction must be much coarser than f32 to mean something.
const DENOMINATOR_F32_MAX: f64 = 4096.0;

/// A divisor, and whether the quotient is rounded to f32.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Finite, not zero.
    pub divisor: f64,
    /// The column's values are f32 of the quotient.
    pub single: bool,
}

/// The nearest integer of |x| < 2^51, without a call into libm.
#[inline(always)]
pub fn nearest(x: f64) -> i64 {
    (x + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i64
}

/// `k as f64` of |k| < 2^51 in two vectorisable operations.
#[inline(always)]
pub fn float(k: i64) -> f64 {
    f64::from_bits((k as u64).wrapping_add(MAGIC.to_bits())) - MAGIC
}

/// Maps floats to integers of the same order; -0.0 is just below 0.0.
#[inline(always)]
pub const fn ordinal(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// The inverse of [`ordinal`].
#[inline(always)]
pub const fn from_ordinal(ordinal: i64) -> f64 {
    f64::from_bits((ordinal ^ ((ordinal >> 63) as u64 >> 1) as i64) as u64)
}

/// Maps f32 to integers of the same order.
#[inline(always)]
pub const fn ordinal32(value: f32) -> i32 {
    let bits = value.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

/// The inverse of [`ordinal32`].
#[inline(always)]
pub const fn from_ordinal32(ordinal: i32) -> f32 {
    f32::from_bits((ordinal ^ ((ordinal >> 31) as u32 >> 1) as i32) as u32)
}

impl Grid {
    /// Where the value stands, and how many units of the last place it is off; a value far from the grid (or none)
    /// has a residual past [`RESIDUAL_MAX`].
    #[inline(always)]
    pub fn locate(&self, value: f64) -> (i64, i64) {
        let x = value * self.divisor;
        let on_scale = x.abs() < POSITION_MAX as f64;
        let x = if on_scale { x } else { 0.0 };
        let k = nearest(x);
        let point = float(k) / self.divisor;
        let residual = if self.single {
            i64::from(ordinal32(value as f32)) - i64::from(ordinal32(point as f32))
        } else {
            ordinal(value).wrapping_sub(ordinal(point))
        };
        (k, if on_scale { residual } else { i64::MAX })
    }

    /// The value at position `k`, `residual` units of the last place on.
    #[inline(always)]
    pub fn value(&self, k: i64, residual: i64) -> f64 {
        self.point(float(k), residual)
    }

    /// As [`Grid::value`], of a position that is a float already.
    #[inline(always)]
    pub fn point(&self, k: f64, residual: i64) -> f64 {
        let point = k / self.divisor;
        if self.single {
            f64::from(from_ordinal32(ordinal32(point as f32).wrapping_add(residual as i32)))
        } else {
            from_ordinal(ordinal(point).wrapping_add(residual))
        }
    }

    /// Turns positions into values without residuals.
    pub fn points(&self, positions: &mut [f64]) {
        if self.single {
            positions.iter_mut().for_each(|k| *k = f64::from((*k / self.divisor) as f32));
        } else if self.divisor != 1.0 {
            positions.iter_mut().for_each(|k| *k /= self.divisor);
        }
    }

    fn fits(&self, value: f64) -> bool {
        let (k, residual) = self.locate(value);
        let (far, miss) = if self.single { (1 << 21, MISS_F32) } else { (1 << 44, MISS_F64) };
        k.abs() < far && residual.unsigned_abs() <= miss
    }

    fn fits_most(&self, sample: &[f64]) -> bool {
        let budget = sample.len() / 64;
        let mut misses = 0;
        for value in sample {
            if !self.fits(*value) {
                misses += 1;
                if misses > budget {
                    return false;
                }
            }
        }
        true
    }
}

/// Guesses a grid from finite sampled values of a column whose values are all f32 (`single`) or not.
pub fn find(sample: &[f64], single: bool, count: usize, first: f64, last: f64) -> Option<Grid> {
    let grid = |divisor| Grid { divisor, single: false };
    let greatest = sample.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if greatest == 0.0 {
        return Some(grid(1.0));
    }
    let scale = binary_scale(sample);
    let bits = i64::from(scale) + exponent(greatest) + 1;
    if scale <= 30 && bits < if single { 23 } else { 40 } {
        return Some(grid(f64::powi(2.0, scale as i32)));
    }
    let fits = |divisor: f64| Some(Grid { divisor, single }).filter(|g| g.fits_most(sample));
    let decimal = DECIMALS.into_iter().find_map(fits);
    if decimal.is_some() {
        return decimal;
    }
    fraction(sample, single).and_then(fits).or_else(|| ramp(count, first, last).and_then(fits))
}

const DECIMALS: [f64; 9] = [1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

fn exponent(value: f64) -> i64 {
    (value.to_bits() >> 52 & 0x7ff) as i64 - 1023
}

/// The smallest power of two by which every sampled value is an integer.
fn binary_scale(sample: &[f64]) -> u32 {
    let mut scale = 0;
    for value in sample.iter().filter(|v| **v != 0.0) {
        let mantissa = value.to_bits() & ((1 << 52) - 1) | 1 << 52;
        let fraction_bits = 52 - i64::from(mantissa.trailing_zeros()) - exponent(*value);
        scale = scale.max(fraction_bits.clamp(0, 1100) as u32);
    }
    scale
}

/// The least common denominator of the sampled values, by their continued fractions.
fn fraction(sample: &[f64], single: bool) -> Option<f64> {
    let max = if single { DENOMINATOR_F32_MAX } else { DENOMINATOR_MAX };
    let mut common = 1.0f64;
    for value in sample {
        if (Grid { divisor: common, single }).fits(*value) {
            continue;
        }
        let denominator = denominator(value.abs() * common, single, max / common)?;
        common *= denominator;
        if common > max {
            return None;
        }
    }
    (common > 1.0).then_some(common)
}

/// The smallest denominator that gives the value, to a few units of the last place.
fn denominator(value: f64, single: bool, max: f64) -> Option<f64> {
    let tolerance = value * if single { f64::from(f32::EPSILON) } else { 4.0 * f64::EPSILON };
    let (mut rest, mut before, mut now) = (value.fract(), 0.0, 1.0);
    let whole = value - rest;
    let (mut numerator_before, mut numerator) = (1.0, whole);
    for _ in 0..24 {
        if (value - numerator / now).abs() <= tolerance {
            return Some(now);
        }
        if rest < 1e-12 {
            return None;
        }
        let turned = 1.0 / rest;
        rest = turned.fract();
        let digit = turned - rest;
        (before, now) = (now, digit * now + before);
        (numerator_before, numerator) = (numerator, digit * numerator + numerator_before);
        if now > max {
            return None;
        }
    }
    None
}

/// The inverse slope of a straight line that passes near the origin's grid: schedules, fractions of an epoch.
fn ramp(count: usize, first: f64, last: f64) -> Option<f64> {
    let slope = (last - first) / (count.max(2) - 1) as f64;
    let divisor = 1.0 / slope.abs();
    let greatest = if first.abs() > last.abs() { first } else { last };
    // The larger end pins the divisor down to the last place.
    let refined = (greatest * divisor).round() / greatest;
    (refined.is_finite() && refined != 0.0).then_some(refined)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_series_are_written_are_recognised() {
        let found = |values: &[f64], single| {
            find(values, single, values.len(), values[0], values[values.len() - 1]).map(|g| g.divisor)
        };
        let of = |f: &dyn Fn(i32) -> f64| (0..128).map(f).collect::<Vec<_>>();
        assert_eq!(found(&of(&|i| f64::from(i * 3)), true), Some(1.0));
        assert_eq!(found(&of(&|i| f64::from(i * 3) / 8.0), true), Some(8.0));
        assert_eq!(found(&of(&|i| f64::from(i * i) / 100.0), false), Some(100.0));
        assert_eq!(found(&of(&|i| f64::from(i * i % 397) / 397.0), false), Some(397.0));
        assert_eq!(found(&of(&|i| f64::from((f64::from(i * i % 397) / 397.0) as f32)), true), Some(397.0));
        assert_eq!(found(&of(&|i| f64::from(i).sqrt()), false), None);
        assert_eq!(found(&of(&|i| f64::from(f64::from(i).sqrt() as f32)), true), None);
        let lr = found(&of(&|i| 3e-4 * (1.0 - f64::from(i) / 128.0)), false).unwrap();
        assert!((lr - 128.0 / 3e-4).abs() < 1e-3, "{lr}");
    }

    #[test]
    fn floats_and_their_ordinals_are_one_to_one() {
        let special = [0.0, -0.0, 1.0, -1.0, f64::MAX, f64::MIN, f64::INFINITY, 5e-324, f64::NAN, -f64::NAN];
        for v in special {
            assert_eq!(from_ordinal(ordinal(v)).to_bits(), v.to_bits());
            let single = f32::from_bits((v as f32).to_bits());
            assert_eq!(from_ordinal32(ordinal32(single)).to_bits(), single.to_bits());
        }
        assert!(
            ordinal(-1.0) < ordinal(-0.0) && ordinal(-0.0) < ordinal(0.0) && ordinal(0.0) < ordinal(1e-300)
        );
        for k in [0, 1, -1, POSITION_MAX - 1, 1 - POSITION_MAX] {
            assert_eq!(float(k), k as f64);
            assert_eq!(nearest(k as f64), k);
        }
    }
}
