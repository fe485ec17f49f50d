//! Pages of search results, and the tokens that lead from one to the next.
//!
//! Contract: a token is MLflow's, base64 of `{"offset": N}`; anything else is refused. A page is what a full sort
//! would put there, found by selection, so the cost of sorting is that of the page. Results that are added or removed
//! between two calls shift later pages, as in MLflow.

use crate::error::{Error, Result};
use crate::limits::SEARCH_RESULTS_MAX;

use super::grammar::clip;
use super::order::{Order, SortKey};

/// One page of results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The results, in order.
    pub items: Vec<T>,
    /// Where the next page starts; none if this is the last.
    pub next_offset: Option<usize>,
}

impl<T> Page<T> {
    /// The token of the next page; none if this is the last.
    pub fn next_token(&self) -> Option<String> {
        self.next_offset.map(encode_token)
    }
}

/// Checks the number of results somebody asks for.
///
/// # Errors
/// [`Error::InvalidArgument`] unless it is in 1..=[`SEARCH_RESULTS_MAX`].
pub fn check_max_results(max_results: i64) -> Result<usize> {
    check_results(max_results, SEARCH_RESULTS_MAX)
}

/// The same, with a limit of the caller's.
pub(crate) fn check_results(max_results: i64, most: usize) -> Result<usize> {
    let what = format!("Invalid value {max_results} for parameter 'max_results' supplied. It must be");
    match usize::try_from(max_results) {
        Ok(0) | Err(_) => Err(Error::invalid(format!("{what} a positive integer"))),
        Ok(count) if count > most => Err(Error::invalid(format!("{what} at most {most}"))),
        Ok(count) => Ok(count),
    }
}

/// The page of those `items` that pass, `max_results` of them from `offset` on.
pub(crate) fn select<T>(
    items: impl IntoIterator<Item = T>,
    passes: impl Fn(&T) -> bool,
    order: &impl Order<T>,
    max_results: usize,
    offset: usize,
) -> Page<T> {
    struct Row<'a> {
        key: SortKey<'a>,
        at: usize,
    }
    let found: Vec<T> = items.into_iter().filter(passes).collect();
    let end = offset.saturating_add(max_results);
    let next_offset = (end < found.len() && max_results > 0).then_some(end);
    if offset >= found.len() || max_results == 0 {
        return Page { items: Vec::new(), next_offset };
    }
    let mut rows: Vec<Row<'_>> =
        found.iter().enumerate().map(|(at, item)| Row { key: order.key(0, item), at }).collect();
    let compare = |a: &Row<'_>, b: &Row<'_>| match (found.get(a.at), found.get(b.at)) {
        // Equal items keep the order they came in.
        (Some(x), Some(y)) => order.compare_from_first((&a.key, x), (&b.key, y)).then(a.at.cmp(&b.at)),
        _ => a.at.cmp(&b.at),
    };
    if end < rows.len() {
        rows.select_nth_unstable_by(end, compare);
        rows.truncate(end);
    }
    if offset > 0 {
        rows.select_nth_unstable_by(offset, compare);
        rows.drain(..offset);
    }
    rows.sort_unstable_by(compare);
    let positions: Vec<usize> = rows.iter().map(|row| row.at).collect();
    drop(rows);
    let mut found: Vec<Option<T>> = found.into_iter().map(Some).collect();
    let items = positions.into_iter().filter_map(|at| found.get_mut(at)?.take()).collect();
    Page { items, next_offset }
}

/// The token of an offset. That of 0 is empty: the first page needs none.
pub fn encode_token(offset: usize) -> String {
    match offset {
        0 => String::new(),
        _ => encode_base64(format!("{{\"offset\": {offset}}}").as_bytes()),
    }
}

/// The offset of a token; empty text is the first page.
///
/// # Errors
/// [`Error::InvalidArgument`] for everything that [`encode_token`] or MLflow does not make.
pub fn decode_token(token: &str) -> Result<usize> {
    if token.is_empty() {
        return Ok(0);
    }
    // No offset needs more; a longer token is not worth decoding.
    const TOKEN_BYTES_MAX: usize = 64;
    let bytes = (token.len() <= TOKEN_BYTES_MAX).then(|| decode_base64(token.as_bytes())).flatten();
    let bytes = bytes.ok_or_else(|| Error::invalid("Invalid page token, could not base64-decode"))?;
    let offset = std::str::from_utf8(&bytes).ok().and_then(offset_of_json);
    offset.ok_or_else(|| {
        let text = String::from_utf8_lossy(&bytes);
        Error::invalid(format!("Invalid page token, decoded value=b'{}'", clip(&text)))
    })
}

