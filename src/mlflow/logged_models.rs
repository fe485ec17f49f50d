//! Logged models: made, finished, tagged, searched; their files are listed.
//!
//! Contract: a deleted model is found only by those who ask for deleted ones, yet may still be written to, as in
//! MLflow. A page token holds what was searched for, and counts for that search only.

use serde::{Deserialize, Serialize};

use super::Door;
use super::answer::{LoggedModelAnswer, done, json, status_name};
use super::artifacts::{listed, model_folder, relative_list, safe_path};
use super::experiments;
use super::failure::Failure;
use super::log_batch::python_repr;
use super::request::{Call, Fields, wrong_type};
use super::routes::{Answered, Route};
use super::search::experiments_named;
use crate::catalog::rules::json_text;
use crate::error::Error;
use crate::limits::SEARCH_RESULTS_MAX;
use crate::model::{Lifecycle, LoggedModel, LoggedModelStatus, ModelVersion};
use crate::query::grammar::{DatasetFilter, Dialect};
use crate::query::order_models::LoggedModelOrderKey;
use crate::query::page::{check_max_results, decode_base64, encode_base64, encode_token};
use crate::store::{LoggedModelOptions, LoggedModelSearch};

pub(super) const ROUTES: &[Route] = &[
    Route::post("2.0/mlflow/logged-models", create),
    Route::post("2.0/mlflow/logged-models/search", search),
    Route::get("2.0/mlflow/logged-models/<model_id>", get),
    Route::patch("2.0/mlflow/logged-models/<model_id>", finalize),
    Route::delete("2.0/mlflow/logged-models/<model_id>", delete),
    Route::post("2.0/mlflow/logged-models/<model_id>/params", log_params),
    Route::patch("2.0/mlflow/logged-models/<model_id>/tags", set_tags),
    Route::delete("2.0/mlflow/logged-models/<model_id>/tags/<tag_key>", delete_tag),
    Route::get("2.0/mlflow/logged-models/<model_id>/artifacts/directories", artifacts),
];

/// What MLflow gives where no number is asked for.
const RESULTS_DEFAULT: i64 = 100;
/// Longest page token that is looked at: it holds the ids, filter and order of its search.
const TOKEN_BYTES_MAX: usize = 1 << 20;

fn one(call: &Call<'_>, model: &LoggedModel) -> Answered {
    #[derive(Serialize)]
    struct One<'a> {
        model: LoggedModelAnswer<'a>,
    }
    let artifact_uri = call.door().locations(call.store()).of_model(model);
    json(&One { model: LoggedModelAnswer { model, artifact_uri: &artifact_uri } })
}

fn create(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let experiment_id = fields.required_text("experiment_id")?;
    let mut options = LoggedModelOptions::new();
    if let Some(name) = fields.text("name")?.filter(|name| !name.is_empty()) {
        options = options.name(name);
    }
    if let Some(model_type) = fields.text("model_type")?.filter(|text| !text.is_empty()) {
        options = options.model_type(model_type);
    }
    if let Some(run) = fields.text("source_run_id")?.filter(|run| !run.is_empty()) {
        options = options.source_run_id(run);
    }
    for (key, value) in fields.pairs("params")? {
        options = options.param(key, value);
    }
    for (key, value) in fields.pairs("tags")? {
        options = options.tag(key, value);
    }
    let experiment = experiments::to_start_runs_in(call.store(), experiment_id)?;
    one(call, &*call.store().create_logged_model(&experiment.uid.to_string(), options)?)
}

fn get(call: &Call<'_>) -> Answered {
    let params = call.params();
    let allow_deleted = params.fields().flag("allow_deleted").ok().flatten().unwrap_or(false);
    let model = call.store().get_logged_model(call.captured(0))?;
    if model.lifecycle == Lifecycle::Deleted && !allow_deleted {
        return Err(Error::not_found("logged model", call.captured(0)).into());
    }
    one(call, &model)
}

/// MLflow's enum of statuses, by name or number.
fn status(fields: Fields<'_>) -> Result<LoggedModelStatus, Failure> {
    let value = fields.require("status")?;
    let by_name =
        value.as_str().and_then(|text| LoggedModelStatus::ALL.into_iter().find(|s| status_name(*s) == text));
    let by_number = || super::request::integer(value).and_then(LoggedModelStatus::from_number);
    by_name.or_else(by_number).ok_or_else(|| wrong_type("status", value))
}

