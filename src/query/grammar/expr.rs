//! The tree of a filter, generic over its comparisons.
//!
//! Contract: no deeper than [`FILTER_DEPTH_MAX`] and no larger than [`FILTER_CLAUSES_MAX`], so recursion over it is
//! bounded. Truth is two-valued: a comparison holds or not, and NOT inverts that.

use crate::error::{Error, Result};
use crate::limits::{FILTER_BYTES_MAX, FILTER_CLAUSES_MAX, FILTER_DEPTH_MAX};

use super::Dialect;
use super::clause::clip;
use super::group::{Comparison, Item, group};
use super::lex::{Kind, tokens};

/// Comparisons joined by AND, OR, NOT.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr<C> {
    /// One comparison.
    Clause(C),
    /// All hold; an empty list holds.
    And(Vec<Expr<C>>),
    /// At least one holds.
    Or(Vec<Expr<C>>),
    /// It does not hold.
    Not(Box<Expr<C>>),
}

impl<C> Expr<C> {
    /// Whether the expression holds, given which comparisons hold.
    pub(crate) fn holds(&self, test: &impl Fn(&C) -> bool) -> bool {
        match self {
            Self::Clause(clause) => test(clause),
            Self::And(parts) => parts.iter().all(|part| part.holds(test)),
            Self::Or(parts) => parts.iter().any(|part| part.holds(test)),
            Self::Not(part) => !part.holds(test),
        }
    }

    /// The same tree over other comparisons; the first failure ends it.
    fn try_map<D>(self, compile: &mut impl FnMut(C) -> Result<D>) -> Result<Expr<D>> {
        Ok(match self {
            Self::And(parts) => Expr::And(try_map_all(parts, compile)?),
            Self::Or(parts) => Expr::Or(try_map_all(parts, compile)?),
            Self::Clause(clause) => Expr::Clause(compile(clause)?),
            Self::Not(part) => Expr::Not(Box::new(part.try_map(compile)?)),
        })
    }
}

fn try_map_all<C, D>(parts: Vec<Expr<C>>, compile: &mut impl FnMut(C) -> Result<D>) -> Result<Vec<Expr<D>>> {
    parts.into_iter().map(|part| part.try_map(compile)).collect()
}

/// Parses a filter; `compile` turns each comparison into what an entity can test.
pub(crate) fn parse<D>(
    text: &str,
    dialect: Dialect,
    mut compile: impl FnMut(Comparison<'_>) -> Result<D>,
) -> Result<Expr<D>> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(Error::invalid(format!(
            "Invalid filter: it has {} bytes, at most {FILTER_BYTES_MAX} are allowed",
            text.len()
        )));
    }
    let tokens = tokens(text);
    if dialect == Dialect::MlFlow && tokens.is_empty() && !text.is_empty() {
        return Err(Error::invalid(format!("Invalid filter '{}'. Could not be parsed.", clip(text))));
    }
    let more_statements = tokens.iter().skip_while(|token| token.kind != Kind::Semicolon);
    if more_statements.skip(1).any(|token| token.kind != Kind::Semicolon) {
        return Err(Error::invalid(format!(
            "Search filter contained multiple expression {}. Provide AND-ed expression list.",
            python_repr(&clip(text))
        )));
    }
    let items = group(text, &tokens, dialect);
    let strays: Vec<&str> = items.iter().filter(|item| is_stray(item, dialect)).map(Item::text).collect();
    if !strays.is_empty() {
        return Err(invalid_clauses(&strays));
    }
    let clauses = items.iter().filter(|item| matches!(item, Item::Comparison(_))).count();
    if clauses > FILTER_CLAUSES_MAX {
        return Err(Error::invalid(format!(
            "Invalid filter: it has {clauses} comparisons, at most {FILTER_CLAUSES_MAX} are allowed"
        )));
    }
    let tree = match dialect {
        Dialect::MlFlow => Expr::And(items.into_iter().filter_map(clause).collect()),
        Dialect::Extended if items.is_empty() => Expr::And(Vec::new()),
        Dialect::Extended => Parser { items: items.into_iter().peekable() }.whole()?,
    };
    tree.try_map(&mut compile)
}

