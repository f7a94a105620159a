//! Rows as nearly all pushes bring them: values that have the declared types of their columns as they are. They are
//! serialized straight from what was read, without a column of Arrow in between.
//!
//! Whatever else there is in a push is left to [`online_rows`](crate::online_rows), which converts values and says what is
//! wrong with them. Both give the same for what this one understands.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use chrono::Utc;
use feast_core::{PushedTable, Scalar, SerializedRows};
use feast_proto::value_codec::put_scalar;

use crate::EntityColumn;

/// Values of one kind; `None` is null. One value at least is not: the kind of nulls alone is not known.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum PlainColumn<'a> {
    Integers(Vec<Option<i64>>),
    Floats(Vec<Option<f64>>),
    Truths(Vec<Option<bool>>),
    Texts(Vec<Option<Cow<'a, str>>>),
}

impl PlainColumn<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Truths(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn value(&self, row: usize) -> Option<Scalar<'_>> {
        match self {
            Self::Integers(values) => values[row].map(Scalar::Integer),
            Self::Floats(values) => values[row].map(Scalar::Float),
            Self::Truths(values) => values[row].map(Scalar::Truth),
            Self::Texts(values) => values[row].as_deref().map(Scalar::Text),
        }
    }

    /// The instant that a text names, in microseconds.
    fn instant(&self, row: usize) -> Option<i64> {
        match self.value(row)? {
            Scalar::Text(text) => Some(string_to_datetime(&Utc, text).ok()?.timestamp_micros()),
            _ => None,
        }
    }

    /// The same as a column of Arrow: `Int64`, `Float64`, `Boolean` or `Utf8`.
    pub fn into_array(self) -> ArrayRef {
        // Builders of Arrow ask for memory that begins at a multiple of 128, which costs a small column more than its values.
        fn whole<T: Copy>(values: &[Option<T>]) -> Option<Vec<T>> {
            values.iter().copied().collect()
        }
        match self {
            Self::Integers(values) => match whole(&values) {
                Some(values) => Arc::new(Int64Array::from(values)),
                None => Arc::new(Int64Array::from(values)),
            },
            Self::Floats(values) => match whole(&values) {
                Some(values) => Arc::new(Float64Array::from(values)),
                None => Arc::new(Float64Array::from(values)),
            },
            Self::Truths(values) => Arc::new(BooleanArray::from(values)),
            Self::Texts(values) => Arc::new(values.iter().map(Option::as_deref).collect::<StringArray>()),
        }
    }
}

/// Named columns, equally long as a rule, none of them twice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlainRows<'a>(pub Vec<(Cow<'a, str>, PlainColumn<'a>)>);

