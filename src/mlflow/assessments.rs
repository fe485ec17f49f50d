//! Assessments of traces: what people and programs said of them.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value, json as value};

use super::answer::{done, json};
use super::failure::Failure;
use super::request::{Call, Fields, wrong_type};
use super::routes::{Answered, Route};
use crate::model::{Assessment, AssessmentError, AssessmentValue, moment_of, moment_text};
use crate::store::AssessmentUpdate;

pub(super) const ROUTES: &[Route] = &[
    Route::post("3.0/mlflow/traces/<trace_id>/assessments", create),
    Route::get("3.0/mlflow/traces/<trace_id>/assessments/<assessment_id>", get),
    Route::patch("3.0/mlflow/traces/<trace_id>/assessments/<assessment_id>", update),
    Route::delete("3.0/mlflow/traces/<trace_id>/assessments/<assessment_id>", delete),
];

/// The format of expectations that are no plain value.
const JSON_FORMAT: &str = "JSON_FORMAT";

/// A moment in a request, as text.
pub(super) fn moment(fields: Fields<'_>, name: &str) -> Result<Option<i64>, Failure> {
    let Some(value) = fields.value(name)? else { return Ok(None) };
    value.as_str().and_then(moment_of).map(Some).ok_or_else(|| wrong_type(name, value))
}

fn feedback(fields: Fields<'_>) -> Result<AssessmentValue, Failure> {
    let error = match fields.object("error")? {
        None => None,
        Some(error) => Some(AssessmentError {
            code: error.text_or_empty("error_code")?.to_owned(),
            message: error.text("error_message")?.map(str::to_owned),
            stack_trace: error.text("stack_trace")?.map(str::to_owned),
        }),
    };
    Ok(AssessmentValue::Feedback { value: fields.value("value")?.map(Value::to_string), error })
}

fn expectation(fields: Fields<'_>) -> Result<AssessmentValue, Failure> {
    let Some(serialized) = fields.object("serialized_value")? else {
        let value = fields.value("value")?.map_or_else(|| "null".to_owned(), Value::to_string);
        return Ok(AssessmentValue::Expectation { value });
    };
    let format = serialized.text_or_empty("serialization_format")?;
    if format != JSON_FORMAT {
        return Err(Failure::invalid(format!(
            "Unknown serialization format: {format}. Only JSON_FORMAT is supported."
        )));
    }
    let text = serialized.text_or_empty("value")?;
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return Err(Failure::invalid("The serialized value of an expectation is no JSON."));
    }
    Ok(AssessmentValue::Expectation { value: text.to_owned() })
}

/// An assessment of a request; what is not said of it, the store says.
pub(super) fn read(fields: Fields<'_>) -> Result<Assessment, Failure> {
    let value = match (fields.object("expectation")?, fields.object("feedback")?, fields.object("issue")?) {
        (Some(of), ..) => expectation(of)?,
        (None, Some(of), _) => feedback(of)?,
        (None, None, Some(of)) => AssessmentValue::Issue { name: of.text_or_empty("issue_name")?.to_owned() },
        (None, None, None) => return Err(Failure::invalid("Unknown assessment type: None")),
    };
    let given = |name| fields.text(name).map(|text| text.filter(|text| !text.is_empty()).map(str::to_owned));
    let is_feedback = matches!(value, AssessmentValue::Feedback { .. });
    let source = fields.object("source")?;
    let of_source = |name| source.map_or(Ok(""), |source| source.text_or_empty(name)).map(str::to_owned);
    Ok(Assessment {
        id: given("assessment_id")?.unwrap_or_default(),
        name: fields.text_or_empty("assessment_name")?.to_owned(),
        source_type: of_source("source_type")?,
        source_id: of_source("source_id")?,
        created_ms: moment(fields, "create_time")?,
        updated_ms: moment(fields, "last_update_time")?,
        value,
        rationale: given("rationale")?,
        span_id: given("span_id")?,
        overrides: given("overrides")?.filter(|_| is_feedback),
        valid: fields.flag("valid")?,
        metadata: fields.text_map("metadata")?,
    })
}

/// An assessment, and the trace that it is of.
pub(super) struct AssessmentAnswer<'a> {
    pub(super) trace_id: &'a str,
    pub(super) assessment: &'a Assessment,
}

