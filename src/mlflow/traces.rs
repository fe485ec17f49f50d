//! Traces: started, tagged, searched, deleted. Their spans are files of theirs, which the carrier brings.
//!
//! Contract: a trace without a location of its own gets the tag that tells clients where its files are from the door,
//! when it is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Value, json as value};

use super::answer::{done, json};
use super::assessments::{self, AssessmentAnswer};
use super::experiments;
use super::failure::Failure;
use super::request::{Call, Fields, wrong_type};
use super::routes::{Answered, Route};
use super::search::experiments_named;
use crate::error::Error;
use crate::id::Uid;
use crate::model::{TraceInfo, TraceState, moment_text};
use crate::query::grammar::Dialect;
use crate::query::page::check_max_results;
use crate::store::{Search, TraceSearch};

pub(super) const ROUTES: &[Route] = &[
    Route::post("3.0/mlflow/traces", start),
    Route::post("3.0/mlflow/traces/search", search),
    Route::get("3.0/mlflow/traces/get", get_one),
    Route::get("3.0/mlflow/traces/batchGet", batch_get),
    Route::post("3.0/mlflow/traces/batchGetInfos", batch_get_infos),
    Route::post("3.0/mlflow/traces/delete-traces", delete),
    Route::post("2.0/mlflow/traces/delete-traces", delete),
    Route::get("3.0/mlflow/traces/<trace_id>", get_info),
    Route::patch("3.0/mlflow/traces/<trace_id>/tags", set_tag),
    Route::patch("2.0/mlflow/traces/<trace_id>/tags", set_tag),
    Route::delete("3.0/mlflow/traces/<trace_id>/tags", delete_tag),
    Route::delete("2.0/mlflow/traces/<trace_id>/tags", delete_tag),
];

const RESULTS_DEFAULT: i64 = 100;
const RESULTS_MAX: i64 = 500;
/// Says where the files of a trace are.
const LOCATION_TAG: &str = "mlflow.artifactLocation";
/// Tags that only the server sets.
const SYSTEM_TAGS: &[&str] = &[
    LOCATION_TAG,
    "mlflow.trace.spansLocation",
    "mlflow.trace.archiveLocation",
    "mlflow.trace.archivalFailure",
];

/// A trace, and where the door says its files are.
struct TraceAnswer {
    trace: Arc<TraceInfo>,
    artifact_uri: String,
}

impl Serialize for TraceAnswer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let trace = &self.trace;
        let experiment = value!({ "experiment_id": trace.experiment_id });
        let location = value!({ "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": experiment });
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("trace_id", &trace.id)?;
        map.serialize_entry("trace_location", &location)?;
        map.serialize_entry("request_time", &moment_text(trace.request_ms))?;
        if let Some(took_ms) = trace.execution_ms {
            map.serialize_entry("execution_duration", &duration_text(took_ms))?;
        }
        map.serialize_entry("state", trace.state.as_str())?;
        let texts = [
            ("client_request_id", &trace.client_request_id),
            ("request_preview", &trace.request_preview),
            ("response_preview", &trace.response_preview),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                map.serialize_entry(name, text)?;
            }
        }
        if !trace.metadata.is_empty() {
            map.serialize_entry("trace_metadata", &trace.metadata)?;
        }
        let mut tags: BTreeMap<&str, &str> =
            trace.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        tags.entry(LOCATION_TAG).or_insert(&self.artifact_uri);
        map.serialize_entry("tags", &tags)?;
        if !trace.assessments.is_empty() {
            let answer = |assessment| AssessmentAnswer { trace_id: &trace.id, assessment };
            map.serialize_entry("assessments", &trace.assessments.iter().map(answer).collect::<Vec<_>>())?;
        }
        map.end()
    }
}

/// Seconds, as protobuf's JSON has a duration.
fn duration_text(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    match ms % 1_000 {
        0 => format!("{sign}{}s", ms / 1_000),
        fraction => format!("{sign}{}.{fraction:03}s", ms / 1_000),
    }
}

/// The milliseconds of such a text.
fn duration_of(text: &str) -> Option<i64> {
    let text = text.strip_suffix('s')?;
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(sign * whole.parse::<i64>().ok()?.checked_mul(1_000)?.checked_add(millis)?)
}

fn duration(fields: Fields<'_>, name: &str) -> Result<Option<i64>, Failure> {
    let Some(value) = fields.value(name)? else { return Ok(None) };
    value.as_str().and_then(duration_of).map(Some).ok_or_else(|| wrong_type(name, value))
}

