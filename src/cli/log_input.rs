//! Lines of CSV, TSV or JSON into steps with values.
//!
//! Contract: a line is taken whole or refused whole, with the reason in words; no input panics; memory is bounded by
//! [`LINE_BYTES_MAX`] and [`KEYS_MAX`], however long the input is. Numbers are read correctly rounded.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::args::InputFormat;
use super::time;

/// Longest line in bytes.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most different keys of one input.
pub(super) const KEYS_MAX: usize = 256 * 1024;

/// Reads lines of bounded length and counts them.
pub(super) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    number: u64,
}

/// What [`Lines::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A line, in [`Lines::line`].
    Line,
    /// A line longer than [`LINE_BYTES_MAX`], skipped.
    TooLong,
    /// The end of the input.
    End,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), number: 0 }
    }

    /// Reads on by one line.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        self.buffer.clear();
        let read = (&mut self.input).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(Next::End);
        }
        self.number += 1;
        if self.buffer.last() == Some(&b'\n') || read <= LINE_BYTES_MAX {
            return Ok(Next::Line);
        }
        self.buffer = Vec::new();
        loop {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                return Ok(Next::TooLong);
            }
            let end = chunk.iter().position(|&b| b == b'\n');
            let used = end.map_or(chunk.len(), |at| at + 1);
            self.input.consume(used);
            if end.is_some() {
                return Ok(Next::TooLong);
            }
        }
    }

    /// The line read last, with its line end.
    pub(super) fn line(&self) -> &[u8] {
        &self.buffer
    }

    /// Its number, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

/// One line's content. Values name their key by its place in [`Parser::key`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    pub(super) step: Option<i64>,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) values: Vec<(usize, f64)>,
}

/// Why a line was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This line; the next may be good.
    Line(String),
    /// The header: nothing after it can be understood.
    Header(String),
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self::Line(text)
    }
}

enum Field {
    Step,
    Timestamp,
    Key(usize),
}

enum Shape {
    Unknown(InputFormat),
    Json,
    Table { delimiter: char, header: Vec<Field> },
}

/// Understands one line after the other.
pub(super) struct Parser {
    shape: Shape,
    step: String,
    timestamp: String,
    keys: Vec<String>,
    places: HashMap<String, usize>,
    /// Per key the last object it stood in, counted by `objects`: finds duplicates without searching.
    last_object: Vec<u64>,
    objects: u64,
    record: Record,
}

impl Parser {
    /// A parser for input in which `step` and `timestamp` name the fields with these meanings.
    pub(super) fn new(format: InputFormat, step: &str, timestamp: &str) -> Self {
        Self {
            shape: Shape::Unknown(format),
            step: step.into(),
            timestamp: timestamp.into(),
            keys: Vec::new(),
            places: HashMap::new(),
            last_object: Vec::new(),
            objects: 0,
            record: Record::default(),
        }
    }

    /// The key at a place.
    pub(super) fn key(&self, place: usize) -> &str {
        self.keys.get(place).map_or("", String::as_str)
    }

    /// The content of the line that was parsed last.
    pub(super) const fn record(&self) -> &Record {
        &self.record
    }

    /// Understands a line; false for blank lines and the header, which have no content.
    pub(super) fn parse(&mut self, line: &[u8]) -> Result<bool, Refusal> {
        let first = matches!(self.shape, Shape::Unknown(_));
        let line = if first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let text = match std::str::from_utf8(line) {
            Ok(text) => text.trim_end_matches(['\n', '\r']),
            Err(_) if first => return Err(Refusal::Header("the input is no UTF-8 text".into())),
            Err(error) => return Err(Refusal::Line(format!("no UTF-8 at byte {}", error.valid_up_to() + 1))),
        };
        if text.trim().is_empty() {
            return Ok(false);
        }
        if let Shape::Unknown(format) = self.shape {
            let json = match format {
                InputFormat::Auto => text.trim_start().starts_with(['{', '[']),
                InputFormat::Csv => false,
                InputFormat::Jsonl => true,
            };
            if json && text.trim_start().starts_with('[') {
                return Err(Refusal::Header(
                    "a JSON array: write one object a line (`jq -c '.[]'` does it)".into(),
                ));
            }
            if !json {
                self.read_header(text).map_err(Refusal::Header)?;
                return Ok(false);
            }
            self.shape = Shape::Json;
        }
        self.record.step = None;
        self.record.timestamp_ms = None;
        self.record.values.clear();
        match &self.shape {
            Shape::Table { delimiter, header } => {
                parse_row(text, *delimiter, header, &self.keys, &mut self.record)?
            }
            _ => self.parse_object(text)?,
        }
        Ok(true)
    }

