//! How a `meta.yaml` was laid out: which keys it had, and where it differs from what the registers say.
//!
//! Contract: [`Shape::of`] and [`Shape::render`] are inverse as long as the registers stay the same. Every difference
//! carries a guard, the digest of what the registers said; once that changes, the register wins. So a file whose
//! entity was edited shows the edit and keeps everything else. The encoding is frozen: [`Described::KEYS`] only grow
//! at their end, and so does the set of tags.

use super::digest::{Short, of_node, short};
use super::wire::{Reader, put_bytes, put_number};
use super::yaml_node::{Node, decode, encode};
use crate::error::Result;
use crate::format::event::{Field, Value};

/// A key of a `meta.yaml`.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// A new file has it: one of those that MLflow 1.22, 2.22 and 3.18 can all read.
    is_usual: bool,
    /// Its value never changes, so that its absence says nothing.
    is_fixed: bool,
}

impl Key {
    /// A key that every file has.
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, is_usual: true, is_fixed: false }
    }

    /// A key that every file has, and always with the same value.
    pub(super) const fn fixed(name: &'static str) -> Self {
        Self { name, is_usual: true, is_fixed: true }
    }

    /// A key that only some files have.
    pub(super) const fn rare(name: &'static str) -> Self {
        Self { name, is_usual: false, is_fixed: false }
    }

    /// A key that only some versions write, and always with the same value.
    pub(super) const fn rare_fixed(name: &'static str) -> Self {
        Self { name, is_usual: false, is_fixed: true }
    }
}

/// An entity as the keys of its `meta.yaml`.
pub(super) trait Described {
    /// Keys this program knows, in the order of their bits. Frozen: append only.
    const KEYS: &'static [Key];
    /// What the registers say for a key; `None`: the key is not written.
    fn node(&self, key: &str) -> Option<Node>;

    /// Digest of everything the file shows.
    fn guard(&self) -> Short {
        let mut bytes = Vec::new();
        for key in Self::KEYS {
            if !key.is_fixed
                && let Some(node) = self.node(key.name)
            {
                bytes.extend_from_slice(key.name.as_bytes());
                encode(&node, &mut bytes);
            }
        }
        short(&bytes)
    }
}

/// The layout of one file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    /// Digest of the imported file.
    pub(super) file: Short,
    /// Bit per key of [`Described::KEYS`].
    present: u64,
    /// Keys whose text, or absence, differs from the register: bit, guard, text.
    differing: Vec<(u8, Short, Option<Node>)>,
    /// Unknown keys.
    others: Vec<(Node, Node)>,
}

fn key_text(key: &Node) -> &str {
    match key {
        Node::Scalar(_, text) => text,
        _ => "",
    }
}

impl Shape {
    /// The shape of a file that has not been imported.
    pub(super) fn default_of<D: Described>() -> Self {
        let present = D::KEYS.iter().enumerate().map(|(at, key)| u64::from(key.is_usual) << at).sum();
        Self { file: Short::default(), present, differing: Vec::new(), others: Vec::new() }
    }

    /// The shape of a file that is no YAML.
    pub(super) fn unreadable<D: Described>(bytes: &[u8]) -> Self {
        Self { file: short(bytes), ..Self::default_of::<D>() }
    }

    /// The shape of a document that was read from `bytes`, beside what the registers say.
    pub(super) fn of<D: Described>(bytes: &[u8], document: &Node, described: &D) -> Self {
        let mut shape = Self { file: short(bytes), present: 0, differing: Vec::new(), others: Vec::new() };
        for (at, key) in D::KEYS.iter().enumerate() {
            let (written, known) = (document.get(key.name), described.node(key.name));
            if written.is_some() {
                shape.present |= 1 << at;
            }
            let silent = written.is_none() && (key.is_fixed || known.as_ref().is_none_or(Node::is_null));
            if written != known.as_ref() && !silent {
                shape.differing.push((at as u8, of_node(known.as_ref()), written.cloned()));
            }
        }
        if let Node::Mapping(pairs) = document {
            shape.others = pairs
                .iter()
                .filter(|(key, _)| D::KEYS.iter().all(|known| known.name != key_text(key)))
                .cloned()
                .collect();
        }
        shape
    }

