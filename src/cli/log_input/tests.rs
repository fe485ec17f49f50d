//! Tests of reading log lines.

use proptest::prelude::*;

use super::*;

/// What a whole input gives: per line its step, time and values by key, or why it was refused.
type Parsed = Vec<Result<(Option<i64>, Option<i64>, Vec<(String, f64)>), Refusal>>;

fn parse_as(format: InputFormat, input: &[u8]) -> Parsed {
    let mut lines = Lines::new(input);
    let mut parser = Parser::new(format, "step", "timestamp");
    let mut all = Vec::new();
    while lines.next().unwrap() == Next::Line {
        match parser.parse(lines.line()) {
            Ok(false) => {}
            Ok(true) => {
                let record = parser.record();
                let values =
                    record.values.iter().map(|&(place, value)| (parser.key(place).to_owned(), value));
                all.push(Ok((record.step, record.timestamp_ms, values.collect())));
            }
            Err(why) => all.push(Err(why)),
        }
    }
    all
}

fn parse(input: &str) -> Parsed {
    parse_as(InputFormat::Auto, input.as_bytes())
}

fn values(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value)).collect()
}

fn refusal(input: &str) -> String {
    match parse(input).pop() {
        Some(Err(Refusal::Line(text))) => text,
        Some(Err(Refusal::Header(text))) => format!("HEADER {text}"),
        other => panic!("{input}: {other:?}"),
    }
}

#[test]
fn csv_has_a_header_and_may_have_gaps() {
    let all =
        parse("step,timestamp,loss,acc\n1,1000,0.5,\n\n2,,0.25,0.75\r\n3.0,1970-01-01T00:00:02Z,nan,-inf");
    assert_eq!(all.len(), 3);
    assert_eq!(all[0], Ok((Some(1), Some(1000), values(&[("loss", 0.5)]))));
    assert_eq!(all[1], Ok((Some(2), None, values(&[("loss", 0.25), ("acc", 0.75)]))));
    let Ok((step, time, last)) = &all[2] else { panic!("{:?}", all[2]) };
    assert_eq!((*step, *time), (Some(3), Some(2000)));
    assert!(last[0].1.is_nan() && last[1].1 == f64::NEG_INFINITY);
}

#[test]
fn csv_fields_may_be_quoted_and_tabs_work_too() {
    assert_eq!(
        parse("step,\"a,\"\"b\"\"\"\n\"1\",\"2\"\n"),
        [Ok((Some(1), None, values(&[("a,\"b\"", 2.0)])))]
    );
    assert_eq!(parse("step\tloss, total\n1\t2\n"), [Ok((Some(1), None, values(&[("loss, total", 2.0)])))]);
    assert_eq!(parse("\u{feff}loss\n2\n"), [Ok((None, None, values(&[("loss", 2.0)])))]);
}

#[test]
fn json_lines_are_objects_of_numbers() {
    let all = parse("{\"loss\":0.1,\"step\":3}\n{\"timestamp\":5,\"loss\":\"NaN\",\"acc\":null,\"n\":7}\n");
    assert_eq!(all[0], Ok((Some(3), None, values(&[("loss", 0.1)]))));
    let Ok((None, Some(5), pairs)) = &all[1] else { panic!("{:?}", all[1]) };
    assert!(pairs[0].1.is_nan() && pairs[1] == ("n".into(), 7.0));
}

#[test]
fn what_metrics_get_writes_is_understood() {
    assert_eq!(
        parse("step,timestamp_ms,loss\n1,1000,0.5\n"),
        [Ok((Some(1), Some(1000), values(&[("loss", 0.5)])))]
    );
}

#[test]
fn a_bad_line_is_refused_whole_and_the_next_is_good() {
    let all = parse("step,loss,acc\n1,0.5,oops\n2,0.25,0.5\n");
    assert_eq!(all[0], Err(Refusal::Line("column 3 ('acc'): 'oops' is no number".into())));
    assert_eq!(all[1], Ok((Some(2), None, values(&[("loss", 0.25), ("acc", 0.5)]))));
}

