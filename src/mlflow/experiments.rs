//! Experiments: create, get, search, change.

use std::sync::Arc;

use serde::Serialize;

use super::Door;
use super::answer::{ExperimentAnswer, done, json};
use super::failure::Failure;
use super::request::{Call, Fields, wrong_type};
use super::routes::{Answered, Route};
use crate::catalog::changes::DEFAULT_EXPERIMENT;
use crate::error::{Error, Result};
use crate::model::Experiment;
use crate::query::ViewType;
use crate::query::grammar::Dialect;
use crate::query::page::check_max_results;
use crate::store::{ExperimentOptions, ExperimentSearch, Page, Store};

/// MLflow's default experiment.
const DEFAULT_ID: &str = "0";

pub(super) const ROUTES: &[Route] = &[
    Route::post("2.0/mlflow/experiments/create", create),
    Route::get("2.0/mlflow/experiments/get", get),
    Route::get("2.0/mlflow/experiments/get-by-name", get_by_name),
    Route::get("2.0/mlflow/experiments/search", search),
    Route::post("2.0/mlflow/experiments/search", search),
    Route::get("2.0/mlflow/experiments/list", list),
    Route::post("2.0/mlflow/experiments/delete", delete),
    Route::post("2.0/mlflow/experiments/restore", restore),
    Route::post("2.0/mlflow/experiments/update", update),
    Route::post("2.0/mlflow/experiments/set-experiment-tag", set_tag),
    Route::post("2.0/mlflow/experiments/delete-experiment-tag", delete_tag),
];