fn answers(call: &Call<'_>, traces: Vec<Arc<TraceInfo>>) -> Vec<TraceAnswer> {
    let mut locations = call.door().locations(call.store());
    let answer = |trace: Arc<TraceInfo>| TraceAnswer { artifact_uri: locations.of_trace(&trace), trace };
    traces.into_iter().map(answer).collect()
}

#[derive(Serialize)]
struct Trace {
    trace_info: TraceAnswer,
}

fn one(call: &Call<'_>, trace: Arc<TraceInfo>) -> Answered {
    #[derive(Serialize)]
    struct One {
        trace: Option<Trace>,
    }
    let trace = answers(call, vec![trace]).pop().map(|trace_info| Trace { trace_info });
    json(&One { trace })
}

/// MLflow's enum of states, by name or number.
fn state(fields: Fields<'_>) -> Result<TraceState, Failure> {
    let Some(value) = fields.value("state")? else { return Ok(TraceState::default()) };
    let by_name = value.as_str().and_then(|text| text.parse().ok());
    let by_number = || match super::request::integer(value)? {
        0 => Some(TraceState::StateUnspecified),
        1 => Some(TraceState::Ok),
        2 => Some(TraceState::Error),
        3 => Some(TraceState::InProgress),
        _ => None,
    };
    by_name.or_else(by_number).ok_or_else(|| wrong_type("state", value))
}

/// The experiment that a location names.
fn experiment_of(location: Option<Fields<'_>>) -> Result<Option<&str>, Failure> {
    let Some(location) = location else { return Ok(None) };
    let Some(experiment) = location.object("mlflow_experiment")? else { return Ok(None) };
    experiment.text("experiment_id").map(|id| id.filter(|id| !id.is_empty()))
}

fn start(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    fields.require("trace")?;
    let missing = |name| move || Failure::missing_param(name);
    let info = fields.object("trace")?.ok_or_else(missing("trace"))?;
    let info = info.object("trace_info")?.ok_or_else(missing("trace.trace_info"))?;
    let experiment_id = experiment_of(info.object("trace_location")?)?;
    let experiment_id = experiment_id.ok_or_else(missing("trace.trace_info.trace_location"))?;
    let experiment = experiments::to_start_runs_in(call.store(), experiment_id)?;
    let mut tags = info.text_map("tags")?;
    tags.retain(|key, _| !SYSTEM_TAGS.contains(&key.as_str()));
    let given = |name| info.text(name).map(|text| text.map(str::to_owned));
    let list = info.objects("assessments")?;
    let trace = TraceInfo {
        uid: Uid::default(),
        id: info.text_or_empty("trace_id")?.to_owned(),
        experiment_uid: experiment.uid,
        experiment_id: experiment.uid.to_string(),
        client_request_id: given("client_request_id")?,
        request_ms: assessments::moment(info, "request_time")?.unwrap_or(0),
        execution_ms: duration(info, "execution_duration")?,
        state: state(info)?,
        request_preview: given("request_preview")?,
        response_preview: given("response_preview")?,
        tags,
        metadata: info.text_map("trace_metadata")?,
        assessments: list.into_iter().map(assessments::read).collect::<Result<_, _>>()?,
    };
    one(call, call.store().start_trace(&trace)?)
}

fn get_info(call: &Call<'_>) -> Answered {
    one(call, call.store().get_trace(call.captured(0))?)
}

fn get_one(call: &Call<'_>) -> Answered {
    let params = call.params();
    let id = params.fields().required_text("trace_id")?;
    call.store().get_trace(id).map_err(|error| match error {
        Error::NotFound { .. } => Failure::missing(format!("Trace with ID {id} is not found.")),
        other => other.into(),
    })?;
    Err(spans_are_files())
}

/// Clients fetch the spans themselves, from where the tag says.
fn spans_are_files() -> Failure {
    Failure::not_implemented(
        "spans outside of artifacts; those of a trace are in traces.json among its artifacts",
    )
}