/// What an assessment says: under which name, and what.
fn said(said: &AssessmentValue) -> (&'static str, Value) {
    // JSON that is kept as text.
    let raw = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    match said {
        AssessmentValue::Feedback { value, error } => {
            let mut map = Map::new();
            map.insert("value".into(), value.as_deref().map_or(Value::Null, raw));
            if let Some(AssessmentError { code, message, stack_trace }) = error {
                let mut fields = Map::from_iter([("error_code".to_owned(), Value::from(code.as_str()))]);
                for (name, text) in [("error_message", message), ("stack_trace", stack_trace)] {
                    fields.extend(text.iter().map(|text| (name.to_owned(), Value::from(text.as_str()))));
                }
                map.insert("error".into(), Value::Object(fields));
            }
            ("feedback", Value::Object(map))
        }
        // As in MLflow, what has parts is text within.
        AssessmentValue::Expectation { value: text } => match raw(text) {
            Value::Array(_) | Value::Object(_) => {
                let serialized = value!({ "serialization_format": JSON_FORMAT, "value": text });
                ("expectation", value!({ "serialized_value": serialized }))
            }
            plain => ("expectation", value!({ "value": plain })),
        },
        AssessmentValue::Issue { name } => ("issue", value!({ "issue_name": name })),
    }
}

impl Serialize for AssessmentAnswer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { trace_id, assessment } = *self;
        let source = value!({ "source_type": assessment.source_type, "source_id": assessment.source_id });
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("assessment_id", &assessment.id)?;
        map.serialize_entry("assessment_name", &assessment.name)?;
        map.serialize_entry("trace_id", trace_id)?;
        map.serialize_entry("source", &source)?;
        let times = [("create_time", assessment.created_ms), ("last_update_time", assessment.updated_ms)];
        for (name, ms) in times {
            if let Some(ms) = ms {
                map.serialize_entry(name, &moment_text(ms))?;
            }
        }
        let texts = [
            ("span_id", &assessment.span_id),
            ("rationale", &assessment.rationale),
            ("overrides", &assessment.overrides),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                map.serialize_entry(name, text)?;
            }
        }
        let (name, value) = said(&assessment.value);
        map.serialize_entry(name, &value)?;
        if !assessment.metadata.is_empty() {
            map.serialize_entry("metadata", &assessment.metadata)?;
        }
        if let Some(valid) = assessment.valid {
            map.serialize_entry("valid", &valid)?;
        }
        map.end()
    }
}

fn one(trace_id: &str, assessment: &Assessment) -> Answered {
    #[derive(Serialize)]
    struct One<'a> {
        assessment: AssessmentAnswer<'a>,
    }
    json(&One { assessment: AssessmentAnswer { trace_id, assessment } })
}

fn given<'v>(fields: Fields<'v>) -> Result<Fields<'v>, Failure> {
    fields.require("assessment")?;
    fields.object("assessment")?.ok_or_else(|| Failure::missing_param("assessment"))
}

fn create(call: &Call<'_>) -> Answered {
    let params = call.params();
    let assessment = Assessment { id: String::new(), valid: Some(true), ..read(given(params.fields())?)? };
    one(call.captured(0), &call.store().create_assessment(call.captured(0), assessment)?)
}

fn get(call: &Call<'_>) -> Answered {
    one(call.captured(0), &call.store().get_assessment(call.captured(0), call.captured(1))?)
}

fn update(call: &Call<'_>) -> Answered {
    let params = call.params();
    let fields = params.fields();
    let given = given(fields)?;
    fields.require("update_mask")?;
    let mut update = AssessmentUpdate::default();
    for path in fields.text_or_empty("update_mask")?.split(',') {
        // A mask is in camelCase, as protobuf's JSON has it; its plain spelling is taken, too.
        match path.trim() {
            "assessment_name" | "assessmentName" => {
                update.name = given.text("assessment_name")?.map(str::to_owned);
            }
            "expectation" => update.value = given.object("expectation")?.map(expectation).transpose()?,
            "feedback" => update.value = given.object("feedback")?.map(feedback).transpose()?,
            "rationale" => update.rationale = given.text("rationale")?.map(str::to_owned),
            "metadata" => update.metadata = given.text_map("metadata")?.into_iter().collect(),
            _ => {}
        }
    }
    one(call.captured(0), &call.store().update_assessment(call.captured(0), call.captured(1), &update)?)
}

fn delete(call: &Call<'_>) -> Answered {
    call.store().delete_assessment(call.captured(0), call.captured(1))?;
    done()
}
