//! PostgreSQL as offline store: it finds the rows itself, and only those that are wanted travel.
//!
//! A request has one connection. The keys and times of entity rows, which are kept in memory here, go into a temporary
//! table by binary `COPY`; what an entity query selects becomes such a table in the database. One statement joins all
//! views, and its rows are read as they arrive. Times without zone count as UTC. Rows are added and datasets written in
//! one transaction each.

mod connection;
mod copy;
mod statements;

use std::fmt;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use bytes::Bytes;
use chrono::Utc;
use feast_core::{
    DUMMY_JOIN_KEY, DUMMY_JOIN_KEY_VALUE, DataSource, DataSourceOptions, Error, ErrorCode, Field, NewestValue,
    PlannedView, Result, RetrievalPlan, Timestamp, ValueType, list_names, timestamp_type,
};
use futures::{SinkExt, StreamExt, stream};
use serde_json::Value;
use tokio_postgres::CopyOutStream;

use self::connection::{Server, Session, quoted};
use self::copy::{Column, Decoder, Encoder, Kind};
use self::statements::{ENTITY_TABLE, ViewRows, identifiers};
use crate::cast::{cast_to, to_declared};
use crate::entity_rows::{EntityPart, EntityRows, EntitySource, OUTPUT_ROWS};
use crate::explain::StepId;
use crate::historical::{DEFAULT_LOOK_BACK, output_schema};
use crate::join_keys::{canonical, common_type};
use crate::parallel::blocking;
use crate::sources::SourceColumns;
use crate::timestamps::{instant, is_text, micros_array};
use crate::view_columns::{ViewColumns, batch_source, declared_columns, output_field, record_batch};
use crate::{
    BatchStream, CREATED_TIMESTAMP_COLUMN, EVENT_TIMESTAMP_COLUMN, Explanation, HistoricalRequest, HistoricalStream,
    LatestRequest, NewestRead, NewestRow,
};

/// Rows that are encoded at a time.
const ROWS_SENT: usize = 8192;

/// A database that holds feature rows.
#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    server: Server,
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

/// A table or query that holds rows of a source.
#[derive(Debug)]
struct Relation {
    /// What stands behind FROM.
    from: String,
    /// The name of the table; empty for a query.
    table: String,
    /// Whether its rows know where they are stored.
    stored: bool,
    columns: Vec<Column>,
    /// The same, for those who look for the columns of views.
    known: SourceColumns,
}

impl Relation {
    /// A column, as a value of its kind.
    fn expression(&self, column: usize) -> String {
        self.columns[column].expression("s")
    }

    /// A column that holds times, as something that can be compared with a time.
    fn time(&self, column: usize) -> String {
        let expression = self.expression(column);
        if is_text(self.known.data_type(column)) { format!("({expression})::timestamptz") } else { expression }
    }
}

/// A view and the relation of its source.
struct OpenView {
    relation: Relation,
    columns: ViewColumns,
    fields: Vec<ArrowField>,
}

impl Postgres {
    /// Reads the configuration. Nothing is connected yet.
    pub(crate) fn new(config: &Value) -> Result<Self> {
        Ok(Self { server: Server::new(config)? })
    }

    /// The columns of a data source.
    pub(crate) async fn schema(&self, source: &DataSource) -> Result<SchemaRef> {
        let mut session = self.server.connect().await?;
        let relation = open(&session, source).await?;
        session.done();
        Ok(Arc::clone(relation.known.schema()))
    }