/// Gives a store without any experiment the one that MLflow's clients log to when they name none.
pub(super) fn make_default_of_empty_store(store: &Store) -> Result<()> {
    let any = ExperimentSearch { view: ViewType::All, max_results: 1, ..ExperimentSearch::default() };
    if store.search_experiments(&any)?.items.is_empty() {
        match store.experiment(DEFAULT_EXPERIMENT) {
            Ok(_) | Err(Error::ReadOnly { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The experiment with this id. The default one is made when a run is to be started in it.
pub(super) fn to_start_runs_in(store: &Store, id: &str) -> Result<Arc<Experiment>, Failure> {
    match store.get_experiment(id) {
        Err(Error::NotFound { .. }) if id == DEFAULT_ID => {
            store.experiment(DEFAULT_EXPERIMENT)?;
            by_id(store, id)
        }
        found => found.map_err(|error| refusal(error, id)),
    }
}

pub(super) fn by_id(store: &Store, id: &str) -> Result<Arc<Experiment>, Failure> {
    store.get_experiment(id).map_err(|error| refusal(error, id))
}

/// An id that names no experiment: MLflow's are numbers, so anything else is wrong, not just missing.
pub(super) fn refusal(error: Error, id: &str) -> Failure {
    match error {
        Error::NotFound { what, .. } if what.ends_with("experiment") => match id.trim().parse::<i128>() {
            Ok(number) => Failure::missing(format!("No Experiment with id={number} exists")),
            Err(_) => Failure::invalid(format!(
                "Invalid experiment ID '{id}'. Experiment ID must be a valid integer."
            )),
        },
        other => other.into(),
    }
}

fn create(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    let location = fields.text_or_empty("artifact_location")?;
    let mut options = ExperimentOptions::new();
    for (key, value) in fields.pairs("tags")? {
        options = options.tag(key, value);
    }
    if !location.is_empty() {
        options = options.artifact_location(location);
    }
    let made = call.store().create_experiment(name, options).map_err(|error| taken(error, name))?;
    #[derive(Serialize)]
    struct Made<'a> {
        experiment_id: &'a str,
    }
    json(&Made { experiment_id: made.id() })
}

fn taken(error: Error, name: &str) -> Failure {
    match error {
        Error::AlreadyExists { ref hint, .. } => {
            let message = format!("Experiment(name={name}) already exists{hint}.");
            Failure::from(error).saying(message)
        }
        other => other.into(),
    }
}

#[derive(Serialize)]
struct One<'a> {
    experiment: ExperimentAnswer<'a>,
}

fn one(call: &Call<'_>, experiment: &Experiment) -> Answered {
    let location = call.door().experiment(call.store(), experiment);
    json(&One { experiment: ExperimentAnswer::new(experiment, location) })
}

fn get(call: &Call<'_>) -> Answered {
    let params = call.params();
    let id = params.fields().required_text("experiment_id")?;
    one(call, &*by_id(call.store(), id)?)
}

fn get_by_name(call: &Call<'_>) -> Answered {
    let params = call.params();
    let name = params.fields().required_text("experiment_name")?;
    match call.store().get_experiment_by_name(name) {
        Ok(experiment) => one(call, &experiment),
        Err(Error::NotFound { .. }) => {
            Err(Failure::missing(format!("Could not find experiment with name '{name}'")))
        }
        Err(error) => Err(error.into()),
    }
}

/// MLflow's enum of views, by name or number; active ones if nothing is said.
pub(super) fn view_type(fields: Fields<'_>, name: &str) -> Result<ViewType, Failure> {
    let Some(value) = fields.value(name)? else { return Ok(ViewType::ActiveOnly) };
    let by_name = value.as_str().and_then(|text| text.parse().ok());
    let by_number = || super::request::integer(value).and_then(ViewType::from_number);
    by_name.or_else(by_number).ok_or_else(|| wrong_type(name, value))
}

fn search(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let view = view_type(fields, "view_type")?;
    let max_results = check_max_results(fields.integer("max_results")?.unwrap_or(0))?;
    let search = ExperimentSearch {
        filter: fields.text_or_empty("filter")?.to_owned(),
        dialect: Dialect::MlFlow,
        view,
        order_by: fields.texts("order_by")?.into_iter().map(str::to_owned).collect(),
        max_results,
        page_token: fields.text("page_token")?.map(str::to_owned),
        ..ExperimentSearch::default()
    };
    page(call.store(), call.door(), &call.store().search_experiments(&search)?)
}

/// What MLflow 1's clients call in place of a search; it has no limit.
fn list(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let search = ExperimentSearch {
        view: view_type(fields, "view_type")?,
        order_by: vec!["experiment_id ASC".to_owned()],
        max_results: check_max_results(fields.integer("max_results")?.unwrap_or(50_000))?,
        page_token: fields.text("page_token")?.map(str::to_owned),
        ..ExperimentSearch::default()
    };
    page(call.store(), call.door(), &call.store().search_experiments(&search)?)
}

#[derive(Serialize)]
struct Found<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    experiments: Vec<ExperimentAnswer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<&'a str>,
}

fn page(store: &Store, door: Door, page: &Page<Arc<Experiment>>) -> Answered {
    let answer = |experiment| ExperimentAnswer::new(experiment, door.experiment(store, experiment));
    json(&Found {
        experiments: page.items.iter().map(|experiment| answer(&**experiment)).collect(),
        next_page_token: page.next_page_token.as_deref(),
    })
}

fn delete(call: &Call<'_>) -> Answered {
    let params = call.params();
    let id = params.fields().required_text("experiment_id")?;
    call.store().delete_experiment(id).map_err(|error| refusal(error, id))?;
    call.protocol.open_runs.close(None);
    done()
}

fn restore(call: &Call<'_>) -> Answered {
    let params = call.params();
    let id = params.fields().required_text("experiment_id")?;
    call.store().restore_experiment(id).map_err(|error| refusal(error, id))?;
    done()
}

fn update(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let id = fields.required_text("experiment_id")?;
    let name = fields.required_text("new_name")?;
    call.store().rename_experiment(id, name).map_err(|error| match error {
        Error::NotFound { .. } => refusal(error, id),
        other => taken(other, name),
    })?;
    done()
}

fn set_tag(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let id = fields.required_text("experiment_id")?;
    let (key, value) = (fields.required_text("key")?, fields.text_or_empty("value")?);
    call.store().set_experiment_tag(id, key, value).map_err(|error| refusal(error, id))?;
    done()
}

fn delete_tag(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let id = fields.required_text("experiment_id")?;
    let key = fields.required_text("key")?;
    call.store().delete_experiment_tag(id, key).map_err(|error| match error {
        Error::NotFound { what: "tag", .. } => {
            Failure::missing(format!("No tag with name: {key} in experiment with id {id}"))
        }
        other => refusal(other, id),
    })?;
    done()
}
