//! Printing what a search finds, page by page.
//!
//! Contract: on a terminal one fitted table of at most [`TERMINAL_ROWS`] rows unless told otherwise; elsewhere every
//! row, as it comes, so a list of any length needs the memory of one page. Cutting a list is always said on stderr.

use super::args::{Listing, View};
use super::failure::Outcome;
use super::output::{Output, plural};
use super::table::{Cell, Table};
use crate::{Page, Result, ViewType};

/// Rows a terminal gets without `--limit`.
pub(super) const TERMINAL_ROWS: usize = 100;
const PAGE_ROWS: usize = 1_000;

impl View {
    /// As the searches call it.
    pub(super) const fn view_type(self) -> ViewType {
        match self {
            Self::Active => ViewType::ActiveOnly,
            Self::Deleted => ViewType::DeletedOnly,
            Self::All => ViewType::All,
        }
    }
}

/// How things of one kind are shown.
pub(super) struct Look<'a, T> {
    pub(super) noun: &'static str,
    pub(super) empty: &'a dyn Fn() -> Table,
    pub(super) cells: &'a dyn Fn(&T) -> Vec<Cell>,
    pub(super) json: &'a dyn Fn(&T) -> Result<serde_json::Value>,
}

/// Prints the pages that `fetch` gives for (most rows, token).
pub(super) fn print<T>(
    out: &mut Output<'_>,
    listing: &Listing,
    look: &Look<'_, T>,
    fetch: &mut dyn FnMut(usize, Option<String>) -> Result<Page<T>>,
) -> Outcome {
    let table_for_people = out.terminal.is_some() && !out.json;
    let limit = match listing.limit {
        Some(0) => usize::MAX,
        Some(limit) => limit,
        None if table_for_people => TERMINAL_ROWS,
        None => usize::MAX,
    };
    let mut table = (look.empty)();
    let mut printed = 0;
    let mut token = None;
    let more = loop {
        let page = fetch(PAGE_ROWS.min(limit - printed), token)?;
        let first = printed == 0;
        printed += page.items.len();
        for item in &page.items {
            if out.json {
                out.json_line(&(look.json)(item)?)?;
            } else {
                table.row((look.cells)(item));
            }
        }
        if !out.json && !table_for_people {
            table.write_plain(&mut out.out, first, out.colour)?;
            table = (look.empty)();
        }
        token = page.next_page_token;
        if token.is_none() || printed >= limit {
            break token.is_some();
        }
    };
    if table_for_people && !table.is_empty() {
        table.write(out)?;
    }
    if printed == 0 {
        out.note(format_args!("no {}s", look.noun));
    } else if more {
        use std::io::Write as _;
        out.out.flush()?;
        out.note(format_args!("the first {}; --limit 0 prints all", plural(printed as u64, look.noun)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::tests::captured;
    use crate::cli::table::Column;

    /// Lists the numbers from 0 to `all` in pages.
    fn list(all: usize, limit: Option<usize>, terminal: Option<usize>, json: bool) -> (String, usize) {
        let mut fetched = 0;
        let text = captured(terminal, json, |out| {
            let listing = Listing { view: View::Active, order_by: Vec::new(), limit };
            let look = Look {
                noun: "number",
                empty: &|| Table::new(vec![Column::text("n")]),
                cells: &|n: &usize| vec![Cell::text(n.to_string())],
                json: &|n| Ok(json!({"n": n})),
            };
            print(out, &listing, &look, &mut |rows, token| {
                fetched += 1;
                let from: usize = token.map_or(0, |token| token.parse().unwrap());
                let to = (from + rows).min(all);
                let next_page_token = (to < all).then(|| to.to_string());
                Ok(Page { items: (from..to).collect(), next_page_token })
            })
            .unwrap();
        });
        (text, fetched)
    }

    #[test]
    fn a_pipe_gets_everything_with_one_header() {
        let (text, fetched) = list(2_500, None, None, false);
        assert_eq!(text.lines().count(), 2_501);
        assert_eq!((text.lines().next(), text.lines().last(), fetched), (Some("n"), Some("2499"), 3));
        assert_eq!(list(0, None, None, false).0, "n\n");
    }

    #[test]
    fn a_terminal_gets_a_hundred_rows_unless_told_otherwise() {
        assert_eq!(list(2_500, None, Some(80), false).0.lines().count(), TERMINAL_ROWS + 1);
        assert_eq!(list(2_500, Some(7), Some(80), false).0.lines().count(), 8);
        assert_eq!(list(2_500, Some(0), Some(80), false).0.lines().count(), 2_501);
        assert_eq!(list(0, None, Some(80), false).0, "");
    }

    #[test]
    fn json_lines_have_no_header_and_no_limit_of_their_own() {
        assert_eq!(list(2, None, Some(80), true).0, "{\"n\":0}\n{\"n\":1}\n");
        assert_eq!(list(2_500, None, Some(80), true).0.lines().count(), 2_500);
        assert_eq!(list(2_500, Some(1_200), None, true).0.lines().count(), 1_200);
    }
}