fn finalize(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    fields.required_text("model_id")?;
    let status = status(fields)?;
    one(call, &*call.store().finalize_logged_model(call.captured(0), status)?)
}

fn delete(call: &Call<'_>) -> Answered {
    call.store().delete_logged_model(call.captured(0))?;
    done()
}

fn log_params(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    fields.required_text("model_id")?;
    call.store().log_logged_model_params(call.captured(0), &fields.pairs("params")?)?;
    done()
}

fn set_tags(call: &Call<'_>) -> Answered {
    let params = call.params();
    call.store().set_logged_model_tags(call.captured(0), &params.fields().pairs("tags")?)?;
    done()
}

fn delete_tag(call: &Call<'_>) -> Answered {
    let (id, key) = (call.captured(0), call.captured(1));
    call.store().delete_logged_model_tag(id, key).map_err(|error| match error {
        Error::NotFound { what: "tag", .. } => Failure::missing(format!(
            "No tag with key {} found for model with ID {}.",
            python_repr(key),
            python_repr(id)
        )),
        other => other.into(),
    })?;
    done()
}

fn artifacts(call: &Call<'_>) -> Answered {
    let params = call.params();
    let path = safe_path(params.fields().text_or_empty("artifact_directory_path")?)?;
    let model = call.store().get_logged_model(call.captured(0))?;
    let root = call.door().locations(call.store()).of_model(&model);
    if call.door() == Door::Files {
        return listed(Some(&root), &call.store().list_logged_model_artifacts(call.captured(0), &path)?);
    }
    let folder = model_folder(call, call.captured(0), &root)?;
    listed(Some(&root), &relative_list(call, &folder, &path)?)
}

/// Adds a version of a registered model to those that the tag of its logged model lists, where that is in this store.
pub(super) fn note_version(call: &Call<'_>, model_id: &str, version: &ModelVersion) -> Result<(), Failure> {
    const TAG: &str = "mlflow.modelVersions";
    let model = match call.store().get_logged_model(model_id) {
        Err(Error::NotFound { .. }) => return Ok(()),
        found => found?,
    };
    let known = model.tags.get(TAG).map_or("[]", String::as_str).trim();
    let head = known.strip_suffix(']').map(str::trim_end).filter(|head| head.starts_with('[')).unwrap_or("[");
    let comma = if head == "[" { "" } else { ", " };
    // The blanks are those of Python's JSON.
    let item = format!("{{\"name\": {}, \"version\": {}}}", json_text(&version.name), version.version);
    Ok(call.store().set_logged_model_tags(model_id, &[(TAG, &format!("{head}{comma}{item}]"))])?)
}

fn dataset(fields: Fields<'_>) -> Result<Option<DatasetFilter>, Failure> {
    let name = fields.text_or_empty("dataset_name")?.to_owned();
    let digest = fields.text("dataset_digest")?.filter(|digest| !digest.is_empty()).map(str::to_owned);
    Ok((!name.is_empty() || digest.is_some()).then_some(DatasetFilter { name, digest }))
}

/// A key of the order, in the shape that tokens have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OrderKey {
    field_name: String,
    ascending: bool,
    dataset_name: Option<String>,
    dataset_digest: Option<String>,
}

impl OrderKey {
    fn read(fields: Fields<'_>) -> Result<Self, Failure> {
        let given =
            |name| fields.text(name).map(|text| text.filter(|text| !text.is_empty()).map(str::to_owned));
        Ok(Self {
            field_name: fields.text_or_empty("field_name")?.to_owned(),
            ascending: fields.flag("ascending")?.unwrap_or(true),
            dataset_name: given("dataset_name")?,
            dataset_digest: given("dataset_digest")?,
        })
    }

    fn key(&self) -> LoggedModelOrderKey {
        let dataset = (self.dataset_name.is_some() || self.dataset_digest.is_some()).then(|| DatasetFilter {
            name: self.dataset_name.clone().unwrap_or_default(),
            digest: self.dataset_digest.clone(),
        });
        LoggedModelOrderKey { field_name: self.field_name.clone(), ascending: self.ascending, dataset }
    }
}

