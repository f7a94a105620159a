//! Times as people write them, and as Feast shows them.

use chrono::{FixedOffset, NaiveDate, NaiveDateTime, TimeZone, Timelike, Utc};
use feast_core::Timestamp;

/// How times can be written, for messages.
pub(crate) const TIME_FORMATS: &str =
    "write `2026-11-23`, `2026-11-23T12:30:00` or `2026-11-23T12:30:00+01:00`; without an offset it is UTC";

/// Parses a time. Accepts ISO 8601 with `T` or a space, with or without seconds and fractions, and a date alone;
/// without an offset it is UTC.
pub(crate) fn parse_timestamp(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("not a time; {TIME_FORMATS}");
    let (local, offset) = split_offset(text.trim()).ok_or_else(wrong)?;
    let local = parse_local(local.trim_end()).ok_or_else(wrong)?;
    let instant = offset.from_local_datetime(&local).single().ok_or_else(wrong)?;
    Ok(instant.with_timezone(&Utc))
}

/// Separates the offset from the rest.
fn split_offset(text: &str) -> Option<(&str, FixedOffset)> {
    let utc = FixedOffset::east_opt(0)?;
    let lower = text.to_ascii_lowercase();
    for suffix in ["z", "utc"] {
        if lower.ends_with(suffix) {
            return Some((text.get(..text.len() - suffix.len())?, utc));
        }
    }
    // The hyphens of a date stand before the tenth character.
    let Some(sign) = text.rfind(['+', '-']).filter(|at| *at >= 10) else { return Some((text, utc)) };
    let digits: String = text[sign + 1..].chars().filter(|c| *c != ':').collect();
    if !digits.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i32, i32) = match digits.len() {
        2 => (digits.parse().ok()?, 0),
        4 => (digits[..2].parse().ok()?, digits[2..].parse().ok()?),
        _ => return None,
    };
    let seconds = hours * 3600 + minutes * 60;
    let offset =
        if text[sign..].starts_with('-') { FixedOffset::west_opt(seconds) } else { FixedOffset::east_opt(seconds) };
    Some((&text[..sign], offset?))
}

fn parse_local(text: &str) -> Option<NaiveDateTime> {
    const TIMES: &[&str] = &["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y%m%d %H%M%S", "%Y%m%d %H%M"];
    const DATES: &[&str] = &["%Y-%m-%d", "%Y%m%d"];
    let text = text.replacen(['T', 't'], " ", 1).replace('/', "-");
    let date = |format| NaiveDate::parse_from_str(&text, format).ok()?.and_hms_opt(0, 0, 0);
    TIMES
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(&text, format).ok())
        .or_else(|| DATES.iter().find_map(|format| date(format)))
}

/// Shows a time as Feast does: `2026-11-23 12:30:00+00:00`, with a fraction only where there is one.
pub(crate) fn show_timestamp(timestamp: Timestamp) -> String {
    let fraction = if timestamp.nanosecond() == 0 { "" } else { "%.6f" };
    timestamp.format(&format!("%Y-%m-%d %H:%M:%S{fraction}+00:00")).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let cases = [
            ("2026-11-23", "2026-11-23 00:00:00+00:00"),
            ("20261123", "2026-11-23 00:00:00+00:00"),
            ("2026/11/23 12:30", "2026-11-23 12:30:00+00:00"),
            ("2026-11-23T12:30:00", "2026-11-23 12:30:00+00:00"),
            (" 2026-11-23t12:30:00z ", "2026-11-23 12:30:00+00:00"),
            ("2026-11-23 12:30:00 UTC", "2026-11-23 12:30:00+00:00"),
            ("2026-11-23T12:30:00.25Z", "2026-11-23 12:30:00.250000+00:00"),
            ("2026-11-23T12:30:00+01:00", "2026-11-23 11:30:00+00:00"),
            ("2026-11-23T12:30:00 -0530", "2026-11-23 18:00:00+00:00"),
            ("2026-11-23T12:30+02", "2026-11-23 10:30:00+00:00"),
        ];
        for (text, expected) in cases {
            assert_eq!(show_timestamp(parse_timestamp(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "tomorrow", "2026-13-01", "2026-11-23T25:00:00", "2026-11-23T12:30:00+1", "2026-11-23+é", "5"]
        {
            assert!(parse_timestamp(text).is_err(), "{text}");
        }
    }
}
