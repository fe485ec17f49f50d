//! One line of a metric file: `timestamp value step`, with MLflow's variants.
//!
//! Contract: [`parse`] accepts what MLflow's reader accepts (blanks around, CRLF, Python's numbers, 2 fields without a
//! step, data set names after the step) and, beyond it, lines whose first three fields are sound. [`write`] is the
//! one place that knows the text: a line is *regular* when writing it again gives its bytes.

use super::number::{read_canonical_float, read_float, read_integer, write_float};

/// How the value of a point was spelled: nothing for `repr`, [`SPELLED_INTEGER`] for a bare integer, otherwise
/// [`SPELLED_LITERALLY`] and the text.
pub(super) const SPELLED_INTEGER: &[u8] = b"i";
/// First byte of a spelling that is kept as text.
pub(super) const SPELLED_LITERALLY: u8 = b'=';
/// The tail of a line without a step; any other tail is empty or starts with a blank and follows the step.
pub(super) const TAIL_NO_STEP: &[u8] = b"\0";
/// Longest line that can be a point; data set names and digests are far shorter.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest value text that is kept literally; longer ones leave the line irregular.
const LITERAL_BYTES_MAX: usize = 512;

/// A point as a line shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) timestamp: i64,
    pub(super) value: f64,
    pub(super) step: i64,
    /// See [`SPELLED_INTEGER`].
    pub(super) spelling: Spelling<'a>,
    /// What follows the step.
    pub(super) tail: &'a [u8],
    /// How many fields follow the step.
    pub(super) extra_fields: usize,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling<'a> {
    /// As `repr(float)`.
    Canonical,
    /// As `repr(int)`.
    Integer,
    /// As this text.
    Literal(&'a [u8]),
}

impl<'a> Spelling<'a> {
    /// From its stored form; unknown ones (of a later program) fall back to `repr`.
    pub(super) fn from_stored(stored: &'a [u8]) -> Self {
        match stored {
            SPELLED_INTEGER => Self::Integer,
            [SPELLED_LITERALLY, text @ ..] => Self::Literal(text),
            _ => Self::Canonical,
        }
    }

    /// Its stored form.
    pub(super) fn to_stored(self) -> Vec<u8> {
        match self {
            Self::Canonical => Vec::new(),
            Self::Integer => SPELLED_INTEGER.to_vec(),
            Self::Literal(text) => [&[SPELLED_LITERALLY], text].concat(),
        }
    }
}

/// Appends a line with its line feed.
pub(super) fn write(
    out: &mut Vec<u8>,
    timestamp: i64,
    value: f64,
    step: i64,
    spelling: Spelling<'_>,
    tail: &[u8],
) {
    out.extend_from_slice(itoa::Buffer::new().format(timestamp).as_bytes());
    out.push(b' ');
    match spelling {
        Spelling::Canonical => write_float(out, value),
        Spelling::Integer => out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes()),
        Spelling::Literal(text) => out.extend_from_slice(text),
    }
    if tail != TAIL_NO_STEP {
        out.push(b' ');
        out.extend_from_slice(itoa::Buffer::new().format(step).as_bytes());
        out.extend_from_slice(tail);
    }
    out.push(b'\n');
}

/// A canonical three-field line at the start of `text`: timestamp, value, step and the bytes up to and with the line
/// feed. `None` does not mean that the line is bad, only that [`parse`] has to look at it.
#[inline]
pub(super) fn parse_canonical(text: &[u8]) -> Option<(i64, f64, i64, usize)> {
    let (timestamp, used) = canonical_integer(text)?;
    let rest = text.get(used..)?;
    let [b' ', rest @ ..] = rest else { return None };
    let length = rest.iter().take(32).position(|&b| b == b' ')?;
    let (value, rest) = rest.split_at_checked(length)?;
    let value = read_canonical_float(value)?;
    let (step, step_bytes) = canonical_integer(rest.get(1..)?)?;
    let end = used + 1 + length + 1 + step_bytes;
    (text.get(end) == Some(&b'\n')).then_some((timestamp, value, step, end + 1))
}

/// Up to 18 digits, so that nothing overflows, without a superfluous zero or sign.
#[inline]
fn canonical_integer(text: &[u8]) -> Option<(i64, usize)> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut number = 0i64;
    let mut length = 0usize;
    for &byte in digits.iter().take(19) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number.wrapping_mul(10).wrapping_add(i64::from(digit));
        length += 1;
    }
    let superfluous = digits.first() == Some(&b'0') && (length > 1 || negative);
    if length == 0 || length > 18 || superfluous {
        return None;
    }
    Some(if negative { (-number, length + 1) } else { (number, length) })
}

