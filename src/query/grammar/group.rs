//! Tokens to comparisons, words and leftovers.
//!
//! Contract: linear and total. What does not join to a comparison stays as single items, which the dialects then use
//! or refuse; so refusals list the same pieces that MLflow lists.

use super::Dialect;
use super::lex::{Kind, Token};

/// How a comparison compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Comparator {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `LIKE`
    Like,
    /// `ILIKE`
    Ilike,
    /// `IN`
    In,
    /// `NOT IN`
    NotIn,
    /// `IS NULL`
    IsNull,
    /// `IS NOT NULL`
    IsNotNull,
    /// Something that looks like one and that no entity knows (`==`, `RLIKE`), in capitals.
    Unknown(String),
}

impl Comparator {
    /// As MLflow spells it in messages.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Like => "LIKE",
            Self::Ilike => "ILIKE",
            Self::In => "IN",
            Self::NotIn => "NOT IN",
            Self::IsNull => "IS NULL",
            Self::IsNotNull => "IS NOT NULL",
            Self::Unknown(text) => text,
        }
    }

    fn of_symbol(text: &str) -> Self {
        match text {
            "=" => Self::Equal,
            "!=" => Self::NotEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterEqual,
            "<" => Self::Less,
            "<=" => Self::LessEqual,
            other => Self::Unknown(other.to_owned()),
        }
    }
}

/// The right side of a comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand<'a> {
    /// None: `IS NULL`, `IS NOT NULL`.
    Nothing,
    /// One token.
    One(Token<'a>),
    /// A list in parentheses: as written, and the tokens inside.
    List(&'a str, &'a [Token<'a>]),
}

/// A comparison, nothing in it checked yet.
#[derive(Clone, Debug)]
pub(crate) struct Comparison<'a> {
    /// The left side.
    pub(crate) left: Token<'a>,
    /// How.
    pub(crate) comparator: Comparator,
    /// The right side.
    pub(crate) operand: Operand<'a>,
}

/// What a filter consists of.
#[derive(Clone, Debug)]
pub(crate) enum Item<'a> {
    /// A comparison.
    Comparison(Comparison<'a>),
    /// `AND`
    And(&'a str),
    /// `OR`
    Or(&'a str),
    /// `NOT`
    Not(&'a str),
    /// `(`
    Open(&'a str),
    /// `)`
    Close(&'a str),
    /// Anything else; for MLflow's dialect also a whole pair of parentheses with what is in it.
    Stray(&'a str),
}

impl Item<'_> {
    /// As written; of a comparison its left side.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Comparison(comparison) => comparison.left.text,
            Self::And(text)
            | Self::Or(text)
            | Self::Not(text)
            | Self::Open(text)
            | Self::Close(text)
            | Self::Stray(text) => text,
        }
    }
}

/// Joins the tokens of `text`.
pub(crate) fn group<'a>(text: &'a str, tokens: &'a [Token<'a>], dialect: Dialect) -> Vec<Item<'a>> {
    let source = Source { text, tokens, partners: partners(tokens) };
    let mut items = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let (item, next) = match source.comparison(at) {
            Some((comparison, next)) => (Item::Comparison(comparison), next),
            None if token.is_keyword("AND") => (Item::And(token.text), at + 1),
            None if token.is_keyword("OR") => (Item::Or(token.text), at + 1),
            None if token.is_keyword("NOT") => (Item::Not(token.text), at + 1),
            None if dialect == Dialect::MlFlow => match source.list(at) {
                Some((Operand::List(whole, _), next)) => (Item::Stray(whole), next),
                _ => (Item::Stray(token.text), at + 1),
            },
            None if token.kind == Kind::Open => (Item::Open(token.text), at + 1),
            None if token.kind == Kind::Close => (Item::Close(token.text), at + 1),
            None => (Item::Stray(token.text), at + 1),
        };
        items.push(item);
        at = next;
    }
    items
}

/// For every `(` the position of its `)`, found once so that unclosed ones cost nothing later.
fn partners(tokens: &[Token<'_>]) -> Vec<Option<usize>> {
    let mut partners = vec![None; tokens.len()];
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Open => open.push(at),
            Kind::Close => {
                if let Some(partner) = open.pop().and_then(|start: usize| partners.get_mut(start)) {
                    *partner = Some(at);
                }
            }
            _ => {}
        }
    }
    partners
}

struct Source<'a> {
    text: &'a str,
    tokens: &'a [Token<'a>],
    partners: Vec<Option<usize>>,
}

