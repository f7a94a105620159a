//! Instants, spans and the times that a registry keeps about an object.

use chrono::{DateTime, TimeDelta};
use feast_core::{Meta, Timestamp};
use prost_types::{Duration as DurationMessage, Timestamp as TimestampMessage};

use crate::malformed::{Decoded, Malformed};

/// Protobuf's instants: the years 1 to 9999. Its JSON has no others, nor has anybody who reads it.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Protobuf's spans: ten thousand years in either direction.
const MOST_SECONDS: u64 = 315_576_000_000;

const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// An instant that protobuf does not have becomes the next one that it has.
pub(crate) fn timestamp_message(time: Timestamp) -> TimestampMessage {
    let seconds = time.timestamp().clamp(*SECONDS.start(), *SECONDS.end());
    let nanos = if seconds == time.timestamp() { time.timestamp_subsec_nanos() } else { 0 };
    TimestampMessage { seconds, nanos: nanos.min(NANOS_PER_SECOND - 1) as i32 }
}

pub(crate) fn optional_timestamp_message(time: Option<Timestamp>) -> Option<TimestampMessage> {
    time.map(timestamp_message)
}

pub(crate) fn timestamp(message: Option<TimestampMessage>) -> Decoded<Option<Timestamp>> {
    let Some(TimestampMessage { seconds, nanos }) = message else { return Ok(None) };
    u32::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos < NANOS_PER_SECOND && SECONDS.contains(&seconds))
        .and_then(|nanos| DateTime::from_timestamp(seconds, nanos))
        .map(Some)
        .ok_or_else(|| Malformed::new(format!("has a time that does not exist ({seconds} s and {nanos} ns)")))
}

/// Zero is an empty message; only `None` is absent.
pub(crate) fn duration_message(duration: Option<TimeDelta>) -> Option<DurationMessage> {
    duration.map(|duration| {
        let most = MOST_SECONDS as i64 - 1;
        DurationMessage { seconds: duration.num_seconds().clamp(-most, most), nanos: duration.subsec_nanos() }
    })
}

pub(crate) fn duration(message: Option<DurationMessage>) -> Decoded<Option<TimeDelta>> {
    let Some(DurationMessage { seconds, nanos }) = message else { return Ok(None) };
    let whole = TimeDelta::try_seconds(seconds).filter(|_| seconds.unsigned_abs() < MOST_SECONDS);
    whole
        .and_then(|whole| whole.checked_add(&TimeDelta::nanoseconds(i64::from(nanos))))
        .map(Some)
        .ok_or_else(|| Malformed::new(format!("has a duration that is too long ({seconds} s)")))
}

pub(crate) fn meta(created: Option<TimestampMessage>, updated: Option<TimestampMessage>) -> Decoded<Meta> {
    Ok(Meta { created: timestamp(created)?, updated: timestamp(updated)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_keep_their_sign_both_ways() {
        for micros in [0, 1, -1, 1_500_000, -1_500_000, 86_400_000_000] {
            let span = TimeDelta::microseconds(micros);
            assert_eq!(duration(duration_message(Some(span))).expect("in range"), Some(span));
        }
        let before_epoch = DateTime::from_timestamp_micros(-1_500_000).expect("in range");
        assert_eq!(timestamp(Some(timestamp_message(before_epoch))).expect("in range"), Some(before_epoch));
    }

    #[test]
    fn absurd_times_are_refused() {
        assert!(timestamp(Some(TimestampMessage { seconds: i64::MAX, nanos: 0 })).is_err());
        assert!(timestamp(Some(TimestampMessage { seconds: 0, nanos: -1 })).is_err());
        assert!(timestamp(Some(TimestampMessage { seconds: 0, nanos: 1_000_000_000 })).is_err());
        // Found by the fuzzer: chrono knows the year 10000, the JSON of protobuf does not.
        assert!(timestamp(Some(TimestampMessage { seconds: SECONDS.end() + 1, nanos: 0 })).is_err());
        assert!(timestamp(Some(TimestampMessage { seconds: *SECONDS.start(), nanos: 0 })).is_ok());
        assert!(duration(Some(DurationMessage { seconds: 1 << 40, nanos: 0 })).is_err());
        // What we write, we read.
        for time in [Timestamp::MAX_UTC, Timestamp::MIN_UTC] {
            assert!(timestamp(Some(timestamp_message(time))).is_ok());
        }
        for span in [TimeDelta::MAX, TimeDelta::MIN] {
            assert!(duration(duration_message(Some(span))).is_ok());
        }
        assert!(duration(Some(DurationMessage { seconds: i64::MIN, nanos: i32::MIN })).is_err());
    }
}
