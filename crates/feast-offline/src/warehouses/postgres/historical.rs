//! Training data in one statement: the entity rows are sent, or selected there, and meet their features again by order.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use feast_core::{DUMMY_JOIN_KEY, Error, PlannedView, Result, RetrievalPlan, Timestamp};
use futures::{TryStreamExt, stream};

use super::Postgres;
use super::answer::Answer;
use super::connection::{Session, quoted};
use super::copy::{Column, Kind};
use super::relation::{Relation, columns_of, open};
use super::rows::send;
use super::statements::{self, ENTITY_TABLE, ViewRows, identifiers};
use crate::cast::to_declared;
use crate::entity_range::asked_range;
use crate::entity_rows::{EntityPart, EntityRows, EntitySource, OUTPUT_ROWS};
use crate::explain::StepId;
use crate::historical::output_schema;
use crate::join_keys::{canonical, common_type};
use crate::leaks::LeakReport;
use crate::parallel::blocking;
use crate::timestamps::{instant, micros_array};
use crate::view_columns::{ViewColumns, batch_source, output_field, record_batch};
use crate::{BatchStream, Explanation, HistoricalRequest, HistoricalStream};

/// What is done for an entity query, in errors.
const ENTITY_QUERY: &str = "the entity query cannot be run";

/// A view and the relation of its source.
struct OpenView {
    relation: Relation,
    columns: ViewColumns,
    fields: Vec<ArrowField>,
}

impl Postgres {
    /// As [`OfflineStore::historical`](crate::OfflineStore::historical).
    pub(crate) async fn historical(&self, request: HistoricalRequest, base: &Path) -> Result<HistoricalStream> {
        let known = Known { at_entity_time: request.filter_by_created_timestamp, until: request.as_of };
        Ok(self.join(request, base, &[known]).await?.0)
    }

    /// As [`OfflineStore::leaks`](crate::OfflineStore::leaks): one statement gives both answers, of one state of the
    /// tables.
    pub(crate) async fn leaks(&self, request: HistoricalRequest, base: &Path) -> Result<LeakReport> {
        let at_entity_time = request.filter_by_created_timestamp || request.as_of.is_none();
        let then = Known { at_entity_time, until: request.as_of };
        let today = Known { at_entity_time: false, until: None };
        let plan = Arc::clone(&request.plan);
        let (mut both, has_created) = self.join(request, base, &[then, today]).await?;
        let mut report = LeakReport::new(&plan, &has_created);
        while let Some(batch) = both.batches.try_next().await? {
            let (then, today) = batch.columns()[both.entity_columns..].split_at(report.features.len());
            report.count(batch.num_rows(), then, today)?;
        }
        Ok(report)
    }

    /// The entity rows with the features of all views, once for each state of knowledge; and whether the views know
    /// when their rows were written.
    async fn join(
        &self,
        request: HistoricalRequest,
        base: &Path,
        known: &[Known],
    ) -> Result<(HistoricalStream, Vec<bool>)> {
        let HistoricalRequest { plan, entity, .. } = request;
        let session = self.server.connect().await?;
        session.run("beginning", "BEGIN").await?;
        let mut views = Vec::new();
        for planned in &plan.views {
            views.push(open_view(&session, planned).await?);
        }
        let entity = match entity {
            EntitySource::Batches(schema, batches) => Entity::Rows(EntityRows::new(schema, batches)?),
            EntitySource::Stream(rows) => {
                let schema = Arc::clone(rows.schema());
                Entity::Rows(EntityRows::new(schema, rows.collect().await?)?)
            }
            EntitySource::File(path) => {
                let base = base.to_path_buf();
                Entity::Rows(blocking(move || EntityRows::read(&path, &base, usize::MAX)).await?)
            }
            EntitySource::Sql(query) => Entity::Query(query),
            EntitySource::Range { start, end } => {
                let (start, end) = asked_range(&plan, start, end)?;
                Entity::Query(range(&plan, &views, start, end)?)
            }
        };
        let (head, query) = match entity {
            Entity::Rows(rows) => (rows, None),
            Entity::Query(query) => {
                let query = query.trim().trim_end_matches(';').to_owned();
                let columns = columns_of(&session, &format!("SELECT * FROM ({query}) AS q"), ENTITY_QUERY).await?;
                let schema = Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>());
                (EntityRows::new(Arc::new(schema), Vec::new())?, Some((query, columns)))
            }
        };
        head.check_request_fields(&plan)?;
        let fields: Vec<&[ArrowField]> = views.iter().map(|view| view.fields.as_slice()).collect();
        let mut schema = output_schema(&head.schema, &plan, &fields)?;
        if known.len() > 1 {
            let features = &schema.fields()[head.schema.fields().len()..];
            let again = features.iter().cycle().take(features.len() * known.len());
            let all = head.schema.fields().iter().chain(again).cloned().collect::<Vec<_>>();
            schema = Arc::new(Schema::new(all));
        }