    fn place(&mut self, key: &str) -> Result<usize, String> {
        if let Some(&place) = self.places.get(key) {
            return Ok(place);
        }
        if key.is_empty() {
            return Err("a key is empty".into());
        }
        if self.keys.len() >= KEYS_MAX {
            return Err(format!("more than {KEYS_MAX} different keys; '{key}' is one too many"));
        }
        let place = self.keys.len();
        self.keys.push(key.into());
        self.last_object.push(0);
        self.places.insert(key.into(), place);
        Ok(place)
    }

    fn read_header(&mut self, text: &str) -> Result<(), String> {
        let delimiter = if text.contains('\t') { '\t' } else { ',' };
        let mut header = Vec::new();
        let mut seen = HashMap::new();
        for name in Fields::new(text, delimiter) {
            let name = name?;
            let name = name.trim();
            if read_float(name).is_ok() {
                return Err(format!(
                    "'{name}' is a number: the first line must name the columns, for example step,timestamp,loss"
                ));
            }
            if let Some(column) = seen.insert(name.to_owned(), header.len() + 1) {
                return Err(format!("columns {column} and {} are both named '{name}'", header.len() + 1));
            }
            header.push(if name == self.step {
                Field::Step
            } else if name == self.timestamp || (name == "timestamp_ms" && self.timestamp == "timestamp") {
                Field::Timestamp
            } else if name.is_empty() {
                return Err(format!("column {} has no name", header.len() + 1));
            } else {
                Field::Key(self.place(name)?)
            });
        }
        self.shape = Shape::Table { delimiter, header };
        Ok(())
    }

    fn parse_object(&mut self, text: &str) -> Result<(), String> {
        // Python's json writes NaN and Infinity bare; JSON itself has no word for them.
        let parsed = serde_json::from_str(text).or_else(|error| match quote_non_finite(text) {
            Some(quoted) => serde_json::from_str(&quoted).map_err(|_| error),
            None => Err(error),
        });
        let Pairs(pairs) = parsed.map_err(|error: serde_json::Error| {
            // serde_json counts lines within the text it got, which is always 1 here.
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            format!("{message} at column {}", error.column())
        })?;
        self.objects += 1;
        let mut record = std::mem::take(&mut self.record);
        let outcome = pairs.iter().try_for_each(|(key, value)| self.take_pair(key, value, &mut record));
        self.record = record;
        outcome
    }

    fn take_pair(&mut self, key: &str, value: &Value, record: &mut Record) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        let twice = || format!("'{key}' is there twice");
        if key == self.step {
            let step = match value {
                Value::Number(number) => read_step(&number.to_string()),
                _ => None,
            };
            let step = step.ok_or_else(|| format!("the step {value} is no integer"))?;
            return if record.step.replace(step).is_some() { Err(twice()) } else { Ok(()) };
        }
        if key == self.timestamp || (key == "timestamp_ms" && self.timestamp == "timestamp") {
            let time = match value {
                Value::Number(number) => read_time(&number.to_string()),
                Value::String(text) => read_time(text),
                _ => Err(no_time(&value.to_string())),
            }?;
            return if record.timestamp_ms.replace(time).is_some() { Err(twice()) } else { Ok(()) };
        }
        let number = match value {
            Value::Number(number) => {
                number.as_f64().ok_or_else(|| format!("'{key}': {number} is no float"))?
            }
            Value::String(text) => read_float(text).map_err(|why| format!("'{key}': {why}"))?,
            Value::Bool(_) => return Err(format!("'{key}' is true or false, not a number")),
            Value::Array(_) => return Err(format!("'{key}' is an array, not a number")),
            _ => return Err(format!("'{key}' is an object, not a number")),
        };
        let place = self.place(key)?;
        if let Some(last) = self.last_object.get_mut(place)
            && std::mem::replace(last, self.objects) == self.objects
        {
            return Err(twice());
        }
        record.values.push((place, number));
        Ok(())
    }
}

