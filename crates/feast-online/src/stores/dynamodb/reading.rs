//! `BatchGetItem`: which items a request is for, and from its answer to rows.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::DateTime;
use feast_core::{Error, OnlineRead, OnlineRows, Result};
use hashbrown::HashMap;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::config::DynamoConfig;
use crate::stores::cells::{Grid, Wanted};
use crate::stores::entity_id::EntityId;

/// The most features that a request names; an expression has 4 KB, and above this the whole item comes.
const MOST_NAMED: usize = 256;

/// Items to get with one request: the read that asks for them, and which of its keys.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch(pub(super) Vec<(usize, Range<usize>)>);

/// Distributes the keys of all reads over as few requests as can be. A request names each table once.
pub(super) fn batches(sizes: &[usize], tables: &[String], batch_size: usize) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut room = 0;
    for (read, size) in sizes.iter().enumerate() {
        let mut start = 0;
        while start < *size {
            match batches.last_mut() {
                Some(Batch(parts)) if room > 0 && parts.iter().all(|(other, _)| tables[*other] != tables[read]) => {
                    let end = (start + room).min(*size);
                    parts.push((read, start..end));
                    room -= end - start;
                    start = end;
                }
                _ => {
                    batches.push(Batch(Vec::new()));
                    room = batch_size;
                }
            }
        }
    }
    batches
}

/// One read of a request: the ids of its keys, and what has been found so far.
pub(super) struct Reading<'a> {
    read: &'a OnlineRead<'a>,
    wanted: Wanted<'a>,
    ids: Vec<EntityId>,
    rows: HashMap<EntityId, usize>,
    grid: Grid<Range<usize>>,
    /// The bytes of all values, one after the other.
    bytes: Vec<u8>,
}

impl<'a> Reading<'a> {
    pub(super) fn of(read: &'a OnlineRead<'a>) -> Self {
        let wanted = Wanted::of(read);
        let ids: Vec<EntityId> = read.keys.encoded.iter().flatten().map(EntityId::of).collect();
        let rows = ids.iter().enumerate().map(|(row, id)| (*id, row)).collect();
        let grid = wanted.grid();
        Self { read, wanted, ids, rows, grid, bytes: Vec::new() }
    }

    /// The part of a request that gets some of the keys.
    pub(super) fn write_part(&self, out: &mut String, keys: &Range<usize>, config: &DynamoConfig) {
        use fmt::Write as _;
        out.push_str("{\"Keys\":[");
        for (number, id) in self.ids[keys.clone()].iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            // Writing to memory does not fail.
            let _ = write!(out, "{comma}{{\"entity_id\":{{\"S\":\"{id}\"}}}}");
        }
        let _ = write!(out, "],\"ConsistentRead\":{}", config.consistent_reads);
        out.push_str(",\"ExpressionAttributeNames\":{\"#e\":\"entity_id\",\"#t\":\"event_ts\"");
        let names = &self.wanted.names;
        let mut expression = "#e,#t".to_owned();
        if !names.is_empty() {
            out.push_str(",\"#v\":\"values\"");
        }
        if names.len() > MOST_NAMED {
            expression.push_str(",#v");
        } else {
            for (number, name) in names.iter().enumerate() {
                let _ = write!(out, ",\"#{number}\":{}", json_text(name));
                let _ = write!(expression, ",#v.#{number}");
            }
        }
        let _ = write!(out, "}},\"ProjectionExpression\":\"{expression}\"}}");
    }

    /// Keeps what an answer has for this read.
    pub(super) fn keep(&mut self, item: &Item<'_>) -> Result<()> {
        let strange = |what: String| {
            Error::unavailable(format!("an item of DynamoDB has {what}"))
                .with_context("feature view", &self.read.wanted.table.view)
                .with_context("entity_id", &item.entity_id.0)
                .with_hint("write the row again; something other than Feast wrote the item")
        };
        let row = EntityId::parse(&item.entity_id.0).and_then(|id| self.rows.get(&id).copied());
        let row = row.ok_or_else(|| strange("an `entity_id` that was not asked for".to_owned()))?;
        let time = item.event_ts.as_ref().ok_or_else(|| strange("no `event_ts`".to_owned()))?;
        let event = parse_time(&time.0).ok_or_else(|| strange(format!("`{}` as `event_ts`", time.0)))?;
        self.wanted.keep_time(&mut self.grid, row, event);
        for (name, value) in item.values.iter().flat_map(|values| &values.0) {
            let Some(text) = value else { continue };
            let start = self.bytes.len();
            if STANDARD.decode_vec(text.as_bytes(), &mut self.bytes).is_err() {
                return Err(strange(format!("something else than base64 as value of `{name}`")));
            }
            self.wanted.keep(&mut self.grid, row, name, event, start..self.bytes.len());
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<OnlineRows> {
        let Self { wanted, grid, bytes, .. } = self;
        wanted.finish(&grid, |range| &bytes[range.clone()])
    }
}

/// The answer to a request.
#[derive(Deserialize)]
pub(super) struct Answer<'a> {
    #[serde(rename = "Responses", borrow, default)]
    pub(super) tables: Tables<'a>,
    #[serde(rename = "UnprocessedKeys", borrow, default)]
    unprocessed: Option<&'a RawValue>,
}