        // The keys of the entity rows, each once per type in which it is compared.
        let mut keys: Vec<(usize, DataType)> = Vec::new();
        let mut rows = Vec::new();
        for known in known {
            for (view, planned) in views.iter().zip(&plan.views) {
                rows.push(view_rows(&session, view, planned, &plan, &head, &mut keys, *known).await?);
            }
        }
        let (time_name, known_bounds, entity_schema) =
            (head.time_name().to_owned(), head.bounds(), Arc::clone(&head.schema));
        let part = head.into_parts(usize::MAX)?.next().transpose()?;
        let mut batches = Vec::new();
        let entity_columns = match &query {
            None => {
                send_entity_rows(&session, &entity_schema, part.as_ref(), &keys).await?;
                if let Some(part) = part {
                    batches = part.into_output_batches(&entity_schema)?;
                }
                Vec::new()
            }
            Some((query, columns)) => {
                let keys = keys.iter().map(|(key, _)| columns[*key].expression("q"));
                let keys: String = keys.enumerate().map(|(n, key)| format!(", {key} AS feast_key{n}")).collect();
                let time = format!("({})::timestamptz", columns[entity_schema.index_of(&time_name)?].expression("q"));
                let create = format!(
                    "CREATE TEMP TABLE {ENTITY_TABLE} ON COMMIT DROP AS \
                     SELECT q.*, row_number() OVER () AS feast_row, {time} AS feast_time{keys} FROM ({query}) AS q"
                );
                session.run(ENTITY_QUERY, &create).await?;
                columns.iter().map(|column| column.expression("e")).collect()
            }
        };
        session.run("counting the entity rows", &format!("ANALYZE {ENTITY_TABLE}")).await?;
        let (n_rows, bounds) = match &query {
            None => (batches.iter().map(RecordBatch::num_rows).sum(), known_bounds),
            Some(_) => count(&session).await?,
        };
        rows.iter_mut().for_each(|view| view.choose(n_rows));
        let statement = statements::point_in_time(&entity_columns, &rows);
        let explanation = Explanation::default();
        let step = explanation.step(0, format!("run one statement in {self}"));
        for ((view, rows), planned) in views.iter().zip(&rows).zip(&plan.views) {
            let source = &view.relation.known.name;
            let how = if rows.looked_up { "looked up row by row" } else { "sorted beside the entity rows" };
            explanation.step(1, format!("join `{}`: `{source}`, {how} there", planned.name));
        }
        let entity_kinds = query.iter().flat_map(|(_, columns)| columns.iter().map(|column| column.kind.clone()));
        let feature_kinds = views.iter().flat_map(|view| {
            view.columns.features.iter().map(|(column, _)| view.relation.columns[*column].kind.clone())
        });
        let feature_kinds: Vec<Kind> = feature_kinds.collect();
        let kinds = entity_kinds.chain(feature_kinds.iter().cloned().cycle().take(feature_kinds.len() * known.len()));
        let kinds: Vec<Kind> = kinds.collect();
        let columns = entity_schema.fields().len();
        let answer = Answer::new(session, "joining features", &statement, &kinds);
        let counted = (explanation.clone(), step);
        let has_created = views.iter().map(|view| view.columns.created.is_some()).collect();
        let features = Features { answer, views, schema: Arc::clone(&schema), entity_columns: columns, counted };
        let output = match query {
            // What the query selected comes back with the features.
            Some(_) => features.whole(),
            None => features.beside(batches),
        };
        let stream = HistoricalStream {
            entity_columns: columns,
            event_timestamp_column: time_name,
            min_event_timestamp: bounds.and_then(|(least, _)| instant(least)),
            max_event_timestamp: bounds.and_then(|(_, greatest)| instant(greatest)),
            batches: output,
            explanation,
        };
        Ok((stream, has_created))
    }
}

