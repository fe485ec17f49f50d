//! The model registry: registered models, versions, stages, tags and aliases. Prompts are registered models with tags.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::answer::{Pairs, done, json};
use super::failure::Failure;
use super::request::{Call, Fields};
use super::routes::{Answered, Route};
use super::search::max_results;
use super::{logged_models, model_source};
use crate::error::Error;
use crate::limits::{MODEL_VERSIONS_MAX, REGISTERED_MODELS_MAX};
use crate::model::{ModelStage, ModelVersion, RegisteredModel};
use crate::query::grammar::Dialect;
use crate::query::page::check_max_results;
use crate::store::{ModelVersionOptions, Page, RegisteredModelOptions, Search};

pub(super) const ROUTES: &[Route] = &[
    Route::post("2.0/mlflow/registered-models/create", create_model),
    Route::post("2.0/mlflow/registered-models/rename", rename_model),
    Route::patch("2.0/mlflow/registered-models/update", update_model),
    Route::delete("2.0/mlflow/registered-models/delete", delete_model),
    Route::get("2.0/mlflow/registered-models/get", get_model),
    Route::get("2.0/mlflow/registered-models/search", search_models),
    Route::get("2.0/mlflow/registered-models/list", list_models),
    Route::get("2.0/mlflow/registered-models/get-latest-versions", latest_versions),
    Route::post("2.0/mlflow/registered-models/get-latest-versions", latest_versions),
    Route::post("2.0/mlflow/registered-models/set-tag", set_model_tag),
    Route::delete("2.0/mlflow/registered-models/delete-tag", delete_model_tag),
    Route::post("2.0/mlflow/registered-models/alias", set_alias),
    Route::delete("2.0/mlflow/registered-models/alias", delete_alias),
    Route::get("2.0/mlflow/registered-models/alias", get_by_alias),
    Route::post("2.0/mlflow/model-versions/create", create_version),
    Route::patch("2.0/mlflow/model-versions/update", update_version),
    Route::post("2.0/mlflow/model-versions/transition-stage", transition_stage),
    Route::delete("2.0/mlflow/model-versions/delete", delete_version),
    Route::get("2.0/mlflow/model-versions/get", get_version),
    Route::get("2.0/mlflow/model-versions/search", search_versions),
    Route::get("2.0/mlflow/model-versions/get-download-uri", download_uri),
    Route::post("2.0/mlflow/model-versions/set-tag", set_version_tag),
    Route::delete("2.0/mlflow/model-versions/delete-tag", delete_version_tag),
];

const MODELS_DEFAULT: i64 = 100;
const VERSIONS_DEFAULT: i64 = 200_000;
/// Says that a registered model is a prompt.
const PROMPT_TAG: &str = "mlflow.prompt.is_prompt";

struct Aliases<'a>(&'a BTreeMap<String, u64>);

impl Serialize for Aliases<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Alias<'a> {
            alias: &'a str,
            version: String,
        }
        serializer
            .collect_seq(self.0.iter().map(|(alias, version)| Alias { alias, version: version.to_string() }))
    }
}

struct VersionAnswer<'a>(&'a ModelVersion);

impl Serialize for VersionAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let version = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &version.name)?;
        map.serialize_entry("version", &version.version.to_string())?;
        let mut given = |name: &'static str, text: Option<&str>| match text {
            Some(text) => map.serialize_entry(name, text),
            None => Ok(()),
        };
        given("description", Some(version.description.as_deref().unwrap_or_default()))?;
        given("user_id", version.user.as_deref())?;
        given("current_stage", Some(version.stage.as_str()))?;
        given("source", version.source.as_deref())?;
        given("run_id", Some(version.run_id.as_deref().unwrap_or_default()))?;
        given("run_link", Some(version.run_link.as_deref().unwrap_or_default()))?;
        given("status", Some(&version.status))?;
        given("status_message", version.status_message.as_deref().filter(|text| !text.is_empty()))?;
        if let Some(created_ms) = version.created_ms {
            map.serialize_entry("creation_timestamp", &created_ms)?;
        }
        if let Some(updated_ms) = version.updated_ms {
            map.serialize_entry("last_updated_timestamp", &updated_ms)?;
        }
        if !version.tags.is_empty() {
            map.serialize_entry("tags", &Pairs(&version.tags))?;
        }
        if !version.aliases.is_empty() {
            map.serialize_entry("aliases", &version.aliases)?;
        }
        map.end()
    }
}

struct ModelAnswer<'a>(&'a RegisteredModel);

