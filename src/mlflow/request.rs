//! Reading requests as MLflow reads them: query or JSON body, proto3's spellings, and MLflow's refusals.
//!
//! Contract: a value is looked for under its snake_case name, then under its camelCase name; both at once are refused.
//! `null` is as good as missing. Integers may be texts, as may floats, with `NaN` and `Infinity`, which Python's JSON
//! also has without quotes. A body that is no JSON object counts as empty, as in MLflow, so the call says which param
//! is missing. What is of the wrong type is refused in MLflow's words (which itself, where its schema has no say, takes
//! it for not given).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::failure::Failure;
use super::{Door, Protocol};
use crate::catalog::rules::json_text;
use crate::store::Store;

/// One request on its way to an answer.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) protocol: &'a Protocol,
    /// What stands in the path where the route has `<...>`, decoded.
    pub(super) captured: Vec<String>,
    pub(super) is_get: bool,
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
}

impl<'a> Call<'a> {
    pub(super) fn store(&self) -> &'a Store {
        &self.protocol.store
    }

    pub(super) fn door(&self) -> Door {
        self.protocol.door
    }

    /// What stands in the path at the nth `<...>`.
    pub(super) fn captured(&self, nth: usize) -> &str {
        self.captured.get(nth).map_or("", String::as_str)
    }

    /// Reads query or body.
    pub(super) fn params(&self) -> Params {
        if self.is_get && !self.query.is_empty() {
            return Params { map: query_map(self.query), from_query: true, is_broken: false };
        }
        let is_blank = self.body.iter().all(u8::is_ascii_whitespace);
        match read_json(self.body) {
            Some(Value::Object(map)) => Params { map, from_query: false, is_broken: false },
            // Old clients encode twice.
            Some(Value::String(text)) => match read_json(text.as_bytes()) {
                Some(Value::Object(map)) => Params { map, from_query: false, is_broken: false },
                _ => Params::broken(true),
            },
            _ => Params::broken(!is_blank),
        }
    }
}

/// JSON as Python reads it: also with bare `NaN`, `Infinity` and `-Infinity`, which become texts.
fn read_json(bytes: &[u8]) -> Option<Value> {
    if bytes.is_empty() {
        return None;
    }
    serde_json::from_slice(bytes).ok().or_else(|| serde_json::from_slice(&quote_bare_numbers(bytes)?).ok())
}

/// The same JSON with quotes around bare `NaN`, `Infinity` and `-Infinity`; none if there is no such word.
pub(super) fn quote_bare_numbers(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut quoted: Option<Vec<u8>> = None;
    let (mut at, mut copied) = (0, 0);
    let mut in_text = false;
    while let Some(&byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let word: &[u8] = match byte {
            b'"' => {
                in_text = !in_text;
                b""
            }
            b'\\' if in_text => {
                at += 1;
                b""
            }
            b'N' if !in_text => b"NaN",
            b'I' if !in_text => b"Infinity",
            b'-' if !in_text => b"-Infinity",
            _ => b"",
        };
        if word.is_empty() || !rest.starts_with(word) {
            at += 1;
            continue;
        }
        let out = quoted.get_or_insert_with(|| Vec::with_capacity(bytes.len() + 64));
        out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
        out.push(b'"');
        out.extend_from_slice(word);
        out.push(b'"');
        at += word.len();
        copied = at;
    }
    let mut out = quoted?;
    out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
    Some(out)
}

/// The query as an object: a text for each key, or a list of them where a key comes again.
fn query_map(query: &str) -> Map<String, Value> {
    let mut map = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Value::String(decoded(value, true).into_owned());
        match map.entry(decoded(key, true)) {
            serde_json::map::Entry::Vacant(vacant) => {
                vacant.insert(value);
            }
            serde_json::map::Entry::Occupied(mut occupied) => match occupied.get_mut() {
                Value::Array(all) => all.push(value),
                first => *first = Value::Array(vec![first.take(), value]),
            },
        }
    }
    map
}

/// Percent-decoded text; bytes that are no UTF-8 become U+FFFD, as in MLflow.
pub(super) fn decoded(text: &str, plus_is_space: bool) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) if plus_is_space => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The params of one request.
#[derive(Debug)]
pub(super) struct Params {
    map: Map<String, Value>,
    from_query: bool,
    is_broken: bool,
}

impl Params {
    fn broken(is_broken: bool) -> Self {
        Self { map: Map::new(), from_query: false, is_broken }
    }

    pub(super) fn fields(&self) -> Fields<'_> {
        Fields { map: &self.map, from_query: self.from_query }
    }

    /// The same, for calls that make do without any param: a body that is no JSON object is refused here, which MLflow
    /// takes for an empty one.
    pub(super) fn sound_fields(&self) -> Result<Fields<'_>, Failure> {
        match self.is_broken {
            true => Err(Failure::invalid("The body of the request is not a JSON object.")),
            false => Ok(self.fields()),
        }
    }
}

