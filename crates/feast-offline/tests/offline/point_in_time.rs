//! Runs `tests/point_in_time/*.slt`: feature rows, entity rows and the expected training data as text.
//!
//! A file is a list of blocks set apart by blank lines; lines that start with `#` are comments.
//!
//! `view <name> keys=<key>:<TYPE>,... features=<feature>:<TYPE>,... [ttl=<n>s|m|h|d] [created=<column>]
//! [map=<column>:<name>,...]` is followed by the rows of the view's source, a header line first.
//! `query <view>:<feature> ... [full] [known]` is followed by the entity rows (`<column>:<TYPE>`, text when no type is
//! given), a line `----` and the answer. `<view>><name>><key>=<column>:<feature>` asks for a view under another name
//! and with other key columns; `known` counts rows from their created time on.
//!
//! `-` is null. Every file runs on one Parquet file, on a directory of Parquet files, on CSV, and on tables of PostgreSQL
//! with and without an index, which it joins in different ways. With
//! `FEAST_COMPLETE=1` the answers in the files are rewritten.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::TimeDelta;
use feast_core::{
    BatchFeatures, DataSource, DataSourceOptions, FeatureSelection, FeatureService, FeatureView, FeatureViewKind,
    FeatureViewProjection, Field, Project, ProjectContents, RegistryObject, RetrievalPlan, ValueType,
};
use feast_offline::{EntitySource, HistoricalRequest, OfflineStore};
use feast_testing::services::postgres::{self, PostgresServer};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    File,
    Directory,
    Csv,
    Table,
    IndexedTable,
}

#[tokio::test]
async fn every_file_answers_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/point_in_time");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "slt"));
    paths.sort();
    assert!(!paths.is_empty(), "no golden files");
    #[expect(clippy::disallowed_methods, reason = "a switch for developers")]
    let complete = std::env::var_os("FEAST_COMPLETE").is_some();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        for layout in [Layout::File, Layout::Directory, Layout::Csv, Layout::Table, Layout::IndexedTable] {
            let answered = run(&text, layout).await;
            if complete {
                fs::write(&path, answered).unwrap();
                break;
            }
            assert_eq!(answered, text, "{} on {layout:?}", path.display());
        }
    }
}

/// The text with the answers that the store gives.
async fn run(text: &str, layout: Layout) -> String {
    let folder = tempfile::tempdir().unwrap();
    let place = match layout {
        Layout::Table | Layout::IndexedTable => Place::Database(PostgresServer::shared().create_database()),
        _ => Place::Folder(folder.path().to_path_buf()),
    };
    let store = OfflineStore::connect(&place.config(), folder.path()).unwrap();
    let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
    let mut blocks = Vec::new();
    for block in text.trim_end().split("\n\n") {
        let lines: Vec<&str> = block.lines().collect();
        let first = lines.iter().position(|line| !line.starts_with('#'));
        let Some((head, rows)) = first.map(|first| (lines[first], &lines[first + 1..])) else {
            blocks.push(block.to_owned());
            continue;
        };
        if let Some(head) = head.strip_prefix("view ") {
            let view = define_view(head, rows, layout, &place);
            contents.put(RegistryObject::FeatureView(Arc::new(view)));
            blocks.push(block.to_owned());
        } else if let Some(head) = head.strip_prefix("query ") {
            let given: Vec<&str> = rows.iter().take_while(|line| **line != "----").copied().collect();
            let answer = query(&store, &contents, head, &given).await;
            let kept = lines.len() - rows.len() + given.len();
            blocks.push(format!("{}\n----\n{answer}", lines[..kept].join("\n")));
        } else {
            panic!("neither `view` nor `query`: {head}");
        }
    }
    blocks.join("\n\n") + "\n"
}