    /// The document, keys sorted as PyYAML sorts them.
    pub(super) fn render<D: Described>(&self, described: &D) -> Node {
        let mut pairs: Vec<(Node, Node)> = Vec::with_capacity(D::KEYS.len());
        for (at, key) in D::KEYS.iter().enumerate() {
            let is_present = self.present >> at & 1 == 1;
            let known = described.node(key.name);
            let guard = of_node(known.as_ref());
            let differing = self.differing.iter().find(|(bit, g, _)| usize::from(*bit) == at && *g == guard);
            let node = match differing {
                Some((_, _, written)) => written.clone(),
                None if is_present => known,
                None if key.is_fixed => None,
                None => known.filter(|node| !node.is_null()),
            };
            if let Some(node) = node {
                pairs.push((Node::text(key.name), node));
            }
        }
        pairs.extend(self.others.iter().cloned());
        pairs.sort_by(|(a, _), (b, _)| key_text(a).cmp(key_text(b)));
        Node::Mapping(pairs)
    }

    /// The value of a [`Field::SHAPE`](crate::format::event::Field::SHAPE) register.
    pub(super) fn to_value(&self) -> Value {
        let mut out = self.file.to_vec();
        put_number(&mut out, self.present);
        put_number(&mut out, self.differing.len() as u64);
        for (at, guard, written) in &self.differing {
            out.push(at << 1 | u8::from(written.is_some()));
            out.extend_from_slice(guard);
            if let Some(node) = written {
                encode(node, &mut out);
            }
        }
        put_number(&mut out, self.others.len() as u64);
        for (key, value) in &self.others {
            encode(key, &mut out);
            encode(value, &mut out);
        }
        Value::Bytes(out)
    }

    /// From such a value.
    pub(super) fn from_value(value: &Value) -> Result<Option<Self>> {
        let Value::Bytes(bytes) = value else { return Ok(None) };
        let mut reader = Reader::new(bytes, "shape");
        let mut shape = Self {
            file: reader.array()?,
            present: reader.number()?,
            differing: Vec::new(),
            others: Vec::new(),
        };
        for _ in 0..reader.count()? {
            let tag = reader.byte()?;
            let guard = reader.array()?;
            let written = if tag & 1 == 1 { Some(decode(&mut reader)?) } else { None };
            shape.differing.push((tag >> 1, guard, written));
        }
        for _ in 0..reader.count()? {
            shape.others.push((decode(&mut reader)?, decode(&mut reader)?));
        }
        reader.end()?;
        Ok(Some(shape))
    }
}

/// Which directory an entity had in its tree, and which of its directories hold no file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Layout {
    /// Key of the directory, relative to the tree (experiments) or the experiment (runs).
    pub(super) directory: String,
    /// Whether the entity counted as deleted when it was in that directory.
    pub(super) deleted: bool,
    /// Digest of params, tags and stray files: whether the tree has changed since.
    pub(super) values: Short,
    /// Keys of the directories without files, relative to `directory`.
    pub(super) empty: Vec<String>,
    /// Registers the entity had before this import that are not the tree's, as (field, key): their absence in the
    /// tree says nothing.
    pub(super) foreign: Vec<(Field, String)>,
}

/// Versions of a layout: without and with foreign registers.
const PLAIN: u8 = 1;
const WITH_FOREIGN: u8 = 2;

impl Layout {
    /// The value of a [`Field::SHAPE`](crate::format::event::Field::SHAPE) register.
    pub(super) fn to_value(&self) -> Value {
        let version = if self.foreign.is_empty() { PLAIN } else { WITH_FOREIGN };
        let mut out = vec![version, u8::from(self.deleted)];
        out.extend_from_slice(&self.values);
        put_bytes(&mut out, self.directory.as_bytes());
        put_number(&mut out, self.empty.len() as u64);
        self.empty.iter().for_each(|key| put_bytes(&mut out, key.as_bytes()));
        if version == WITH_FOREIGN {
            put_number(&mut out, self.foreign.len() as u64);
            for (field, key) in &self.foreign {
                put_number(&mut out, u64::from(field.0));
                put_bytes(&mut out, key.as_bytes());
            }
        }
        Value::Bytes(out)
    }

    /// From such a value.
    pub(super) fn from_value(value: &Value) -> Result<Option<Self>> {
        let Value::Bytes(bytes) = value else { return Ok(None) };
        let mut reader = Reader::new(bytes, "layout");
        let version = reader.byte()?;
        if !matches!(version, PLAIN | WITH_FOREIGN) {
            return Err(reader.damaged());
        }
        let deleted = reader.byte()? != 0;
        let values = reader.array()?;
        let mut layout = Self { directory: reader.text()?.to_owned(), deleted, values, ..Self::default() };
        for _ in 0..reader.count()? {
            layout.empty.push(reader.text()?.to_owned());
        }
        if version == WITH_FOREIGN {
            for _ in 0..reader.count()? {
                let field = u16::try_from(reader.number()?).map_err(|_| reader.damaged())?;
                layout.foreign.push((Field(field), reader.text()?.to_owned()));
            }
        }
        reader.end()?;
        Ok(Some(layout))
    }
}