impl Serialize for ModelAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let model = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &model.name)?;
        if let Some(created_ms) = model.created_ms {
            map.serialize_entry("creation_timestamp", &created_ms)?;
        }
        if let Some(updated_ms) = model.updated_ms {
            map.serialize_entry("last_updated_timestamp", &updated_ms)?;
        }
        if let Some(description) = model.description.as_deref().filter(|text| !text.is_empty()) {
            map.serialize_entry("description", description)?;
        }
        if !model.latest_versions.is_empty() {
            let mut latest: Vec<&ModelVersion> = model.latest_versions.iter().collect();
            latest.sort_by_key(|version| version.version);
            let versions: Vec<VersionAnswer<'_>> = latest.into_iter().map(VersionAnswer).collect();
            map.serialize_entry("latest_versions", &versions)?;
        }
        if !model.tags.is_empty() {
            map.serialize_entry("tags", &Pairs(&model.tags))?;
        }
        if !model.aliases.is_empty() {
            map.serialize_entry("aliases", &Aliases(&model.aliases))?;
        }
        map.end()
    }
}

fn one_model(model: &RegisteredModel) -> Answered {
    #[derive(Serialize)]
    struct One<'a> {
        registered_model: ModelAnswer<'a>,
    }
    json(&One { registered_model: ModelAnswer(model) })
}

fn one_version(version: &ModelVersion) -> Answered {
    #[derive(Serialize)]
    struct One<'a> {
        model_version: VersionAnswer<'a>,
    }
    json(&One { model_version: VersionAnswer(version) })
}

/// A version's number.
fn number(fields: Fields<'_>) -> Result<u64, Failure> {
    let text = fields.required_text("version")?;
    match text.trim().parse::<i128>() {
        Ok(number) => u64::try_from(number).map_err(|_| {
            let name = fields.text_or_empty("name").unwrap_or_default();
            Failure::missing(format!("Model Version (name={name}, version={number}) not found"))
        }),
        Err(_) => Err(Failure::invalid(format!("Parameter 'version' must be an integer, got '{text}'."))),
    }
}

fn create_model(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    let mut options = RegisteredModelOptions::new();
    for (key, value) in fields.pairs("tags")? {
        options = options.tag(key, value);
    }
    if let Some(description) = fields.text("description")? {
        options = options.description(description);
    }
    one_model(&*call.store().create_registered_model(name, options)?)
}

fn get_model(call: &Call<'_>) -> Answered {
    let params = call.params();
    one_model(&*call.store().get_registered_model(params.fields().required_text("name")?)?)
}

fn update_model(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    // What is not given is not changed; MLflow would clear it.
    match fields.text("description")? {
        Some(description) => one_model(&*call.store().update_registered_model(name, Some(description))?),
        None => get_model(call),
    }
}

fn rename_model(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    let new_name = fields.required_text("new_name")?;
    one_model(&*call.store().rename_registered_model(name, new_name)?)
}

fn delete_model(call: &Call<'_>) -> Answered {
    let params = call.params();
    call.store().delete_registered_model(params.fields().required_text("name")?)?;
    done()
}

fn search_of(fields: Fields<'_>, default: i64, most: usize) -> Result<Search, Failure> {
    Ok(Search {
        filter: fields.text_or_empty("filter")?.to_owned(),
        dialect: Dialect::MlFlow,
        max_results: max_results(fields, default, most)?,
        order_by: fields.texts("order_by")?.into_iter().map(str::to_owned).collect(),
        page_token: fields.text("page_token")?.map(str::to_owned),
        ..Search::default()
    })
}

fn page_of_models(page: &Page<Arc<RegisteredModel>>) -> Answered {
    #[derive(Serialize)]
    struct Found<'a> {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        registered_models: Vec<ModelAnswer<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_page_token: Option<&'a str>,
    }
    let registered_models = page.items.iter().map(|model| ModelAnswer(model)).collect();
    json(&Found { registered_models, next_page_token: page.next_page_token.as_deref() })
}

fn search_models(call: &Call<'_>) -> Answered {
    let params = call.params();
    let search = search_of(params.fields(), MODELS_DEFAULT, REGISTERED_MODELS_MAX)?;
    page_of_models(&call.store().search_registered_models(&search)?)
}

/// What MLflow 1's clients call in place of a search.
fn list_models(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let wanted = fields.integer("max_results")?.unwrap_or(MODELS_DEFAULT);
    let search = Search {
        max_results: check_max_results(wanted)?.min(REGISTERED_MODELS_MAX),
        page_token: fields.text("page_token")?.map(str::to_owned),
        ..Search::default()
    };
    page_of_models(&call.store().search_registered_models(&search)?)
}

fn page_of_versions(versions: &[Arc<ModelVersion>], next_page_token: Option<&str>) -> Answered {
    #[derive(Serialize)]
    struct Found<'a> {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        model_versions: Vec<VersionAnswer<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_page_token: Option<&'a str>,
    }
    let model_versions = versions.iter().map(|version| VersionAnswer(version)).collect();
    json(&Found { model_versions, next_page_token })
}

