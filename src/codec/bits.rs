//! Blocks of 128 numbers of equal width as bits, least significant first.
//!
//! Contract: value `i` of width `w` is bits `i*w .. (i+1)*w` of the little-endian bit string; a block takes `16*w`
//! bytes. Both directions are monomorphised per width, so that every shift and offset is a constant.

/// Values of one block.
pub const BLOCK: usize = 128;
/// Bytes of the widest block.
const PACKED_MAX: usize = BLOCK * 8;
/// Bytes a group of eight values may touch when it is read or written in whole words.
const WINDOW: usize = 72;

/// The integers columns are made of: two's complement, wrapping.
pub trait Lane: Copy + Ord + Default + std::fmt::Debug + Send + 'static {
    /// Bits of the type.
    const BITS: usize;
    /// Wrapping sum.
    fn plus(self, other: Self) -> Self;
    /// Wrapping difference.
    fn minus(self, other: Self) -> Self;
    /// Bitwise or.
    fn or(self, other: Self) -> Self;
    /// Bits of `self` that are not set in `mask`.
    fn and_not(self, mask: Self) -> Self;
    /// All ones if negative, else zero.
    fn sign(self) -> Self;
    /// The bit pattern, zero-extended.
    fn to_bits(self) -> u64;
    /// The low bits of a pattern.
    fn from_bits(bits: u64) -> Self;
    /// Sign-extends.
    fn widen(self) -> i64;
    /// Keeps the low bits.
    fn narrow(value: i64) -> Self;
}

macro_rules! lane {
    ($signed:ty, $unsigned:ty) => {
        impl Lane for $signed {
            const BITS: usize = <$signed>::BITS as usize;
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self | other
            }
            #[inline(always)]
            fn and_not(self, mask: Self) -> Self {
                self & !mask
            }
            #[inline(always)]
            fn sign(self) -> Self {
                // As a negated logical shift: SSE2 has no arithmetic one of 64 bits.
                (self as $unsigned >> (<$signed>::BITS - 1)).wrapping_neg() as $signed
            }
            #[inline(always)]
            fn to_bits(self) -> u64 {
                u64::from(self as $unsigned)
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                bits as $unsigned as $signed
            }
            #[inline(always)]
            fn widen(self) -> i64 {
                i64::from(self)
            }
            #[inline(always)]
            fn narrow(value: i64) -> Self {
                value as $signed
            }
        }
    };
}
lane!(i32, u32);
lane!(i64, u64);

const fn mask(width: usize) -> u64 {
    if width == 0 { 0 } else { u64::MAX >> (64 - width) }
}

#[inline(always)]
fn pack_width<const W: usize, L: Lane>(values: &[L; BLOCK], base: L, out: &mut [u8; PACKED_MAX + WINDOW]) {
    for (g, group) in values.as_chunks::<8>().0.iter().enumerate() {
        let mut words = [0u64; 9];
        for (j, value) in group.iter().enumerate() {
            let value = value.minus(base).to_bits() & mask(W);
            let (word, shift) = (j * W / 64, j * W % 64);
            words[word] |= value << shift;
            if shift + W > 64 {
                words[word + 1] |= value >> (64 - shift);
            }
        }
        // Each group writes whole words; the next one overwrites what it did not mean.
        let Some(window) = out.get_mut(g * W..).and_then(|o| o.first_chunk_mut::<64>()) else { return };
        for (bytes, word) in window.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
    }
}

#[inline(always)]
fn unpack_width<const W: usize, L: Lane>(packed: &[u8], base: L, out: &mut [L; BLOCK]) {
    for (g, group) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let Some(window) = packed.get(g * W..).and_then(|p| p.first_chunk::<WINDOW>()) else { return };
        for (j, value) in group.iter_mut().enumerate() {
            let (byte, shift) = (j * W / 8, j * W % 8);
            let word = window.get(byte..).and_then(|w| w.first_chunk::<8>());
            let mut bits = word.map_or(0, |w| u64::from_le_bytes(*w)) >> shift;
            if shift + W > 64 {
                bits |= u64::from(window[byte + 8]) << (64 - shift);
            }
            *value = base.plus(L::from_bits(bits & mask(W)));
        }
    }
}