/// Reads `{"offset": N}`, N at least 1.
fn offset_of_json(json: &str) -> Option<usize> {
    let inner = json.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let digits = inner.strip_prefix("\"offset\"")?.trim_start().strip_prefix(':')?.trim_start();
    if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64 with padding.
pub(crate) fn encode_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().chain([0, 0].iter()).take(3).fold(0u32, |group, &byte| group << 8 | u32::from(byte));
        for place in 0..4 {
            let digit = BASE64.get((group >> (18 - 6 * place)) as usize & 63).copied().unwrap_or(b'=');
            text.push(char::from(if place <= chunk.len() { digit } else { b'=' }));
        }
    }
    text
}

/// Standard base64 with padding; none for anything else, so that no two tokens mean the same bytes.
pub(crate) fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|&&digit| digit == b'=').count();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (digits, _) = text.split_at_checked(text.len() - padding)?;
    for chunk in digits.chunks(4) {
        let mut group = 0u32;
        for &digit in chunk {
            group = group << 6 | u32::try_from(BASE64.iter().position(|&known| known == digit)?).ok()?;
        }
        let missing = 4 - chunk.len();
        group <<= 6 * missing;
        let decoded = [16, 8, 0].map(|shift| (group >> shift & 0xff) as u8);
        let (kept, dropped) = decoded.split_at_checked(3 - missing)?;
        if dropped.iter().any(|&bits| bits != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_are_the_ones_mlflow_makes() {
        assert_eq!(encode_token(2), "eyJvZmZzZXQiOiAyfQ==");
        assert_eq!(decode_token("eyJvZmZzZXQiOiAyfQ==").unwrap(), 2);
        assert_eq!((encode_token(0).as_str(), decode_token("").unwrap()), ("", 0));
    }

    #[test]
    fn garbage_is_refused() {
        let of = |json: &str| encode_base64(json.as_bytes());
        let garbage = [
            "x",
            "eyJvZmZzZXQiOiAyfQ",
            "eyJvZmZzZXQiOiAyfR==",
            "eyJv ZmZz",
            "====",
            "\u{e9}",
            "AAAA",
            &of("{\"offset\": -1}"),
            &of("{\"offset\": 0}"),
            &of("{\"offset\": 01}"),
            &of("{\"offset\": 1.5}"),
            &of("{\"offset\": 1, \"x\": 2}"),
            &of("{\"limit\": 1}"),
            &of("{}"),
            &of("[1]"),
            &of("{\"offset\": 99999999999999999999999}"),
            &"A".repeat(1 << 20),
        ];
        for token in garbage {
            let error = decode_token(token).unwrap_err().to_string();
            assert!(error.starts_with("Invalid page token"), "{token}: {error}");
        }
    }

    #[test]
    fn max_results_has_bounds() {
        assert_eq!(check_max_results(1).unwrap(), 1);
        assert_eq!(check_max_results(50_000).unwrap(), 50_000);
        for (wrong, words) in
            [(0, "a positive integer"), (-1, "a positive integer"), (50_001, "at most 50000")]
        {
            let error = check_max_results(wrong).unwrap_err().to_string();
            assert!(error.ends_with(words), "{error}");
        }
    }

    proptest! {
        #[test]
        fn tokens_round_trip(offset in any::<usize>()) {
            prop_assert_eq!(decode_token(&encode_token(offset)).unwrap(), offset);
        }

        #[test]
        fn base64_round_trips_and_is_canonical(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            text in "[A-D+/=]{0,12}",
        ) {
            prop_assert_eq!(decode_base64(encode_base64(&bytes).as_bytes()), Some(bytes));
            if let Some(decoded) = decode_base64(text.as_bytes()) {
                prop_assert_eq!(encode_base64(&decoded), text);
            }
        }
    }
}