    /// As [`OfflineStore::historical`](crate::OfflineStore::historical).
    pub(crate) async fn historical(&self, request: HistoricalRequest, base: &Path) -> Result<HistoricalStream> {
        let HistoricalRequest { plan, entity, filter_by_created_timestamp, as_of, .. } = request;
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
            EntitySource::Range { start, end } => Entity::Query(range(&plan, &views, start, end)?),
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
        let schema = output_schema(&head.schema, &plan, &fields)?;

        // The keys of the entity rows, each once per type in which it is compared.
        let mut keys: Vec<(usize, DataType)> = Vec::new();
        let mut rows = Vec::new();
        for (view, planned) in views.iter().zip(&plan.views) {
            let known = (filter_by_created_timestamp, as_of);
            rows.push(view_rows(&session, view, planned, &plan, &head, &mut keys, known).await?);
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
        let kinds: Vec<Kind> = entity_kinds.chain(feature_kinds).collect();
        let columns = entity_schema.fields().len();
        let answer = Answer::new(session, "joining features", &statement, &kinds);
        let counted = (explanation.clone(), step);
        let features = Features { answer, views, schema: Arc::clone(&schema), entity_columns: columns, counted };
        let output = match query {
            // What the query selected comes back with the features.
            Some(_) => features.whole(),
            None => features.beside(batches),
        };
        Ok(HistoricalStream {
            entity_columns: columns,
            event_timestamp_column: time_name,
            min_event_timestamp: bounds.and_then(|(least, _)| instant(least)),
            max_event_timestamp: bounds.and_then(|(_, greatest)| instant(greatest)),
            batches: output,
            explanation,
        })
    }

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

    /// The newest row of a source: an index on its time makes that quick.
    pub(crate) async fn newest(&self, source: &DataSource) -> Result<NewestRow> {
        let mut session = self.server.connect().await?;
        let relation = open(&session, source).await?;
        let batch = source.batch().unwrap_or(source);
        let time = relation.time(relation.known.column(batch, &batch.timestamp_field)?);
        let query = format!(
            "SELECT (extract(epoch FROM max({time}) FILTER (WHERE isfinite({time}))) * 1000000)::int8 FROM {}",
            relation.from
        );
        let row = session.client.query_one(&query, &[]).await;
        let row = row.map_err(|error| session.refused("looking for the newest row", error))?;
        session.done();
        Ok(NewestRow { time: NewestValue::of_micros(row.get(0)), read: NewestRead::Statement })
    }

    /// Adds rows to the table of a source.
    pub(crate) async fn append(&self, source: &DataSource, rows: &RecordBatch) -> Result<u64> {
        let mut session = self.server.connect().await?;
        session.run("beginning", "BEGIN").await?;
        let relation = open(&session, source).await?;
        if relation.table.is_empty() {
            return Err(Error::unsupported(format!(
                "data source `{}` is a query, to which rows cannot be added",
                source.name
            ))
            .with_hint("declare the source with `table=`"));
        }
        let rows = crate::append::conform(&relation.known, rows)?;
        // Values that travel as something else are cast where they arrive.
        let direct = |column: &Column| column.cast.is_none() && !matches!(column.kind, Kind::List(_));
        let kinds: Vec<Kind> = relation
            .columns
            .iter()
            .map(
                |column| if column.cast.is_some() && !is_list(&column.kind) { Kind::Text } else { column.kind.clone() },
            )
            .collect();
        let columns = rows.columns().iter().zip(&kinds).map(|(array, kind)| Ok(cast(array, &kind.data_type())?));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        let names = identifiers(relation.columns.iter().map(|column| column.name.as_str()));
        let doing = "adding rows";
        if relation.columns.iter().all(direct) {
            let target = format!("{} ({names})", relation.table);
            send(&session, doing, &target, kinds, &columns, rows.num_rows()).await?;
        } else {
            let typed = relation
                .columns
                .iter()
                .zip(&kinds)
                .map(|(column, kind)| format!("{} {}", quoted(&column.name), kind.name()));
            let create =
                format!("CREATE TEMP TABLE feast_rows ({}) ON COMMIT DROP", typed.collect::<Vec<_>>().join(", "));
            session.run(doing, &create).await?;
            send(&session, doing, "feast_rows", kinds, &columns, rows.num_rows()).await?;
            let cast = relation.columns.iter().map(|column| {
                let found = &column.found;
                format!("{}::{}.{}", quoted(&column.name), quoted(found.schema()), quoted(found.name()))
            });
            let cast = cast.collect::<Vec<_>>().join(", ");
            let insert = format!("INSERT INTO {} ({names}) SELECT {cast} FROM feast_rows", relation.table);
            session.run(doing, &insert).await?;
        }
        session.run(doing, "COMMIT").await?;
        session.done();
        Ok(rows.num_rows() as u64)
    }

    /// Writes rows as a new table; all of them or, when anything fails, none.
    pub(crate) async fn write_table(&self, table: &str, mut rows: BatchStream, overwrite: bool) -> Result<u64> {
        let mut session = self.server.connect().await?;
        let doing = "writing a dataset";
        session.run(doing, "BEGIN").await?;
        let exists = session.client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await;
        let exists: bool = exists.map_err(|error| session.refused(doing, error))?.get(0);
        if exists && !overwrite {
            return Err(Error::new(
                ErrorCode::SavedDatasetLocationExists,
                format!("there is a table `{table}` already"),
            )
            .with_hint("choose another name, or allow overwriting"));
        }
        let schema = Arc::clone(rows.schema());
        let kinds = schema.fields().iter().map(|field| {
            Kind::for_arrow(field.data_type()).ok_or_else(|| {
                Error::unsupported(format!(
                    "column `{}` holds {}, for which there is no type in PostgreSQL",
                    field.name(),
                    field.data_type()
                ))
                .with_hint("leave the column out, or keep the dataset in files")
            })
        });
        let kinds: Vec<Kind> = kinds.collect::<Result<_>>()?;
        let typed = schema.fields().iter().zip(&kinds);
        let typed = typed.map(|(field, kind)| format!("{} {}", quoted(field.name()), kind.name()));
        let drop_old = if exists { format!("DROP TABLE {table}; ") } else { String::new() };
        let create = format!("{drop_old}CREATE TABLE {table} ({})", typed.collect::<Vec<_>>().join(", "));
        session.run(doing, &create).await?;
        let copy = format!("COPY {table} FROM STDIN (FORMAT binary)");
        let sink = session.client.copy_in(&copy).await.map_err(|error| session.refused(doing, error))?;
        let mut sink = pin!(sink);
        let mut encoder = Encoder::new(kinds.clone());
        let mut n_rows = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let columns =
                batch.columns().iter().zip(schema.fields()).zip(&kinds).map(|((array, field), kind)| {
                    cast_to(array, &kind.data_type(), &format!("column `{}`", field.name()))
                });
            let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
            for start in (0..batch.num_rows()).step_by(ROWS_SENT) {
                let part: Vec<ArrayRef> =
                    columns.iter().map(|column| column.slice(start, ROWS_SENT.min(batch.num_rows() - start))).collect();
                let bytes = encoder.encode(&part, ROWS_SENT.min(batch.num_rows() - start)).freeze();
                sink.feed(bytes).await.map_err(|error| session.refused(doing, error))?;
            }
            n_rows += batch.num_rows() as u64;
        }
        sink.send(encoder.end().freeze()).await.map_err(|error| session.refused(doing, error))?;
        sink.as_mut().finish().await.map_err(|error| session.refused(doing, error))?;
        session.run(doing, "COMMIT").await?;
        session.done();
        Ok(n_rows)
    }