macro_rules! by_width {
    ($width:expr, $call:ident, $lane:ident, $args:tt, $($w:literal)*) => {
        match $width {
            $($w => $call::<$w, $lane> $args,)*
            _ => {}
        }
    };
    ($width:expr, $call:ident, $lane:ident, $args:tt) => {
        by_width!($width, $call, $lane, $args,
            1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
            33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64)
    };
}

/// Appends the low `width` bits of every `value - base`; `values` may be a partial block.
///
/// # Panics
/// When given more than 128 values or a width past 64.
pub fn pack<L: Lane>(values: &[L], base: L, width: usize, out: &mut Vec<u8>) {
    assert!(values.len() <= BLOCK && width <= 64);
    let mut packed = [0u8; PACKED_MAX + WINDOW];
    if let Ok(block) = values.try_into() {
        by_width!(width, pack_width, L, (block, base, &mut packed));
    } else {
        let mut block = [base; BLOCK];
        block[..values.len()].copy_from_slice(values);
        by_width!(width, pack_width, L, (&block, base, &mut packed));
    }
    out.extend_from_slice(&packed[..packed_len(values.len(), width)]);
}

/// Bytes that `count` values of a width take.
pub const fn packed_len(count: usize, width: usize) -> usize {
    (count * width).div_ceil(8)
}

/// Reads a block that starts `packed` into `out`, adding `base` to each value; `packed` may go on after the block, and
/// bits that it lacks read as zero. At most 128 values; a width past 64 leaves `out` as it is.
#[inline(always)]
pub fn unpack<L: Lane>(packed: &[u8], base: L, width: usize, out: &mut [L]) {
    if width == 0 {
        out.fill(base);
        return;
    }
    let mut padded = [0u8; PACKED_MAX + WINDOW];
    let source = if packed.len() >= BLOCK / 8 * width + WINDOW {
        packed
    } else {
        let len = packed.len().min(PACKED_MAX);
        padded[..len].copy_from_slice(&packed[..len]);
        &padded
    };
    if let Ok(block) = <&mut [L; BLOCK]>::try_from(&mut *out) {
        by_width!(width, unpack_width, L, (source, base, block));
    } else {
        let mut block = [L::default(); BLOCK];
        by_width!(width, unpack_width, L, (source, base, &mut block));
        for (value, read) in out.iter_mut().zip(block) {
            *value = read;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, one bit at a time.
    fn bit_by_bit(values: &[i64], width: usize) -> Vec<u8> {
        let mut out = vec![0u8; packed_len(values.len(), width)];
        for (i, value) in values.iter().enumerate() {
            for bit in 0..width {
                let at = i * width + bit;
                out[at / 8] |= ((value >> bit & 1) as u8) << (at % 8);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn blocks_are_the_bit_string_the_contract_says(
            values in prop::collection::vec(any::<i64>(), 1..=BLOCK), width in 0usize..=64, tail in 0usize..100,
        ) {
            let expected = bit_by_bit(&values, width);
            let mut packed = Vec::new();
            pack(&values, 0, width, &mut packed);
            prop_assert_eq!(&packed, &expected);
            packed.resize(packed.len() + tail, 0xa5);
            let mut read = vec![0i64; values.len()];
            unpack(&packed, 7, width, &mut read);
            for (v, r) in values.iter().zip(&read) {
                prop_assert_eq!(v.to_bits() & mask(width), r.wrapping_sub(7).to_bits());
            }
        }

        #[test]
        fn narrow_lanes_give_the_same_bytes(
            values in prop::collection::vec(any::<i32>(), 1..=BLOCK), width in 0usize..=32,
        ) {
            let wide: Vec<i64> = values.iter().map(|v| i64::from(*v)).collect();
            let (mut a, mut b) = (Vec::new(), Vec::new());
            pack(&values, 0, width, &mut a);
            pack(&wide, 0, width, &mut b);
            prop_assert_eq!(&a, &b);
            let mut read = vec![0i32; values.len()];
            unpack(&a, 0, width, &mut read);
            for (v, r) in values.iter().zip(&read) {
                prop_assert_eq!(v.to_bits() & mask(width), r.to_bits());
            }
        }
    }
}
