//! YAML 1.1 as MLflow's files use it: block mappings and sequences, flow collections, plain and quoted scalars,
//! comments.
//!
//! Contract: everything libyaml's emitter writes for plain data is read back exactly; so is what people write by hand
//! into such a file. Anchors, tags, directives, block scalars and several documents are refused with the line, never
//! misread: the file is then kept as it is. No input panics, nests deeper than [`DEPTH_MAX`] or is larger than
//! [`YAML_BYTES_MAX`]. (The port of libyaml that writes for us has panics in its parser, hence a reader of our own.)

use super::resolver::{Kind, resolve};
use super::yaml_node::{DEPTH_MAX, Node};
use super::yaml_scalar::is_break;

/// Largest file that is read as YAML; a data set's profile may have 16 M characters.
pub(super) const YAML_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Why a file is no YAML to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct YamlProblem {
    /// Line, from 1.
    pub(super) line: u64,
    /// What is wrong.
    pub(super) text: &'static str,
}

type Read<T> = Result<T, YamlProblem>;

/// Reads one document.
pub(super) fn read(bytes: &[u8]) -> Read<Node> {
    let line_at = |offset: usize| {
        1 + bytes.get(..offset).unwrap_or_default().iter().filter(|&&b| b == b'\n').count() as u64
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|e| YamlProblem { line: line_at(e.valid_up_to()), text: "not UTF-8" })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some((offset, _)) = text.char_indices().find(|&(_, c)| !is_allowed(c)) {
        return Err(YamlProblem {
            line: line_at(offset),
            text: "control characters are not allowed in YAML",
        });
    }
    let mut source = Source { text, pos: 0, line_start: 0 };
    source.document()
}

const fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}'
        | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

/// A cursor over the text.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) pos: usize,
    line_start: usize,
}

/// Columns are compared as signed numbers: the document itself is at -1.
type Column = i64;

impl<'a> Source<'a> {
    pub(super) fn rest(&self) -> &'a str {
        self.text.get(self.pos..).unwrap_or("")
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn advance(&mut self, c: char) {
        self.pos += c.len_utf8();
    }

    /// Steps over a line break if there is one: what it folds to.
    pub(super) fn take_break(&mut self) -> Option<char> {
        let rest = self.rest();
        let c = rest.chars().next().filter(|&c| is_break(c))?;
        self.pos += if rest.starts_with("\r\n") { 2 } else { c.len_utf8() };
        self.line_start = self.pos;
        Some(if matches!(c, '\u{2028}' | '\u{2029}') { c } else { '\n' })
    }

    /// Where the cursor is, to come back to.
    pub(super) const fn clone_position(&self) -> (usize, usize) {
        (self.pos, self.line_start)
    }

    /// Goes back.
    pub(super) const fn restore_position(&mut self, position: (usize, usize)) {
        (self.pos, self.line_start) = position;
    }

