//! The aggregations of a batch view, as a tag of it.
//!
//! Feast's message of batch views has no place for them, so that Feast itself forgets them on apply. The value is JSON: a
//! list of name, column, function, and window and slide in microseconds.

use chrono::TimeDelta;
use feast_core::{Aggregation, Tags};
use serde_json::{Value, json};

const TAG: &str = "feast-rs.aggregations";

/// Tags as the message has them.
pub(crate) fn to_tags(tags: &Tags, aggregations: &[Aggregation]) -> Tags {
    let mut tags = tags.clone();
    if !aggregations.is_empty() {
        let micros = |span: Option<TimeDelta>| span.and_then(|span| span.num_microseconds());
        let entry = |one: &Aggregation| {
            json!([one.name, one.column, one.function, micros(one.time_window), micros(one.slide_interval)])
        };
        let entries: Vec<Value> = aggregations.iter().map(entry).collect();
        tags.insert(TAG.to_owned(), Value::Array(entries).to_string());
    }
    tags
}

/// Takes the aggregations out of the tags of a message. What is not understood is none.
pub(crate) fn take_from_tags(tags: &mut Tags) -> Vec<Aggregation> {
    let Some(text) = tags.remove(TAG) else { return Vec::new() };
    let Ok(Value::Array(entries)) = serde_json::from_str(&text) else { return Vec::new() };
    let entry = |entry: &Value| {
        let text = |index: usize| Some(entry.get(index)?.as_str()?.to_owned());
        let span = |index: usize| entry.get(index).and_then(Value::as_i64).map(TimeDelta::microseconds);
        Some(Aggregation {
            name: text(0)?,
            column: text(1)?,
            function: text(2)?,
            time_window: span(3),
            slide_interval: span(4),
        })
    };
    entries.iter().map(entry).collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregations_survive_and_nonsense_is_none() {
        let own = Tags::from([("team".to_owned(), "a".to_owned())]);
        let aggregations = vec![
            Aggregation { name: "n".to_owned(), column: "c".to_owned(), ..Aggregation::default() },
            Aggregation { function: "sum".to_owned(), time_window: Some(TimeDelta::days(1)), ..Aggregation::default() },
        ];
        let mut tags = to_tags(&own, &aggregations);
        assert_eq!(take_from_tags(&mut tags), aggregations);
        assert_eq!(tags, own);
        for text in ["", "{}", "[1]", "[[1, 2, 3]]"] {
            assert_eq!(take_from_tags(&mut Tags::from([(TAG.to_owned(), text.to_owned())])), [], "{text}");
        }
    }
}
