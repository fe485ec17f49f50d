//! Filter text to tokens.
//!
//! Contract: total and linear; every byte that is not white space belongs to exactly one token, in order. The shapes
//! are those of `sqlparse`, MLflow's tokeniser, as far as filters can tell.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or keyword: names and quoted parts joined by dots, as written. Text in double quotes is one too.
    Word,
    /// A word with characters that MLflow wants quoted (`train/loss`).
    WideWord,
    /// Text in single quotes, quotes included.
    Text,
    /// A number.
    Number,
    /// A run of `<>=!~`.
    Symbol,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// A comment of SQL.
    Comment,
    /// Any other character, and a quote that is never closed.
    Other,
}

/// A piece of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// As written.
    pub(crate) text: &'a str,
    /// Where it starts, in bytes.
    pub(crate) start: usize,
}

impl Token<'_> {
    /// Whether it is this keyword (given in capitals), in any case.
    pub(crate) fn is_keyword(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword)
    }
}

/// All tokens of a text.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (kind, len) = token(rest, first);
        let (token, after) = rest.split_at(len.max(first.len_utf8()));
        found.push(Token { kind, text: token, start: text.len() - rest.len() });
        rest = after.trim_start();
    }
    found
}

/// Kind and length of the token that `rest` starts with.
fn token(rest: &str, first: char) -> (Kind, usize) {
    match first {
        '(' => (Kind::Open, 1),
        ')' => (Kind::Close, 1),
        ',' => (Kind::Comma, 1),
        ';' => (Kind::Semicolon, 1),
        '<' | '>' | '=' | '!' | '~' => (Kind::Symbol, span(rest, |c| "<>=!~".contains(c))),
        '\'' => match quoted(rest, '\'') {
            Some(len) => (Kind::Text, len),
            None => (Kind::Other, 1),
        },
        '-' if rest.starts_with("--") => (Kind::Comment, span(rest, |c| c != '\n')),
        '#' if rest.starts_with("# ") => (Kind::Comment, span(rest, |c| c != '\n')),
        '/' if rest.starts_with("/*") => {
            let len = rest.get(2..).and_then(|body| body.find("*/")).map_or(rest.len(), |at| at + 4);
            (Kind::Comment, len)
        }
        '-' | '.' | '0'..='9' => match number(rest) {
            Some(len) if !rest.get(len..).is_some_and(|after| after.starts_with(is_name)) => {
                (Kind::Number, len)
            }
            Some(_) if first != '-' && first != '.' => word(rest),
            _ => (Kind::Other, 1),
        },
        '`' | '"' => match word(rest) {
            (_, 0) => (Kind::Other, 1),
            word => word,
        },
        _ if is_name(first) => word(rest),
        _ => (Kind::Other, first.len_utf8()),
    }
}

/// A character of an unquoted name.
fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A character that only the extended dialect takes in an unquoted name.
fn is_wide(c: char) -> bool {
    matches!(c, '/' | '-' | ':' | '@' | '$')
}

/// Bytes at the start of `text` whose characters all pass.
fn span(text: &str, passes: impl Fn(char) -> bool) -> usize {
    text.find(|c| !passes(c)).unwrap_or(text.len())
}

/// Length of a number at the start: `-?` digits with at most one point, then an exponent if it is complete.
fn number(text: &str) -> Option<usize> {
    let digits = |from: usize| text.get(from..).map_or(0, |rest| span(rest, |c| c.is_ascii_digit()));
    let at = |from: usize| text.as_bytes().get(from).copied();
    let sign = usize::from(at(0) == Some(b'-'));
    let whole = digits(sign);
    let mut end = sign + whole;
    if at(end) == Some(b'.') {
        let fraction = digits(end + 1);
        if whole + fraction == 0 {
            return None;
        }
        end += 1 + fraction;
    } else if whole == 0 {
        return None;
    }
    if matches!(at(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(at(end + 1), Some(b'-' | b'+')));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    Some(end)
}

/// Length of quoted text at the start, quotes included; none if it is never closed.
///
/// As in `sqlparse` a doubled quote, and one after a backslash, belong to the text (and stay in it); if the text
/// would then never end, the last such quote ends it after all, so that `'C:\'` is whole.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut last_resort = None;
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        let next_is_quote = characters.peek().is_some_and(|&(_, next)| next == quote);
        if c == '\\' && quote != '`' && next_is_quote {
            last_resort = Some(at + 2);
            characters.next();
        } else if c == quote && next_is_quote {
            last_resort = Some(at + 1);
            characters.next();
        } else if c == quote {
            return Some(at + 1);
        }
    }
    last_resort
}