    pub(super) fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.text.as_bytes().get(self.pos) {
            self.pos += 1;
        }
    }

    pub(super) fn column(&self) -> Column {
        (self.pos - self.line_start) as Column
    }

    pub(super) fn problem<T>(&self, text: &'static str) -> Read<T> {
        let before = self.text.get(..self.pos).unwrap_or(self.text);
        Err(YamlProblem { line: 1 + before.matches('\n').count() as u64, text })
    }

    /// Whether an indicator stands here: the character, then a blank, a break or the end.
    pub(super) fn at_indicator(&self, indicator: char) -> bool {
        let mut chars = self.rest().chars();
        chars.next() == Some(indicator) && chars.next().is_none_or(|c| c == ' ' || c == '\t' || is_break(c))
    }

    /// Whether `---` or `...` stands alone at the start of a line.
    pub(super) fn at_document_marker(&self) -> bool {
        let rest = self.rest();
        self.pos == self.line_start
            && (rest.starts_with("---") || rest.starts_with("..."))
            && rest.chars().nth(3).is_none_or(|c| c == ' ' || c == '\t' || is_break(c))
    }

    /// Skips blanks, comments and empty lines.
    fn skip_to_content(&mut self) -> Read<()> {
        loop {
            let indented = self.pos == self.line_start;
            while self.peek() == Some(' ') {
                self.pos += 1;
            }
            if self.peek() == Some('\t') {
                self.skip_blanks();
                if indented && !matches!(self.peek(), None | Some('#')) && !self.peek().is_some_and(is_break)
                {
                    return self.problem("a tab is used to indent");
                }
            }
            let comment = self
                .text
                .get(..self.pos)
                .is_none_or(|before| !before.ends_with(|c: char| !" \t".contains(c) && !is_break(c)));
            if self.peek() == Some('#') && comment {
                while let Some(c) = self.peek().filter(|&c| !is_break(c)) {
                    self.advance(c);
                }
            }
            if self.take_break().is_none() {
                return Ok(());
            }
        }
    }

    fn document(&mut self) -> Read<Node> {
        self.skip_to_content()?;
        if self.peek() == Some('%') {
            return self.problem("YAML directives are not understood");
        }
        if self.at_document_marker() && self.rest().starts_with("---") {
            self.pos += 3;
        }
        let node = self.block(-1, false, 0)?;
        self.skip_to_content()?;
        if self.at_document_marker() && self.rest().starts_with("...") {
            self.pos += 3;
            self.skip_to_content()?;
        }
        if self.peek().is_some() {
            return self.problem("unexpected content after the document");
        }
        Ok(node)
    }

    /// A node on this line or the following ones, indented deeper than `parent`.
    fn block(&mut self, parent: Column, indentless: bool, depth: usize) -> Read<Node> {
        if depth > DEPTH_MAX {
            return self.problem("nested too deeply");
        }
        self.skip_to_content()?;
        let column = self.column();
        let sequence_here = indentless && column == parent && self.at_indicator('-');
        if self.peek().is_none() || self.at_document_marker() || (column <= parent && !sequence_here) {
            return Ok(Node::Scalar(Kind::Null, String::new()));
        }
        self.node(column, parent, depth)
    }

    /// The node whose first character stands here, at `column`.
    fn node(&mut self, column: Column, parent: Column, depth: usize) -> Read<Node> {
        if depth > DEPTH_MAX {
            return self.problem("nested too deeply");
        }
        if self.at_indicator('-') {
            return self.sequence(column, depth);
        }
        if self.at_indicator('?') {
            return self.mapping(column, depth);
        }
        let here = self.clone_position();
        let is_key = self.simple_key()?.is_some();
        self.restore_position(here);
        if is_key { self.mapping(column, depth) } else { self.scalar(parent, depth) }
    }

    fn sequence(&mut self, column: Column, depth: usize) -> Read<Node> {
        let mut items = Vec::new();
        loop {
            self.pos += 1;
            self.skip_blanks();
            let inline = self.peek().is_some_and(|c| !is_break(c) && c != '#');
            items.push(if inline {
                self.node(self.column(), column, depth + 1)?
            } else {
                self.block(column, false, depth + 1)?
            });
            self.skip_to_content()?;
            if self.peek().is_none() || self.column() != column || !self.at_indicator('-') {
                break;
            }
        }
        if self.peek().is_some() && self.column() > column {
            return self.problem("bad indentation of a sequence entry");
        }
        Ok(Node::Sequence(items))
    }

    fn mapping(&mut self, column: Column, depth: usize) -> Read<Node> {
        let mut pairs = Vec::new();
        loop {
            let complex = self.at_indicator('?');
            let key = if complex {
                self.pos += 1;
                self.skip_blanks();
                let inline = self.peek().is_some_and(|c| !is_break(c) && c != '#');
                let key = if inline {
                    self.node(self.column(), column, depth + 1)?
                } else {
                    self.block(column, false, depth + 1)?
                };
                self.skip_to_content()?;
                if self.column() != column || !self.at_indicator(':') {
                    return self.problem("a complex key has no value");
                }
                self.pos += 1;
                key
            } else {
                match self.simple_key()? {
                    Some(key) => key,
                    None => return self.problem("expected a key and a colon"),
                }
            };
            self.skip_blanks();
            let inline = self.peek().is_some_and(|c| !is_break(c) && c != '#');
            let value = if inline && complex {
                self.node(self.column(), column, depth + 1)?
            } else if inline {
                if self.at_indicator('-') {
                    return self.problem("a sequence cannot start on the line of its key");
                }
                self.scalar(column, depth + 1)?
            } else {
                self.block(column, true, depth + 1)?
            };
            pairs.push((key, value));
            self.skip_to_content()?;
            if self.peek().is_none() || self.at_document_marker() || self.column() < column {
                return Ok(Node::Mapping(pairs));
            }
            if self.column() > column {
                return self.problem("bad indentation of a mapping entry");
            }
        }
    }

    /// A key on one line with its colon; nothing if this is no key (the cursor is then anywhere on the line).
    fn simple_key(&mut self) -> Read<Option<Node>> {
        let key = match self.peek() {
            Some(quote @ ('\'' | '"')) => {
                let line = self.line_start;
                let text = self.quoted(quote)?;
                self.skip_blanks();
                if self.line_start != line || !self.at_indicator(':') {
                    return Ok(None);
                }
                Node::text(text)
            }
            Some('[' | '{' | '#' | '|' | '>') => return Ok(None),
            Some('&' | '*' | '!' | '%' | '@' | '`') => {
                return self.problem("anchors and tags are not understood");
            }
            _ => {
                let start = self.pos;
                loop {
                    match self.peek() {
                        Some(':') if self.at_indicator(':') => break,
                        Some('#')
                            if self.text.get(start..self.pos).is_some_and(|t| t.ends_with([' ', '\t'])) =>
                        {
                            return Ok(None);
                        }
                        Some(c) if !is_break(c) => self.advance(c),
                        _ => return Ok(None),
                    }
                }
                let text = self.text.get(start..self.pos).unwrap_or("").trim_end_matches([' ', '\t']);
                Node::Scalar(resolve(text), text.to_owned())
            }
        };
        self.pos += 1;
        Ok(Some(key))
    }

    /// A scalar or a flow collection that starts here and fills the rest of the line.
    fn scalar(&mut self, parent: Column, depth: usize) -> Read<Node> {
        let node = match self.peek() {
            Some(quote @ ('\'' | '"')) => Node::text(self.quoted(quote)?),
            Some('[' | '{') => self.flow(depth)?,
            Some('|' | '>') => return self.problem("block scalars are not understood"),
            Some('&' | '*' | '!' | '%' | '@' | '`') => {
                return self.problem("anchors and tags are not understood");
            }
            _ => {
                let text = self.plain(parent, false)?;
                return Ok(Node::Scalar(resolve(&text), text));
            }
        };
        let end = self.pos;
        self.skip_blanks();
        match self.peek() {
            None => Ok(node),
            Some('#') if self.pos > end => Ok(node),
            Some(c) if is_break(c) => Ok(node),
            _ => self.problem("unexpected text after a value"),
        }
    }

    fn flow(&mut self, depth: usize) -> Read<Node> {
        if depth > DEPTH_MAX {
            return self.problem("nested too deeply");
        }
        let is_mapping = self.peek() == Some('{');
        let close = if is_mapping { '}' } else { ']' };
        self.pos += 1;
        let (mut items, mut pairs) = (Vec::new(), Vec::new());
        loop {
            self.skip_to_content()?;
            if self.peek() == Some(close) {
                self.pos += 1;
                return Ok(if is_mapping { Node::Mapping(pairs) } else { Node::Sequence(items) });
            }
            let item = self.flow_node(depth)?;
            self.skip_to_content()?;
            if is_mapping {
                let mut value = Node::Scalar(Kind::Null, String::new());
                if self.peek() == Some(':') {
                    self.pos += 1;
                    self.skip_to_content()?;
                    if !matches!(self.peek(), Some(',' | '}')) {
                        value = self.flow_node(depth)?;
                        self.skip_to_content()?;
                    }
                }
                pairs.push((item, value));
            } else {
                items.push(item);
            }
            match self.peek() {
                Some(',') => self.pos += 1,
                Some(c) if c == close => {}
                _ => return self.problem("expected a comma or the end of a flow collection"),
            }
        }
    }

    fn flow_node(&mut self, depth: usize) -> Read<Node> {
        match self.peek() {
            Some(quote @ ('\'' | '"')) => Ok(Node::text(self.quoted(quote)?)),
            Some('[' | '{') => self.flow(depth + 1),
            Some('&' | '*' | '!' | '%' | '@' | '`' | '|' | '>') => {
                self.problem("anchors and tags are not understood")
            }
            None => self.problem("a flow collection does not end"),
            _ => {
                let text = self.plain(-1, true)?;
                if text.is_empty() {
                    return self.problem("expected a value");
                }
                Ok(Node::Scalar(resolve(&text), text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem_of(text: &str) -> YamlProblem {
        read(text.as_bytes()).expect_err(text)
    }

    #[test]
    fn hand_written_files_are_read() {
        let node = read(
            b"# comment\n---\nname:   my run  # trailing\nlist:\n  - a\n  - b: 1\n    c: 'it''s'\nother: {a: 1, b: [x, y z], c: }\n\
              folded: one\n  two\n\n  three\nempty:\nquoted: \"a\\x41\\\n   b\"\nurl: http://a#b\n...\n",
        )
        .unwrap();
        assert_eq!(node.get("name"), Some(&Node::text("my run")));
        let Some(Node::Sequence(list)) = node.get("list") else { panic!("a list") };
        assert_eq!(list[1].get("c"), Some(&Node::text("it's")));
        assert_eq!(
            node.get("other").unwrap().get("b"),
            Some(&Node::Sequence(vec![Node::text("x"), Node::text("y z")]))
        );
        assert!(node.get("other").unwrap().get("c").unwrap().is_null());
        assert_eq!(node.get("folded"), Some(&Node::text("one two\nthree")));
        assert!(node.get("empty").unwrap().is_null());
        assert_eq!(node.get("quoted"), Some(&Node::text("aAb")));
        assert_eq!(node.get("url"), Some(&Node::text("http://a#b")));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        for (text, line) in [
            ("a: 1\nb: &x 2\n", 2),
            ("a: *x\n", 1),
            ("a: !!str 1\n", 1),
            ("a: |\n  x\n", 1),
            ("a: b: c\n", 1),
            ("a: 'x\n", 2),
            ("a: 1\n  b: 2\n", 2),
            ("a: [1, 2\n", 2),
            ("a:\n\tb: 1\n", 2),
            ("a: \"\\q\"\n", 1),
            ("a: 1\nb\n", 2),
            ("%YAML 1.1\n---\na: 1\n", 1),
            ("a: 1\n---\nb: 1\n", 2),
            ("a: \u{7}\n", 1),
            ("a: 'x' y\n", 1),
        ] {
            let problem = problem_of(text);
            assert_eq!(problem.line, line, "{text:?}: {problem:?}");
        }
        assert_eq!(read(b"a: 1\nb: \xff\n").unwrap_err(), YamlProblem { line: 2, text: "not UTF-8" });
        assert!(problem_of(&"[".repeat(100_000)).text.contains("deep"));
        assert!(problem_of(&"- ".repeat(100_000)).text.contains("deep"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "[-?:,\\[\\]{}'\"#&*!|>%@` \n\ta-c\\\\0-9]{0,60}") {
            let _ = read(&bytes);
            let _ = read(text.as_bytes());
        }
    }
}
