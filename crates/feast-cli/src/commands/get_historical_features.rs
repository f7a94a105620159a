//! `feast get-historical-features`.

use std::io::{Cursor, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json;
use clap::Args;
use feast::HistoricalFeatures;
use feast_core::{Error, ErrorCode, Result, Timestamp, timestamp_type};
use feast_offline::{EntitySource, WriteOptions, codes_as_text};
use futures::TryStreamExt;
use serde_json::{Map, Value};

use super::get_online_features::{Selection, print_table};
use crate::cells;
use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::terminal::Format;
use crate::timestamp::parse_timestamp;

/// The column with the time of an entity row.
const EVENT_TIMESTAMP: &str = "event_timestamp";

/// Join features to rows as they were known at the time of each row
#[derive(Debug, Args)]
pub(crate) struct GetHistoricalFeatures {
    /// Join keys and times: JSON or CSV text, or @FILE with JSON, CSV or Parquet. Without it, every row that the
    /// feature views have between the two dates
    #[arg(short, long, value_name = "ROWS", conflicts_with_all = ["start_date", "end_date"])]
    dataframe: Option<String>,
    #[command(flatten)]
    selection: Selection,
    /// First time
    #[arg(short, long, value_name = "TIME", value_parser = parse_timestamp)]
    start_date: Option<Timestamp>,
    /// Last time; now by default
    #[arg(short, long, value_name = "TIME", value_parser = parse_timestamp)]
    end_date: Option<Timestamp>,
    /// Put the name of the feature view before each feature
    #[arg(long)]
    full_feature_names: bool,
    /// Count a value only from the time on at which it was written, where its source says that
    #[arg(long)]
    filter_by_created_timestamp: bool,
    /// Count only what had happened and been written by then
    #[arg(long, value_name = "TIME", value_parser = parse_timestamp)]
    as_of: Option<Timestamp>,
    /// Print the rows, bytes and time of each step instead of the rows
    #[arg(long, conflicts_with = "leak_report")]
    explain: bool,
    /// Print how often each feature would have another value had later corrections been used, instead of the rows
    #[arg(long)]
    leak_report: bool,
    /// Write the rows as Parquet and print the files: one if PATH ends in `.parquet`, else those of a new folder
    #[arg(long, value_name = "PATH", conflicts_with_all = ["explain", "leak_report"])]
    save: Option<String>,
    /// Memory to use, such as `512MiB`; what needs more takes several passes
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
}

impl GetHistoricalFeatures {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let given = self.dataframe.as_deref().map(entity_source).transpose()?;
        let selection = self.selection.into_selection();
        let mut store = session.store()?;
        if let Some(limit) = &self.memory_limit {
            store = store.with_memory_limit(limit)?;
        }
        let terminal = session.terminal();
        let format = terminal.format().unwrap_or(Format::Json);
        session.wait(async {
            let between = EntitySource::Range { start: self.start_date, end: self.end_date };
            let entity = given.unwrap_or(between);
            let request = HistoricalFeatures {
                selection,
                entity,
                full_feature_names: self.full_feature_names,
                filter_by_created_timestamp: self.filter_by_created_timestamp,
                as_of: self.as_of,
            };
            if self.leak_report {
                let report = super::to_value(&store.leak_report(request).await?)?;
                match (terminal.format().unwrap_or(Format::Table), &report["features"]) {
                    (Format::Table, Value::Array(features)) => {
                        print_table(session, features.iter().filter_map(Value::as_object).cloned().collect());
                    }
                    (format, _) => terminal.print_value(&report, format),
                }
                return Ok(Exit::Done);
            }
            let rows = store.get_historical_features(request).await?;
            if let Some(path) = self.save.as_deref().map(from_here) {
                let files = store.offline_store().write_dataset(&path, rows.batches, WriteOptions::default()).await?;
                files.iter().for_each(|file| terminal.print(file.display()));
                return Ok(Exit::Done);
            }
            let mut batches = rows.batches;
            if self.explain {
                while batches.try_next().await?.is_some() {}
                terminal.print(rows.explanation.to_string().trim_end());
                return Ok(Exit::Done);
            }
            let mut printer = Printer::new(session, format);
            while let Some(batch) = batches.try_next().await? {
                printer.add(&batch)?;
                if session.terminal().is_closed() {
                    break;
                }
            }
            printer.finish();
            Ok(Exit::Done)
        })
    }
}

/// Prints rows as they come where the format allows it: JSON has one row per line, YAML one item; a table is as wide as
/// its widest cell.
struct Printer<'a> {
    session: &'a Session,
    format: Format,
    /// The last row in JSON: a comma follows it only when there is another.
    pending: Option<String>,
    started: bool,
    kept: Vec<Map<String, Value>>,
}