    /// Reads all rows of a table or query.
    pub(crate) async fn read(&self, options: &DataSourceOptions) -> Result<BatchStream> {
        let session = self.server.connect().await?;
        let source = DataSource {
            name: "dataset".to_owned(),
            class_type: SOURCE_CLASS.to_owned(),
            options: options.clone(),
            ..DataSource::default()
        };
        let relation = open(&session, &source).await?;
        let columns: Vec<String> = (0..relation.columns.len()).map(|column| relation.expression(column)).collect();
        let kinds: Vec<Kind> = relation.columns.iter().map(|column| column.kind.clone()).collect();
        let statement = format!("SELECT {} FROM {}", columns.join(", "), relation.from);
        let answer = Answer::new(session, "reading a dataset", &statement, &kinds);
        let schema = Arc::clone(relation.known.schema());
        let output = Arc::clone(&schema);
        let batches = stream::try_unfold(answer, move |mut answer| {
            let output = Arc::clone(&output);
            async move {
                let Some((n_rows, columns)) = answer.next(OUTPUT_ROWS).await? else { return Ok(None) };
                Ok::<_, Error>(Some((record_batch(&output, columns, n_rows)?, answer)))
            }
        });
        Ok(BatchStream::new(schema, batches))
    }
}

/// What is done for an entity query, in errors.
const ENTITY_QUERY: &str = "the entity query cannot be run";
/// How the class of the source is called in Feast.
const SOURCE_CLASS: &str = "PostgreSQLSource";

