//! Small records of this module as bytes: varints and length-prefixed strings.
//!
//! Contract: writing is total; reading is [`codec::bytes::Reader`](crate::codec::bytes::Reader) with the error of a
//! stored record. Whoever decodes a record ends with [`Reader::end`], so trailing rubbish is damage, not silence.

use crate::codec::bytes;
use crate::error::{Error, Malformed, Result};

pub(super) use crate::codec::bytes::{put_slice as put_bytes, put_varint as put_number};

/// Reads what the functions above wrote.
pub(super) struct Reader<'a> {
    inner: bytes::Reader<'a>,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// A reader; `what` names the record in errors.
    pub(super) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { inner: bytes::Reader::new(bytes), what }
    }

    /// The error of a record that is not what it should be.
    pub(super) fn damaged(&self) -> Error {
        Error::InvalidState(format!("a stored {} record is damaged; run `mlrs-db verify`", self.what))
    }

    fn read<T>(&mut self, take: impl FnOnce(&mut bytes::Reader<'a>) -> Result<T, Malformed>) -> Result<T> {
        take(&mut self.inner).map_err(|_| self.damaged())
    }

    /// One byte.
    pub(super) fn byte(&mut self) -> Result<u8> {
        self.read(bytes::Reader::u8)
    }

    /// `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.read(bytes::Reader::array)
    }

    /// An unsigned number.
    pub(super) fn number(&mut self) -> Result<u64> {
        self.read(bytes::Reader::varint)
    }

    /// A count of things that take at least one byte each, so that it can size an allocation.
    pub(super) fn count(&mut self) -> Result<usize> {
        self.read(|inner| {
            let count = inner.count(inner.remaining(), "a count of what is there")?;
            if count <= inner.remaining() {
                Ok(count)
            } else {
                Err(inner.malformed("more bytes", count as u64))
            }
        })
    }

    /// Length-prefixed bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        self.read(|inner| inner.slice(usize::MAX, "a length"))
    }

    /// Length-prefixed UTF-8.
    pub(super) fn text(&mut self) -> Result<&'a str> {
        self.read(|inner| inner.text(usize::MAX, "a length"))
    }

    /// Everything that is left.
    pub(super) fn remaining(&mut self) -> &'a [u8] {
        let rest = self.inner.rest();
        // Taking what is there cannot fail.
        self.inner.take(rest.len()).unwrap_or_default()
    }

    /// Checks that nothing is left.
    pub(super) fn end(self) -> Result<()> {
        self.inner.finish().map_err(|_| self.damaged())
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
