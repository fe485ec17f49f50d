//! YAML as MLflow writes it: PyYAML's C dumper, `safe_dump(data, default_flow_style=False, allow_unicode=True)`.
//!
//! Contract: the bytes are libyaml's, from a port of its emitter; this file adds what PyYAML's representer and
//! serializer decide: which scalars may be plain, and the document's frame. Keys are written in the order given
//! (MLflow sorts them; whoever builds a document does too).
//!
//! libyaml escapes characters beyond U+FFFF, the port does not. They go through the emitter as ten stand-in
//! characters each, the width of their escape, and become `\UXXXXXXXX` afterwards.

use libyaml_safer::{Emitter, Encoding, Event, MappingStyle, ScalarStyle, SequenceStyle};

use super::resolver::{Kind, resolve};
use super::yaml_node::Node;
use crate::error::{Error, Result};

/// The bytes of a document.
pub(super) fn emit(node: &Node) -> Result<Vec<u8>> {
    let mut wide = Vec::new();
    collect_wide(node, &mut wide);
    let failed = |e: &dyn std::fmt::Display| {
        Error::InvalidState(format!("a document cannot be written as YAML: {e}; report this as a bug"))
    };
    let mut out = Vec::new();
    if wide.is_empty() {
        write(node, None, &mut out).map_err(|e| failed(&e))?;
        return Ok(out);
    }
    let stand_in = ('\u{e000}'..='\u{f8ff}')
        .find(|&c| !contains(node, c))
        .ok_or_else(|| failed(&"it uses every private character"))?;
    write(&with_stand_ins(node, stand_in), Some(stand_in), &mut out).map_err(|e| failed(&e))?;
    let text = String::from_utf8(out).map_err(|e| failed(&e))?;
    let marker = marker(stand_in);
    let mut parts = text.split(marker.as_str());
    let mut escaped = parts.next().unwrap_or("").to_owned();
    for (part, c) in parts.zip(wide) {
        escaped.push_str(&format!("\\U{:08X}", u32::from(c)));
        escaped.push_str(part);
    }
    Ok(escaped.into_bytes())
}

/// As many characters as `\UXXXXXXXX`, so that lines break where they must.
fn marker(stand_in: char) -> String {
    format!("{stand_in}UXXXXXXXX")
}

const fn is_wide(c: char) -> bool {
    c as u32 > 0xffff
}

/// All characters that need a stand-in, in the order of writing.
fn collect_wide(node: &Node, wide: &mut Vec<char>) {
    match node {
        Node::Scalar(_, text) => wide.extend(text.chars().filter(|&c| is_wide(c))),
        Node::Sequence(items) => items.iter().for_each(|item| collect_wide(item, wide)),
        Node::Mapping(pairs) => pairs.iter().for_each(|(key, value)| {
            collect_wide(key, wide);
            collect_wide(value, wide);
        }),
    }
}

fn contains(node: &Node, c: char) -> bool {
    match node {
        Node::Scalar(_, text) => text.contains(c),
        Node::Sequence(items) => items.iter().any(|item| contains(item, c)),
        Node::Mapping(pairs) => pairs.iter().any(|(key, value)| contains(key, c) || contains(value, c)),
    }
}

fn with_stand_ins(node: &Node, stand_in: char) -> Node {
    match node {
        Node::Scalar(kind, text) if text.contains(is_wide) => {
            let marker = marker(stand_in);
            let mut marked = String::with_capacity(text.len() * 4);
            for c in text.chars() {
                if is_wide(c) { marked.push_str(&marker) } else { marked.push(c) }
            }
            Node::Scalar(*kind, marked)
        }
        Node::Scalar(..) => node.clone(),
        Node::Sequence(items) => {
            Node::Sequence(items.iter().map(|item| with_stand_ins(item, stand_in)).collect())
        }
        Node::Mapping(pairs) => Node::Mapping(
            pairs.iter().map(|(k, v)| (with_stand_ins(k, stand_in), with_stand_ins(v, stand_in))).collect(),
        ),
    }
}

fn write(
    node: &Node,
    stand_in: Option<char>,
    out: &mut Vec<u8>,
) -> std::result::Result<(), libyaml_safer::Error> {
    let mut emitter = Emitter::new();
    emitter.set_output(out);
    emitter.set_unicode(true);
    emitter.set_width(80);
    emitter.emit(Event::stream_start(Encoding::Utf8))?;
    emitter.emit(Event::document_start(None, &[], true))?;
    write_node(&mut emitter, node, stand_in)?;
    emitter.emit(Event::document_end(true))?;
    emitter.emit(Event::stream_end())?;
    emitter.flush()
}

fn write_node(
    emitter: &mut Emitter<'_>,
    node: &Node,
    stand_in: Option<char>,
) -> std::result::Result<(), libyaml_safer::Error> {
    match node {
        Node::Scalar(kind, text) => {
            let plain = *kind != Kind::Text || resolve(text) == Kind::Text;
            let escaped = stand_in.is_some_and(|c| text.contains(c));
            let style = if escaped { ScalarStyle::DoubleQuoted } else { ScalarStyle::Any };
            emitter.emit(Event::scalar(None, None, text, plain, true, style))
        }
        Node::Sequence(items) => {
            emitter.emit(Event::sequence_start(None, None, true, SequenceStyle::Block))?;
            items.iter().try_for_each(|item| write_node(emitter, item, stand_in))?;
            emitter.emit(Event::sequence_end())
        }
        Node::Mapping(pairs) => {
            emitter.emit(Event::mapping_start(None, None, true, MappingStyle::Block))?;
            for (key, value) in pairs {
                write_node(emitter, key, stand_in)?;
                write_node(emitter, value, stand_in)?;
            }
            emitter.emit(Event::mapping_end())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml_read::read;
    use super::*;
    use proptest::prelude::*;

    /// (text, what PyYAML's C dumper writes for it as a document, without the final newline and a possible `...`)
    const SCALARS: &[(&str, &str)] = &include!("testdata/yaml_scalars.in");

    fn value_of(text: &str) -> String {
        let bytes = emit(&Node::Mapping(vec![(Node::text("k"), Node::text(text))])).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn scalars_are_written_as_pyyaml_does() {
        for (text, expected) in SCALARS {
            assert_eq!(value_of(text), *expected, "{text:?}");
        }
        assert!(SCALARS.len() > 100);
    }

    #[test]
    fn scalars_are_read_back() {
        for (text, document) in SCALARS {
            let node = read(document.as_bytes()).unwrap_or_else(|e| panic!("{document:?}: {e:?}"));
            assert_eq!(node.get("k"), Some(&Node::text(*text)), "{document:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_back(
            key in "\\PC{1,200}",
            text in prop_oneof!["\\PC*", "[ -~\n\t]{0,300}", ".*", "([a-z]{1,9} ){0,40}"],
        ) {
            let node = Node::Mapping(vec![(Node::text(key), Node::Sequence(vec![Node::text(text)]))]);
            let bytes = emit(&node).unwrap();
            prop_assert_eq!(read(&bytes).unwrap(), node);
        }
    }
}