fn parse_row(
    text: &str,
    delimiter: char,
    header: &[Field],
    keys: &[String],
    record: &mut Record,
) -> Result<(), String> {
    let mut columns = header.iter();
    let mut found = 0;
    for cell in Fields::new(text, delimiter) {
        let cell = cell?;
        found += 1;
        let Some(column) = columns.next() else { continue };
        let cell = cell.trim();
        if cell.is_empty() {
            continue;
        }
        match *column {
            Field::Step => {
                record.step =
                    Some(read_step(cell).ok_or_else(|| format!("the step '{cell}' is no integer"))?);
            }
            Field::Timestamp => record.timestamp_ms = Some(read_time(cell)?),
            Field::Key(place) => {
                let key = keys.get(place).map_or("", String::as_str);
                let value = read_float(cell).map_err(|why| format!("column {found} ('{key}'): {why}"))?;
                record.values.push((place, value));
            }
        }
    }
    if found != header.len() {
        return Err(format!("{found} fields, but the header names {} columns", header.len()));
    }
    Ok(())
}

/// Any float, non-finite words included; a number too large for a float is refused, not made infinite.
fn read_float(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(value) if value.is_infinite() && text.bytes().any(|b| b.is_ascii_digit()) => {
            Err(format!("{text} is too large for a float"))
        }
        Ok(value) => Ok(value),
        Err(_) => Err(format!("'{text}' is no number")),
    }
}

/// An integer, also as pandas writes it in a column with gaps (`3.0`).
fn read_step(text: &str) -> Option<i64> {
    if let Ok(step) = text.parse() {
        return Some(step);
    }
    let value: f64 = text.parse().ok()?;
    // Beyond 2^53 a float no longer says which integer was meant.
    (value.trunc() == value && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i64)
}

fn read_time(text: &str) -> Result<i64, String> {
    let time = read_step(text).or_else(|| time::parse_date(text)).ok_or_else(|| no_time(text))?;
    if time < 0 { Err(format!("the time {text} is before 1970")) } else { Ok(time) }
}

fn no_time(text: &str) -> String {
    format!("the time {text} is neither an integer of milliseconds since 1970 nor a date in UTC")
}

/// The fields of a CSV line (RFC 4180, except that a quoted field cannot hold a line end).
struct Fields<'a> {
    rest: Option<&'a str>,
    delimiter: char,
}

impl<'a> Fields<'a> {
    fn new(line: &'a str, delimiter: char) -> Self {
        Self { rest: Some(line), delimiter }
    }

    /// A field that starts with a quote; `body` is what follows the quote.
    fn quoted(&mut self, body: &'a str) -> Result<Cow<'a, str>, String> {
        let mut text = Cow::Borrowed("");
        let mut from = 0;
        loop {
            let Some(at) = body.get(from..).and_then(|tail| tail.find('"')).map(|at| from + at) else {
                return Err("a quoted field has no closing quote".into());
            };
            let part = body.get(from..at).unwrap_or_default();
            if text.is_empty() {
                text = Cow::Borrowed(part);
            } else {
                text.to_mut().push_str(part);
            }
            let tail = body.get(at + 1..).unwrap_or_default();
            if tail.starts_with('"') {
                text.to_mut().push('"');
                from = at + 2;
            } else if tail.is_empty() {
                self.rest = None;
                return Ok(text);
            } else if let Some(next) = tail.strip_prefix(self.delimiter) {
                self.rest = Some(next);
                return Ok(text);
            } else {
                return Err("text after a closing quote".into());
            }
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Cow<'a, str>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        if let Some(body) = rest.strip_prefix('"') {
            return Some(self.quoted(body));
        }
        match rest.split_once(self.delimiter) {
            Some((field, next)) => {
                self.rest = Some(next);
                Some(Ok(Cow::Borrowed(field)))
            }
            None => Some(Ok(Cow::Borrowed(rest))),
        }
    }
}

/// A JSON object as the pairs that stand in it, duplicates included.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Pairs;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// The text with bare `NaN`, `Infinity` and `-Infinity` in quotes; none if there are none outside strings.
fn quote_non_finite(text: &str) -> Option<String> {
    let mut quoted = String::with_capacity(text.len() + 8);
    let (mut rest, mut in_string, mut found) = (text, false, false);
    while let Some(character) = rest.chars().next() {
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest.starts_with(word));
        let (piece, after) = match (in_string, character, word) {
            (false, _, Some(word)) => {
                found = true;
                quoted.push('"');
                quoted.push_str(word);
                quoted.push('"');
                rest = rest.strip_prefix(word)?;
                continue;
            }
            (true, '\\', _) => rest.split_at_checked(1 + rest.chars().nth(1).map_or(0, char::len_utf8))?,
            (_, character, _) => {
                in_string ^= character == '"';
                rest.split_at_checked(character.len_utf8())?
            }
        };
        quoted.push_str(piece);
        rest = after;
    }
    found.then_some(quoted)
}

#[cfg(test)]
mod tests;
