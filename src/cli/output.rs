//! Where answers go and how values look.
//!
//! Contract: answers go to [`Output`] (standard output), everything else to stderr through [`Output::note`] and
//! friends, which never fail. Text that came from a store passes [`for_terminal`] or [`for_plain`] before it is
//! printed: a tag must not be able to send control sequences to a terminal.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, Write};

use serde_json::Value;

use super::args::ColorChoice;

/// What a piece of text means; the terminal's palette decides the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
    Warn,
    Info,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "\x1b[1m",
            Self::Faint => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
            Self::Warn => "\x1b[33m",
            Self::Info => "\x1b[36m",
        }
    }
}

/// Text in its tone, if colours are on.
pub(super) fn paint(colour: bool, tone: Tone, text: impl Display) -> String {
    match (colour, tone) {
        (true, tone) if tone != Tone::Plain => format!("{}{text}\x1b[0m", tone.code()),
        _ => text.to_string(),
    }
}

/// Whether to colour a stream: `--color` decides, then NO_COLOR (any non-empty value), then whether it is a terminal
/// that understands it.
pub(super) fn use_colour(
    choice: ColorChoice,
    is_terminal: bool,
    no_color: Option<&OsStr>,
    term: Option<&OsStr>,
) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            is_terminal && no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
        }
    }
}

/// Standard output and how to write to it.
pub(super) struct Output<'a> {
    pub(super) out: Box<dyn Write + 'a>,
    /// Width in characters if standard output is a terminal.
    pub(super) terminal: Option<usize>,
    pub(super) colour: bool,
    pub(super) colour_stderr: bool,
    /// Whether progress may be drawn: stderr is a terminal and nobody asked for quiet.
    pub(super) progress: bool,
    pub(super) json: bool,
    pub(super) quiet: bool,
    pub(super) verbose: bool,
    /// One "now" for all relative times of an answer.
    pub(super) now_ms: i64,
}

impl Output<'_> {
    /// One JSON object on one line.
    pub(super) fn json_line(&mut self, value: &Value) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
        self.out.write_all(b"\n")
    }

    /// A line for the reader on stderr; silent under `--quiet`.
    pub(super) fn note(&self, text: impl Display) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// A line of a warning: even `--quiet` prints it.
    pub(super) fn tell(&self, text: impl Display) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// What to do about what was just warned of.
    pub(super) fn hint(&self, text: impl Display) {
        let _ = writeln!(io::stderr(), "{} {text}", paint(self.colour_stderr, Tone::Info, "hint:"));
    }

    /// A line on stderr that even `--quiet` prints: something was not as it should be.
    pub(super) fn warn(&self, text: impl Display) {
        let word = paint(self.colour_stderr, Tone::Warn, "warning:");
        let _ = writeln!(io::stderr(), "{word} {text}");
    }

    /// The last line of a failed command, with what to do next.
    pub(super) fn error(&self, text: impl Display, advice: Option<&str>) {
        let _ = writeln!(io::stderr(), "{} {text}", paint(self.colour_stderr, Tone::Bad, "error:"));
        if let Some(advice) = advice {
            self.hint(advice);
        }
    }
}

/// Whether a character could move the cursor, start an escape sequence or reorder the line.
fn is_dangerous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push_escaped(to: &mut String, c: char) {
    match c {
        '\n' => to.push_str("\\n"),
        '\t' => to.push_str("\\t"),
        '\r' => to.push_str("\\r"),
        c if is_dangerous(c) => to.extend(c.escape_unicode()),
        c => to.push(c),
    }
}

/// Text for a terminal: control characters spelled out, so a value stays in its place.
pub(super) fn for_terminal(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    text.chars().for_each(|c| push_escaped(&mut safe, c));
    safe
}

/// Text for a tab-separated field: as for the terminal, and backslashes doubled, so it can be undone.
pub(super) fn for_plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => safe.push_str("\\\\"),
            c => push_escaped(&mut safe, c),
        }
    }
    safe
}

/// A word that a shell reads as this text, for commands that are to be copied.
pub(super) fn shell_quoted(text: impl AsRef<OsStr>) -> String {
    let text = text.as_ref().to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:+,@%=".contains(c);
    if text.chars().any(is_dangerous) {
        // What is left of a control character must not reach the terminal, so the shell is told its code.
        let mut quoted = String::from("$'");
        for c in text.chars() {
            match c {
                '\'' | '\\' => quoted.extend(['\\', c]),
                c if is_dangerous(c) => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
                c => quoted.push(c),
            }
        }
        return quoted + "'";
    }
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A value in full: the shortest digits that read back to the same bits; non-finite ones as MLflow's JSON spells them.
pub(super) fn exact(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        format!("{value:?}")
    }
}