impl<'a> Printer<'a> {
    fn new(session: &'a Session, format: Format) -> Self {
        Self { session, format, pending: None, started: false, kept: Vec::new() }
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = cells::records(batch)?;
        match self.format {
            Format::Json => {}
            Format::Table => {
                self.kept.extend(rows);
                return Ok(());
            }
            Format::Yaml => {
                if !rows.is_empty() {
                    self.started = true;
                    self.session.terminal().print_value(&rows.into(), Format::Yaml);
                }
                return Ok(());
            }
        }
        let mut text = String::new();
        for row in rows {
            if !self.started {
                text.push_str("[\n");
                self.started = true;
            }
            if let Some(before) = self.pending.replace(Value::from(row).to_string()) {
                text.push_str("    ");
                text.push_str(&before);
                text.push_str(",\n");
            }
        }
        if !text.is_empty() {
            self.session.terminal().print(text.trim_end());
        }
        Ok(())
    }

    fn finish(self) {
        let terminal = self.session.terminal();
        match (self.format, self.pending) {
            (Format::Json, Some(last)) => terminal.print(format_args!("    {last}\n]")),
            (Format::Json, None) => terminal.print("[]"),
            (Format::Table, _) => print_table(self.session, self.kept),
            (Format::Yaml, _) if self.started => {}
            (Format::Yaml, _) => terminal.print("[]"),
        }
    }
}

/// A path of the user's, which starts where they are; one in a bucket is as it is.
fn from_here(path: &str) -> String {
    let absolute = || std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string());
    if path.contains("://") { path.to_owned() } else { absolute() }
}

/// Entity rows as the user gives them.
fn entity_source(text: &str) -> Result<EntitySource> {
    let Some(file) = text.strip_prefix('@') else { return parse(text, "the rows of `--dataframe`") };
    let path = std::path::absolute(file).unwrap_or_else(|_| PathBuf::from(file));
    if !path.exists() {
        return Err(Error::new(ErrorCode::FileNotFound, format!("there is no file `{file}`"))
            .with_hint("`--dataframe @FILE` is relative to the current directory"));
    }
    if has_extension(&path, "json") || (has_extension(&path, "csv") && path.is_file()) {
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Error::invalid_request(format!("file `{file}` cannot be read"))
                .with_source(error)
                .with_hint("it has to be UTF-8 text that this user may read")
        })?;
        return parse(&text, &format!("the rows of file `{file}`"));
    }
    Ok(EntitySource::File(path))
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

fn parse(text: &str, of: &str) -> Result<EntitySource> {
    let trimmed = text.trim();
    let (schema, batches) = if trimmed.starts_with(['[', '{']) {
        from_json(trimmed, of)?
    } else if trimmed.contains('\n') && trimmed.lines().next().is_some_and(|header| !header.contains(['{', '['])) {
        from_csv(trimmed, of)?
    } else {
        return Err(Error::invalid_request(format!("{of} are neither JSON nor CSV")).with_hint(
            "write `[{\"driver_id\": 1001, \"event_timestamp\": \"2026-11-23T12:00:00\"}]`, or name a file with `@FILE`",
        ));
    };
    if batches.iter().all(|batch| batch.num_rows() == 0) {
        return Err(Error::invalid_request(format!("{of} are empty")).with_hint("give at least one row"));
    }
    let batches = batches.iter().map(|batch| with_times(batch, of)).collect::<Result<Vec<_>>>()?;
    Ok(EntitySource::Batches(batches.first().map_or(schema, RecordBatch::schema), batches))
}