/// The fields of one object of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'v> {
    map: &'v Map<String, Value>,
    from_query: bool,
}

impl<'v> Fields<'v> {
    /// What stands under a name, if it is not null.
    pub(super) fn value(self, name: &str) -> Result<Option<&'v Value>, Failure> {
        let snake = self.map.get(name);
        if !name.contains('_') {
            return Ok(snake.filter(|value| !value.is_null()));
        }
        let camel = camel_case(name);
        match (snake, self.map.get(&camel)) {
            (Some(_), Some(_)) => Err(Failure::invalid(format!(
                "Request specifies both '{name}' and '{camel}'; provide only one of them."
            ))),
            (found, None) | (None, found) => Ok(found.filter(|value| !value.is_null())),
        }
    }

    /// The one value, where a query repeats it the first.
    fn scalar(self, name: &str) -> Result<Option<&'v Value>, Failure> {
        Ok(match self.value(name)? {
            Some(Value::Array(all)) if self.from_query => all.first(),
            other => other,
        })
    }

    /// A text.
    pub(super) fn text(self, name: &str) -> Result<Option<&'v str>, Failure> {
        match self.scalar(name)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(name, other)),
        }
    }

    /// A text, empty if it is not given.
    pub(super) fn text_or_empty(self, name: &str) -> Result<&'v str, Failure> {
        Ok(self.text(name)?.unwrap_or_default())
    }

    /// A text that must be given. As in MLflow only its snake_case name will do.
    pub(super) fn required_text(self, name: &str) -> Result<&'v str, Failure> {
        self.require(name)?;
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| Failure::missing_param(name))
    }

    /// Refuses unless a value is given.
    pub(super) fn require(self, name: &str) -> Result<&'v Value, Failure> {
        // Says so if both spellings are there.
        self.value(name)?;
        let found = self.map.get(name).filter(|value| !value.is_null() && value.as_str() != Some(""));
        found.ok_or_else(|| Failure::missing_param(name))
    }

    /// The run that is meant: `run_id`, or as MLflow 1 called it `run_uuid`.
    pub(super) fn run_id(self) -> Result<&'v str, Failure> {
        if self.map.get("run_id").is_none_or(|value| value.is_null() || value.as_str() == Some("")) {
            self.value("run_id")?;
            if let Some(run) = self.text("run_uuid")?.filter(|run| !run.is_empty()) {
                return Ok(run);
            }
        }
        self.required_text("run_id")
    }

    /// A 64-bit integer.
    pub(super) fn integer(self, name: &str) -> Result<Option<i64>, Failure> {
        let Some(value) = self.scalar(name)? else { return Ok(None) };
        integer(value).map(Some).ok_or_else(|| wrong_type(name, value))
    }

    /// A float.
    pub(super) fn float(self, name: &str) -> Result<Option<f64>, Failure> {
        let Some(value) = self.scalar(name)? else { return Ok(None) };
        float(value).map(Some).ok_or_else(|| wrong_type(name, value))
    }

    /// A truth value.
    pub(super) fn flag(self, name: &str) -> Result<Option<bool>, Failure> {
        match self.scalar(name)? {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(other) => Err(wrong_type(name, other)),
        }
    }

    /// A list of texts; empty if it is not given.
    pub(super) fn texts(self, name: &str) -> Result<Vec<&'v str>, Failure> {
        let whole = match self.value(name)? {
            None => return Ok(Vec::new()),
            Some(Value::String(text)) if self.from_query => return Ok(vec![text]),
            Some(whole) => whole,
        };
        let texts = whole.as_array().map(|all| all.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        texts.flatten().ok_or_else(|| wrong_type(name, whole))
    }

    /// A list of objects; empty if it is not given.
    pub(super) fn objects(self, name: &str) -> Result<Vec<Fields<'v>>, Failure> {
        let Some(whole) = self.value(name)? else { return Ok(Vec::new()) };
        let fields = |value: &'v Value| value.as_object().map(|map| Fields { map, from_query: false });
        let objects = whole.as_array().map(|all| all.iter().map(fields).collect::<Option<Vec<_>>>());
        objects.flatten().ok_or_else(|| wrong_type(name, whole))
    }

    /// An object.
    pub(super) fn object(self, name: &str) -> Result<Option<Fields<'v>>, Failure> {
        match self.value(name)? {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { map, from_query: false })),
            Some(other) => Err(wrong_type(name, other)),
        }
    }

    /// An object of texts, as a map of protobuf's has it; empty if it is not given.
    pub(super) fn text_map(self, name: &str) -> Result<BTreeMap<String, String>, Failure> {
        let Some(Fields { map, .. }) = self.object(name)? else { return Ok(BTreeMap::new()) };
        let text = |(key, value): (&String, &Value)| match value {
            Value::String(text) => Ok((key.clone(), text.clone())),
            other => Err(wrong_type(name, other)),
        };
        map.iter().map(text).collect()
    }

    /// A list of `{"key", "value"}`, a missing text being an empty one.
    pub(super) fn pairs(self, name: &str) -> Result<Vec<(&'v str, &'v str)>, Failure> {
        let pair = |item: Fields<'v>| Ok((item.text_or_empty("key")?, item.text_or_empty("value")?));
        self.objects(name)?.into_iter().map(pair).collect()
    }
}

fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        match (c, upper) {
            ('_', _) => upper = true,
            (c, true) => {
                camel.push(c.to_ascii_uppercase());
                upper = false;
            }
            (c, false) => camel.push(c),
        }
    }
    camel
}

/// An integer as proto3's JSON has it: a number without a fraction, or its digits as text.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let real = number.as_f64()?;
            // Every whole float in this range is an i64.
            let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&real);
            (fits && real.fract() == 0.0 && number.is_f64()).then_some(real as i64)
        }),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// A float as proto3's JSON and Python have it: a number, or as text, also `NaN` and `Infinity`.
pub(super) fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => float_of_text(text),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        _ => None,
    }
}

pub(super) fn float_of_text(text: &str) -> Option<f64> {
    match text {
        "nan" => None,
        text => text.trim().parse().ok(),
    }
}

/// MLflow's refusal of a value of the wrong type.
pub(super) fn wrong_type(name: &str, value: &Value) -> Failure {
    let (shown, kind) = (shown(value), python_type(value));
    Failure::invalid(format!(
        "Invalid value {shown} for parameter '{name}' supplied:  Hint: Value was of type '{kind}'. See the API docs for \
         more information about request parameters."
    ))
}

/// The start of a value as Python's JSON spells it.
fn shown(value: &Value) -> String {
    const CHARACTERS: usize = 1_000;
    let whole = match value {
        Value::String(text) => json_text(text),
        other => other.to_string(),
    };
    match whole.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}...", whole.get(..end).unwrap_or_default()),
        None => whole,
    }
}

fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_bare_numbers_get_quotes() {
        let quoted = |text: &str| quote_bare_numbers(text.as_bytes()).map(|b| String::from_utf8(b).unwrap());
        assert_eq!(
            quoted(r#"{"a": NaN, "b": [-Infinity,Infinity, -1], "NaN": "x\"NaN"}"#).unwrap(),
            r#"{"a": "NaN", "b": ["-Infinity","Infinity", -1], "NaN": "x\"NaN"}"#
        );
        assert_eq!(quoted(r#"{"a": "NaN"}"#), None);
        assert_eq!(quoted("\"\\"), None);
    }

    #[test]
    fn queries_are_decoded() {
        let map = query_map("run_id=a%2Fb&metric_key=x+y&run_ids=1&run_ids=2&flag&%zz=%C3%A9%ff");
        let expected = serde_json::json!({
            "run_id": "a/b", "metric_key": "x y", "run_ids": ["1", "2"], "flag": "", "%zz": "\u{e9}\u{fffd}"
        });
        assert_eq!(Value::Object(map), expected);
    }

    #[test]
    fn numbers_are_read_as_proto3_has_them() {
        let of = |json: &str| integer(&serde_json::from_str(json).unwrap());
        assert_eq!(
            [of("5"), of("\"5\""), of("5.0"), of("-9e18")],
            [Some(5), Some(5), Some(5), Some(-9 * 10i64.pow(18))]
        );
        for wrong in ["9223372036854775808", "1e19", "1.5", "\"1.5\"", "true", "[]"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        let of = |json: &str| float(&serde_json::from_str(json).unwrap());
        assert_eq!(
            [of("5"), of("\"1.5\""), of("\"-Infinity\"")],
            [Some(5.0), Some(1.5), Some(f64::NEG_INFINITY)]
        );
        assert!(of("\"NaN\"").unwrap().is_nan());
        assert_eq!([of("\"x\""), of("[]")], [None, None]);
    }

    #[test]
    fn names_may_be_camel_case_but_not_both() {
        let Value::Object(map) = serde_json::json!({"pageToken": "t", "run_id": "a", "runId": "b"}) else {
            unreachable!()
        };
        let fields = Fields { map: &map, from_query: false };
        assert_eq!(fields.text("page_token").unwrap(), Some("t"));
        let refused = fields.text("run_id").unwrap_err().message;
        assert_eq!(refused, "Request specifies both 'run_id' and 'runId'; provide only one of them.");
        assert!(fields.required_text("page_token").is_err());
    }
}