/// A value for the eye: six significant digits.
pub(super) fn rounded(value: f64) -> String {
    if !value.is_finite() {
        return exact(value);
    }
    if value == 0.0 {
        return "0".into();
    }
    let scientific = format!("{value:.5e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let trim = |text: &str| -> String {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text.into() }
    };
    match exponent.parse::<i32>() {
        Ok(exponent @ -5..=9) => {
            let decimals = usize::try_from(5 - exponent).unwrap_or(0);
            trim(&format!("{value:.decimals$}"))
        }
        _ => format!("{}e{exponent}", trim(mantissa)),
    }
}

/// A count with thousands separators.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 run`, `2 runs`.
pub(super) fn plural(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Bytes in binary units.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut size = number as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        // 1023.95 would print as 1024.0.
        if size < 1023.95 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    format!("{size:.1} {unit}")
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::samples;

    /// What a verb writes to standard output that is a terminal of this width, or none.
    pub(in crate::cli) fn captured(
        terminal: Option<usize>,
        json: bool,
        verb: impl FnOnce(&mut Output<'_>),
    ) -> String {
        let mut bytes = Vec::new();
        verb(&mut Output {
            out: Box::new(&mut bytes),
            terminal,
            colour: false,
            colour_stderr: false,
            progress: false,
            json,
            quiet: true,
            verbose: false,
            now_ms: samples::START_MS + 60_000,
        });
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn color_flag_then_no_color_then_terminal() {
        let set = Some(OsStr::new("1"));
        let empty = Some(OsStr::new(""));
        let xterm = Some(OsStr::new("xterm-256color"));
        assert!(use_colour(ColorChoice::Auto, true, None, xterm));
        assert!(use_colour(ColorChoice::Auto, true, empty, xterm));
        assert!(!use_colour(ColorChoice::Auto, true, set, xterm));
        assert!(!use_colour(ColorChoice::Auto, false, None, xterm));
        assert!(!use_colour(ColorChoice::Auto, true, None, Some(OsStr::new("dumb"))));
        assert!(use_colour(ColorChoice::Always, false, set, None));
        assert!(!use_colour(ColorChoice::Never, true, None, xterm));
    }

    #[test]
    fn values_cannot_send_control_sequences() {
        assert_eq!(for_terminal("a\x1b[2Jb\nc\u{202e}d\\"), "a\\u{1b}[2Jb\\nc\\u{202e}d\\");
        assert_eq!(for_plain("a\tb\\c\r"), "a\\tb\\\\c\\r");
    }

    #[test]
    fn paths_in_commands_can_be_copied() {
        for (text, quoted) in [
            ("/tmp/a-b_1.x", "/tmp/a-b_1.x"),
            ("", "''"),
            ("my store", "'my store'"),
            ("$(rm)", "'$(rm)'"),
            ("it's", "'it'\\''s'"),
            ("a\nb'c", "$'a\\U0000000ab\\'c'"),
        ] {
            assert_eq!(shell_quoted(text), quoted);
        }
    }

    #[test]
    fn rounded_values_keep_six_digits() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (0.1 + 0.2, "0.3"),
            (-1234.56789, "-1234.57"),
            (123_456_789.0, "123456789"),
            (1e10, "1e10"),
            (9_999_999_000.0, "1e10"),
            (0.0000123456, "0.0000123456"),
            (1.5e-7, "1.5e-7"),
            (f64::MAX, "1.79769e308"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(rounded(value), text);
        }
    }

    #[test]
    fn counts_and_bytes() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plural(1, "run"), "1 run");
        assert_eq!(plural(1_000, "run"), "1,000 runs");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    proptest! {
        #[test]
        fn exact_values_read_back_to_the_same_bits(bits: u64) {
            let value = f64::from_bits(bits);
            let read: f64 = exact(value).parse().unwrap();
            prop_assert!(read.to_bits() == bits || value.is_nan() && read.is_nan());
        }

        #[test]
        fn rounded_values_are_near(value in proptest::num::f64::NORMAL) {
            let read: f64 = rounded(value).parse().unwrap();
            prop_assert!(((read - value) / value).abs() < 1e-5 || read.is_infinite(), "{} {}", value, read);
        }

        #[test]
        fn escaped_text_has_no_control_characters(text: String) {
            prop_assert!(!for_terminal(&text).chars().any(is_dangerous));
            prop_assert!(!for_plain(&text).chars().any(is_dangerous));
        }
    }
}
