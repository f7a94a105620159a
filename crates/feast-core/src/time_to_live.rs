//! The one place that says when a value is too old.

use chrono::TimeDelta;

use crate::Timestamp;

/// How far a point-in-time join looks back: both ends included, `None` without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeToLive(Option<TimeDelta>);

impl TimeToLive {
    /// Values count at their own time only.
    pub const INSTANT: Self = Self(Some(TimeDelta::zero()));

    /// From a declared ttl, where none and zero mean without limit.
    pub fn new(ttl: Option<TimeDelta>) -> Self {
        Self(ttl.filter(|ttl| *ttl > TimeDelta::zero()))
    }

    /// The limit in microseconds; `None` without limit.
    pub fn micros(self) -> Option<i64> {
        self.0.map(|ttl| ttl.num_microseconds().unwrap_or(i64::MAX))
    }

    /// The limit; `None` without limit.
    pub fn limit(self) -> Option<TimeDelta> {
        self.0
    }
}

/// Whether a value of `event_time` is outside the ttl at `now`; exactly the ttl is still inside.
pub fn is_expired(ttl: TimeToLive, event_time: Timestamp, now: Timestamp) -> bool {
    ttl.limit().is_some_and(|limit| now - event_time > limit)
}

/// `86400s` or `1.500s`, as protobuf's JSON writes durations.
pub(crate) fn seconds_text(duration: TimeDelta) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.num_seconds()),
        _ => format!("{}s", duration.num_microseconds().unwrap_or(i64::MAX) as f64 / 1e6),
    }
}

/// A span of time for people, in its two greatest units.
pub fn span_text(seconds: f64) -> String {
    if seconds < 0.0 {
        return format!("in {}", span_text(-seconds));
    }
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds as u64;
    let parts = UNITS.iter().filter_map(|(length, unit)| {
        let count = rest / length;
        rest %= length;
        (count > 0).then(|| format!("{count} {unit}"))
    });
    let parts: Vec<String> = parts.take(2).collect();
    if parts.is_empty() { format!("{seconds:.3} s") } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let cases =
            [(0.25, "0.250 s"), (59.9, "59 s"), (3725.0, "1 h 2 min"), (90_000.0, "1 d 1 h"), (-60.0, "in 1 min")];
        for (seconds, text) in cases {
            assert_eq!(span_text(seconds), text);
        }
    }

    #[test]
    fn both_ends_are_inside() {
        let ttl = TimeToLive::new(Some(TimeDelta::seconds(10)));
        let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0).expect("in range");
        assert!(!is_expired(ttl, at(0), at(10)));
        assert!(is_expired(ttl, at(0), at(11)));
        assert!(!is_expired(TimeToLive::new(Some(TimeDelta::zero())), at(0), at(1_000_000)));
    }
}