/// Those of these traces that are there, and in one of these experiments if any is named.
fn named(call: &Call<'_>) -> Result<Vec<TraceAnswer>, Failure> {
    let params = call.params();
    let fields = params.fields();
    fields.require("trace_ids")?;
    let experiments = match fields.value("experiment_ids")? {
        None => None,
        Some(_) => Some(experiments_named(call, &fields.texts("experiment_ids")?)?),
    };
    let mut found = Vec::new();
    for id in fields.texts("trace_ids")? {
        match call.store().get_trace(id) {
            Ok(trace) => {
                let uid = trace.experiment_uid.to_string();
                if experiments.as_ref().is_none_or(|asked| asked.contains(&uid)) {
                    found.push(trace);
                }
            }
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answers(call, found))
}

fn batch_get(call: &Call<'_>) -> Answered {
    match named(call)?.is_empty() {
        true => done(),
        false => Err(spans_are_files()),
    }
}

fn batch_get_infos(call: &Call<'_>) -> Answered {
    #[derive(Serialize)]
    struct Found {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        trace_infos: Vec<TraceAnswer>,
    }
    json(&Found { trace_infos: named(call)? })
}

fn search(call: &Call<'_>) -> Answered {
    #[derive(Serialize)]
    struct Found {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        traces: Vec<TraceAnswer>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_page_token: Option<String>,
    }
    let params = call.params();
    let fields = params.sound_fields()?;
    fields.require("locations")?;
    let mut ids = Vec::new();
    for location in fields.objects("locations")? {
        ids.extend(experiment_of(Some(location))?);
    }
    let max_results = fields.integer("max_results")?.unwrap_or(RESULTS_DEFAULT);
    if max_results > RESULTS_MAX {
        return Err(wrong_type("max_results", &Value::from(max_results)));
    }
    let search: TraceSearch = Search {
        experiment_ids: experiments_named(call, &ids)?,
        filter: fields.text_or_empty("filter")?.to_owned(),
        dialect: Dialect::MlFlow,
        order_by: fields.texts("order_by")?.into_iter().map(str::to_owned).collect(),
        max_results: check_max_results(max_results)?,
        page_token: fields.text("page_token")?.map(str::to_owned),
        ..Search::default()
    };
    if search.experiment_ids.is_empty() {
        return json(&Found { traces: Vec::new(), next_page_token: None });
    }
    let page = call.store().search_traces(&search)?;
    json(&Found { traces: answers(call, page.items), next_page_token: page.next_page_token })
}

fn delete(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.sound_fields()?;
    let experiment_id = fields.required_text("experiment_id")?;
    let until_ms = fields.integer("max_timestamp_millis")?;
    let max = fields.integer("max_traces")?;
    let ids = fields.texts("request_ids")?;
    let refusal = match (until_ms, ids.is_empty(), max) {
        (None, true, _) => Some("Either `max_timestamp_millis` or `trace_ids` must be specified.".to_owned()),
        (Some(_), false, _) => {
            Some("Only one of `max_timestamp_millis` and `trace_ids` can be specified.".to_owned())
        }
        (None, false, Some(_)) => {
            Some("`max_traces` can't be specified if `trace_ids` is specified.".to_owned())
        }
        (Some(_), true, Some(max)) if max <= 0 => {
            Some(format!("`max_traces` must be a positive integer, received {max}."))
        }
        _ => None,
    };
    if let Some(message) = refusal {
        return Err(Failure::invalid(message));
    }
    let max = max.map(|max| usize::try_from(max).unwrap_or(usize::MAX));
    let deleted = call.store().delete_traces(experiment_id, &ids, until_ms, max);
    let traces_deleted = deleted.map_err(|error| experiments::refusal(error, experiment_id))?;
    json(&value!({ "traces_deleted": traces_deleted }))
}

/// The key of a tag that a client may change.
fn own_key<'v>(fields: Fields<'v>, change: &str) -> Result<&'v str, Failure> {
    let key = fields.required_text("key")?;
    if SYSTEM_TAGS.contains(&key) {
        return Err(Failure::invalid(format!("Tag '{key}' is immutable and cannot be {change} on a trace.")));
    }
    Ok(key)
}

fn set_tag(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let key = own_key(fields, "set")?;
    call.store().set_trace_tag(call.captured(0), key, fields.text_or_empty("value")?)?;
    done()
}

fn delete_tag(call: &Call<'_>) -> Answered {
    let params = call.params();
    let (id, key) = (call.captured(0), own_key(params.fields(), "deleted")?);
    call.store().delete_trace_tag(id, key).map_err(|error| match error {
        Error::NotFound { what: "tag", .. } => {
            Failure::missing(format!("No trace tag with key '{key}' for trace with ID '{id}'"))
        }
        other => other.into(),
    })?;
    done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_protobufs() {
        for (ms, text) in [(0, "0s"), (1, "0.001s"), (1_500, "1.500s"), (2_000, "2s"), (-1_500, "-1.500s")] {
            assert_eq!((duration_text(ms).as_str(), duration_of(text)), (text, Some(ms)));
        }
        for bad in ["", "s", "1", "1.5", "xs", "99999999999999999999s"] {
            assert_eq!(duration_of(bad), None, "{bad}");
        }
    }
}