impl<'a> Source<'a> {
    fn is_keyword(&self, at: usize, keyword: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_keyword(keyword))
    }

    /// The comparison that starts at a token, and the token after it.
    fn comparison(&self, at: usize) -> Option<(Comparison<'a>, usize)> {
        let left = *self.tokens.get(at).filter(|token| is_operand(token))?;
        let (comparator, at) = self.comparator(at + 1)?;
        let (operand, next) = match comparator {
            Comparator::IsNull | Comparator::IsNotNull => (Operand::Nothing, at),
            Comparator::In | Comparator::NotIn => self.list(at)?,
            _ => match self.tokens.get(at).filter(|token| is_operand(token)) {
                Some(token) => (Operand::One(*token), at + 1),
                None => self.list(at)?,
            },
        };
        Some((Comparison { left, comparator, operand }, next))
    }

    /// The comparator at a token, and the token after it.
    fn comparator(&self, at: usize) -> Option<(Comparator, usize)> {
        let token = self.tokens.get(at)?;
        if token.kind == Kind::Symbol {
            return Some((Comparator::of_symbol(token.text), at + 1));
        }
        let word = token.text.to_ascii_uppercase();
        let of_word = match word.as_str() {
            _ if token.kind != Kind::Word => return None,
            "LIKE" => Comparator::Like,
            "ILIKE" => Comparator::Ilike,
            "RLIKE" => Comparator::Unknown(word),
            "IN" => Comparator::In,
            "IS" if self.is_keyword(at + 1, "NULL") => return Some((Comparator::IsNull, at + 2)),
            "IS" if self.is_keyword(at + 1, "NOT") && self.is_keyword(at + 2, "NULL") => {
                return Some((Comparator::IsNotNull, at + 3));
            }
            "NOT" if self.is_keyword(at + 1, "IN") => return Some((Comparator::NotIn, at + 2)),
            "NOT" => {
                let negated =
                    ["LIKE", "ILIKE", "RLIKE"].into_iter().find(|word| self.is_keyword(at + 1, word))?;
                return Some((Comparator::Unknown(format!("NOT {negated}")), at + 2));
            }
            _ => return None,
        };
        Some((of_word, at + 1))
    }

    /// The parentheses that open at a token, and the token after them.
    fn list(&self, at: usize) -> Option<(Operand<'a>, usize)> {
        let close = (*self.partners.get(at)?)?;
        let (first, last) = (self.tokens.get(at)?, self.tokens.get(close)?);
        let whole = self.text.get(first.start..last.start + last.text.len())?;
        Some((Operand::List(whole, self.tokens.get(at + 1..close)?), close + 1))
    }
}

/// Whether a token can be a side of a comparison.
fn is_operand(token: &Token<'_>) -> bool {
    matches!(token.kind, Kind::Word | Kind::WideWord | Kind::Text | Kind::Number)
        && !["AND", "OR", "NOT"].iter().any(|keyword| token.is_keyword(keyword))
}

#[cfg(test)]
mod tests {
    use super::super::lex::tokens;
    use super::*;

    fn shape(text: &str, dialect: Dialect) -> Vec<String> {
        let tokens = tokens(text);
        let items = group(text, &tokens, dialect);
        let show = |item: &Item<'_>| match item {
            Item::Comparison(c) => format!("[{} {}]", c.left.text, c.comparator.as_str()),
            other => other.text().to_owned(),
        };
        items.iter().map(show).collect()
    }

    #[test]
    fn comparisons_are_joined_and_the_rest_stays() {
        let text = "a = 1 and not b is not null or (run_id in ('x'))";
        assert_eq!(
            shape(text, Dialect::Extended),
            ["[a =]", "and", "not", "[b IS NOT NULL]", "or", "(", "[run_id IN]", ")"]
        );
        assert_eq!(
            shape(text, Dialect::MlFlow),
            ["[a =]", "and", "not", "[b IS NOT NULL]", "or", "(run_id in ('x'))"]
        );
    }

    #[test]
    fn half_a_comparison_is_not_one() {
        assert_eq!(shape("a >", Dialect::MlFlow), ["a", ">"]);
        assert_eq!(shape("a = AND b", Dialect::MlFlow), ["a", "=", "AND", "b"]);
        assert_eq!(shape("a IN 'x'", Dialect::MlFlow), ["a", "IN", "'x'"]);
        assert_eq!(shape("a IN ('x'", Dialect::MlFlow), ["a", "IN", "(", "'x'"]);
        assert_eq!(shape("a between 1 and 2", Dialect::MlFlow), ["a", "between", "1", "and", "2"]);
        assert_eq!(shape("a NOT LIKE 'x'", Dialect::MlFlow), ["[a NOT LIKE]"]);
    }
}
