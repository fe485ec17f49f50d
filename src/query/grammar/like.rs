//! LIKE and ILIKE of SQL.
//!
//! Contract: `%` is any run of characters, `_` exactly one, nothing escapes them, the whole value must match. Matching
//! does not allocate or recurse and takes at most pattern times value steps; plain, `x%`, `%x` and `%x%` patterns of
//! LIKE take linear time. ILIKE compares characters by their lower-case forms.

use crate::error::{Error, Result};
use crate::limits::LIKE_PATTERN_BYTES_MAX;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pattern {
    /// No wildcard.
    Whole(String),
    /// `x%`
    Start(String),
    /// `%x`
    End(String),
    /// `%x%`
    Within(String),
    /// Anything else, and every ILIKE.
    Any {
        /// The pattern as written.
        pattern: String,
        /// Whether case is ignored.
        ignore_case: bool,
    },
}

impl Pattern {
    /// Compiles a pattern.
    pub(crate) fn new(pattern: &str, ignore_case: bool) -> Result<Self> {
        if pattern.len() > LIKE_PATTERN_BYTES_MAX {
            return Err(Error::invalid(format!(
                "Invalid filter: a LIKE pattern has {} bytes, at most {LIKE_PATTERN_BYTES_MAX} are allowed",
                pattern.len()
            )));
        }
        let open_start = pattern.strip_prefix('%');
        let rest = open_start.unwrap_or(pattern);
        let open_end = rest.strip_suffix('%');
        let middle = open_end.unwrap_or(rest);
        if ignore_case || middle.contains(['%', '_']) {
            return Ok(Self::Any { pattern: pattern.to_owned(), ignore_case });
        }
        let middle = middle.to_owned();
        Ok(match (open_start.is_some(), open_end.is_some()) {
            (false, false) => Self::Whole(middle),
            (false, true) => Self::Start(middle),
            (true, false) => Self::End(middle),
            (true, true) => Self::Within(middle),
        })
    }

    /// Whether the value matches.
    pub(crate) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Whole(text) => value == text,
            Self::Start(text) => value.starts_with(text.as_str()),
            Self::End(text) => value.ends_with(text.as_str()),
            Self::Within(text) => value.contains(text.as_str()),
            Self::Any { pattern, ignore_case: false } => wildcard(pattern, value, |a, b| a == b),
            Self::Any { pattern, ignore_case: true } => wildcard(pattern, value, same_letter),
        }
    }
}

fn same_letter(a: char, b: char) -> bool {
    a == b || a.to_lowercase().eq(b.to_lowercase())
}

/// Greedy matching that goes back only to the latest `%`: an earlier one never needs another try, because what stands
/// between the two was matched at its leftmost place.
fn wildcard(pattern: &str, value: &str, same: impl Fn(char, char) -> bool) -> bool {
    let (mut pattern, mut value) = (pattern.chars(), value.chars());
    let mut retry = None;
    loop {
        let mut pattern_next = pattern.clone();
        let mut value_next = value.clone();
        match (pattern_next.next(), value_next.next()) {
            (None, None) => return true,
            (Some('%'), _) => {
                pattern = pattern_next;
                retry = Some((pattern.clone(), value.clone()));
            }
            (Some(wanted), Some(found)) if wanted == '_' || same(wanted, found) => {
                (pattern, value) = (pattern_next, value_next);
            }
            (_, None) => return false,
            (_, Some(_)) => {
                let Some((after_percent, from)) = &mut retry else { return false };
                from.next();
                (pattern, value) = (after_percent.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn like(value: &str, pattern: &str) -> bool {
        Pattern::new(pattern, false).unwrap().matches(value)
    }

    fn ilike(value: &str, pattern: &str) -> bool {
        Pattern::new(pattern, true).unwrap().matches(value)
    }

    #[test]
    fn the_whole_value_must_match() {
        for (value, pattern) in [
            ("", ""),
            ("", "%"),
            ("abc", "abc"),
            ("abc", "a%"),
            ("abc", "%c"),
            ("abc", "%b%"),
            ("abc", "a_c"),
            ("abc", "___"),
            ("abc", "%%%"),
            ("a\nb", "a%b"),
            ("a.c", "a.c"),
            ("é", "_"),
            ("aXbXc", "a%b%c"),
            ("aab", "%ab"),
            ("%", "%"),
            ("mississippi", "%iss%pi"),
            ("ab", "%_b"),
        ] {
            assert!(like(value, pattern), "{value:?} LIKE {pattern:?}");
        }
        for (value, pattern) in [
            ("abc", "ab"),
            ("abc", "bc"),
            ("abc", "ABC"),
            ("abc", "____"),
            ("abc", "_"),
            ("abc", "a.c"),
            ("", "_"),
            ("xabc", "a%"),
            ("abcx", "%c"),
            ("a%", "a\\%"),
            ("aab", "a%aab"),
        ] {
            assert!(!like(value, pattern), "{value:?} LIKE {pattern:?}");
        }
    }

    #[test]
    fn ilike_ignores_case_of_any_letter() {
        assert!(ilike("ABC", "a_c") && ilike("abc", "%B%") && ilike("\u{c9}t\u{e9}", "\u{e9}T%"));
        assert!(!ilike("abc", "ab"));
    }

    #[test]
    fn hostile_patterns_take_no_exponential_time() {
        let value = "a".repeat(8_000);
        let pattern = format!("{}b", "%a".repeat(4_000));
        assert!(!like(&value, &pattern));
        assert!(Pattern::new(&"%".repeat(LIKE_PATTERN_BYTES_MAX + 1), false).is_err());
    }

    /// The definition, one character at a time.
    fn by_definition(pattern: &[char], value: &[char]) -> bool {
        match (pattern, value) {
            ([], _) => value.is_empty(),
            (['%', rest @ ..], _) => (0..=value.len()).any(|n| by_definition(rest, &value[n..])),
            (['_', rest @ ..], [_, tail @ ..]) => by_definition(rest, tail),
            ([p, rest @ ..], [v, tail @ ..]) => p == v && by_definition(rest, tail),
            (_, []) => false,
        }
    }

    proptest! {
        #[test]
        fn equals_the_definition(pattern in "[ab%_\u{e9}]{0,8}", value in "[ab\u{e9}]{0,10}") {
            let (p, v): (Vec<char>, Vec<char>) = (pattern.chars().collect(), value.chars().collect());
            let expected = by_definition(&p, &v);
            prop_assert_eq!(like(&value, &pattern), expected);
            prop_assert_eq!(ilike(&value.to_uppercase(), &pattern), expected);
        }
    }
}