enum Entity {
    Rows(EntityRows),
    Query(String),
}

fn is_list(kind: &Kind) -> bool {
    matches!(kind, Kind::List(_))
}

/// The name of the table or the text of the query in the options of a source or dataset.
pub(crate) fn relation_of(options: &DataSourceOptions) -> Option<(String, String)> {
    let DataSourceOptions::Custom { configuration } = options else { return None };
    let configuration: Value = serde_json::from_slice(configuration).ok()?;
    let text = |key: &str| configuration.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (table, query) = (text("table"), text("query"));
    (!table.is_empty() || !query.is_empty()).then_some((table, query))
}

/// Finds the relation of the batch side of a source, and its columns.
async fn open(session: &Session, source: &DataSource) -> Result<Relation> {
    let batch = source.batch().ok_or_else(|| {
        Error::invalid_definition(format!("{} source `{}` has no batch source", source.kind(), source.name))
            .with_hint("declare it with `batch_source=PostgreSQLSource(...)`")
    })?;
    let relation = relation_of(&batch.options).filter(|_| batch.class_type.ends_with(SOURCE_CLASS));
    let (table, query) = relation.ok_or_else(|| {
        Error::unsupported(format!(
            "data source `{}` is a {} source, and the postgres offline store reads tables of PostgreSQL only",
            batch.name,
            batch.kind()
        ))
        .with_hint("declare it as `PostgreSQLSource(table=...)`, or use the offline store that belongs to the source")
    })?;
    let from = if table.is_empty() {
        format!("({}) AS s", query.trim().trim_end_matches(';'))
    } else {
        format!("{table} AS s")
    };
    let doing = "reading the columns of a source";
    let columns = columns_of(session, &format!("SELECT * FROM {from}"), doing)
        .await
        .map_err(|error| error.with_context("data source", &batch.name))?;
    let stored = "SELECT count(*) > 0 FROM pg_class WHERE oid = to_regclass($1) AND relkind IN ('r', 'm')";
    let stored = !table.is_empty()
        && session.client.query_one(stored, &[&table]).await.map_err(|error| session.refused(doing, error))?.get(0);
    let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
    Ok(Relation { from, table, stored, columns, known: SourceColumns::new(&batch.name, schema) })
}

/// The columns that a statement would give.
async fn columns_of(session: &Session, statement: &str, doing: &str) -> Result<Vec<Column>> {
    let prepared = session.client.prepare(statement).await.map_err(|error| session.refused(doing, error))?;
    Ok(prepared.columns().iter().map(|column| Column::new(column.name(), column.type_())).collect())
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
    known: (bool, Option<Timestamp>),
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
        known_at_entity_time: known.0,
        as_of: known.1,
        index,
        looked_up: false,
    })
}

