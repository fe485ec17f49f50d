//! `runs ls`, `runs search` and `runs show`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::args::{RunsLs, RunsShow, View};
use super::failure::Outcome;
use super::output::Output;
use super::run_view::{self, Extra};
use super::{json, listing, resolve};
use crate::model::{RunData, RunStatus};
use crate::{Dialect, Error, RunLiveness, RunSearch, Store};

/// What to write where a filter or an order makes no sense.
const GRAMMAR: &str = "see `mlrs-db runs search --help`; for example: mlrs-db runs search \"metrics.loss < 0.1 AND \
                       params.lr = '0.1'\" --order-by \"metrics.loss ASC\"";

/// Lists the runs that match the filter.
pub(super) fn ls(out: &mut Output<'_>, store: &Store, args: &RunsLs, filter: &str) -> Outcome {
    let experiments: Outcome<Vec<_>> =
        args.experiment.iter().map(|text| resolve::experiment(store, text)).collect();
    let experiment_ids: Vec<String> = experiments?.iter().map(|experiment| experiment.id.clone()).collect();
    let extra = Extra {
        lifecycle: args.listing.view != View::Active,
        metrics: &args.metric,
        params: &args.param,
        tags: &args.tag,
    };
    let names = Names { store, known: RefCell::default() };
    let now_ms = out.now_ms;
    let alive: RefCell<HashMap<String, RunLiveness>> = RefCell::default();
    let look = listing::Look {
        noun: "run",
        empty: &|| run_view::columns(&extra),
        cells: &|run: &Arc<RunData>| {
            run_view::cells(run, &names.of(&run.experiment_id), alive.borrow().get(&run.id), &extra, now_ms)
        },
        json: &|run| Ok(json::run(run, store.run_artifact_location(run)?, alive.borrow().get(&run.id))),
    };
    let outcome = listing::print(out, &args.listing, &look, &mut |max_results, page_token| {
        let page = store.search_runs(&RunSearch {
            experiment_ids: experiment_ids.clone(),
            filter: filter.into(),
            dialect: Dialect::Extended,
            view: args.listing.view.view_type(),
            order_by: args.listing.order_by.clone(),
            max_results,
            page_token,
        })?;
        alive.replace(liveness(store, &page.items));
        Ok(page)
    });
    outcome.map_err(|failure| {
        failure.advised(|error| matches!(error, Error::InvalidArgument(_)).then(|| GRAMMAR.to_owned()))
    })
}

/// Whether those runs live that are called running; nothing of one that vanished meanwhile.
fn liveness(store: &Store, runs: &[Arc<RunData>]) -> HashMap<String, RunLiveness> {
    let running: Vec<&str> =
        runs.iter().filter(|run| run.status == RunStatus::Running).map(|run| run.id.as_str()).collect();
    if running.is_empty() {
        return HashMap::new();
    }
    let known = store.run_liveness(&running).unwrap_or_default();
    running.iter().map(|id| (*id).to_owned()).zip(known).collect()
}

/// Names of experiments by id, each looked up once.
struct Names<'a> {
    store: &'a Store,
    known: RefCell<HashMap<String, String>>,
}

impl Names<'_> {
    /// The name, or the id if there is none to be had.
    fn of(&self, id: &str) -> String {
        let mut known = self.known.borrow_mut();
        if let Some(name) = known.get(id) {
            return name.clone();
        }
        let name = self
            .store
            .get_experiment(id)
            .map_or_else(|_| id.to_owned(), |experiment| experiment.name.clone());
        known.insert(id.to_owned(), name.clone());
        name
    }
}

/// Shows one run.
pub(super) fn show(out: &mut Output<'_>, store: &Store, args: &RunsShow) -> Outcome {
    let run = resolve::run(out, store, &args.run)?;
    let location = store.run_artifact_location(&run)?;
    // Artifacts may lie where this machine cannot look; the run is worth showing all the same.
    let artifacts = store.list_artifacts(&run.uid.to_string(), "").unwrap_or_else(|error| {
        out.note(format_args!("artifacts are not listed: {error}"));
        Vec::new()
    });
    let alive = liveness(store, std::slice::from_ref(&run));
    let alive = alive.get(&run.id);
    if out.json {
        let mut value = json::run(&run, location, alive);
        if let serde_json::Value::Object(fields) = &mut value {
            let list = artifacts
                .iter()
                .map(|a| serde_json::json!({"path": a.path.to_string(), "is_dir": a.is_dir, "size": a.size}));
            fields.insert("artifacts".into(), list.collect());
        }
        return Ok(out.json_line(&value)?);
    }
    let experiment = store.get_experiment(&run.experiment_id).map(|experiment| experiment.name.clone());
    let experiment = experiment.unwrap_or_else(|_| run.experiment_id.clone());
    run_view::write(out, &run, alive, &experiment, &location, &artifacts)
}