fn clause(item: Item<'_>) -> Option<Expr<Comparison<'_>>> {
    match item {
        Item::Comparison(comparison) => Some(Expr::Clause(comparison)),
        _ => None,
    }
}

/// Whether an item can never be part of a filter of this dialect.
fn is_stray(item: &Item<'_>, dialect: Dialect) -> bool {
    match item {
        Item::Comparison(_) | Item::And(_) => false,
        Item::Stray(_) => true,
        Item::Or(_) | Item::Not(_) | Item::Open(_) | Item::Close(_) => dialect == Dialect::MlFlow,
    }
}

/// MLflow's refusal, with at most ten of the culprits.
fn invalid_clauses(texts: &[&str]) -> Error {
    let mut list: Vec<String> = texts.iter().take(10).map(|text| format!("'{}'", clip(text))).collect();
    if texts.len() > list.len() {
        list.push("...".to_owned());
    }
    Error::invalid(format!("Invalid clause(s) in filter string: {}", list.join(", ")))
}

/// Text in quotes as Python shows it.
fn python_repr(text: &str) -> String {
    match (text.contains('\''), text.contains('"')) {
        (true, false) => format!("\"{text}\""),
        _ => format!("'{}'", text.replace('\'', "\\'")),
    }
}

/// The extended dialect: `or := and (OR and)*`, `and := not (AND not)* [AND at the very end]`,
/// `not := NOT not | ( or ) | comparison`.
struct Parser<'a, I: Iterator<Item = Item<'a>>> {
    items: std::iter::Peekable<I>,
}

impl<'a, I: Iterator<Item = Item<'a>>> Parser<'a, I> {
    fn whole(&mut self) -> Result<Expr<Comparison<'a>>> {
        let tree = self.or(0)?;
        match self.items.next() {
            None => Ok(tree),
            Some(Item::Comparison(comparison)) => Err(Error::invalid(format!(
                "Invalid clause(s) in filter string: AND or OR is missing before '{}'",
                clip(comparison.left.text)
            ))),
            Some(item) => Err(invalid_clauses(&[item.text()])),
        }
    }

    fn or(&mut self, depth: usize) -> Result<Expr<Comparison<'a>>> {
        let first = self.and(depth)?;
        let mut parts = vec![first];
        while self.items.next_if(|item| matches!(item, Item::Or(_))).is_some() {
            parts.push(self.and(depth)?);
        }
        Ok(one_or(parts, Expr::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Expr<Comparison<'a>>> {
        let mut parts = vec![self.not(depth)?];
        while self.items.next_if(|item| matches!(item, Item::And(_))).is_some() {
            if self.items.peek().is_none() && depth == 0 {
                break;
            }
            parts.push(self.not(depth)?);
        }
        Ok(one_or(parts, Expr::And))
    }

    fn not(&mut self, depth: usize) -> Result<Expr<Comparison<'a>>> {
        if depth > FILTER_DEPTH_MAX {
            return Err(Error::invalid(format!(
                "Invalid filter: parentheses and NOT nest deeper than {FILTER_DEPTH_MAX} levels"
            )));
        }
        match self.items.next() {
            Some(Item::Comparison(comparison)) => Ok(Expr::Clause(comparison)),
            Some(Item::Not(_)) => Ok(Expr::Not(Box::new(self.not(depth + 1)?))),
            Some(Item::Open(_)) => {
                let inner = self.or(depth + 1)?;
                match self.items.next() {
                    Some(Item::Close(_)) => Ok(inner),
                    None => Err(Error::invalid("Invalid clause(s) in filter string: a '(' is never closed")),
                    Some(Item::Comparison(comparison)) => Err(Error::invalid(format!(
                        "Invalid clause(s) in filter string: AND or OR is missing before '{}'",
                        clip(comparison.left.text)
                    ))),
                    Some(item) => Err(invalid_clauses(&[item.text()])),
                }
            }
            Some(item) => Err(invalid_clauses(&[item.text()])),
            None => Err(Error::invalid(
                "Invalid clause(s) in filter string: it ends where a comparison should stand",
            )),
        }
    }
}

fn one_or<C>(mut parts: Vec<Expr<C>>, join: fn(Vec<Expr<C>>) -> Expr<C>) -> Expr<C> {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            parts.extend(last);
            join(parts)
        }
    }
}
