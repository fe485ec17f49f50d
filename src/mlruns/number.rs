//! Numbers as Python writes and reads them, because the text of an `mlruns` file is Python's.
//!
//! Contract: [`write_float`] gives `repr(float)` byte for byte (shortest digits that read back; positional for
//! 1e-4 <= |x| < 1e16, else an exponent of at least two digits); [`read_float`] and [`read_integer`] accept what
//! `float()` and `int()` accept in ASCII (surrounding blanks, a sign, single underscores between digits, any spelling
//! of nan and inf). NaN has one text, so its sign and payload are not in a tree.

/// Longest `repr(float)`: `-2.2250738585072014e-308`.
const FLOAT_TEXT_MAX: usize = 24;

const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Appends `repr(value)`.
pub(super) fn write_float(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        return out.extend_from_slice(b"nan");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"inf".as_slice() } else { b"-inf" });
    }
    let size = value.abs();
    if size < 9e15 && value == value.trunc() && (value != 0.0 || value.is_sign_positive()) {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
        return out.extend_from_slice(b".0");
    }
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value);
    if (1e-4..1e16).contains(&size) || size == 0.0 {
        return out.extend_from_slice(text.as_bytes());
    }
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    out.extend_from_slice(sign.as_bytes());
    match digits.split_once('e') {
        Some((mantissa, exponent)) => {
            out.extend_from_slice(mantissa.as_bytes());
            let (sign, exponent) = exponent.strip_prefix('-').map_or((b'+', exponent), |rest| (b'-', rest));
            out.extend_from_slice(&[b'e', sign]);
            if exponent.len() < 2 {
                out.push(b'0');
            }
            out.extend_from_slice(exponent.as_bytes());
        }
        // ryu writes 0.00001234 where Python writes 1.234e-05; no other range differs.
        None => {
            let digits = digits.trim_start_matches(['0', '.']).as_bytes();
            if let Some((first, rest)) = digits.split_first() {
                out.push(*first);
                if !rest.is_empty() {
                    out.push(b'.');
                    out.extend_from_slice(rest);
                }
                out.extend_from_slice(b"e-05");
            }
        }
    }
}

/// Reads text that is exactly what [`write_float`] writes; anything else is `None`, however good a number.
pub(super) fn read_canonical_float(text: &[u8]) -> Option<f64> {
    if let Some(value) = read_short_decimal(text) {
        return Some(value);
    }
    if text.len() > FLOAT_TEXT_MAX {
        return None;
    }
    let value = match text {
        b"nan" => return Some(f64::NAN),
        b"inf" => return Some(f64::INFINITY),
        b"-inf" => return Some(f64::NEG_INFINITY),
        _ => std::str::from_utf8(text).ok()?.parse::<f64>().ok()?,
    };
    if !value.is_finite() {
        return None;
    }
    is_canonical(text, value).then_some(value)
}

/// Whether `text` is `repr(value)`, without a buffer where ryu lays it out as Python does.
fn is_canonical(text: &[u8], value: f64) -> bool {
    if (1e-4..1e16).contains(&value.abs()) {
        return ryu::Buffer::new().format_finite(value).as_bytes() == text;
    }
    let mut again = Vec::with_capacity(FLOAT_TEXT_MAX);
    write_float(&mut again, value);
    again == text
}

/// The common case without a general parser: up to 15 significant digits, positional. Two such decimals never share
/// a double, so the digits are the shortest ones whenever the layout is right; mantissa and power of ten are exact,
/// so one division rounds correctly.
fn read_short_decimal(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.len() > 20 {
        return None;
    }
    let mut mantissa = 0u64;
    let mut significant = 0usize;
    let mut point = None;
    for (index, &byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            significant += usize::from(significant > 0 || digit > 0);
            if significant > 15 {
                return None;
            }
            mantissa = mantissa * 10 + u64::from(digit);
        } else if byte == b'.' && point.is_none() {
            point = Some(index);
        } else {
            return None;
        }
    }
    let point = point?;
    let fraction = digits.len() - point - 1;
    let leading_zero = digits.first() == Some(&b'0') && point > 1;
    let trailing_zero = digits.last() == Some(&b'0') && fraction > 1;
    if point == 0 || fraction == 0 || leading_zero || trailing_zero {
        return None;
    }
    let value = mantissa as f64 / POWERS_OF_TEN.get(fraction)?;
    if mantissa != 0 && value < 1e-4 {
        return None;
    }
    Some(if negative { -value } else { value })
}

/// `float(text)`.
pub(super) fn read_float(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii();
    let mut plain = Vec::new();
    let text = without_underscores(text, &mut plain)?;
    let text = std::str::from_utf8(text).ok()?;
    // Python and Rust agree on the rest: signs, "1.", ".5", exponents, inf, infinity and nan in any case.
    let value = text.parse::<f64>().ok()?;
    Some(if value.is_nan() { f64::NAN } else { value })
}

/// `int(text)`, where it fits in 64 bits.
pub(super) fn read_integer(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    let mut plain = Vec::new();
    std::str::from_utf8(without_underscores(text, &mut plain)?).ok()?.parse().ok()
}