impl PlainRows<'_> {
    /// Number of values.
    pub fn n_values(&self) -> usize {
        self.0.iter().map(|(_, column)| column.len()).sum()
    }

    /// The same, for who converts values.
    pub fn into_columns(self) -> Vec<(String, EntityColumn)> {
        let column = |(name, column): (Cow<'_, str>, PlainColumn<'_>)| {
            (name.into_owned(), EntityColumn::Array(column.into_array()))
        };
        self.0.into_iter().map(column).collect()
    }

    fn column(&self, name: &str) -> Option<&PlainColumn<'_>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, column)| column)
    }

    /// The rows of a table, serialized; `None` where a value has to be converted, or where something is missing.
    pub fn serialized(&self, of: &PushedTable) -> Option<SerializedRows> {
        let n_rows = self.0.first()?.1.len();
        if self.0.iter().any(|(_, column)| column.len() != n_rows) {
            return None;
        }
        let columns = of.table.columns.iter().map(|field| Some((field.value_type, self.column(&field.name)?)));
        let columns = columns.collect::<Option<Vec<_>>>()?;
        let keys = of.encoder.join_keys().iter().map(|key| self.column(&key.name)).collect::<Option<Vec<_>>>()?;
        let times = self.column(&of.timestamp_field)?;
        let created = match of.created_timestamp_field.as_deref() {
            Some(name) => Some(self.column(name)?),
            None => None,
        };
        let mut rows = SerializedRows::with_capacity(columns.len(), n_rows);
        for row in 0..n_rows {
            let created = match created {
                Some(created) => Some(created.instant(row)?),
                None => None,
            };
            rows.push(times.instant(row)?, created, |column, out| match column {
                None => of.encoder.put_key(out, |key| keys[key].value(row)),
                Some(column) => {
                    let (value_type, values) = columns[column];
                    values.value(row).map_or(Some(()), |value| put_scalar(out, value_type, value))
                }
            })?;
        }
        Some(rows)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::RecordBatch;
    use feast_core::{EntityKeyEncoder, Field, Memo, OnlineTable, Result, Tags, ValueType};
    use feast_proto::value_codec::encode_column;
    use proptest::prelude::*;

    use super::*;
    use crate::{EntityRows, OwnedWrite, online_rows};

    fn pushed(types: &[ValueType], key: ValueType, version: u8, created: bool) -> PushedTable {
        let columns = types.iter().enumerate().map(|(at, value_type)| Field::new(format!("f{at}"), *value_type));
        let table = OnlineTable {
            project: "p".to_owned(),
            view: "v".to_owned(),
            join_keys: vec![Field::new("key", key)],
            columns: columns.collect(),
            tags: Tags::new(),
        };
        PushedTable {
            encoder: EntityKeyEncoder::new(&table.join_keys, version).unwrap(),
            timestamp_field: "at".to_owned(),
            created_timestamp_field: created.then(|| "created".to_owned()),
            table,
            memo: Memo::default(),
        }
    }

    /// What is written where values are converted, by way of the types that their columns have.
    fn converted(of: &PushedTable, rows: PlainRows<'_>) -> Result<OwnedWrite> {
        let names: Vec<String> = rows.0.iter().map(|(name, _)| name.to_string()).collect();
        let columns = EntityRows::new(rows.into_columns())?;
        let fields = of.table.columns.iter().chain(&of.table.join_keys);
        let declared = |name: &str| fields.clone().find(|field| field.name == name).map(|field| field.value_type);
        let arrays = names.iter().enumerate().map(|(at, name)| {
            let array = columns.column(at, declared(name).unwrap_or(ValueType::String))?;
            Ok((name, array))
        });
        let batch = RecordBatch::try_from_iter(arrays.collect::<Result<Vec<_>>>()?)?;
        online_rows(&of.table, &of.encoder, &batch, &of.timestamp_field, of.created_timestamp_field.as_deref())
    }

    fn values() -> impl Strategy<Value = PlainColumn<'static>> {
        let integer = prop_oneof![Just(i64::MIN), Just(1 << 40), -3i64..300, any::<i64>()];
        let float = prop_oneof![Just(1e300), Just(-0.0), Just(3.0), -1e9..1e9f64];
        let text = prop_oneof!["[a-z]{0,3}", Just("7".to_owned()), Just("2026-02-10T00:00:00Z".to_owned())];
        let values = prop_oneof![
            prop::collection::vec(prop::option::of(integer), 3).prop_map(PlainColumn::Integers),
            prop::collection::vec(prop::option::of(float), 3).prop_map(PlainColumn::Floats),
            prop::collection::vec(prop::option::of(any::<bool>()), 3).prop_map(PlainColumn::Truths),
            prop::collection::vec(prop::option::of(text.prop_map(Cow::Owned)), 3).prop_map(PlainColumn::Texts),
        ];
        values.prop_filter("nulls alone", |column| (0..column.len()).any(|row| column.value(row).is_some()))
    }

    fn times() -> impl Strategy<Value = PlainColumn<'static>> {
        let zone = prop::sample::select(vec!["Z", "+00:00", "+02:30", "", " "]);
        let time = (0..4000i64, 0..2_000_000_000u32, zone).prop_map(|(days, nanos, zone)| {
            let time = chrono::DateTime::from_timestamp(days * 86_399 * 12, nanos % 1_000_000_000).unwrap();
            Cow::Owned(format!("{}{zone}", time.format("%Y-%m-%dT%H:%M:%S%.f")))
        });
        prop_oneof![
            9 => prop::collection::vec(time.prop_map(Some), 3).prop_map(PlainColumn::Texts),
            1 => values(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is understood becomes what its conversion gives, and nothing is understood that cannot be converted.
        #[test]
        fn rows_become_what_their_conversion_gives(
            types in prop::collection::vec(prop::sample::select(vec![
                ValueType::Int64, ValueType::Int32, ValueType::Double, ValueType::Float, ValueType::Bool,
                ValueType::String, ValueType::UnixTimestamp, ValueType::Json,
            ]), 1..4),
            key in prop::sample::select(vec![ValueType::Int64, ValueType::Int32, ValueType::String]),
            version in 1u8..4,
            created in any::<bool>(),
            columns in prop::collection::vec(values(), 4),
            keys in values(),
            at in times(),
            made in times(),
        ) {
            let of = pushed(&types, key, version, created);
            let features = columns.into_iter().enumerate().map(|(at, column)| (Cow::Owned(format!("f{at}")), column));
            let others = [("key", keys), ("at", at), ("created", made)];
            let others = others.into_iter().map(|(name, column)| (Cow::Borrowed(name), column));
            let rows = PlainRows(features.chain(others).collect());
            if let Some(found) = rows.serialized(&of) {
                let expected = converted(&of, rows);
                prop_assert!(expected.is_ok(), "{:?}", expected.err());
                let expected = expected.unwrap();
                let write = expected.as_write(&of.table);
                prop_assert_eq!(found.len(), write.keys.len());
                let cells: Vec<_> = write.rows.columns().iter().zip(&types)
                    .map(|(column, value_type)| encode_column(column, *value_type).unwrap()).collect();
                for row in 0..found.len() {
                    prop_assert_eq!(found.key(row), write.keys.encoded.value(row));
                    prop_assert_eq!(found.event_timestamp(row), write.event_timestamps.value(row));
                    prop_assert_eq!(found.created_timestamp(row), write.created_timestamps.map(|made| made.value(row)));
                    for (column, cells) in cells.iter().enumerate() {
                        prop_assert_eq!(found.cell(row, column), cells.value(row));
                    }
                }
            }
        }
    }

    #[test]
    fn ordinary_rows_are_understood() {
        let types = [ValueType::Int64, ValueType::Float, ValueType::String, ValueType::Bool];
        let text = |text: &'static str| PlainColumn::Texts(vec![Some(Cow::Borrowed(text))]);
        let rows = |key, at| {
            PlainRows(vec![
                (Cow::Borrowed("key"), key),
                (Cow::Borrowed("at"), at),
                (Cow::Borrowed("f0"), PlainColumn::Integers(vec![Some(7)])),
                (Cow::Borrowed("f1"), PlainColumn::Floats(vec![Some(0.5)])),
                (Cow::Borrowed("f2"), text("x")),
                (Cow::Borrowed("f3"), PlainColumn::Truths(vec![None])),
            ])
        };
        let key = || PlainColumn::Integers(vec![Some(1001)]);
        let of = pushed(&types, ValueType::Int64, 3, false);
        let found = rows(key(), text("2026-02-10T00:00:00Z")).serialized(&of).unwrap();
        assert_eq!((found.len(), found.event_timestamp(0)), (1, 1_770_681_600_000_000));
        assert_eq!(
            (found.cell(0, 0), found.cell(0, 2), found.cell(0, 3)),
            (&[0x20, 7][..], &b"\x12\x01x"[..], &b""[..])
        );
        // A key or a time that is missing, and a key of another type.
        assert!(rows(PlainColumn::Integers(vec![None]), text("2026-02-10")).serialized(&of).is_none());
        assert!(rows(key(), PlainColumn::Texts(vec![None])).serialized(&of).is_none());
        assert!(rows(text("1001"), text("2026-02-10")).serialized(&of).is_none());
        assert!(rows(key(), text("2026-02-10")).serialized(&pushed(&types, ValueType::Int64, 3, true)).is_none());
    }
}