/// What counts as known.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Rows from their created time on.
    at_entity_time: bool,
    /// Only what had happened and been written by then.
    until: Option<Timestamp>,
}

enum Entity {
    Rows(EntityRows),
    Query(String),
}

async fn open_view(session: &Session, planned: &PlannedView) -> Result<OpenView> {
    let view = &planned.view;
    let source = batch_source(view)?;
    let relation = open(session, source).await.map_err(|error| error.with_context("feature view", &view.name))?;
    let columns = ViewColumns::find(
        view,
        &relation.known,
        source,
        planned.join_keys.iter().map(|key| key.key.as_str()),
        planned.features.iter().map(|feature| &feature.field),
    )?;
    let fields = planned
        .features
        .iter()
        .zip(&columns.features)
        .map(|(feature, (column, declared))| output_field(&feature.output, *declared, &relation.known, *column));
    let fields = fields.collect();
    Ok(OpenView { relation, columns, fields })
}

/// How the rows of a view are found. Adds the keys it needs to `keys`.
async fn view_rows(
    session: &Session,
    view: &OpenView,
    planned: &PlannedView,
    plan: &RetrievalPlan,
    entity: &EntityRows,
    keys: &mut Vec<(usize, DataType)>,
    known: Known,
) -> Result<ViewRows> {
    let relation = &view.relation;
    let mut matched = Vec::new();
    let join_keys = planned.join_keys.iter().filter(|key| key.key != DUMMY_JOIN_KEY);
    for (key, column) in join_keys.zip(&view.columns.keys) {
        let entity_column = entity.key_column(plan, key)?;
        let entity_type = entity.schema.field(entity_column).data_type();
        let source_type = relation.known.data_type(*column);
        let common = common_type(entity_type, source_type).ok_or_else(|| {
            Error::invalid_request(format!(
                "join key `{}` is {entity_type} in the entity rows and {source_type} in {}",
                entity.schema.field(entity_column).name(),
                relation.known.describe(*column)
            ))
            .with_hint(format!("convert the column of the entity rows to {source_type}"))
        })?;
        let wanted = (entity_column, common);
        let number = keys.iter().position(|known| *known == wanted).unwrap_or_else(|| {
            keys.push(wanted);
            keys.len() - 1
        });
        matched.push((relation.expression(*column), number));
    }
    let leading = if view.columns.keys.is_empty() { vec![view.columns.event] } else { view.columns.keys.clone() };
    let leading: Vec<&str> = leading.iter().map(|column| relation.columns[*column].name.as_str()).collect();
    // A table that was never analyzed has no number of rows.
    let index = "SELECT nullif(c.reltuples, -1) FROM pg_index i JOIN pg_attribute a \
                 ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] JOIN pg_class c ON c.oid = i.indrelid \
                 WHERE i.indrelid = to_regclass(nullif($1::text, '')) AND i.indisvalid AND a.attname = ANY($2) LIMIT 1";
    let index = session.client.query_opt(index, &[&relation.table, &leading]).await;
    let index = index.map_err(|error| session.refused("looking for indexes", error))?.map(|row| row.get(0));
    Ok(ViewRows {
        from: relation.from.clone(),
        keys: matched,
        event: relation.time(view.columns.event),
        created: view.columns.created.map(|created| relation.time(created)),
        stored: relation.stored,
        features: view.columns.feature_columns().into_iter().map(|column| relation.expression(column)).collect(),
        ttl: planned.ttl.limit(),
        known_at_entity_time: known.at_entity_time,
        as_of: known.until,
        index,
        looked_up: false,
    })
}

