//! Which type a plain YAML 1.1 scalar has for PyYAML (`yaml/resolver.py`, the rules of `SafeLoader`).
//!
//! Contract: [`resolve`] decides like PyYAML's regular expressions. It is needed twice: a string that would resolve to
//! anything else is quoted when written, and a plain scalar that is read gets its type here (`1e3` is text, `017` and
//! `12:30:45` are integers).

/// The type of a plain scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `null`, `~`, nothing.
    Null,
    /// `true`, `Yes`, `off`, ...
    Bool,
    /// Decimal, octal, hexadecimal, binary or sexagesimal.
    Integer,
    /// A float; PyYAML wants a point, and a sign in the exponent.
    Float,
    /// A date or a time stamp.
    Timestamp,
    /// `=` or `<<`.
    Special,
    /// Anything else.
    Text,
}

/// The type PyYAML gives to a plain scalar.
pub(super) fn resolve(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "yes" | "Yes" | "YES" | "no" | "No" | "NO" | "true" | "True" | "TRUE" | "false" | "False"
        | "FALSE" | "on" | "On" | "ON" | "off" | "Off" | "OFF" => return Kind::Bool,
        "=" | "<<" => return Kind::Special,
        _ => {}
    }
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(b'0'..=b'9' | b'-' | b'+' | b'.') => {}
        _ => return Kind::Text,
    }
    if is_float(bytes) {
        Kind::Float
    } else if is_integer(bytes) {
        Kind::Integer
    } else if is_timestamp(bytes) {
        Kind::Timestamp
    } else {
        Kind::Text
    }
}

fn split_sign(bytes: &[u8]) -> &[u8] {
    match bytes {
        [b'+' | b'-', rest @ ..] => rest,
        _ => bytes,
    }
}

/// Splits off the longest prefix of bytes that satisfy `test`.
fn take(bytes: &[u8], test: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&b| !test(b)).unwrap_or(bytes.len());
    bytes.split_at_checked(end).unwrap_or((bytes, &[]))
}

const fn digit_or_underscore(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'_'
}

/// `(:[0-5]?[0-9])+` from the start of `bytes`; what follows, if there was at least one.
fn take_sexagesimal(mut bytes: &[u8]) -> Option<&[u8]> {
    let mut any = false;
    loop {
        bytes = match bytes {
            [b':', b'0'..=b'5', b'0'..=b'9', rest @ ..] => rest,
            [b':', b'0'..=b'9', rest @ ..] => rest,
            rest => return any.then_some(rest),
        };
        any = true;
    }
}