/// Where a page begins, and of which search: MLflow's token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    experiment_ids: Vec<String>,
    #[serde(default)]
    filter_string: Option<String>,
    #[serde(default)]
    order_by: Option<Vec<OrderKey>>,
    #[serde(default)]
    offset: usize,
}

impl Token {
    fn encode(&self) -> Result<String, Failure> {
        Ok(encode_base64(&json(self)?))
    }

    /// The offset of a token of this search, whose offset is not looked at.
    fn offset_in(&self, token: &str) -> Result<usize, Failure> {
        let bytes = (token.len() <= TOKEN_BYTES_MAX).then(|| decode_base64(token.as_bytes())).flatten();
        let read: Option<Self> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let token =
            read.ok_or_else(|| Failure::invalid("Invalid page token: it is not one of this server."))?;
        let differs = |what: &str, noun: &str| {
            Failure::invalid(format!("{what} in the page token {noun} not match the requested one."))
        };
        if token.experiment_ids != self.experiment_ids {
            return Err(differs("Experiment IDs", "do"));
        }
        if token.filter_string != self.filter_string {
            return Err(differs("Filter string", "does"));
        }
        if token.order_by != self.order_by {
            return Err(differs("Order by", "does"));
        }
        Ok(token.offset)
    }
}

#[derive(Serialize)]
struct Found<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<LoggedModelAnswer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
}

fn search(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    fields.require("experiment_ids")?;
    let ids = fields.texts("experiment_ids")?;
    let filter = fields.text_or_empty("filter")?.to_owned();
    let mut datasets = Vec::new();
    for of in fields.objects("datasets")? {
        datasets.push(dataset(of)?.unwrap_or_default());
    }
    let max_results = match fields.integer("max_results")?.unwrap_or(0) {
        0 => RESULTS_DEFAULT,
        given => given.min(SEARCH_RESULTS_MAX as i64),
    };
    let order: Vec<OrderKey> =
        fields.objects("order_by")?.into_iter().map(OrderKey::read).collect::<Result<_, _>>()?;
    let asked = Token {
        experiment_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        filter_string: (!filter.is_empty()).then(|| filter.clone()),
        order_by: (!order.is_empty()).then(|| order.clone()),
        offset: 0,
    };
    let offset = match fields.text("page_token")?.filter(|token| !token.is_empty()) {
        Some(token) => asked.offset_in(token)?,
        None => 0,
    };
    let search = LoggedModelSearch {
        experiment_ids: experiments_named(call, &ids)?,
        filter,
        dialect: Dialect::MlFlow,
        datasets,
        order_by: order.iter().map(OrderKey::key).collect(),
        max_results: check_max_results(max_results)?,
        page_token: Some(encode_token(offset)),
    };
    if search.experiment_ids.is_empty() {
        search.check()?;
        return json(&Found { models: Vec::new(), next_page_token: None });
    }
    let page = call.store().search_logged_models(&search)?;
    let mut locations = call.door().locations(call.store());
    let uris: Vec<String> = page.items.iter().map(|model| locations.of_model(model)).collect();
    let answer = |(model, artifact_uri)| LoggedModelAnswer { model, artifact_uri };
    let models = page.items.iter().map(|model| &**model).zip(uris.iter().map(String::as_str)).map(answer);
    let next_page_token = match page.next_page_token {
        Some(_) => Some(Token { offset: offset.saturating_add(page.items.len()), ..asked }.encode()?),
        None => None,
    };
    json(&Found { models: models.collect(), next_page_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_for_its_search() {
        let key =
            OrderKey { field_name: "name".into(), ascending: true, dataset_name: None, dataset_digest: None };
        let asked = Token {
            experiment_ids: vec!["1".into()],
            filter_string: None,
            order_by: Some(vec![key]),
            offset: 0,
        };
        let token = Token { offset: 7, ..asked.clone() }.encode().unwrap();
        assert_eq!(asked.offset_in(&token).unwrap(), 7);
        for other in [
            Token { experiment_ids: vec!["2".into()], ..asked.clone() },
            Token { filter_string: Some("name = 'a'".into()), ..asked.clone() },
            Token { order_by: None, ..asked.clone() },
        ] {
            assert!(other.offset_in(&token).is_err());
        }
        for bad in ["x", "eyJvZmZzZXQiOiAyfQ==", "AAAA"] {
            assert!(asked.offset_in(bad).is_err(), "{bad}");
        }
    }
}