/// Kind and length of the word at the start: parts joined by dots, each a name or quoted. Length 0 if the first
/// part is a quote that is never closed.
fn word(text: &str) -> (Kind, usize) {
    let mut end = 0;
    let mut kind = Kind::Word;
    loop {
        let part = text.get(end..).unwrap_or_default();
        let len = match part.chars().next() {
            Some(quote @ ('`' | '"')) => quoted(part, quote),
            Some('\'') if end > 0 => quoted(part, '\''),
            Some(first) if is_name(first) || (end > 0 && is_wide(first)) => {
                let len = name(part);
                if part.get(..len).is_some_and(|name| name.contains(is_wide)) {
                    kind = Kind::WideWord;
                }
                Some(len)
            }
            _ => None,
        };
        match len {
            Some(len) => end += len,
            // A dot that nothing follows is no part of the word.
            None => return (kind, end.saturating_sub(1)),
        }
        if !text.get(end..).is_some_and(|rest| rest.starts_with('.')) {
            return (kind, end);
        }
        end += 1;
    }
}

/// Length of an unquoted name, wide characters included; it ends where a comment starts.
fn name(text: &str) -> usize {
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let next = characters.peek().map(|&(_, next)| next);
        let comment = matches!((c, next), ('-', Some('-')) | ('/', Some('*')));
        if comment || !(is_name(c) || is_wide(c)) {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<(Kind, &str)> {
        tokens(text).into_iter().map(|t| (t.kind, t.text)).collect()
    }

    #[test]
    fn a_clause_is_cut_with_or_without_white_space() {
        let expected = [(Kind::Word, "metrics.a"), (Kind::Symbol, ">="), (Kind::Number, "-1.5e-3")];
        assert_eq!(cut("metrics.a >= -1.5e-3"), expected);
        assert_eq!(cut("metrics.a>=-1.5e-3"), expected);
        assert_eq!(cut("\u{a0}\tmetrics.a\n>=\r\n-1.5e-3 "), expected);
    }

    #[test]
    fn quoted_parts_belong_to_their_word() {
        for word in
            ["params.`a b`", "params.\"a.b\"", "`run name`", "params.`a``b`", "`metrics`.a", "params.'x y'"]
        {
            assert_eq!(cut(word), [(Kind::Word, word)], "{word}");
        }
        assert_eq!(cut("metrics.train/loss-1"), [(Kind::WideWord, "metrics.train/loss-1")]);
        assert_eq!(cut("metrics.a."), [(Kind::Word, "metrics.a"), (Kind::Other, ".")]);
        assert_eq!(
            cut("metrics.`a"),
            [(Kind::Word, "metrics"), (Kind::Other, "."), (Kind::Other, "`"), (Kind::Word, "a")]
        );
    }

    #[test]
    fn text_ends_where_sqlparse_ends_it() {
        for text in ["''", "'it''s'", r"'it\'s'", r"'C:\'", "'a\nb'", "'--'", "'\u{1f600}'"] {
            assert_eq!(cut(text), [(Kind::Text, text)], "{text}");
        }
        assert_eq!(cut("'a''"), [(Kind::Text, "'a'"), (Kind::Other, "'")]);
        assert_eq!(cut("'open"), [(Kind::Other, "'"), (Kind::Word, "open")]);
    }

    #[test]
    fn numbers_and_what_only_looks_like_one() {
        for number in ["1", "-1", "1.", ".5", "-.5", "1.5", "1e5", "1E-5", "1e+5", "-2.e3", "007"] {
            assert_eq!(cut(number), [(Kind::Number, number)], "{number}");
        }
        for word in ["5m", "0x10", "1e", "1loss"] {
            assert_eq!(cut(word), [(Kind::Word, word)], "{word}");
        }
        assert_eq!(cut("+1"), [(Kind::Other, "+"), (Kind::Number, "1")]);
        assert_eq!(cut("- 1"), [(Kind::Other, "-"), (Kind::Number, "1")]);
    }

    #[test]
    fn comments_run_to_their_end() {
        assert_eq!(cut("a -- b\nc"), [(Kind::Word, "a"), (Kind::Comment, "-- b"), (Kind::Word, "c")]);
        assert_eq!(cut("a /* b */ c"), [(Kind::Word, "a"), (Kind::Comment, "/* b */"), (Kind::Word, "c")]);
        assert_eq!(cut("a/* b"), [(Kind::Word, "a"), (Kind::Comment, "/* b")]);
        assert_eq!(cut("a--b"), [(Kind::Word, "a"), (Kind::Comment, "--b")]);
    }

    proptest::proptest! {
        #[test]
        fn every_character_but_white_space_is_in_one_token(text in "[\\PC\n'\"`\\\\.()/*-]{0,60}") {
            let mut end = 0;
            for token in tokens(&text) {
                assert_eq!(text.get(token.start..token.start + token.text.len()), Some(token.text));
                assert!(text[end..token.start].trim().is_empty());
                assert!(!token.text.is_empty());
                end = token.start + token.text.len();
            }
            assert!(text[end..].trim().is_empty());
        }
    }
}