/// Every key and event time the views have between two instants, in order of time and key.
fn range(plan: &RetrievalPlan, views: &[OpenView], start: Timestamp, end: Timestamp) -> Result<String> {
    if views.is_empty() {
        return Err(Error::invalid_request("there are no entity rows, and no stored feature view to take them from")
            .with_hint("give entity rows, or ask for features of a stored feature view"));
    }
    let keys: Vec<_> = plan.join_keys.iter().filter(|key| key.key != DUMMY_JOIN_KEY).collect();
    let mut selects = Vec::new();
    for (view, planned) in views.iter().zip(&plan.views) {
        if view.columns.keys.is_empty() && !keys.is_empty() {
            continue;
        }
        let own = keys.iter().map(|key| {
            let own = planned.join_keys.iter().position(|own| own.column == key.column)?;
            Some(view.relation.expression(view.columns.keys[own]))
        });
        let own: Vec<Option<String>> = own.collect();
        let rows = ViewRows {
            from: view.relation.from.clone(),
            keys: Vec::new(),
            event: view.relation.time(view.columns.event),
            created: None,
            stored: false,
            features: Vec::new(),
            ttl: None,
            known_at_entity_time: false,
            as_of: None,
            index: None,
            looked_up: false,
        };
        selects.push(statements::keys_and_times(&rows, &own, start, end));
    }
    let names = std::iter::once("event_timestamp").chain(keys.iter().map(|key| key.column.as_str()));
    let columns = identifiers(names);
    let casts: Vec<String> = keys
        .iter()
        .map(|key| {
            let name = quoted(&key.column);
            match Kind::for_arrow(&key.value_type.arrow_type()) {
                Some(kind) => format!("{name}::{} AS {name}", kind.name()),
                None => name,
            }
        })
        .collect();
    let casts: String = casts.into_iter().map(|key| format!(", {key}")).collect();
    let order: String = (0..keys.len()).map(|key| format!(", {} NULLS FIRST", key + 2)).collect();
    Ok(format!(
        "SELECT event_timestamp{casts} FROM ({}) AS r ({columns}) GROUP BY {columns} ORDER BY 1{order}",
        selects.join(" UNION "),
    ))
}

/// Loads numbers, times and keys of entity rows in memory.
async fn send_entity_rows(
    session: &Session,
    schema: &SchemaRef,
    rows: Option<&EntityPart>,
    keys: &[(usize, DataType)],
) -> Result<()> {
    let doing = "sending the entity rows";
    let (batches, times) = match rows {
        Some(part) => (part.batches.as_slice(), part.times()?),
        None => (&[][..], Vec::new()),
    };
    let times: TimestampMicrosecondArray = times.iter().flatten().collect();
    let mut kinds = vec![Kind::Int8, Kind::TimestampTz];
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from_iter_values(0..times.len() as i64)), micros_array(times)];
    for (column, key_type) in keys {
        let of = format!("column `{}` of the entity rows", schema.field(*column).name());
        // A decimal is compared as the number its text says.
        let kind = Kind::for_arrow(key_type).unwrap_or(Kind::Text);
        let mut parts = Vec::new();
        for batch in batches {
            let part = canonical(batch.column(*column), key_type, &of)?;
            parts.push(cast(&part, &kind.data_type())?);
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        columns.push(match parts.as_slice() {
            [] => arrow::array::new_empty_array(&kind.data_type()),
            parts => arrow::compute::concat(parts)?,
        });
        kinds.push(kind);
    }
    let names = (0..keys.len()).map(|key| format!("feast_key{key}"));
    let names = ["feast_row".to_owned(), "feast_time".to_owned()].into_iter().chain(names);
    let typed = names.zip(&kinds).map(|(name, kind)| format!("{name} {}", kind.name()));
    let create = format!("CREATE TEMP TABLE {ENTITY_TABLE} ({}) ON COMMIT DROP", typed.collect::<Vec<_>>().join(", "));
    session.run(doing, &create).await?;
    let n_rows = columns[0].len();
    send(session, doing, ENTITY_TABLE, kinds, &columns, n_rows).await
}