impl Answer<'_> {
    /// The request for what this answer left out.
    pub(super) fn rest(&self) -> Option<Bytes> {
        let rest = self.unprocessed.map(RawValue::get).filter(|rest| rest.trim_start().starts_with('{'))?;
        let any = rest.trim_start_matches(['{', ' ', '\n', '\r', '\t']).starts_with('"');
        any.then(|| Bytes::from(format!("{{\"RequestItems\":{rest}}}")))
    }
}

/// Items by the name of their table.
#[derive(Default)]
pub(super) struct Tables<'a>(pub(super) Vec<(Cow<'a, str>, Vec<Item<'a>>)>);

/// A row.
#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow)]
    pub(super) entity_id: Text<'a>,
    #[serde(borrow)]
    event_ts: Option<Text<'a>>,
    #[serde(borrow)]
    values: Option<Values<'a>>,
}

/// What is stored beside a row that could not be written.
#[derive(Deserialize)]
pub(super) struct Kept<'a> {
    #[serde(rename = "Item", borrow)]
    item: Option<KeptItem<'a>>,
}

#[derive(Deserialize)]
struct KeptItem<'a> {
    #[serde(borrow)]
    event_ts: Option<Text<'a>>,
}

impl Kept<'_> {
    /// Its event time, as it is written there.
    pub(super) fn event_time(&self) -> Option<&str> {
        self.item.as_ref().and_then(|item| item.event_ts.as_ref()).map(|time| time.0.as_ref())
    }
}

/// `{"S": "..."}`.
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

/// `{"M": {"feature": {"B": "..."}}}`: values in base64, without those of other types.
struct Values<'a>(Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Tagged<'a> {
            #[serde(rename = "S", borrow)]
            text: Cow<'a, str>,
        }
        Tagged::deserialize(deserializer).map(|tagged| Self(tagged.text))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Values<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Tagged<'a> {
            #[serde(rename = "M", borrow)]
            map: Pairs<'a, Cell<'a>>,
        }
        #[derive(Deserialize)]
        struct Cell<'a> {
            #[serde(rename = "B", borrow)]
            bytes: Option<Name<'a>>,
        }
        let Tagged { map: Pairs(pairs) } = Tagged::deserialize(deserializer)?;
        Ok(Self(pairs.into_iter().map(|(name, cell)| (name, cell.bytes.map(|Name(bytes)| bytes))).collect()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Tables<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Pairs::deserialize(deserializer).map(|Pairs(pairs)| Self(pairs))
    }
}

