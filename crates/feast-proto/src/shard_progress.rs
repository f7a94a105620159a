//! What some shards of a materialization have loaded, as a tag of the view.
//!
//! A tag, because Feast carries tags along when it changes a view, in every kind of registry, and has no other place for
//! this. It is there only while a split run is under way; whoever loses it has to run the shards again, and no rows.
//! The value is JSON: by shard, the intervals as pairs of microseconds since the epoch.

use chrono::DateTime;
use feast_core::{FeatureView, Interval, ShardProgress, Tags};
use serde_json::Value;

const TAG: &str = "feast-rs.shards";

/// The tags of a view as its message has them.
pub(crate) fn to_tags(view: &FeatureView) -> Tags {
    let mut tags = view.tags.clone();
    add_to_tags(view, &mut tags);
    tags
}

pub(crate) fn add_to_tags(view: &FeatureView, tags: &mut Tags) {
    let progress = &view.meta.shard_progress;
    if !progress.is_empty() {
        let entry = |shard: &ShardProgress| {
            let pair = |interval: &Interval| {
                Value::from(vec![interval.start.timestamp_micros(), interval.end.timestamp_micros()])
            };
            (shard.shard.to_string(), shard.intervals.iter().map(pair).collect::<Value>())
        };
        let by_shard: serde_json::Map<_, _> = progress.iter().map(entry).collect();
        tags.insert(TAG.to_owned(), Value::Object(by_shard).to_string());
    }
}

/// Takes the progress out of the tags of a message. What is not understood is no progress.
pub(crate) fn take_from_tags(tags: &mut Tags) -> Vec<ShardProgress> {
    let Some(text) = tags.remove(TAG) else { return Vec::new() };
    let Ok(Value::Object(by_shard)) = serde_json::from_str(&text) else { return Vec::new() };
    let entry = |(shard, intervals): (&String, &Value)| {
        let pair = |pair: &Value| {
            let at = |index: usize| DateTime::from_timestamp_micros(pair.get(index)?.as_i64()?);
            Some(Interval::new(at(0)?, at(1)?))
        };
        let intervals = intervals.as_array()?.iter().map(pair).collect::<Option<Vec<_>>>()?;
        Some(ShardProgress { shard: shard.parse().ok()?, intervals })
    };
    let mut progress = by_shard.iter().map(entry).collect::<Option<Vec<_>>>().unwrap_or_default();
    progress.sort_by_key(|known| known.shard);
    progress
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn nonsense_is_no_progress() {
        for text in ["", "{", "[]", r#"{"5/4": []}"#, r#"{"1/4": [[1]]}"#, r#"{"1/4": 7}"#] {
            let mut tags = Tags::from([(TAG.to_owned(), text.to_owned()), ("team".to_owned(), "a".to_owned())]);
            assert_eq!(take_from_tags(&mut tags), [], "{text}");
            assert_eq!(tags.len(), 1);
        }
    }
}