/// How many entity rows there are, and their least and greatest time.
async fn count(session: &Session) -> Result<(usize, Option<(i64, i64)>)> {
    let times = "FILTER (WHERE isfinite(feast_time))";
    let query = format!(
        "SELECT count(*), (extract(epoch FROM min(feast_time) {times}) * 1000000)::int8, \
         (extract(epoch FROM max(feast_time) {times}) * 1000000)::int8 FROM {ENTITY_TABLE}"
    );
    let row = session.client.query_one(&query, &[]).await;
    let row = row.map_err(|error| session.refused("counting the entity rows", error))?;
    let (n_rows, least, greatest): (i64, Option<i64>, Option<i64>) = (row.get(0), row.get(1), row.get(2));
    Ok((usize::try_from(n_rows).unwrap_or_default(), least.zip(greatest)))
}

/// Features as they arrive, one row per entity row.
struct Features {
    answer: Answer,
    views: Vec<OpenView>,
    schema: SchemaRef,
    entity_columns: usize,
    counted: (Explanation, StepId),
}

impl Features {
    /// The next rows of the answer.
    async fn next(&mut self, most: usize) -> Result<Option<(usize, Vec<ArrayRef>)>> {
        let arrived = self.answer.next(most).await?;
        if let Some((n_rows, arrays)) = &arrived {
            let size = arrays.iter().map(|array| array.get_array_memory_size()).sum();
            self.counted.0.count(self.counted.1, *n_rows, size);
        }
        Ok(arrived)
    }

    /// Columns in the order of the plan, once or several times, of their declared types.
    fn declared(&self, arrays: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let features =
            self.views.iter().flat_map(|view| view.columns.features.iter().map(move |feature| (view, feature)));
        let columns = arrays.iter().zip(features.cycle());
        let columns = columns.map(|(array, (view, (column, declared)))| {
            to_declared(array, *declared, &view.relation.known.describe(*column))
        });
        columns.collect()
    }

    /// Rows that carry the columns of the entity query.
    fn whole(self) -> BatchStream {
        let schema = Arc::clone(&self.schema);
        let batches = stream::try_unfold(self, async |mut features: Self| {
            let Some((n_rows, mut arrays)) = features.next(OUTPUT_ROWS).await? else { return Ok(None) };
            let columns = features.declared(&arrays.split_off(features.entity_columns))?;
            arrays.extend(columns);
            Ok(Some((record_batch(&features.schema, arrays, n_rows)?, features)))
        });
        BatchStream::new(schema, batches)
    }

    /// Rows that belong to entity rows in memory.
    fn beside(self, batches: Vec<RecordBatch>) -> BatchStream {
        let schema = Arc::clone(&self.schema);
        let state = (self, batches.into_iter());
        let batches = stream::try_unfold(state, async |(mut features, mut batches): (Self, std::vec::IntoIter<_>)| {
            let Some(batch): Option<RecordBatch> = batches.next() else {
                // The end of the answer is read too: an error may be there.
                features.next(1).await?;
                return Ok(None);
            };
            let mut columns = batch.columns().to_vec();
            if batch.num_rows() > 0 && features.schema.fields().len() > columns.len() {
                let arrived = features.next(batch.num_rows()).await?;
                let (_, arrays) = arrived.filter(|(n_rows, _)| *n_rows == batch.num_rows()).ok_or_else(|| {
                    Error::internal("PostgreSQL sent another number of rows than there are entity rows")
                })?;
                columns.extend(features.declared(&arrays)?);
            } else {
                columns.extend(
                    features.schema.fields()[columns.len()..]
                        .iter()
                        .map(|field| arrow::array::new_empty_array(field.data_type())),
                );
            }
            Ok(Some((record_batch(&features.schema, columns, batch.num_rows())?, (features, batches))))
        });
        BatchStream::new(schema, batches)
    }
}
