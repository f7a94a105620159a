//! The latest row of each key, found by the database.

use std::sync::Arc;

use arrow::array::StringArray;
use arrow::datatypes::{Field as ArrowField, Schema};
use feast_core::{DUMMY_JOIN_KEY, DUMMY_JOIN_KEY_VALUE, Error, Field, Result, ValueType, timestamp_type};
use futures::stream;

use super::Postgres;
use super::answer::Answer;
use super::copy::Kind;
use super::relation::open;
use super::statements::{self, ViewRows};
use crate::entity_rows::OUTPUT_ROWS;
use crate::view_columns::{ViewColumns, batch_source, declared_columns, output_field, record_batch};
use crate::{BatchStream, CREATED_TIMESTAMP_COLUMN, EVENT_TIMESTAMP_COLUMN, LatestRequest};

impl Postgres {
    /// As [`OfflineStore::latest`](crate::OfflineStore::latest).
    pub(crate) async fn latest(&self, request: LatestRequest) -> Result<BatchStream> {
        let LatestRequest { view, start, end } = request;
        if start > end {
            return Err(Error::invalid_request(format!("the start {start} is after the end {end}"))
                .with_hint("swap the two dates"));
        }
        let session = self.server.connect().await?;
        let source = batch_source(&view)?;
        let relation = open(&session, source).await.map_err(|error| error.with_context("feature view", &view.name))?;
        let keys = view.key_columns();
        let names = keys.iter().map(|key| key.name.as_str());
        let columns = ViewColumns::find(&view, &relation.known, source, names, view.features.iter())?;
        let mut fields: Vec<ArrowField> = keys.iter().map(|key| key.value_type.arrow_field(&key.name)).collect();
        for (feature, (column, declared)) in view.features.iter().zip(&columns.features) {
            fields.push(output_field(&feature.name, *declared, &relation.known, *column));
        }
        fields.push(ArrowField::new(EVENT_TIMESTAMP_COLUMN, timestamp_type(), true));
        fields.push(ArrowField::new(CREATED_TIMESTAMP_COLUMN, timestamp_type(), true));
        let schema = Arc::new(Schema::new(fields));
        let rows = ViewRows {
            from: relation.from.clone(),
            keys: columns.keys.iter().map(|column| (relation.expression(*column), 0)).collect(),
            event: relation.time(columns.event),
            created: columns.created.map(|created| relation.time(created)),
            stored: relation.stored,
            features: columns.feature_columns().into_iter().map(|column| relation.expression(column)).collect(),
            ttl: None,
            known_at_entity_time: false,
            as_of: None,
            index: None,
            looked_up: false,
        };
        let read: Vec<usize> = columns.keys.iter().copied().chain(columns.feature_columns()).collect();
        let mut kinds: Vec<Kind> = read.iter().map(|column| relation.columns[*column].kind.clone()).collect();
        kinds.extend([Kind::TimestampTz, Kind::TimestampTz]);
        let doing = "reading the latest rows";
        let answer = Answer::new(session, doing, &statements::latest(&rows, start, end), &kinds);
        let types: Vec<(usize, ValueType)> = typed_keys(&keys, &view.name)?
            .into_iter()
            .zip(&columns.keys)
            .map(|(declared, column)| (*column, declared))
            .chain(columns.features.iter().copied())
            .collect();
        let dummy = columns.keys.is_empty();
        let output = Arc::clone(&schema);
        let batches = stream::try_unfold((answer, types, relation), move |(mut answer, types, relation)| {
            let output = Arc::clone(&output);
            async move {
                let Some((n_rows, mut arrays)) = answer.next(OUTPUT_ROWS).await? else { return Ok(None) };
                let times = arrays.split_off(types.len());
                let mut columns = declared_columns(&arrays, &types, &relation.known)?;
                if dummy {
                    columns.insert(0, Arc::new(StringArray::from(vec![DUMMY_JOIN_KEY_VALUE; n_rows])));
                }
                columns.extend(times);
                let batch = record_batch(&output, columns, n_rows)?;
                Ok::<_, Error>(Some((batch, (answer, types, relation))))
            }
        });
        Ok(BatchStream::new(schema, batches))
    }
}

fn typed_keys(keys: &[Field], view: &str) -> Result<Vec<ValueType>> {
    let typed = keys.iter().filter(|key| key.name != DUMMY_JOIN_KEY).map(|key| match key.value_type {
        ValueType::Invalid => {
            Err(Error::invalid_definition(format!("join key `{}` of feature view `{view}` has no type", key.name))
                .with_hint("run `feast apply`, which infers it"))
        }
        known => Ok(known),
    });
    typed.collect()
}
