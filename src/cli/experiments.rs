//! `experiments ls` and `experiments show`.

use std::sync::Arc;

use super::args::{ExperimentsLs, ExperimentsShow, View};
use super::failure::Outcome;
use super::output::{Output, Tone};
use super::table::{Cell, Column, Table};
use super::{json, listing, resolve};
use crate::model::{Experiment, Lifecycle, RunStatus};
use crate::{Dialect, Error, ExperimentSearch, RunSearch, Store, ViewType};

/// What to write where a filter or an order makes no sense.
const GRAMMAR: &str = "see `mlrs-db experiments ls --help`; for example: mlrs-db experiments ls --filter \"name LIKE \
                       'mnist%'\" --order-by \"name ASC\"";

/// Lists experiments.
pub(super) fn ls(out: &mut Output<'_>, store: &Store, args: &ExperimentsLs) -> Outcome {
    let now_ms = out.now_ms;
    let with_lifecycle = args.listing.view != View::Active;
    let look = listing::Look {
        noun: "experiment",
        empty: &|| columns(with_lifecycle),
        cells: &|experiment: &Arc<Experiment>| cells(experiment, with_lifecycle, now_ms),
        json: &|experiment| Ok(json::experiment(experiment, store.experiment_artifact_location(experiment))),
    };
    let outcome = listing::print(out, &args.listing, &look, &mut |max_results, page_token| {
        store.search_experiments(&ExperimentSearch {
            filter: args.filter.clone(),
            dialect: Dialect::Extended,
            view: args.listing.view.view_type(),
            order_by: args.listing.order_by.clone(),
            max_results,
            page_token,
            ..ExperimentSearch::default()
        })
    });
    outcome.map_err(|failure| {
        failure.advised(|error| matches!(error, Error::InvalidArgument(_)).then(|| GRAMMAR.to_owned()))
    })
}

fn columns(with_lifecycle: bool) -> Table {
    let mut columns = vec![Column::text("id").whole(), Column::text("name"), Column::text("created")];
    columns.push(Column::text("updated"));
    if with_lifecycle {
        columns.push(Column::text("lifecycle"));
    }
    Table::new(columns)
}

fn cells(experiment: &Experiment, with_lifecycle: bool, now_ms: i64) -> Vec<Cell> {
    let mut cells = vec![
        Cell::text(&experiment.id),
        Cell::text(&experiment.name),
        Cell::age(experiment.created_ms, now_ms),
        Cell::age(experiment.updated_ms, now_ms),
    ];
    if with_lifecycle {
        cells.push(lifecycle(experiment.lifecycle));
    }
    cells
}

/// Active or deleted, the latter in a colour.
pub(super) fn lifecycle(lifecycle: Lifecycle) -> Cell {
    Cell::text(lifecycle.as_str()).toned(if lifecycle == Lifecycle::Deleted {
        Tone::Warn
    } else {
        Tone::Plain
    })
}

/// Shows one experiment.
pub(super) fn show(out: &mut Output<'_>, store: &Store, args: &ExperimentsShow) -> Outcome {
    let experiment = resolve::experiment(store, &args.experiment)?;
    let runs = count_runs(store, &experiment.id)?;
    let location = store.experiment_artifact_location(&experiment);
    if out.json {
        let mut value = json::experiment(&experiment, location);
        if let serde_json::Value::Object(fields) = &mut value {
            let by_status = runs.iter().map(|(status, n)| (status.to_string(), (*n).into())).collect();
            fields.insert("runs".into(), serde_json::Value::Object(by_status));
        }
        return Ok(out.json_line(&value)?);
    }
    Ok(details(&experiment, &location, &runs, out.now_ms).write(out)?)
}

/// Active runs by status.
fn count_runs(store: &Store, id: &str) -> Outcome<Vec<(RunStatus, u64)>> {
    let mut counts: Vec<(RunStatus, u64)> =
        (1..=5).filter_map(RunStatus::from_number).map(|s| (s, 0)).collect();
    let mut search = RunSearch {
        experiment_ids: vec![id.into()],
        dialect: Dialect::Extended,
        view: ViewType::ActiveOnly,
        max_results: 5_000,
        ..RunSearch::default()
    };
    loop {
        let page = store.search_runs(&search)?;
        for run in &page.items {
            if let Some((_, count)) = counts.iter_mut().find(|(status, _)| *status == run.status) {
                *count += 1;
            }
        }
        search.page_token = page.next_page_token;
        if search.page_token.is_none() {
            counts.retain(|(_, count)| *count > 0);
            return Ok(counts);
        }
    }
}

fn details(experiment: &Experiment, location: &str, runs: &[(RunStatus, u64)], now_ms: i64) -> Table {
    let mut table = Table::pairs();
    table.pair("name", Cell::text(&experiment.name).toned(Tone::Strong));
    table.pair("id", Cell::text(&experiment.id));
    table.pair("uid", Cell::text(experiment.uid.to_string()));
    table.pair("lifecycle", lifecycle(experiment.lifecycle));
    table.pair("created", Cell::time(experiment.created_ms, now_ms));
    table.pair("updated", Cell::time(experiment.updated_ms, now_ms));
    table.pair("artifact_location", Cell::text(location));
    let total: u64 = runs.iter().map(|(_, count)| count).sum();
    table.pair("runs", Cell::count(total));
    for (status, count) in runs {
        table.pair(&format!("runs.{status}"), Cell::count(*count));
    }
    for (key, value) in &experiment.tags {
        table.pair(&format!("tag.{key}"), Cell::text(value));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    #[test]
    fn an_experiment_in_a_row() {
        let mut table = columns(true);
        table.row(cells(&samples::experiment(), true, samples::START_MS + 60_000));
        assert_eq!(
            table.fitted(80, false),
            "ID  NAME   CREATED    UPDATED  LIFECYCLE\n1   mnist  1 min ago           active"
        );
    }

    #[test]
    fn an_experiment_in_full() {
        let mut plain = Vec::new();
        let runs = [(RunStatus::Finished, 1_200), (RunStatus::Failed, 1)];
        details(&samples::experiment(), "file:///s/1", &runs, samples::START_MS)
            .write_plain(&mut plain, true, false)
            .unwrap();
        assert_eq!(
            String::from_utf8(plain).unwrap(),
            "name\tmnist\nid\t1\nuid\t01010101010101010101010101010101\nlifecycle\tactive\n\
             created\t2026-11-23T11:56:14.123Z\nupdated\t\nartifact_location\tfile:///s/1\nruns\t1201\nruns.FINISHED\t1200\n\
             runs.FAILED\t1\ntag.owner\tada\n"
        );
    }
}
