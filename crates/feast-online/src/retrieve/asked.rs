//! What a request asks of the store: the columns of the caller, and the distinct keys of each set of join keys.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use feast_core::{
    DUMMY_JOIN_KEY, DUMMY_JOIN_KEY_VALUE, EntityKeyEncoder, EntityKeys, Error, ErrorCode, Field, OnlineRead,
    PlannedJoinKey, PlannedKeySet, PlannedView, Result, RetrievalPlan, Transformer, list_names,
};
use hashbrown::HashMap;

use super::RetrieveOptions;
use crate::EntityRows;
use crate::write::plain_schema;

/// What a request asks of the store.
pub(super) struct Asked<'p> {
    pub(super) n_rows: usize,
    pub(super) entity_columns: Vec<(&'p PlannedJoinKey, ArrayRef)>,
    pub(super) key_sets: Vec<KeySet>,
}

impl<'p> Asked<'p> {
    pub(super) fn of(plan: &'p RetrievalPlan, entity_rows: &EntityRows, options: &RetrieveOptions) -> Result<Self> {
        let needs_rows = !plan.join_keys.is_empty() || !plan.request_fields.is_empty();
        let n_rows = if needs_rows || entity_rows.names().next().is_some() { entity_rows.len() } else { 1 };
        let entity_columns = entity_columns(plan, entity_rows)?;
        let key_sets = key_sets(plan, &entity_columns, n_rows, options.key_version)?;
        Ok(Self { n_rows, entity_columns, key_sets })
    }

    pub(super) fn reads<'a>(&'a self, plan: &'a RetrievalPlan) -> Vec<OnlineRead<'a>> {
        let read = |view: &'a PlannedView| OnlineRead { wanted: &view.online, keys: &self.key_sets[view.key_set].keys };
        plan.views.iter().map(read).collect()
    }
}

pub(super) fn check_supported(plan: &RetrievalPlan, transformer: Option<&dyn Transformer>) -> Result<()> {
    if transformer.is_none() && !plan.on_demand.is_empty() {
        let names = list_names(plan.on_demand.iter().map(|view| view.name.as_str()));
        return Err(Error::unsupported(format!("the on-demand views {names} cannot be computed here, without Python"))
            .with_hint("ask for stored features only, or use a process that runs Python"));
    }
    if let Some(view) = plan.views.iter().find(|view| !view.is_stored) {
        return Err(Error::invalid_request(format!(
            "`{}` asks for a version that is not the current one, and only that one has values online",
            view.name
        ))
        .with_hint(format!(
            "ask for `{}`, or keep the values of each version with `enable_online_feature_view_versioning: true` \
             below `registry` in feature_store.yaml, where the online store can",
            view.view.name
        )));
    }
    Ok(())
}

/// The caller's columns that hold join keys, in the caller's order.
fn entity_columns<'a>(plan: &'a RetrievalPlan, rows: &EntityRows) -> Result<Vec<(&'a PlannedJoinKey, ArrayRef)>> {
    let position = |key: &PlannedJoinKey| {
        // The name of the entity, and of the join key before it was renamed, mean the same column.
        let aliases = plan.entity_aliases.iter().filter(|alias| alias.join_key == key.key);
        rows.position(&key.column)
            .or_else(|| aliases.map(|alias| alias.entity.as_str()).find_map(|name| rows.position(name)))
            .or_else(|| rows.position(&key.key))
    };
    let mut found: Vec<(usize, &PlannedJoinKey)> = Vec::with_capacity(plan.join_keys.len());
    let mut missing = Vec::new();
    for key in &plan.join_keys {
        match position(key) {
            Some(position) => found.push((position, key)),
            None => missing.push(key.column.as_str()),
        }
    }
    if !missing.is_empty() {
        return Err(Error::new(
            ErrorCode::MissingJoinKey,
            format!(
                "the entity rows lack the join keys {}, the columns given are {}",
                list_names(missing),
                list_names(rows.names())
            ),
        )
        .with_hint("give each row a value for every join key"));
    }
    found.sort_by_key(|(position, _)| *position);
    found
        .into_iter()
        .map(|(position, key)| {
            let values = rows.column(position, key.value_type)?;
            match (0..values.len()).find(|row| values.is_null(*row)) {
                None => Ok((key, values)),
                Some(row) => Err(Error::new(
                    ErrorCode::MissingJoinKey,
                    format!("join key `{}` is null in row {row}", key.column),
                )
                .with_hint("every row needs a value for each join key")),
            }
        })
        .collect()
}

/// Columns that are join keys of other views: whoever puts rows together by them finds them in the answer, as in Feast.
pub(super) fn other_entity_columns<'a>(
    plan: &'a RetrievalPlan,
    rows: &EntityRows,
) -> Vec<(&'a PlannedJoinKey, ArrayRef)> {
    // Nearly all requests have what their plan needs, and nothing else.
    if rows.names().count() <= plan.join_keys.len() + plan.request_fields.len() {
        return Vec::new();
    }
    let is_output = |key: &&PlannedJoinKey| plan.outputs().any(|feature| *feature.output == *key.column);
    let others = plan.other_join_keys.iter().filter(|key| !is_output(key));
    others
        .filter_map(|key| {
            // What does not fit its type is of no use to the request either way.
            let values = rows.column(rows.position(&key.column)?, key.value_type).ok()?;
            Some((key, values))
        })
        .collect()
}