fn latest_versions(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    let mut stages: Vec<ModelStage> = Vec::new();
    for stage in fields.texts("stages")? {
        stages.push(stage.parse()?);
    }
    let mut latest = call.store().latest_model_versions(name, &stages)?;
    latest.sort_by_key(|version| version.version);
    page_of_versions(&latest, None)
}

fn search_versions(call: &Call<'_>) -> Answered {
    let params = call.params();
    let search = search_of(params.fields(), VERSIONS_DEFAULT, MODEL_VERSIONS_MAX)?;
    let page = call.store().search_model_versions(&search)?;
    page_of_versions(&page.items, page.next_page_token.as_deref())
}

fn set_model_tag(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    let (key, value) = (fields.required_text("key")?, fields.text_or_empty("value")?);
    call.store().set_registered_model_tag(name, key, value)?;
    done()
}

fn delete_model_tag(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    call.store().delete_registered_model_tag(name, fields.required_text("key")?)?;
    done()
}

fn set_alias(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    let alias = fields.required_text("alias")?;
    let number = number(fields)?;
    call.store()
        .set_registered_model_alias(name, alias, number)
        .map_err(|error| missing(error, name, number))?;
    done()
}

fn delete_alias(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    call.store().delete_registered_model_alias(name, fields.required_text("alias")?)?;
    done()
}

fn get_by_alias(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    one_version(&*call.store().get_model_version_by_alias(name, fields.required_text("alias")?)?)
}

fn create_version(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    let source = fields.required_text("source")?;
    let run_id = fields.text("run_id")?;
    let tags = fields.pairs("tags")?;
    let run_link = fields.text("run_link")?;
    let description = fields.text("description")?;
    let model_id = fields.text("model_id")?;
    // Of a tag that is given twice the last one counts.
    let prompt = tags.iter().rfind(|(key, _)| *key == PROMPT_TAG);
    let is_prompt = prompt.is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
    let made_of = match is_prompt {
        true => model_source::of_prompt(source)?,
        false => model_source::of_model(call, source, run_id, model_id)?,
    };
    let mut options = ModelVersionOptions::new(made_of.source);
    for (key, value) in tags {
        options = options.tag(key, value);
    }
    let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(run_id) = made_of.run_id.filter(|id| !id.is_empty()) {
        options = options.run_id(run_id);
    }
    if let Some(model_id) = made_of.model_id.filter(|id| !id.is_empty()) {
        options = options.model_id(model_id);
    }
    if let Some(run_link) = given(run_link) {
        options = options.run_link(run_link);
    }
    if let Some(description) = description {
        options = options.description(description);
    }
    let version = call.store().create_model_version(name, options)?;
    if let Some(model_id) = version.model_id.as_deref() {
        logged_models::note_version(call, model_id, &version)?;
    }
    one_version(&version)
}

fn get_version(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    one_version(&*version(call, name, number(fields)?)?)
}

/// A version; without its model, too, it is the version that is missing.
fn version(call: &Call<'_>, name: &str, number: u64) -> Result<Arc<ModelVersion>, Failure> {
    call.store().get_model_version(name, number).map_err(|error| missing(error, name, number))
}

fn missing(error: Error, name: &str, number: u64) -> Failure {
    match error {
        Error::NotFound { .. } => {
            Failure::missing(format!("Model Version (name={name}, version={number}) not found"))
        }
        other => other.into(),
    }
}

fn update_version(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    let number = number(fields)?;
    match fields.text("description")? {
        Some(description) => {
            one_version(&*call.store().update_model_version(name, number, Some(description))?)
        }
        None => one_version(&*version(call, name, number)?),
    }
}

fn transition_stage(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    fields.required_text("version")?;
    let stage = fields.required_text("stage")?;
    let archive = fields.flag("archive_existing_versions")?.unwrap_or(false);
    let stage: ModelStage = stage.parse()?;
    one_version(&*call.store().transition_model_version_stage(name, number(fields)?, stage, archive)?)
}

fn delete_version(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    call.store().delete_model_version(name, number(fields)?)?;
    done()
}

fn download_uri(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    let version = version(call, name, number(fields)?)?;
    #[derive(Serialize)]
    struct Location<'a> {
        artifact_uri: &'a str,
    }
    json(&Location { artifact_uri: version.download_uri().unwrap_or_default() })
}

fn set_version_tag(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    fields.required_text("version")?;
    let (key, value) = (fields.required_text("key")?, fields.text_or_empty("value")?);
    call.store().set_model_version_tag(name, number(fields)?, key, value)?;
    done()
}

fn delete_version_tag(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let name = fields.required_text("name")?;
    fields.required_text("version")?;
    let key = fields.required_text("key")?;
    call.store().delete_model_version_tag(name, number(fields)?, key)?;
    done()
}
