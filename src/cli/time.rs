//! Times as people write and read them: dates in UTC, "3 min ago", durations, ranges.
//!
//! Contract: pure functions over milliseconds since 1970; total for every `i64`, so a damaged timestamp is shown, never
//! a reason to stop. The calendar is the proleptic Gregorian one.

use std::ops::Bound;

use crate::model::{day_of, days_of};

pub(super) const SECOND_MS: i64 = 1_000;
pub(super) const MINUTE_MS: i64 = 60 * SECOND_MS;
pub(super) const HOUR_MS: i64 = 60 * MINUTE_MS;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;

/// Milliseconds since 1970, now; 0 if the clock stands before that.
pub(super) fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// `2026-11-23T11:56:14.123Z`: exact and sortable, for output that is no terminal.
pub(super) fn iso(ms: i64) -> String {
    let (year, month, day) = day_of(ms.div_euclid(DAY_MS));
    let rest = ms.rem_euclid(DAY_MS);
    let (hour, minute) = (rest / HOUR_MS, rest / MINUTE_MS % 60);
    let (second, milli) = (rest / SECOND_MS % 60, rest % SECOND_MS);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// `2026-11-23 11:56:14`, without fractions.
fn short(ms: i64) -> String {
    let (year, month, day) = day_of(ms.div_euclid(DAY_MS));
    let rest = ms.rem_euclid(DAY_MS);
    let (hour, minute, second) = (rest / HOUR_MS, rest / MINUTE_MS % 60, rest / SECOND_MS % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// `2026-11-23 11:56:14 (3 min ago)`: what a person wants, for the terminal.
pub(super) fn human(ms: i64, now: i64) -> String {
    format!("{} ({})", short(ms), relative(ms, now))
}

/// `3 min ago`, `in 2 h`, `just now`.
pub(super) fn relative(ms: i64, now: i64) -> String {
    let gap = (i128::from(now) - i128::from(ms)).unsigned_abs();
    let gap = i64::try_from(gap).unwrap_or(i64::MAX);
    let (count, unit) = match gap {
        0..SECOND_MS => return "just now".into(),
        SECOND_MS..MINUTE_MS => (gap / SECOND_MS, "s"),
        MINUTE_MS..HOUR_MS => (gap / MINUTE_MS, "min"),
        HOUR_MS..DAY_MS => (gap / HOUR_MS, "h"),
        _ if gap < 60 * DAY_MS => (gap / DAY_MS, if gap < 2 * DAY_MS { "day" } else { "days" }),
        _ if gap < 730 * DAY_MS => (gap / (30 * DAY_MS), "months"),
        _ => (gap / (365 * DAY_MS), "years"),
    };
    if ms <= now { format!("{count} {unit} ago") } else { format!("in {count} {unit}") }
}

/// How long something took: `950 ms`, `12.3 s`, `4 min 05 s`, `3 h 20 min`, `2 d 4 h`.
pub(super) fn span(ms: i64) -> String {
    match ms {
        i64::MIN..0 => format!("-{}", span(ms.checked_neg().unwrap_or(i64::MAX))),
        0..SECOND_MS => format!("{ms} ms"),
        SECOND_MS..MINUTE_MS => format!("{}.{} s", ms / SECOND_MS, ms % SECOND_MS / 100),
        MINUTE_MS..HOUR_MS => format!("{} min {:02} s", ms / MINUTE_MS, ms / SECOND_MS % 60),
        HOUR_MS..DAY_MS => format!("{} h {:02} min", ms / HOUR_MS, ms / MINUTE_MS % 60),
        _ => format!("{} d {} h", ms / DAY_MS, ms / HOUR_MS % 24),
    }
}

/// A duration: `90` (seconds), `500ms`, `45s`, `30m`, `12h`, `7d`, `2w`, and sums such as `1d12h`.
pub(super) fn parse_duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a duration: write for example 45s, 30m, 12h, 7d, 2w or 1d12h");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit_ms: i64 = match unit {
            "ms" => 1,
            "s" | "sec" => SECOND_MS,
            "m" | "min" => MINUTE_MS,
            "h" => HOUR_MS,
            "d" => DAY_MS,
            "w" => 7 * DAY_MS,
            // A bare number means seconds, but only alone: "1h30" is a slip, not 1 h and 30 s.
            "" if digits == text.trim().len() => SECOND_MS,
            _ => return Err(wrong()),
        };
        total = number
            .checked_mul(unit_ms.unsigned_abs())
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("'{text}' is too long a duration"))?;
        rest = tail;
    }
    Ok(total)
}

/// A moment: milliseconds since 1970, `2026-11-23`, `2026-11-23T11:56[:14[.123]][Z]` (UTC), or a duration ago (`2h`).
pub(super) fn parse_moment(text: &str, now: i64) -> Result<i64, String> {
    let text = text.trim();
    if text.len() >= 10 && text.as_bytes().get(4) == Some(&b'-') {
        return parse_date(text)
            .ok_or_else(|| format!("'{text}' is not a date: write 2026-11-23 or 2026-11-23T11:56:14 (UTC)"));
    }
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    let ago = parse_duration(text).map_err(|_| {
        format!("'{text}' is not a time: write 2026-11-23T11:56, milliseconds, or 2h for two hours ago")
    })?;
    Ok(now.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX)))
}