pub(super) fn request_columns<'a>(plan: &'a RetrievalPlan, rows: &EntityRows) -> Result<Vec<(&'a Field, ArrayRef)>> {
    let missing: Vec<&str> = plan
        .request_fields
        .iter()
        .map(|field| field.name.as_str())
        .filter(|name| rows.position(name).is_none())
        .collect();
    if !missing.is_empty() {
        return Err(Error::new(
            ErrorCode::RequestDataNotFoundInEntityRows,
            format!(
                "the entity rows lack the request data {}, the columns given are {}",
                list_names(missing),
                list_names(rows.names())
            ),
        )
        .with_hint("pass request data beside the join keys"));
    }
    let fields = plan.request_fields.iter();
    fields
        .filter_map(|field| Some((field, rows.position(&field.name)?)))
        .map(|(field, position)| Ok((field, rows.column(position, field.value_type)?)))
        .collect()
}

/// The distinct keys of one set of join keys.
pub(super) struct KeySet {
    keys: EntityKeys,
    /// Which key each row of the request has; `None`: row `i` has key `i`.
    pub(super) row_of_request: Option<Vec<u32>>,
}

/// One entry per key set of the plan.
fn key_sets(
    plan: &RetrievalPlan,
    entity_columns: &[(&PlannedJoinKey, ArrayRef)],
    n_rows: usize,
    key_version: u8,
) -> Result<Vec<KeySet>> {
    let key_set = |set: &PlannedKeySet| {
        let mut encoding = set.memo.get(|| Encoding::of(set, key_version))?;
        if encoding.key_version != key_version {
            encoding = Arc::new(Encoding::of(set, key_version)?);
        }
        if set.join_keys.iter().all(|key| key.key == DUMMY_JOIN_KEY) {
            let dummy: ArrayRef = Arc::new(StringArray::from(vec![DUMMY_JOIN_KEY_VALUE]));
            let keys = encoding.encode(vec![dummy])?;
            return Ok(KeySet { keys, row_of_request: (n_rows != 1).then(|| vec![0; n_rows]) });
        }
        let columns = set.join_keys.iter().map(|key| {
            let column = entity_columns.iter().find(|(known, _)| known.column == key.column);
            let (known, values) =
                column.ok_or_else(|| Error::internal(format!("join key `{}` is gone", key.column)))?;
            // Views may declare one caller's column with different types.
            match known.value_type == key.value_type {
                true => Ok(Arc::clone(values)),
                false => crate::coerce_column(values, key.value_type, &key.column),
            }
        });
        let (keys, row_of_request) = distinct(encoding.encode(columns.collect::<Result<_>>()?)?)?;
        Ok(KeySet { keys, row_of_request })
    };
    plan.key_sets.iter().map(key_set).collect()
}

/// How the keys of a set are encoded, which is the same for every request with the same plan.
struct Encoding {
    key_version: u8,
    encoder: EntityKeyEncoder,
    schema: SchemaRef,
}

impl Encoding {
    fn of(set: &PlannedKeySet, key_version: u8) -> Result<Self> {
        let encoder = EntityKeyEncoder::new(&set.fields, key_version)?;
        Ok(Self { key_version, encoder, schema: plain_schema(&set.fields) })
    }

    fn encode(&self, columns: Vec<ArrayRef>) -> Result<EntityKeys> {
        self.encoder.encode(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// The distinct keys in order of first appearance, and which of them each row has.
fn distinct(keys: EntityKeys) -> Result<(EntityKeys, Option<Vec<u32>>)> {
    if keys.len() < 2 {
        return Ok((keys, None));
    }
    let mut position_of: HashMap<&[u8], u32> = HashMap::with_capacity(keys.len());
    let mut first_rows: Vec<u32> = Vec::with_capacity(keys.len());
    let mut row_of_request: Vec<u32> = Vec::with_capacity(keys.len());
    for row in 0..keys.len() {
        let next = first_rows.len() as u32;
        let position = *position_of.entry(keys.encoded.value(row)).or_insert(next);
        if position == next {
            first_rows.push(row as u32);
        }
        row_of_request.push(position);
    }
    drop(position_of);
    if first_rows.len() == keys.len() {
        return Ok((keys, None));
    }
    let first_rows = UInt32Array::from(first_rows);
    let columns = keys.columns.columns().iter().map(|column| take(column, &first_rows, None));
    let columns = RecordBatch::try_new(keys.columns.schema(), columns.collect::<Result<_, _>>()?)?;
    let encoded = first_rows.values().iter().map(|row| Some(keys.encoded.value(*row as usize))).collect();
    Ok((EntityKeys { columns, encoded }, Some(row_of_request)))
}