#[test]
fn refusals_say_what_is_wrong() {
    for (input, text) in [
        ("a,b\n1", "1 fields, but the header names 2 columns"),
        ("a\n1,2", "2 fields, but the header names 1 columns"),
        ("step\n1.5", "the step '1.5' is no integer"),
        ("a\n1e999", "column 1 ('a'): 1e999 is too large for a float"),
        ("a\n\"1", "a quoted field has no closing quote"),
        (
            "1,2\n",
            "HEADER '1' is a number: the first line must name the columns, for example step,timestamp,loss",
        ),
        ("a,a\n", "HEADER columns 1 and 2 are both named 'a'"),
        ("a,,b\n", "HEADER column 2 has no name"),
        ("[{\"a\":1}]\n", "HEADER a JSON array: write one object a line (`jq -c '.[]'` does it)"),
        ("{\"a\":true}", "'a' is true or false, not a number"),
        ("{\"a\":{\"b\":1}}", "'a' is an object, not a number"),
        ("{\"a\":1,\"a\":2}", "'a' is there twice"),
        ("{\"step\":1.5}", "the step 1.5 is no integer"),
        (
            "{\"timestamp\":\"soon\"}",
            "the time soon is neither an integer of milliseconds since 1970 nor a date in UTC",
        ),
        ("{\"a\":1", "EOF while parsing an object at column 6"),
        ("{\"a\":1}\n5", "invalid type: integer `5`, expected an object of numbers at column 1"),
    ] {
        assert_eq!(refusal(input), text, "{input}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let all = parse_as(InputFormat::Auto, b"a\n\xff\n1\n");
    assert_eq!(all[0], Err(Refusal::Line("no UTF-8 at byte 1".into())));
    assert_eq!(all[1], Ok((None, None, values(&[("a", 1.0)]))));
}

#[test]
fn lines_longer_than_the_limit_are_skipped_not_stored() {
    let mut input = vec![b'1'; LINE_BYTES_MAX + 10];
    input.extend_from_slice(b"\nshort\n");
    let mut lines = Lines::new(input.as_slice());
    assert_eq!(lines.next().unwrap(), Next::TooLong);
    assert_eq!((lines.next().unwrap(), lines.line(), lines.number()), (Next::Line, b"short\n".as_slice(), 2));
    assert_eq!(lines.next().unwrap(), Next::End);
    // Exactly the limit, without a line end, is a line.
    let whole = vec![b'1'; LINE_BYTES_MAX];
    assert_eq!(Lines::new(whole.as_slice()).next().unwrap(), Next::Line);
}

proptest! {
    #[test]
    fn no_input_panics(input: Vec<u8>, json: bool) {
        let _ = parse_as(InputFormat::Auto, &input);
        let format = if json { InputFormat::Jsonl } else { InputFormat::Csv };
        let _ = parse_as(format, &input);
    }

    #[test]
    fn no_likely_input_panics(input in "[a-c0-9,\"\t{}:\\[\\].einfN\\-\n\r ]{0,60}") {
        let _ = parse(&input);
    }

    #[test]
    fn floats_keep_every_bit_through_both_formats(bits: Vec<u64>) {
        let floats: Vec<f64> = bits.into_iter().map(f64::from_bits).filter(|f| f.is_finite()).collect();
        let csv: String = std::iter::once("v\n".into()).chain(floats.iter().map(|f| format!("{f:?}\n"))).collect();
        let json: String = floats.iter().map(|f| format!("{{\"v\":{f:?}}}\n")).collect();
        for input in [csv, json] {
            let read: Vec<u64> = parse(&input).into_iter().map(|line| line.unwrap().2[0].1.to_bits()).collect();
            prop_assert_eq!(read, floats.iter().map(|f| f.to_bits()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn quoted_fields_come_back(cells in prop::collection::vec("[^\n\r]{0,8}", 1..5)) {
        let line: Vec<String> = cells.iter().map(|c| format!("\"{}\"", c.replace('"', "\"\""))).collect();
        let line = line.join(",");
        let read: Result<Vec<Cow<'_, str>>, String> = Fields::new(&line, ',').collect();
        prop_assert_eq!(read.unwrap(), cells);
    }
}

#[test]
fn bare_words_of_python_are_quoted_outside_strings_only() {
    let quoted = super::quote_non_finite;
    assert_eq!(
        quoted(r#"{"a": NaN, "b": -Infinity, "c": Infinity}"#).as_deref(),
        Some(r#"{"a": "NaN", "b": "-Infinity", "c": "Infinity"}"#)
    );
    assert_eq!(quoted(r#"{"NaN \" Infinity": 1}"#), None);
}