fn define_view(head: &str, rows: &[&str], layout: Layout, place: &Place) -> FeatureView {
    let mut words = head.split_whitespace();
    let name = words.next().unwrap();
    let option = |key: &str| head.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let fields = |key: &str| -> Vec<Field> {
        let pairs = option(key).unwrap_or_default().split(',').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once(':').unwrap()).map(|(name, t)| Field::new(name, t.parse().unwrap())).collect()
    };
    let (keys, features) = (fields("keys"), fields("features"));
    let typed: Vec<&Field> = keys.iter().chain(&features).collect();
    let batch = table(rows, |column| {
        typed.iter().find(|field| field.name == column).map_or(ValueType::UnixTimestamp, |field| field.value_type)
    });
    let mut source = match place {
        Place::Folder(folder) => {
            let path = write(&batch, name, layout, folder);
            DataSource::file(format!("{name}_source"), path, "event_timestamp")
        }
        Place::Database(database) => {
            let leading = keys.first().map_or("event_timestamp", |key| {
                let mapped = option("map").unwrap_or_default().split(',').filter_map(|pair| pair.split_once(':'));
                mapped.into_iter().find(|(_, to)| *to == key.name).map_or(key.name.as_str(), |(from, _)| from)
            });
            create_table(database, name, &batch, (layout == Layout::IndexedTable).then_some(leading))
        }
    };
    option("created").unwrap_or_default().clone_into(&mut source.created_timestamp_column);
    source.field_mapping = option("map")
        .unwrap_or_default()
        .split(',')
        .filter_map(|pair| pair.split_once(':'))
        .map(|(from, to)| (from.to_owned(), to.to_owned()))
        .collect();
    let kind = BatchFeatures { batch_source: Some(source), ..BatchFeatures::default() };
    let mut view = FeatureView::new(name, FeatureViewKind::Batch(kind));
    view.ttl = option("ttl").map(duration);
    view.entities = keys.iter().map(|key| key.name.clone()).collect();
    view.entity_columns = keys;
    view.features = features;
    view
}

fn duration(text: &str) -> TimeDelta {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: i64 = number.parse().unwrap();
    TimeDelta::seconds(
        number
            * match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3600,
                _ => 86_400,
            },
    )
}

async fn query(store: &OfflineStore, contents: &ProjectContents, head: &str, rows: &[&str]) -> String {
    let (full, known) = (head.contains(" full"), head.contains(" known"));
    let references: Vec<&str> = head.split_whitespace().filter(|word| word.contains(':')).collect();
    let selection = if references.iter().any(|reference| reference.contains('>')) {
        let projections = references.iter().map(|reference| {
            let (view, feature) = reference.split_once(':').unwrap();
            let mut parts = view.split('>');
            FeatureViewProjection {
                feature_view_name: parts.next().unwrap().to_owned(),
                alias: parts.next().unwrap_or_default().to_owned(),
                features: vec![Field::new(feature, ValueType::Invalid)],
                join_key_map: parts
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(key, column)| (key.to_owned(), column.to_owned()))
                    .collect(),
                ..FeatureViewProjection::default()
            }
        });
        let service = FeatureService { projections: projections.collect(), ..FeatureService::default() };
        FeatureSelection::Service(Arc::new(service))
    } else {
        FeatureSelection::References(references.iter().map(|reference| (*reference).to_owned()).collect())
    };
    let entity = table(rows, |column| match column {
        "event_timestamp" => ValueType::UnixTimestamp,
        _ => ValueType::String,
    });
    let request = HistoricalRequest {
        plan: Arc::new(RetrievalPlan::resolve(contents, &selection, full).unwrap()),
        entity: EntitySource::Batches(entity.schema(), vec![entity]),
        tables: Vec::new(),
        filter_by_created_timestamp: known,
        as_of: None,
    };
    let answer = async {
        let stream = store.historical(request).await?.batches;
        let schema = Arc::clone(stream.schema());
        Ok::<_, feast_core::Error>(concat_batches(&schema, &stream.collect().await?)?)
    };
    match answer.await {
        Ok(batch) => printed(&batch),
        Err(error) => format!("error: {}\nhint: {}", error.message(), error.hint().unwrap_or("-")),
    }
}

