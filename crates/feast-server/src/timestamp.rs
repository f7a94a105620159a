//! Times as clients write them in JSON.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, TimeZone, Utc};
use feast_core::{Error, Result, Timestamp};

/// Parses a time in ISO 8601: with `T` or a space, with or without seconds, fraction and offset, or a date alone.
/// Without an offset it is UTC.
///
/// # Errors
/// `InvalidRequest` naming the field and what was found.
pub(crate) fn parse_timestamp(field: &str, text: &str) -> Result<Timestamp> {
    parse(text.trim()).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Error::invalid_request(format!("`{field}` is `{shown}`, which is not a time"))
            .with_hint("write it as in `2026-11-23T12:30:00Z` or `2026-11-23`; without an offset it is UTC")
    })
}

fn parse(text: &str) -> Option<Timestamp> {
    const TIMES: [&str; 4] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    let (local, offset) = split_offset(text)?;
    let time = TIMES.iter().find_map(|format| NaiveDateTime::parse_from_str(local, format).ok()).or_else(|| {
        let date = ["%Y-%m-%d", "%Y%m%d", "%Y/%m/%d"].iter().find_map(|f| NaiveDate::parse_from_str(local, f).ok())?;
        date.and_hms_opt(0, 0, 0)
    })?;
    Some(offset.from_local_datetime(&time).single()?.with_timezone(&Utc))
}

/// The local time and its offset from UTC.
fn split_offset(text: &str) -> Option<(&str, FixedOffset)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']).or_else(|| text.strip_suffix("UTC")) {
        return Some((local.trim_end(), FixedOffset::east_opt(0)?));
    }
    // The hyphens of a date come before its tenth character.
    match text.rfind(['+', '-']).filter(|at| *at >= 10) {
        None => Some((text, FixedOffset::east_opt(0)?)),
        Some(at) => {
            let probe = format!("2000-01-01T00:00:00{}", &text[at..]);
            let formats = ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S%#z"];
            let offset = formats.iter().find_map(|format| DateTime::parse_from_str(&probe, format).ok())?;
            Some((text[..at].trim_end(), *offset.offset()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn times_are_read_as_clients_write_them() {
        let cases = [
            ("2026-11-23", "2026-11-23T00:00:00Z"),
            ("2026-11-23T12:30:00", "2026-11-23T12:30:00Z"),
            ("2026-11-23 12:30", "2026-11-23T12:30:00Z"),
            ("2026-11-23T12:30:00.25z", "2026-11-23T12:30:00.250Z"),
            ("2026-11-23T12:30:00+01:00", "2026-11-23T11:30:00Z"),
            ("2026-11-23 12:30:00 -0530", "2026-11-23T18:00:00Z"),
            ("2026-11-23T12:30:00+02", "2026-11-23T10:30:00Z"),
        ];
        for (text, expected) in cases {
            let found = parse_timestamp("end_ts", text).unwrap();
            assert_eq!(found.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "x", "tomorrow", "2026-13-01", "2026-11-23+é", "2026-11-23T12:30:00+1", "12345678901234567890"]
        {
            let error = parse_timestamp("end_ts", text).unwrap_err();
            assert!(error.to_string().starts_with("`end_ts` is `"), "{text}");
        }
    }
}
