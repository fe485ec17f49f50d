//! The content of a file that is no entity, as the value of a register.
//!
//! Contract: small files are in the register, large ones are blobs, YAML that is written again with the same bytes is
//! a document. The encoding is frozen; kinds are only added.

use super::BlobRef;
use super::digest::Short;
use super::wire::{Reader, put_bytes, put_number};
use super::yaml_node::{Node, decode, encode};
use crate::error::Result;
use crate::format::event::Value;
use crate::format::tree_record::{CONTENT_BLOB, CONTENT_DOCUMENT, CONTENT_INLINE};
use crate::id::BlobId;

/// Files up to this size are kept in the register itself.
pub(super) const INLINE_BYTES_MAX: u64 = 4096;

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// These bytes.
    Inline(Vec<u8>),
    /// The bytes of a blob.
    Blob(BlobRef),
    /// What the emitter writes for this.
    Document(Node),
    /// Whatever stands at this absolute path at the time of an export.
    Reference(Vec<u8>),
    /// Not a file but a symbolic link that points nowhere, to this target.
    DanglingLink(Vec<u8>),
    /// Nothing: the tree had no such file, though the entity would have one.
    Missing,
}

impl Content {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Inline(bytes) => {
                out.push(CONTENT_INLINE);
                put_bytes(out, bytes);
            }
            Self::Blob(blob) => {
                out.push(CONTENT_BLOB);
                out.extend_from_slice(blob.id.as_bytes());
                put_number(out, blob.len);
            }
            Self::Document(node) => {
                out.push(CONTENT_DOCUMENT);
                encode(node, out);
            }
            Self::Reference(path) => {
                out.push(4);
                put_bytes(out, path);
            }
            Self::DanglingLink(target) => {
                out.push(5);
                put_bytes(out, target);
            }
            Self::Missing => out.push(6),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match reader.byte()? {
            CONTENT_INLINE => Self::Inline(reader.bytes()?.to_vec()),
            CONTENT_BLOB => {
                Self::Blob(BlobRef { id: BlobId::from_bytes(reader.array()?), len: reader.number()? })
            }
            CONTENT_DOCUMENT => Self::Document(decode(reader)?),
            4 => Self::Reference(reader.bytes()?.to_vec()),
            5 => Self::DanglingLink(reader.bytes()?.to_vec()),
            6 => Self::Missing,
            _ => return Err(reader.damaged()),
        })
    }

    /// The value of a [`Field::FILE`](crate::format::event::Field::FILE) register.
    pub(super) fn to_value(&self) -> Value {
        let mut out = Vec::new();
        self.encode(&mut out);
        Value::Bytes(out)
    }

    /// From such a value; `None` where the file was taken away.
    pub(super) fn from_value(value: &Value) -> Result<Option<Self>> {
        let Value::Bytes(bytes) = value else { return Ok(None) };
        let mut reader = Reader::new(bytes, "file");
        let content = Self::decode(&mut reader)?;
        reader.end()?;
        Ok(Some(content))
    }

    /// The value of a [`Field::VERBATIM`](crate::format::event::Field::VERBATIM) register: content that holds as
    /// long as the registers the file shows have this guard.
    pub(super) fn to_override(&self, guard: Short) -> Value {
        let mut out = guard.to_vec();
        self.encode(&mut out);
        Value::Bytes(out)
    }

    /// From such a value.
    pub(super) fn from_override(value: &Value) -> Result<Option<(Short, Self)>> {
        let Value::Bytes(bytes) = value else { return Ok(None) };
        let mut reader = Reader::new(bytes, "verbatim");
        let guard = reader.array()?;
        let content = Self::decode(&mut reader)?;
        reader.end()?;
        Ok(Some((guard, content)))
    }
}
