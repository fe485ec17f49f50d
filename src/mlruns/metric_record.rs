//! What has been imported of a metric file, as the value of a register.
//!
//! Contract: the record and the points of its origin are the imported bytes. It is written after the points, so that
//! an interrupted import is continued from the file, not from the record.

use super::content::Content;
use super::digest::Long;
use super::metric_file::{Irregular, Parsed};
use super::wire::{Reader, put_bytes, put_number};
use crate::error::Result;
use crate::format::event::Value;
use crate::format::tree_record::METRIC_HAS_ORIGINAL as HAS_ORIGINAL;
use crate::id::Origin;

/// The state of an imported metric file.
#[derive(Clone, Debug)]
pub(super) struct MetricRecord {
    /// Who the points are from.
    pub(super) origin: Origin,
    /// How many bytes were imported.
    pub(super) bytes: u64,
    /// Digest of those bytes.
    pub(super) digest: Long,
    /// What they hold.
    pub(super) parsed: Parsed,
    /// Length of the last line if it has no line feed.
    pub(super) tail_bytes: u64,
    /// The original bytes, if points and irregular lines do not give them.
    pub(super) original: Option<Content>,
}

const VERSION: u8 = 1;
const UNTERMINATED: u8 = 2;

impl MetricRecord {
    /// The value of a [`Field::METRIC_FILE`](crate::format::event::Field::METRIC_FILE) register.
    pub(super) fn to_value(&self) -> Value {
        let mut out = vec![VERSION];
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(flag(self.parsed.unterminated, UNTERMINATED) | flag(self.original.is_some(), HAS_ORIGINAL));
        out.extend_from_slice(self.origin.as_bytes());
        out.extend_from_slice(&self.digest);
        for number in
            [self.bytes, self.parsed.lines, self.parsed.points, self.parsed.respelled, self.tail_bytes]
        {
            put_number(&mut out, number);
        }
        put_number(&mut out, self.parsed.irregular.len() as u64);
        for line in &self.parsed.irregular {
            put_number(&mut out, line.line << 1 | u64::from(line.is_point));
            put_bytes(&mut out, &line.bytes);
        }
        if let Some(Value::Bytes(original)) = self.original.as_ref().map(Content::to_value) {
            out.extend_from_slice(&original);
        }
        Value::Bytes(out)
    }

    /// From such a value.
    pub(super) fn from_value(value: &Value) -> Result<Option<Self>> {
        let Value::Bytes(bytes) = value else { return Ok(None) };
        let mut reader = Reader::new(bytes, "metric file");
        if reader.byte()? != VERSION {
            return Err(reader.damaged());
        }
        let flags = reader.byte()?;
        let origin = Origin::from_bytes(reader.array()?);
        let digest = reader.array()?;
        let bytes = reader.number()?;
        let mut parsed = Parsed {
            lines: reader.number()?,
            points: reader.number()?,
            respelled: reader.number()?,
            unterminated: flags & UNTERMINATED != 0,
            verbatim: flags & HAS_ORIGINAL != 0,
            irregular: Vec::new(),
        };
        let tail_bytes = reader.number()?;
        for _ in 0..reader.count()? {
            let line = reader.number()?;
            let bytes = reader.bytes()?.to_vec();
            parsed.irregular.push(Irregular { line: line >> 1, is_point: line & 1 == 1, bytes });
        }
        let original = match flags & HAS_ORIGINAL {
            0 => None,
            _ => Content::from_value(&Value::Bytes(reader.remaining().to_vec()))?,
        };
        reader.end()?;
        Ok(Some(Self { origin, bytes, digest, parsed, tail_bytes, original }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let parsed = Parsed {
            lines: 3,
            points: 2,
            respelled: 1,
            irregular: vec![Irregular { line: 1, is_point: false, bytes: b"x\n".to_vec() }],
            verbatim: true,
            unterminated: true,
        };
        let record = MetricRecord {
            origin: Origin::from_bytes([3; 16]),
            bytes: 99,
            digest: [7; 16],
            parsed,
            tail_bytes: 5,
            original: Some(Content::Inline(b"bytes".to_vec())),
        };
        let value = record.to_value();
        let back = MetricRecord::from_value(&value).unwrap().unwrap();
        assert_eq!(format!("{back:?}"), format!("{record:?}"));
        let Value::Bytes(bytes) = value else { panic!() };
        for end in 0..bytes.len() {
            assert!(MetricRecord::from_value(&Value::Bytes(bytes[..end].to_vec())).is_err());
        }
    }
}