/// An ISO 8601 date with an optional time of day, in UTC.
pub(super) fn parse_date(text: &str) -> Option<i64> {
    let number = |part: &str, width: usize| -> Option<i64> {
        (part.len() == width && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let (date, clock) = match text.find(['T', 't', ' ']) {
        Some(at) => (text.get(..at)?, Some(text.get(at + 1..)?)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (year, month, day) =
        (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let first = days_of(year, month, day);
    // Round trip: refuses the 13th month and February 30th.
    if parts.next().is_some() || day_of(first) != (year, month, day) {
        return None;
    }
    let mut ms = first * DAY_MS;
    if let Some(clock) = clock {
        let clock = clock.strip_suffix(['Z', 'z']).or_else(|| clock.strip_suffix("+00:00")).unwrap_or(clock);
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut parts = clock.split(':');
        let (hour, minute) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
        let second = parts.next().map_or(Some(0), |part| number(part, 2))?;
        if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
        ms += hour * HOUR_MS + minute * MINUTE_MS + second * SECOND_MS + millis;
    }
    Some(ms)
}

/// A range of steps as Rust writes it: `100..200` (without 200), `100..=200`, `100..`, `..200`, or one step.
pub(super) fn parse_steps(text: &str) -> Result<(Bound<i64>, Bound<i64>), String> {
    let wrong =
        || format!("'{text}' is not a range of steps: write 100..200, 100..=200, 100.., ..200 or 100");
    let number = |part: &str| part.trim().parse::<i64>().map_err(|_| wrong());
    let Some((from, to)) = text.split_once("..") else {
        let step = number(text)?;
        return Ok((Bound::Included(step), Bound::Included(step)));
    };
    let start = if from.trim().is_empty() { Bound::Unbounded } else { Bound::Included(number(from)?) };
    let end = match to.trim().strip_prefix('=') {
        Some(last) => Bound::Included(number(last)?),
        None if to.trim().is_empty() => Bound::Unbounded,
        None => Bound::Excluded(number(to)?),
    };
    Ok((start, end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_are_iso_8601_in_utc() {
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(iso(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(iso(1_795_434_974_123), "2026-11-23T11:56:14.123Z");
        assert_eq!(
            human(1_795_434_974_123, 1_795_434_974_123 + 3 * MINUTE_MS),
            "2026-11-23 11:56:14 (3 min ago)"
        );
    }

    #[test]
    fn relative_times_choose_one_unit() {
        for (gap, text) in [
            (0, "just now"),
            (5 * SECOND_MS, "5 s ago"),
            (59 * MINUTE_MS, "59 min ago"),
            (23 * HOUR_MS, "23 h ago"),
            (DAY_MS, "1 day ago"),
            (59 * DAY_MS, "59 days ago"),
            (90 * DAY_MS, "3 months ago"),
            (800 * DAY_MS, "2 years ago"),
            (-2 * HOUR_MS, "in 2 h"),
        ] {
            assert_eq!(relative(1_000_000_000_000 - gap, 1_000_000_000_000), text);
        }
    }

    #[test]
    fn spans_read_well() {
        assert_eq!(span(950), "950 ms");
        assert_eq!(span(12_340), "12.3 s");
        assert_eq!(span(4 * MINUTE_MS + 5_000), "4 min 05 s");
        assert_eq!(span(3 * HOUR_MS + 20 * MINUTE_MS), "3 h 20 min");
        assert_eq!(span(2 * DAY_MS + 4 * HOUR_MS), "2 d 4 h");
        assert_eq!(span(-950), "-950 ms");
    }

    #[test]
    fn durations_need_a_unit_unless_they_are_one_number_of_seconds() {
        for (text, ms) in [
            ("90", 90_000),
            ("500ms", 500),
            ("45s", 45_000),
            ("30m", 1_800_000),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
            ("2w", 1_209_600_000),
            ("1d12h", 129_600_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
        for bad in ["", "d", "1h30", "1y", "-1d", "1.5h", "7 d", "99999999999999999w", "s5"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_dates_milliseconds_or_ages() {
        let now = 1_795_434_974_123;
        assert_eq!(parse_moment("2026-11-23T11:56:14.123Z", now), Ok(now));
        assert_eq!(parse_moment("2026-11-23 11:56", now), Ok(now - 14_123));
        assert_eq!(parse_moment("1970-01-02", now), Ok(DAY_MS));
        assert_eq!(parse_moment("1500", now), Ok(1500));
        assert_eq!(parse_moment("2h", now), Ok(now - 2 * HOUR_MS));
        for bad in [
            "2026-02-30",
            "2026-13-01",
            "2026-01-01T24:00",
            "2026-01-01T1:00",
            "soon",
            "2026-01-01T10:00+02:00",
        ] {
            assert!(parse_moment(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_are_rust_ranges() {
        use Bound::{Excluded, Included, Unbounded};
        assert_eq!(parse_steps("100..200"), Ok((Included(100), Excluded(200))));
        assert_eq!(parse_steps("-5..=-1"), Ok((Included(-5), Included(-1))));
        assert_eq!(parse_steps("100.."), Ok((Included(100), Unbounded)));
        assert_eq!(parse_steps("..7"), Ok((Unbounded, Excluded(7))));
        assert_eq!(parse_steps("7"), Ok((Included(7), Included(7))));
        for bad in ["", "a..b", "1...2", "1-2", "..="] {
            assert!(parse_steps(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_iso_writes_is_read_back(
            ms in days_of(0, 1, 1) * DAY_MS..days_of(9999, 12, 31) * DAY_MS,
        ) {
            prop_assert_eq!(parse_date(&iso(ms)), Some(ms));
        }

        #[test]
        fn every_number_is_a_time_and_no_text_panics(ms: i64, now: i64, text: String) {
            let _ = (iso(ms), human(ms, now), span(ms));
            let _ = (parse_moment(&text, now), parse_steps(&text), parse_duration(&text));
        }
    }
}