/// The rows with their `event_timestamp` as times in UTC, however they were written.
fn with_times(batch: &RecordBatch, of: &str) -> Result<RecordBatch> {
    let schema = batch.schema();
    let Ok(at) = schema.index_of(EVENT_TIMESTAMP) else { return Ok(batch.clone()) };
    let times: ArrayRef = match batch.column(at).data_type() {
        DataType::Utf8 => {
            let parse = |(row, text): (usize, Option<&str>)| -> Result<Option<i64>> {
                let Some(text) = text else { return Ok(None) };
                let time = parse_timestamp(text).map_err(|why| {
                    let (what, advice) = why.split_once("; ").unwrap_or((why.as_str(), "write it as ISO 8601"));
                    let message = format!("{of} have `{text}` as `{EVENT_TIMESTAMP}` in row {row}, which is {what}");
                    Error::new(ErrorCode::InvalidEventTimestamp, message).with_hint(advice)
                })?;
                Ok(Some(time.timestamp_micros()))
            };
            let texts = batch.column(at).as_string::<i32>().iter().enumerate();
            let times = texts.map(parse).collect::<Result<TimestampMicrosecondArray>>()?;
            Arc::new(times.with_timezone("UTC"))
        }
        DataType::Timestamp(..) | DataType::Date32 => cast(batch.column(at), &timestamp_type())?,
        _ => return Ok(batch.clone()),
    };
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields[at] = Arc::new(Field::new(EVENT_TIMESTAMP, timestamp_type(), true));
    let mut columns = batch.columns().to_vec();
    columns[at] = times;
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// A list of records, or a list of values per column.
fn from_json(text: &str, of: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let wrong = |what: &str| {
        Error::invalid_request(format!("{of} are JSON, but {what}"))
            .with_hint("write `[{\"driver_id\": 1001, \"event_timestamp\": \"2026-11-23T12:00:00\"}]`")
    };
    let value: Value = serde_json::from_str(text).map_err(|error| wrong(&format!("not valid: {error}")))?;
    let records: Vec<Value> = match value {
        Value::Array(records) => records,
        Value::Object(columns) if columns.values().all(Value::is_array) => {
            transpose(columns).map_err(|what| wrong(&what))?
        }
        Value::Object(record) => vec![record.into()],
        _ => return Err(wrong("not a list of records")),
    };
    if !records.iter().all(Value::is_object) {
        return Err(wrong("not every row is a record"));
    }
    let unreadable = |error| wrong(&format!("its values do not form columns: {error}"));
    let schema = json::reader::infer_json_schema_from_iterator(records.iter().map(Ok)).map_err(unreadable)?;
    let schema: SchemaRef = Arc::new(schema);
    let mut decoder = json::ReaderBuilder::new(Arc::clone(&schema))
        .with_batch_size(records.len().max(1))
        .build_decoder()
        .map_err(unreadable)?;
    decoder.serialize(&records).map_err(unreadable)?;
    let batch = decoder.flush().map_err(unreadable)?;
    Ok((schema, batch.into_iter().collect()))
}

fn transpose(columns: Map<String, Value>) -> Result<Vec<Value>, String> {
    let length = columns.values().filter_map(Value::as_array).map(Vec::len).max().unwrap_or(0);
    let mut records = vec![Map::new(); length];
    for (name, values) in columns {
        let Value::Array(values) = values else { continue };
        if values.len() != length {
            return Err(format!("column `{name}` has {} values where another has {length}", values.len()));
        }
        for (record, value) in records.iter_mut().zip(values) {
            record.insert(name.clone(), value);
        }
    }
    Ok(records.into_iter().map(Value::from).collect())
}

fn from_csv(text: &str, of: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let wrong = |error| {
        Error::invalid_request(format!("{of} are not valid CSV: {error}"))
            .with_hint("the first line names the columns, and every line below has a value for each")
    };
    let format = csv::reader::Format::default().with_header(true);
    let mut cursor = Cursor::new(text);
    let (schema, _): (Schema, usize) = format.infer_schema(&mut cursor, None).map_err(wrong)?;
    cursor.rewind().map_err(|error| wrong(error.into()))?;
    let schema: SchemaRef = Arc::new(codes_as_text(schema, text.as_bytes(), text.len()).map_err(wrong)?);
    let reader = csv::ReaderBuilder::new(Arc::clone(&schema)).with_format(format).build(cursor).map_err(wrong)?;
    Ok((schema, reader.collect::<Result<Vec<_>, _>>().map_err(wrong)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn columns(text: &str) -> String {
        match entity_source(text) {
            Ok(EntitySource::Batches(schema, batches)) => {
                let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
                let names: Vec<String> =
                    schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
                format!("{rows}: {}", names.join(", "))
            }
            Ok(_) => "another source".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn rows_are_taken_in_the_shapes_people_have() {
        assert_eq!(columns(r#"[{"id": 1, "t": "2026-01-01"}, {"id": 2}]"#), "2: id Int64, t Utf8");
        assert_eq!(columns(r#"{"id": [1, 2, 3]}"#), "3: id Int64");
        assert_eq!(columns(r#"{"id": 1}"#), "1: id Int64");
        assert!(columns("id,name\n1,a\n2,b\n").starts_with("2: id Int64, name Utf8"));
        assert!(columns("id,n\n12,1\n007,0\n").starts_with("2: id Utf8, n Int64"), "a code is no number");
    }

    #[test]
    fn everything_else_is_one_sentence() {
        assert!(columns("driver 1001").contains("neither JSON nor CSV"));
        assert!(columns("[1, 2]").contains("not every row is a record"));
        assert!(columns("[{]").contains("not valid"));
        assert!(columns("[]").contains("are empty"));
        assert!(columns(r#"{"a": [1], "b": [1, 2]}"#).contains("column `a` has 1 values where another has 2"));
        assert!(columns(r#"[{"event_timestamp": "noon"}]"#).contains("have `noon` as `event_timestamp` in row 0"));
        assert!(columns("@nowhere.csv").contains("there is no file `nowhere.csv`"));
    }
}
