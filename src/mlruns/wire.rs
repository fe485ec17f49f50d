//! Small records of this module as bytes: varints and length-prefixed strings.
//!
//! Contract: writing is total; reading checks every length against what is left and never panics. Whoever decodes a
//! record ends with [`Reader::end`], so trailing rubbish is damage, not silence.

use crate::error::{Error, Result};

/// Appends an unsigned LEB128 number.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a length-prefixed string of bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the functions above wrote.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// A reader; `what` names the record in errors.
    pub(super) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The error of a record that is not what it should be.
    pub(super) fn damaged(&self) -> Error {
        Error::InvalidState(format!("a stored {} record is damaged; run `mlrs-db verify`", self.what))
    }

    /// One byte.
    pub(super) fn byte(&mut self) -> Result<u8> {
        let (&first, rest) = self.rest.split_first().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(first)
    }

    /// `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(*first)
    }

    /// An unsigned number.
    pub(super) fn number(&mut self) -> Result<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(self.damaged());
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.damaged())
    }

    /// A count of things that take at least one byte each, so that it can size an allocation.
    pub(super) fn count(&mut self) -> Result<usize> {
        let number = self.number()?;
        usize::try_from(number).ok().filter(|&n| n <= self.rest.len()).ok_or_else(|| self.damaged())
    }

    /// Length-prefixed bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.count()?;
        let (first, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(first)
    }

    /// Length-prefixed UTF-8.
    pub(super) fn text(&mut self) -> Result<&'a str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged())
    }

    /// Everything that is left.
    pub(super) fn remaining(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Checks that nothing is left.
    pub(super) fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_come_back() {
        let mut out = Vec::new();
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            put_number(&mut out, n);
        }
        put_bytes(&mut out, b"key");
        let mut reader = Reader::new(&out, "test");
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(reader.number().unwrap(), n);
        }
        assert_eq!(reader.bytes().unwrap(), b"key");
        reader.end().unwrap();
    }

    #[test]
    fn a_length_past_the_end_or_a_number_past_64_bits_is_damage() {
        assert!(Reader::new(&[200, 1, b'x'], "test").bytes().is_err());
        assert!(Reader::new(&[0xff; 11], "test").number().is_err());
        assert!(Reader::new(&[0x80], "test").number().is_err());
    }
}