/// A JSON object as a list, whose names are not copied.
struct Pairs<'a, T>(Vec<(Cow<'a, str>, T)>);

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Pairs<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for PairsVisitor<T> {
            type Value = Vec<(Cow<'de, str>, T)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or_default());
                while let Some((Name(name), value)) = map.next_entry()? {
                    pairs.push((name, value));
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(PairsVisitor(std::marker::PhantomData)).map(Pairs)
    }
}

/// A text that borrows where it can.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// A text in JSON.
pub(super) fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A time as Python's `str` writes it. Such texts are in the order of their times, as long as all are in UTC.
pub(super) fn format_time(micros: i64) -> Option<String> {
    let time = DateTime::from_timestamp_micros(micros)?;
    let year = time.format("%Y").to_string();
    let format = if micros % 1_000_000 == 0 { "%Y-%m-%d %H:%M:%S+00:00" } else { "%Y-%m-%d %H:%M:%S%.6f+00:00" };
    // Python's years have four digits.
    (year.len() == 4 && year != "0000").then(|| time.format(format).to_string())
}

/// The time that such a text means, in microseconds.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%:z").ok().map(|time| time.timestamp_micros())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn keys_go_into_as_few_requests_as_can_be() {
        let tables = ["a", "b", "a", "c"].map(str::to_owned);
        let made = batches(&[3, 2, 0, 7], &tables, 4);
        assert_eq!(
            made,
            [Batch(vec![(0, 0..3), (1, 0..1)]), Batch(vec![(1, 1..2), (3, 0..3)]), Batch(vec![(3, 3..7)])]
        );
        // A table comes once in a request.
        let made = batches(&[1, 1, 1, 0], &tables, 4);
        assert_eq!(made, [Batch(vec![(0, 0..1), (1, 0..1)]), Batch(vec![(2, 0..1)])]);
        assert_eq!(batches(&[0, 0, 0, 0], &tables, 4), []);
    }

    #[test]
    fn times_are_pythons_and_in_order() {
        let noon = 1_795_176_000_000_000;
        let cases = [
            (-62_135_596_800_000_000, "0001-01-01 00:00:00+00:00"),
            (-1, "1969-12-31 23:59:59.999999+00:00"),
            (0, "1970-01-01 00:00:00+00:00"),
            (noon, "2026-11-20 12:00:00+00:00"),
            (noon + 1, "2026-11-20 12:00:00.000001+00:00"),
            (noon + 500_000, "2026-11-20 12:00:00.500000+00:00"),
            (noon + 1_000_000, "2026-11-20 12:00:01+00:00"),
        ];
        for (micros, text) in cases {
            assert_eq!(format_time(micros).unwrap(), text);
            assert_eq!(parse_time(text), Some(micros));
        }
        assert!(cases.is_sorted_by_key(|(_, text)| text));
        assert_eq!(parse_time("2026-11-20 07:00:00-05:00"), Some(noon));
        assert_eq!(format_time(i64::MAX), None);
    }

    #[test]
    fn answers_are_read_in_place() {
        let text = r#"{"ConsumedCapacity":[],"Responses":{"p.v":[{"event_ts":{"S":"2026-11-20 12:00:00+00:00"},
            "values":{"M":{"a":{"B":"IAE="},"b":{"NULL":true},"\u00e9":{"B":""}}},"entity_id":{"S":"x"}},
            {"entity_id":{"S":"y"},"event_ts":{"S":""}}]},"UnprocessedKeys":{"p.v":{"Keys":[]}}}"#;
        let answer: Answer<'_> = serde_json::from_str(text).unwrap();
        let items = &answer.tables.0[0].1;
        let values = &items[0].values.as_ref().unwrap().0;
        assert!(matches!(values[0].1, Some(Cow::Borrowed("IAE="))));
        assert_eq!((values[1].1.as_deref(), values[2].0.as_ref()), (None, "é"));
        assert!(items[1].values.is_none());
        assert_eq!(answer.rest().unwrap(), r#"{"RequestItems":{"p.v":{"Keys":[]}}}"#);
        for none in [r#"{"UnprocessedKeys":{}}"#, r#"{"UnprocessedKeys":null}"#, "{}"] {
            assert!(serde_json::from_str::<Answer<'_>>(none).unwrap().rest().is_none());
        }
    }
}