/// Rows of text as typed columns. A header `name:TYPE` wins over `type_of`.
fn table(lines: &[&str], type_of: impl Fn(&str) -> ValueType) -> RecordBatch {
    let (header, rows) = lines.split_first().expect("a header line");
    let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.split_whitespace().collect()).collect();
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (index, column) in header.split_whitespace().enumerate() {
        let (name, value_type) = match column.split_once(':') {
            Some((name, value_type)) => (name, value_type.parse().unwrap()),
            None => (column, type_of(column)),
        };
        let cells: StringArray = rows.iter().map(|row| Some(row[index]).filter(|cell| *cell != "-")).collect();
        let array = cast(&cells, &value_type.arrow_type()).unwrap();
        fields.push(ArrowField::new(name, array.data_type().clone(), true));
        columns.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Where the rows of views rest.
enum Place {
    Folder(PathBuf),
    Database(String),
}

impl Place {
    fn config(&self) -> serde_json::Value {
        let Self::Database(database) = self else { return serde_json::Value::Null };
        let server = PostgresServer::shared();
        serde_json::json!({
            "type": "postgres", "host": server.host(), "port": server.port(), "database": database,
            "user": postgres::USER, "password": postgres::PASSWORD, "sslmode": "disable",
        })
    }
}

/// Creates a table with the rows, in their order, with or without an index on a column.
fn create_table(database: &str, name: &str, rows: &RecordBatch, indexed: Option<&str>) -> DataSource {
    let columns = rows.schema_ref().fields().iter().map(|field| {
        let sql_type = match field.data_type() {
            DataType::Int64 => "int8",
            DataType::Int32 => "int4",
            DataType::Float32 => "float4",
            DataType::Float64 => "float8",
            DataType::Boolean => "bool",
            DataType::Utf8 => "text",
            DataType::Timestamp(..) => "timestamptz",
            other => panic!("no type for {other}"),
        };
        format!("\"{}\" {sql_type}", field.name())
    });
    let mut statements = format!("CREATE TABLE {name} ({});", columns.collect::<Vec<_>>().join(", "));
    let options = FormatOptions::new();
    for row in 0..rows.num_rows() {
        let cells = rows.columns().iter().map(|array| match array.is_null(row) {
            true => "NULL".to_owned(),
            false => format!("'{}'", ArrayFormatter::try_new(array, &options).unwrap().value(row)),
        });
        write!(statements, "INSERT INTO {name} VALUES ({});", cells.collect::<Vec<_>>().join(", ")).unwrap();
    }
    if let Some(column) = indexed {
        write!(statements, "CREATE INDEX ON {name} (\"{column}\", event_timestamp);").unwrap();
    }
    PostgresServer::shared().execute(database, &statements);
    let configuration = serde_json::json!({"name": name, "query": "", "table": name}).to_string();
    DataSource {
        name: format!("{name}_source"),
        timestamp_field: "event_timestamp".to_owned(),
        class_type: "feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source.PostgreSQLSource".into(),
        options: DataSourceOptions::Custom { configuration: configuration.into_bytes().into() },
        ..DataSource::default()
    }
}

/// Writes the rows and returns the path for the source.
fn write(rows: &RecordBatch, name: &str, layout: Layout, folder: &Path) -> String {
    let parquet = |path: &Path, rows: &RecordBatch| {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(2)).build();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties)).unwrap();
        writer.write(rows).unwrap();
        writer.close().unwrap();
    };
    match layout {
        Layout::File => {
            parquet(&folder.join(format!("{name}.parquet")), rows);
            format!("{name}.parquet")
        }
        Layout::Directory => {
            fs::create_dir(folder.join(name)).unwrap();
            let middle = rows.num_rows() / 2;
            parquet(&folder.join(name).join("a.parquet"), &rows.slice(0, middle));
            parquet(&folder.join(name).join("b.parquet"), &rows.slice(middle, rows.num_rows() - middle));
            name.to_owned()
        }
        Layout::Csv => {
            let file = File::create(folder.join(format!("{name}.csv"))).unwrap();
            arrow::csv::Writer::new(file).write(rows).unwrap();
            format!("{name}.csv")
        }
        Layout::Table | Layout::IndexedTable => panic!("tables are no files"),
    }
}

/// Columns set one space apart, as wide as their widest cell.
fn printed(batch: &RecordBatch) -> String {
    let options = FormatOptions::new().with_null("-");
    let mut columns = Vec::new();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let cells = ArrayFormatter::try_new(array, &options).unwrap();
        let mut column = vec![field.name().clone()];
        column.extend((0..batch.num_rows()).map(|row| cells.value(row).to_string()));
        let width = column.iter().map(String::len).max().unwrap();
        columns.push((column, width));
    }
    let mut text = String::new();
    for row in 0..=batch.num_rows() {
        let mut line = String::new();
        for (column, width) in &columns {
            write!(line, "{:width$} ", column[row]).unwrap();
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.trim_end().to_owned()
}
