//! Varints, and the bounds-checked reader that everything which decodes bytes reads through.
//!
//! Contract: [`Reader`] never panics and never reads past its slice; what it cannot give is a [`Malformed`] that says
//! where. Varints are LEB128 of at most ten bytes; signed ones are zigzag. Lengths are checked before they are used.

use crate::error::Malformed;

/// Appends an unsigned LEB128 number.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number, zigzag, so that small magnitudes stay short.
#[inline]
pub fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

/// Interleaves negative and positive numbers: 0, -1, 1, -2, ...
#[inline]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// How many bytes [`put_varint`] writes.
#[inline]
pub const fn varint_len(value: u64) -> usize {
    (63 - (value | 1).leading_zeros() as usize) / 7 + 1
}

/// Appends a varint length and the bytes.
pub fn put_slice(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A position in untrusted bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// How many bytes were read.
    pub const fn position(&self) -> usize {
        self.position
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// Damage at the present position.
    #[cold]
    pub const fn malformed(&self, expected: &'static str, found: u64) -> Malformed {
        Malformed::new(self.position, expected, found)
    }

    /// Skips `count` bytes and returns them.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let rest = self.rest();
        let Some(taken) = rest.get(..count) else {
            return Err(self.malformed("more bytes", count as u64));
        };
        self.position += count;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some(array) = self.rest().first_chunk::<N>() else {
            return Err(self.malformed("more bytes", N as u64));
        };
        self.position += N;
        Ok(*array)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, little-endian.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// An unsigned LEB128 number.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return Err(self.malformed("a number of at most 64 bits", low));
            }
            value |= low << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("a varint of at most 10 bytes", value))
    }

    /// A zigzag number.
    #[inline]
    pub fn zigzag(&mut self) -> Result<i64, Malformed> {
        self.varint().map(unzigzag)
    }

    /// A varint that counts something, at most `max`.
    #[inline]
    pub fn count(&mut self, max: usize, expected: &'static str) -> Result<usize, Malformed> {
        let start = self.position;
        let value = self.varint()?;
        usize::try_from(value).ok().filter(|v| *v <= max).ok_or(Malformed::new(start, expected, value))
    }

    /// A varint length of at most `max`, and that many bytes.
    pub fn slice(&mut self, max: usize, expected: &'static str) -> Result<&'a [u8], Malformed> {
        let len = self.count(max, expected)?;
        self.take(len)
    }

    /// A varint length of at most `max`, and that many bytes of UTF-8.
    pub fn text(&mut self, max: usize, expected: &'static str) -> Result<&'a str, Malformed> {
        let start = self.position;
        std::str::from_utf8(self.slice(max, expected)?).map_err(|_| Malformed::new(start, "UTF-8 text", 0))
    }

    /// Checks that nothing is left.
    pub fn finish(&self) -> Result<(), Malformed> {
        match self.rest().len() {
            0 => Ok(()),
            left => Err(self.malformed("the end", left as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, signed: i64, shift in 0u32..64) {
            let (value, signed) = (value >> shift, signed >> shift);
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            put_zigzag(&mut out, signed);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.zigzag(), Ok(signed));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_not_followed(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            let _ = (reader.varint(), reader.slice(64, "a short slice"), reader.text(64, "a short text"));
            prop_assert!(reader.position() + reader.remaining() == bytes.len());
        }
    }

    #[test]
    fn texts_are_utf8_and_no_longer_than_allowed() {
        let mut out = Vec::new();
        put_slice(&mut out, b"key");
        assert_eq!(Reader::new(&out).text(3, "a key"), Ok("key"));
        assert_eq!(Reader::new(&out).text(2, "a key"), Err(Malformed::new(0, "a key", 3)));
        assert!(Reader::new(&out[..3]).slice(3, "a key").is_err());
        assert_eq!(Reader::new(&[1, 0xff]).text(9, "a key"), Err(Malformed::new(0, "UTF-8 text", 0)));
    }

    #[test]
    fn a_varint_past_64_bits_is_damage() {
        let mut bytes = [0xff; 10];
        bytes[9] = 2;
        assert!(Reader::new(&bytes).varint().is_err());
        bytes[9] = 1;
        assert_eq!(Reader::new(&bytes).varint(), Ok(u64::MAX));
        assert!(Reader::new(&[0xff; 11]).varint().is_err());
        assert!(Reader::new(&[0x80]).varint().is_err());
    }
}