/// Any line, with or without its line feed.
pub(super) fn parse(line: &[u8]) -> Result<Line<'_>, &'static str> {
    if std::str::from_utf8(line).is_err() {
        return Err("not UTF-8");
    }
    let text = line.trim_ascii();
    if text.is_empty() {
        return Err("an empty line");
    }
    if text.len() > LINE_BYTES_MAX {
        return Err("a line longer than 64 KiB");
    }
    let mut fields = text.splitn(4, |&b| b == b' ');
    let (timestamp, value) = (fields.next().unwrap_or_default(), fields.next());
    let (step, extra) = (fields.next(), fields.next());
    let Some(value_text) = value else {
        return Err("only one field; expected a timestamp, a value and a step");
    };
    let Some(timestamp) = read_integer(timestamp) else {
        return Err("the timestamp is not a 64-bit integer");
    };
    let Some(value) = read_float(value_text) else { return Err("the value is not a number") };
    let (step, tail) = match step {
        None => (0, TAIL_NO_STEP),
        Some(step) => {
            let Some(step) = read_integer(step) else { return Err("the step is not a 64-bit integer") };
            let tail = match extra {
                None => &[],
                Some(extra) => text.get(text.len() - extra.len() - 1..).unwrap_or_default(),
            };
            (step, tail)
        }
    };
    let extra_fields = tail.iter().filter(|&&b| b == b' ').count();
    Ok(Line { timestamp, value, step, spelling: spelling_of(value_text, value), tail, extra_fields })
}

fn spelling_of(text: &[u8], value: f64) -> Spelling<'_> {
    if read_canonical_float(text).is_some() {
        return Spelling::Canonical;
    }
    let integer = value.abs() < 9_007_199_254_740_992.0
        && value == value.trunc()
        && itoa::Buffer::new().format(value as i64).as_bytes() == text;
    if integer { Spelling::Integer } else { Spelling::Literal(text.get(..LITERAL_BYTES_MAX).unwrap_or(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(line: &str) -> String {
        let parsed = parse(line.as_bytes()).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        let mut out = Vec::new();
        write(&mut out, parsed.timestamp, parsed.value, parsed.step, parsed.spelling, parsed.tail);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn regular_lines_are_written_again_as_they_were() {
        for line in [
            "1700000000000 0.1 3\n",
            "1700000000000 nan -100\n",
            "0 -0.0 9223372036854775807\n",
            "-5 1e-07 0\n",
            "1700000000000 7 1\n",
            "1700000000000 9007199254740992 1\n",
            "1700000000000 -0 1\n",
            "1700000000000 1E5 1\n",
            "1700000000000 0.5\n",
            "1700000000000 0.5 2 ds d1g\n",
            "1700000000000 0.5 2 86ab run ds d1g\n",
            "1700000000000 0.5 2 name with space d1g\n",
        ] {
            assert_eq!(again(line), line);
        }
    }

    #[test]
    fn what_python_reads_is_read() {
        for (line, timestamp, value, step) in [
            ("1 2 3\r\n", 1, 2.0, 3),
            ("  1 2.5 3  \n", 1, 2.5, 3),
            ("1 2.5 3", 1, 2.5, 3),
            ("+1 1_000.5 +5\n", 1, 1000.5, 5),
            ("1 -INF 3\n", 1, f64::NEG_INFINITY, 3),
            ("1_0 Infinity 3\n", 10, f64::INFINITY, 3),
        ] {
            let parsed = parse(line.as_bytes()).unwrap();
            assert_eq!((parsed.timestamp, parsed.value, parsed.step), (timestamp, value, step));
        }
        for line in [
            "",
            "\n",
            "1\n",
            "1  2 3\n",
            "1\t2\t3\n",
            "1.5 2 3\n",
            "1 0x10 3\n",
            "1 2 1.5\n",
            "1 2 9223372036854775808\n",
            "a b c\n",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line:?}");
        }
        assert!(parse(b"1 2 3 \xff d\n").is_err());
        for (line, accepted) in
            [("1 2.0 3 a b\n", true), ("1 2.0 3 a\n", false), ("1 2.0 3 a b c\n", false), ("1 2.0\n", true)]
        {
            assert_eq!(matches!(parse(line.as_bytes()).unwrap().extra_fields, 0 | 2), accepted, "{line:?}");
        }
    }

    #[test]
    fn the_fast_path_agrees_with_the_slow_one() {
        for line in ["1700000000000 0.1 3\n", "0 1.0 -7\n", "-1 1e+16 0\n", "1 nan 123456789012345678\n"] {
            let (timestamp, value, step, used) = parse_canonical(line.as_bytes()).unwrap();
            let slow = parse(line.as_bytes()).unwrap();
            assert_eq!(
                (timestamp, value.to_bits(), step, used),
                (slow.timestamp, slow.value.to_bits(), slow.step, line.len())
            );
        }
        for line in [
            "1 2 3\n",
            "01 2.0 3\n",
            "1 2.0 -0\n",
            "1 2.0 3",
            "1 2.0 3 \n",
            "1 2.0\n",
            "1 2.0 3\r\n",
            "+1 2.0 3\n",
            "1  2.0 3\n",
        ] {
            assert!(parse_canonical(line.as_bytes()).is_none(), "{line:?}");
        }
    }
}
