//! Points in time as texts of RFC 3339, which is how MLflow's newer entities have them.
//!
//! Contract: milliseconds since 1970 and back, for years 0001 to 9999; finer parts of a second are cut off.

const MS_PER_DAY: i64 = 86_400_000;

/// Days since 1970 of a day of the Gregorian calendar.
pub(crate) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March, so that the leap day is their last one.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The day of the Gregorian calendar that is so many days after the first of 1970.
pub(crate) fn day_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = (shifted + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// The text of a moment: `2026-11-23T10:26:54.910Z`, without the fraction where there is none.
pub(crate) fn moment_text(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(MS_PER_DAY), ms.rem_euclid(MS_PER_DAY));
    let (year, month, day) = day_of(days);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    let whole = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    match of_day % 1_000 {
        0 => format!("{whole}Z"),
        fraction => format!("{whole}.{fraction:03}Z"),
    }
}

/// The moment of a text; nothing for what is none.
pub(crate) fn moment_of(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let sign = |at: usize| text.as_bytes().get(at).copied();
    let separated =
        [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')].iter().all(|(at, c)| sign(*at) == Some(*c))
            && matches!(sign(10)?, b'T' | b't' | b' ');
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (hour, minute) <= (23, 59)
        && minute <= 59
        && second <= 60
        && year >= 1;
    if !separated || !in_range {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let offset_minutes = match (zone, zone.get(..1)) {
        ("Z" | "z", _) => 0,
        (_, Some(sign @ ("+" | "-"))) if zone.len() == 6 && zone.get(3..4) == Some(":") => {
            let minutes = zone.get(1..3)?.parse::<i64>().ok()? * 60 + zone.get(4..6)?.parse::<i64>().ok()?;
            if sign == "-" { -minutes } else { minutes }
        }
        _ => return None,
    };
    let minutes = (days_of(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1_000 + millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_those_of_mlflow() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_795_429_614_910, "2026-11-23T10:26:54.910Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!((moment_text(ms).as_str(), moment_of(text)), (text, Some(ms)));
        }
        assert_eq!(moment_of("2026-11-23T12:26:54.9109+02:00"), Some(1_795_429_614_910));
        for bad in
            ["", "now", "2026-11-23", "2026-13-23T10:26:54Z", "2026-11-23T10:26:54", "2026-11-23T10:26:54+2"]
        {
            assert_eq!(moment_of(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn texts_come_back(ms in -62_135_596_800_000i64..253_402_300_800_000, any in "\\PC{0,30}") {
            prop_assert_eq!(moment_of(&moment_text(ms)), Some(ms));
            let _ = moment_of(&any);
        }
    }
}