/// Python allows one underscore between two digits, nowhere else.
fn without_underscores<'a>(text: &'a [u8], plain: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if !text.contains(&b'_') {
        return Some(text);
    }
    let is_digit = |index: Option<usize>| index.and_then(|i| text.get(i)).is_some_and(u8::is_ascii_digit);
    for (index, &byte) in text.iter().enumerate() {
        if byte != b'_' {
            plain.push(byte);
        } else if !is_digit(index.checked_sub(1)) || !is_digit(index.checked_add(1)) {
            return None;
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repr(value: f64) -> String {
        let mut out = Vec::new();
        write_float(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    /// Each text is what CPython's `repr` prints for the number it reads as.
    #[test]
    fn floats_are_laid_out_as_python_does() {
        for text in [
            "0.0",
            "-0.0",
            "1.0",
            "-1.0",
            "0.1",
            "0.3333333333333333",
            "1e-07",
            "0.0001",
            "1e-05",
            "1.234e-05",
            "-9.999e-05",
            "0.00012345",
            "1000000000000000.0",
            "9007199254740992.0",
            "9999999999999998.0",
            "1e+16",
            "1.2345678901234568e+17",
            "1e+22",
            "1e+23",
            "1e+300",
            "1e+100",
            "1.5e-10",
            "5e-324",
            "-5e-324",
            "2.2250738585072014e-308",
            "1.7976931348623157e+308",
            "-1.7976931348623157e+308",
            "0.30000000000000004",
            "123456789.12345679",
            "0.10000000149011612",
            "nan",
            "inf",
            "-inf",
            "8999999999999999.0",
            "123.0",
            "4503599627370495.5",
            "0.0009765625",
        ] {
            let value =
                read_canonical_float(text.as_bytes()).unwrap_or_else(|| panic!("{text} is canonical"));
            assert_eq!(repr(value), text);
        }
        assert!(read_canonical_float(b"-0.0").unwrap().is_sign_negative());
    }

    #[test]
    fn other_spellings_are_read_but_not_canonical() {
        for (text, value) in [
            ("7", 7.0),
            ("1e5", 1e5),
            ("1E5", 1e5),
            ("+5", 5.0),
            ("+1E5", 1e5),
            ("1_000.5", 1000.5),
            (".5", 0.5),
            ("1.", 1.0),
            ("0.10", 0.1),
            ("00.1", 0.1),
            ("1e16", 1e16),
            ("1e-7", 1e-7),
            ("0.00001", 1e-5),
            ("Infinity", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
            ("1e400", f64::INFINITY),
            (" 1.5 ", 1.5),
            ("10000000000000000.0", 1e16),
            ("0.1000000000000000055", 0.1),
            ("-0", -0.0),
        ] {
            assert_eq!(read_float(text.as_bytes()).map(f64::to_bits), Some(f64::to_bits(value)), "{text}");
            assert_eq!(read_canonical_float(text.as_bytes()), None, "{text}");
        }
        assert!(read_float(b"NaN").unwrap().is_nan() && read_float(b"-nan").unwrap().is_nan());
        for text in ["", "0x10", "_1", "1_", "1__0", "1_.5", "e5", ".", "1.5.2", "one", "1 2", "\u{661}", "-"]
        {
            assert_eq!(read_float(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn integers_follow_python_within_64_bits() {
        assert_eq!(read_integer(b"+5"), Some(5));
        assert_eq!(read_integer(b" -1_000 "), Some(-1000));
        assert_eq!(read_integer(b"007"), Some(7));
        assert_eq!(read_integer(b"-9223372036854775808"), Some(i64::MIN));
        for text in ["9223372036854775808", "1.0", "", "0x1", "1_", "--1"] {
            assert_eq!(read_integer(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_double_reads_back_from_its_text(bits: u64) {
            let value = f64::from_bits(bits);
            let text = repr(value);
            prop_assert!(text.len() <= FLOAT_TEXT_MAX);
            let back = read_canonical_float(text.as_bytes()).unwrap();
            prop_assert!(back.to_bits() == bits || value.is_nan() && back.is_nan());
        }

        #[test]
        fn short_decimals_take_the_fast_path_to_the_same_double(
            mantissa in 0u64..1_000_000_000_000_000, scale in 0usize..20,
        ) {
            let digits = format!("{mantissa:0width$}", width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let text = format!("{whole}.{fraction}");
            if let Some(value) = read_short_decimal(text.as_bytes()) {
                prop_assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits());
                prop_assert_eq!(repr(value), text);
            } else if let Ok(value) = text.parse::<f64>() {
                prop_assert_ne!(repr(value), text);
            }
        }

        #[test]
        fn readers_take_any_bytes(text: Vec<u8>) {
            let float = read_float(&text);
            let same = |v: f64| float.is_some_and(|f| f.to_bits() == v.to_bits() || f.is_nan());
            prop_assert!(read_canonical_float(&text).is_none_or(same));
            let _ = read_integer(&text);
        }
    }
}
