//! From what was typed to what is meant: stores, experiments, runs.
//!
//! Contract: an exact match wins; anything else must be unique, and an ambiguous name lists what it could mean.

use std::path::Path;
use std::sync::Arc;

use super::failure::{Failure, Outcome};
use super::output::{Output, for_terminal, plural};
use crate::model::{Experiment, RunData};
use crate::{Dialect, Error, RunSearch, Store, ViewType};

/// A store that is only read; damage is passed over or an error.
pub(super) fn open_to_read(path: &Path, skip_damage: bool) -> Outcome<Store> {
    Ok(Store::options().read_only(true).create(false).skip_damage(skip_damage).open(path)?)
}

/// A store that is written and exists.
pub(super) fn open_to_write(path: &Path) -> Outcome<Store> {
    Ok(Store::options().create(false).open(path)?)
}

/// An experiment by name, else by id.
pub(super) fn experiment(store: &Store, text: &str) -> Outcome<Arc<Experiment>> {
    match store.get_experiment_by_name(text) {
        Err(Error::NotFound { .. } | Error::InvalidArgument(_)) => {}
        other => return Ok(other?),
    }
    match store.get_experiment(text) {
        // "1x" is no id, but what was asked for is an experiment that does not exist.
        Err(Error::InvalidArgument(_)) => Err(not_found("experiment", text)),
        other => Ok(other?),
    }
}

/// A run by id, else by a unique start of its id, else by a unique name. Whoever asks for more of it names it by its
/// uid: several runs may have one id.
pub(super) fn run(out: &Output<'_>, store: &Store, text: &str) -> Outcome<Arc<RunData>> {
    match store.runs_by_id(text) {
        Err(Error::NotFound { .. } | Error::InvalidArgument(_)) => {}
        Err(error) => return Err(error.into()),
        Ok(runs) => {
            let (Some(first), true) = (runs.first(), runs.len() > 1) else {
                return runs.into_iter().next().ok_or_else(|| not_found("run", text));
            };
            let others: Vec<String> = runs.iter().skip(1).map(|run| told_apart(store, run)).collect();
            out.warn(format_args!(
                "{} have this id; this is {}; name the other by its uid: {}",
                plural(runs.len() as u64, "run"),
                told_apart(store, first),
                others.join(", ")
            ));
            return Ok(Arc::clone(first));
        }
    }
    if let Some(filter) = prefix_filter(text)
        && let Some(run) = only_one(store, text, filter)?
    {
        return Ok(run);
    }
    match name_filter(text) {
        Some(filter) => only_one(store, text, filter)?.ok_or_else(|| not_found("run", text)),
        None => Err(not_found("run", text)),
    }
}

fn not_found(what: &'static str, name: &str) -> Failure {
    Error::NotFound { what, name: name.into() }.into()
}

/// Finds runs whose id starts with the text, if it can be the start of one.
fn prefix_filter(text: &str) -> Option<String> {
    let digits =
        text.len() >= 3 && text.len() < 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    digits.then(|| format!("attributes.run_id LIKE '{text}%'"))
}

/// Finds runs of a name. The grammar has no escape for quotes: a name with both kinds cannot be asked for.
fn name_filter(text: &str) -> Option<String> {
    let quote = ['\'', '"'].into_iter().find(|quote| !text.contains(*quote))?;
    Some(format!("attributes.run_name = {quote}{text}{quote}"))
}

fn only_one(store: &Store, text: &str, filter: String) -> Outcome<Option<Arc<RunData>>> {
    let found = store.search_runs(&RunSearch {
        filter,
        dialect: Dialect::Extended,
        view: ViewType::All,
        max_results: 5,
        ..RunSearch::default()
    })?;
    match found.items.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(Arc::clone(one))),
        several => Err(Failure::Usage(ambiguous(store, text, several, found.next_page_token.is_some()))),
    }
}

fn ambiguous(store: &Store, text: &str, runs: &[Arc<RunData>], more: bool) -> String {
    let is_twin = |run: &RunData| runs.iter().any(|other| other.id == run.id && other.uid != run.uid);
    let list: Vec<String> = runs
        .iter()
        .map(|run| match is_twin(run) {
            true => format!("{} ({}, {})", run.id, for_terminal(&run.name), told_apart(store, run)),
            false => format!("{} ({})", run.id, for_terminal(&run.name)),
        })
        .collect();
    let what = if runs.iter().any(|run| is_twin(run)) { "give the uid" } else { "give more of the id" };
    let more = if more { " and others" } else { "" };
    format!("'{text}' could be {}{more}: {what}", list.join(", "))
}

/// What makes a run differ from another with the same id.
fn told_apart(store: &Store, run: &RunData) -> String {
    let experiment = store.get_experiment(&run.experiment_id).map(|e| e.name.clone()).unwrap_or_default();
    format!("uid {} in experiment {} ({})", run.uid, for_terminal(&experiment), run.experiment_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    #[test]
    fn only_hex_digits_are_the_start_of_an_id() {
        assert_eq!(prefix_filter("3f2a").as_deref(), Some("attributes.run_id LIKE '3f2a%'"));
        for text in ["3f", "3F2A", "lr-3", "%%%", "3f2a9c00112233445566778899aabbcc"] {
            assert_eq!(prefix_filter(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_quoted_with_the_quote_they_lack() {
        assert_eq!(name_filter("lr-3").as_deref(), Some("attributes.run_name = 'lr-3'"));
        assert_eq!(name_filter("ada's").as_deref(), Some("attributes.run_name = \"ada's\""));
        assert_eq!(name_filter("'\""), None);
    }

    #[test]
    fn an_ambiguous_start_lists_the_candidates() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let run = Arc::new(samples::run());
        let other = Arc::new(RunData { id: "3f2b".into(), ..samples::run() });
        let text = ambiguous(&store, "3f2", &[Arc::clone(&run), other], true);
        for part in ["3f2a9c00112233445566778899aabbcc (lr-3), 3f2b", "and others: give more of the id"] {
            assert!(text.contains(part), "{text}");
        }
        let twin = Arc::new(RunData { uid: crate::id::Uid::from_bytes([7; 16]), ..samples::run() });
        let text = ambiguous(&store, "3f2", &[run, Arc::clone(&twin)], false);
        let uid = format!("(lr-3, uid {} in experiment ", twin.uid);
        assert!(text.contains(&uid) && text.ends_with("give the uid"), "{text}");
    }
}