/// Every key and event time the views have between two instants, in order of time and key.
fn range(plan: &RetrievalPlan, views: &[OpenView], start: Option<Timestamp>, end: Option<Timestamp>) -> Result<String> {
    if views.is_empty() {
        return Err(Error::invalid_request("there are no entity rows, and no stored feature view to take them from")
            .with_hint("give entity rows, or ask for features of a stored feature view"));
    }
    let end = end.unwrap_or_else(Utc::now);
    let look_back = plan.longest_ttl().unwrap_or(DEFAULT_LOOK_BACK);
    let start = start.or_else(|| end.checked_sub_signed(look_back)).unwrap_or(Timestamp::MIN_UTC);
    if start > end {
        return Err(
            Error::invalid_request(format!("the start {start} is after the end {end}")).with_hint("swap the two dates")
        );
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
        Some(part) => (part.batches.as_slice(), part.times.clone()),
        None => (&[][..], TimestampMicrosecondArray::new_null(0).with_timezone("UTC")),
    };
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

/// Copies rows into a table.
async fn send(
    session: &Session,
    doing: &str,
    target: &str,
    kinds: Vec<Kind>,
    columns: &[ArrayRef],
    n_rows: usize,
) -> Result<()> {
    let copy = format!("COPY {target} FROM STDIN (FORMAT binary)");
    let sink = session.client.copy_in::<_, Bytes>(&copy).await.map_err(|error| session.refused(doing, error))?;
    let mut sink = pin!(sink);
    let mut encoder = Encoder::new(kinds);
    for start in (0..n_rows).step_by(ROWS_SENT) {
        let n_sent = ROWS_SENT.min(n_rows - start);
        let part: Vec<ArrayRef> = columns.iter().map(|column| column.slice(start, n_sent)).collect();
        let bytes = encoder.encode(&part, n_sent).freeze();
        sink.feed(bytes).await.map_err(|error| session.refused(doing, error))?;
    }
    sink.send(encoder.end().freeze()).await.map_err(|error| session.refused(doing, error))?;
    sink.as_mut().finish().await.map(drop).map_err(|error| session.refused(doing, error))
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

/// The rows of a statement, which runs when the first are wanted, as they arrive.
struct Answer {
    session: Session,
    doing: &'static str,
    statement: String,
    rows: Option<Pin<Box<CopyOutStream>>>,
    decoder: Decoder,
    ended: bool,
}

impl Answer {
    fn new(session: Session, doing: &'static str, statement: &str, kinds: &[Kind]) -> Self {
        let statement = format!("COPY ({statement}) TO STDOUT (FORMAT binary)");
        Self { session, doing, statement, rows: None, decoder: Decoder::new(kinds.iter()), ended: false }
    }

    /// The next rows, as many as there are up to `most`; fewer only at the end.
    async fn next(&mut self, most: usize) -> Result<Option<(usize, Vec<ArrayRef>)>> {
        loop {
            let n_rows = self.decoder.decode(most)?;
            if n_rows == most && n_rows > 0 || self.ended {
                return Ok(if n_rows == 0 { None } else { Some((n_rows, self.decoder.take()?)) });
            }
            let Some(rows) = &mut self.rows else {
                let rows = self.session.client.copy_out(&self.statement).await;
                self.rows = Some(Box::pin(rows.map_err(|error| self.session.refused(self.doing, error))?));
                continue;
            };
            match rows.next().await {
                Some(Ok(bytes)) => self.decoder.feed(&bytes),
                Some(Err(error)) => return Err(self.session.refused(self.doing, error)),
                None => {
                    self.ended = true;
                    self.session.done();
                }
            }
        }
    }
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

    /// Columns in the order of the plan, of their declared types.
    fn declared(&self, arrays: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::with_capacity(arrays.len());
        let mut arrays = arrays.iter();
        for view in &self.views {
            for (column, declared) in &view.columns.features {
                let array = arrays.next().ok_or_else(|| Error::internal("PostgreSQL sent too few columns"))?;
                columns.push(to_declared(array, *declared, &view.relation.known.describe(*column))?);
            }
        }
        Ok(columns)
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

/// The error for a storage that is not of this store.
pub(crate) fn not_a_table(what: &str) -> Error {
    Error::unsupported(format!("the postgres offline store keeps {what} in tables only"))
        .with_hint(format!("use {}", list_names(["SavedDatasetPostgreSQLStorage(table_ref=...)"])))
}
