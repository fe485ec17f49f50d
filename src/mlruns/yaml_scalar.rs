//! The multi-line scalars of YAML: plain, single and double quoted, with libyaml's folding.
//!
//! Contract: a line break between words is a blank, n breaks are n - 1 line feeds, U+2028 and U+2029 stay; blanks
//! around breaks are dropped. Escapes are those of YAML 1.1.

use super::yaml_read::{Source, YamlProblem};

/// Whether libyaml ends a line here.
pub(super) const fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Joins two lines of a scalar.
fn fold(text: &mut String, breaks: &str) {
    match breaks.strip_prefix('\n') {
        Some("") => text.push(' '),
        Some(rest) => text.push_str(rest),
        None => text.push_str(breaks),
    }
}

impl Source<'_> {
    /// A plain scalar; continuation lines are indented deeper than `parent`.
    pub(super) fn plain(&mut self, parent: i64, in_flow: bool) -> Result<String, YamlProblem> {
        let mut text = String::new();
        loop {
            let start = self.pos;
            while let Some(c) = self.peek().filter(|&c| !is_break(c)) {
                let line = self.text.get(start..self.pos).unwrap_or("");
                if c == '#' && (line.is_empty() || line.ends_with([' ', '\t'])) {
                    break;
                }
                if in_flow && matches!(c, ',' | '[' | ']' | '{' | '}') {
                    break;
                }
                if c == ':' {
                    let next = self.rest().chars().nth(1);
                    if in_flow && next.is_some_and(|c| ",[]{}".contains(c)) {
                        break;
                    }
                    if self.at_indicator(':') {
                        if in_flow {
                            break;
                        }
                        return self.problem("a mapping cannot start here");
                    }
                }
                self.advance(c);
            }
            let line = self.text.get(start..self.pos).unwrap_or("");
            text.push_str(line.trim_end_matches([' ', '\t']));
            if !self.peek().is_some_and(is_break) {
                return Ok(text);
            }
            let before = self.clone_position();
            let mut breaks = String::new();
            while let Some(folded) = self.take_break() {
                breaks.push(folded);
                while self.peek() == Some(' ') {
                    self.pos += 1;
                }
            }
            let ends = match self.peek() {
                None | Some('#') => true,
                _ => self.column() <= parent || self.at_document_marker(),
            };
            if ends || in_flow && self.peek().is_some_and(|c| ",[]{}:".contains(c)) {
                self.restore_position(before);
                return Ok(text);
            }
            fold(&mut text, &breaks);
        }
    }

    /// A quoted scalar, the cursor on the opening quote.
    pub(super) fn quoted(&mut self, quote: char) -> Result<String, YamlProblem> {
        self.pos += 1;
        let mut text = String::new();
        loop {
            let Some(c) = self.peek() else { return self.problem("a quoted text does not end") };
            if c == quote {
                self.pos += 1;
                if quote == '\'' && self.peek() == Some('\'') {
                    text.push('\'');
                    self.pos += 1;
                    continue;
                }
                return Ok(text);
            }
            if c == '\\' && quote == '"' {
                self.pos += 1;
                if self.peek().is_some_and(is_break) {
                    self.take_break();
                    let breaks = self.further_breaks();
                    text.push_str(&breaks);
                } else {
                    let c = self.escape()?;
                    text.push(c);
                }
            } else if is_break(c) {
                let mut breaks: String = self.take_break().into_iter().collect();
                if self.at_document_marker() {
                    return self.problem("a quoted text does not end before the document does");
                }
                breaks.push_str(&self.further_breaks());
                fold(&mut text, &breaks);
            } else if c == ' ' || c == '\t' {
                let start = self.pos;
                self.skip_blanks();
                if !self.peek().is_some_and(is_break) {
                    text.push_str(self.text.get(start..self.pos).unwrap_or(""));
                }
            } else {
                text.push(c);
                self.advance(c);
            }
        }
    }

    fn further_breaks(&mut self) -> String {
        let mut breaks = String::new();
        loop {
            self.skip_blanks();
            match self.take_break() {
                Some(folded) => breaks.push(folded),
                None => return breaks,
            }
        }
    }

    fn escape(&mut self) -> Result<char, YamlProblem> {
        let Some(c) = self.peek() else { return self.problem("a quoted text does not end") };
        self.advance(c);
        let digits = match c {
            '0' => return Ok('\0'),
            'a' => return Ok('\x07'),
            'b' => return Ok('\x08'),
            't' | '\t' => return Ok('\t'),
            'n' => return Ok('\n'),
            'v' => return Ok('\x0b'),
            'f' => return Ok('\x0c'),
            'r' => return Ok('\r'),
            'e' => return Ok('\x1b'),
            ' ' | '"' | '/' | '\\' => return Ok(c),
            'N' => return Ok('\u{85}'),
            '_' => return Ok('\u{a0}'),
            'L' => return Ok('\u{2028}'),
            'P' => return Ok('\u{2029}'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return self.problem("an unknown escape"),
        };
        let code = self.rest().get(..digits).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
        match code.and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32) {
            Some(c) => {
                self.pos += digits;
                Ok(c)
            }
            None => self.problem("an escape is no character"),
        }
    }
}