fn is_exponent(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [b'e' | b'E', b'+' | b'-', digits @ ..] => {
            !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

fn is_float(bytes: &[u8]) -> bool {
    let unsigned = split_sign(bytes);
    if matches!(unsigned, b".inf" | b".Inf" | b".INF") || matches!(bytes, b".nan" | b".NaN" | b".NAN") {
        return true;
    }
    if let [b'.', b'0'..=b'9', rest @ ..] = bytes {
        return is_exponent(take(rest, digit_or_underscore).1);
    }
    let [b'0'..=b'9', rest @ ..] = unsigned else { return false };
    let (_, rest) = take(rest, digit_or_underscore);
    match rest {
        [b'.', rest @ ..] => is_exponent(take(rest, digit_or_underscore).1),
        _ => match take_sexagesimal(rest) {
            Some([b'.', rest @ ..]) => take(rest, digit_or_underscore).1.is_empty(),
            _ => false,
        },
    }
}

fn is_integer(bytes: &[u8]) -> bool {
    let all = |digits: &[u8], test: fn(u8) -> bool| !digits.is_empty() && digits.iter().all(|&b| test(b));
    match split_sign(bytes) {
        [b'0'] => true,
        [b'0', b'b', digits @ ..] => all(digits, |b| matches!(b, b'0' | b'1' | b'_')),
        [b'0', b'x', digits @ ..] => all(digits, |b| b.is_ascii_hexdigit() || b == b'_'),
        [b'0', digits @ ..] => all(digits, |b| matches!(b, b'0'..=b'7' | b'_')),
        [b'1'..=b'9', rest @ ..] => {
            let (_, rest) = take(rest, digit_or_underscore);
            rest.is_empty() || take_sexagesimal(rest).is_some_and(<[u8]>::is_empty)
        }
        _ => false,
    }
}

fn is_timestamp(bytes: &[u8]) -> bool {
    let two = |bytes: &[u8]| matches!(bytes, [a, b] if a.is_ascii_digit() && b.is_ascii_digit());
    let one_or_two = |bytes: &[u8]| matches!(bytes.len(), 1 | 2) && bytes.iter().all(u8::is_ascii_digit);
    let Some((year, rest)) = bytes.split_at_checked(4) else { return false };
    let [b'-', rest @ ..] = rest else { return false };
    let (month, rest) = take(rest, |b| b.is_ascii_digit());
    let [b'-', rest @ ..] = rest else { return false };
    let (day, rest) = take(rest, |b| b.is_ascii_digit());
    if !year.iter().all(u8::is_ascii_digit) || !one_or_two(month) || !one_or_two(day) {
        return false;
    }
    let rest = match rest {
        [] => return two(month) && two(day),
        [b'T' | b't', rest @ ..] => rest,
        [b' ' | b'\t', ..] => take(rest, |b| b == b' ' || b == b'\t').1,
        _ => return false,
    };
    let (hour, rest) = take(rest, |b| b.is_ascii_digit());
    let Some((minute_second, rest)) = rest.split_at_checked(6) else { return false };
    let [b':', m1, m2, b':', s1, s2] = minute_second else { return false };
    if !one_or_two(hour) || ![m1, m2, s1, s2].into_iter().all(u8::is_ascii_digit) {
        return false;
    }
    let rest = match rest {
        [b'.', rest @ ..] => take(rest, |b| b.is_ascii_digit()).1,
        _ => rest,
    };
    let zone = take(rest, |b| b == b' ' || b == b'\t').1;
    match zone {
        [] => rest.is_empty(),
        [b'Z'] => true,
        [b'+' | b'-', zone @ ..] => {
            let (hours, minutes) = take(zone, |b| b.is_ascii_digit());
            one_or_two(hours) && (minutes.is_empty() || matches!(minutes, [b':', rest @ ..] if two(rest)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_those_of_pyyaml() {
        let cases: &[(Kind, &[&str])] = &[
            (Kind::Null, &["", "~", "null", "Null", "NULL"]),
            (Kind::Bool, &["yes", "No", "TRUE", "off", "On"]),
            (Kind::Special, &["=", "<<"]),
            (
                Kind::Integer,
                &[
                    "0",
                    "-0",
                    "+1",
                    "123",
                    "-5",
                    "017",
                    "0_7",
                    "0x1F",
                    "-0xff",
                    "0b1",
                    "1_000",
                    "12:30:45",
                    "1:2",
                    "190:20:30",
                ],
            ),
            (
                Kind::Float,
                &[
                    "1.5", "1.", "0.", ".5", "1.5e-07", "1.e+3", ".inf", "-.inf", "+.Inf", ".nan", ".NaN",
                    "1:30.5", "1_0.2_5",
                ],
            ),
            (
                Kind::Timestamp,
                &[
                    "2024-01-01",
                    "2024-01-01 10:00:00",
                    "2024-1-1T1:02:03",
                    "2024-01-01t10:00:00.5Z",
                    "2024-01-01 10:00:00 +01:00",
                    "2024-01-01 10:00:00-5",
                    "2024-01-01 10:00:00.",
                ],
            ),
            (
                Kind::Text,
                &[
                    "1e3",
                    "1.0e3",
                    "1e+3",
                    "0o17",
                    "08",
                    "y",
                    "n",
                    "nULL",
                    "NaN",
                    "nan",
                    "inf",
                    "-",
                    "+",
                    ".",
                    "..",
                    "...",
                    "1.2.3",
                    "+.nan",
                    "-.5",
                    "._1",
                    "0x",
                    "0b2",
                    "1:60",
                    "2024-1-1",
                    "2024-01-01 10:00",
                    "2024-01-01 10:00:00 ",
                    "12:30:45x",
                    "yEs",
                    "- 1",
                    "1 2",
                    "a",
                    "\u{661}",
                ],
            ),
        ];
        for (kind, texts) in cases {
            for text in *texts {
                assert_eq!(resolve(text), *kind, "{text:?}");
            }
        }
    }
}
