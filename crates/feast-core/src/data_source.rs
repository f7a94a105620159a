//! Where the rows of a feature view come from.

use bytes::Bytes;
use chrono::TimeDelta;
use serde::{Serialize, Serializer};

use crate::{Field, Meta, Tags, Timestamp};

/// Where the rows of a feature view come from: files, a warehouse table, a stream, a push, or the request itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct DataSource {
    /// Unique per project. File sources without a name get their path.
    pub name: String,
    /// Owning project.
    #[serde(skip)]
    pub project: String,
    /// For people.
    pub description: String,
    /// Free labels.
    pub tags: Tags,
    /// Who answers for it.
    pub owner: String,
    /// Column name in the source -> name in the feature view.
    pub field_mapping: Tags,
    /// Column with the event time; empty until inferred.
    pub timestamp_field: String,
    /// Column that names the partition of the event time; empty where there is none.
    pub date_partition_column: String,
    /// Column with the time at which the row was written; empty where there is none.
    pub created_timestamp_column: String,
    /// Type name of the event time column, as warehouses spell it; usually empty.
    pub timestamp_field_type: String,
    /// Python class that declared the source; readers find the class by it.
    pub class_type: String,
    /// The batch twin of a push or stream source.
    pub batch_source: Option<Box<DataSource>>,
    /// What is special to the kind of source.
    pub options: DataSourceOptions,
    /// Feast's number of the kind where it is not the one that belongs to the options, such as Iceberg's for a custom
    /// source; kept as Feast stores it.
    #[serde(skip)]
    pub type_number: Option<i32>,
    /// When it was created and changed.
    #[serde(skip)]
    pub meta: Meta,
    /// Earliest event time seen, kept as Feast stores it.
    #[serde(skip)]
    pub earliest_event_timestamp: Option<Timestamp>,
    /// Latest event time seen, kept as Feast stores it.
    #[serde(skip)]
    pub latest_event_timestamp: Option<Timestamp>,
}

/// A table or a query in a warehouse; parts that a warehouse does not have stay empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct TableReference {
    pub table: String,
    pub query: String,
    pub schema: String,
    pub database: String,
    /// Athena's name of the catalogue.
    pub data_source: String,
}

/// What is special to a kind of source.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of Feast's messages")]
pub enum DataSourceOptions {
    /// No options; the kind is unknown.
    #[default]
    None,
    File {
        format: Option<FileFormat>,
        /// Path, glob, directory or URL.
        uri: String,
        s3_endpoint_override: String,
    },
    BigQuery(TableReference),
    Redshift(TableReference),
    Snowflake(TableReference),
    Trino(TableReference),
    Athena(TableReference),
    Spark {
        table: String,
        query: String,
        path: String,
        file_format: String,
        date_partition_column_format: String,
        table_format: Option<TableFormat>,
    },
    Kafka {
        bootstrap_servers: String,
        topic: String,
        message_format: Option<StreamFormat>,
        #[serde(serialize_with = "optional_seconds")]
        watermark_delay_threshold: Option<TimeDelta>,
    },
    Kinesis {
        region: String,
        stream_name: String,
        record_format: Option<StreamFormat>,
    },
    /// Values the caller sends with the request.
    Request {
        schema: Vec<Field>,
    },
    /// Rows arrive by `push`.
    Push,
    /// Any other class: its configuration as the class wrote it (JSON for Feast's own).
    Custom {
        #[serde(serialize_with = "text_or_length")]
        configuration: Bytes,
    },
}

/// How files of a file source are encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum FileFormat {
    Parquet,
    Delta { checkpoint_location: String, properties: Tags },
}

/// The table format of a lake table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are those of Feast's messages")]
pub enum TableFormat {
    Iceberg { catalog: String, namespace: String, properties: Tags },
    Delta { checkpoint_location: String, properties: Tags },
    Hudi { table_type: String, record_key: String, precombine_field: String, properties: Tags },
    Lance { catalog: String, namespace: String, version: u64, tag: String, properties: Tags },
}

/// How messages of a stream are encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum StreamFormat {
    Avro { schema_json: String },
    Proto { class_path: String },
    Json { schema_json: String },
}

impl DataSource {
    /// A file source with a name, a path and an event time column.
    pub fn file(name: impl Into<String>, path: impl Into<String>, timestamp_field: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            timestamp_field: timestamp_field.into(),
            class_type: "feast.infra.offline_stores.file_source.FileSource".to_owned(),
            options: DataSourceOptions::File { format: None, uri: path.into(), s3_endpoint_override: String::new() },
            ..Self::default()
        }
    }

    /// The kind in words, such as `file` or `push`.
    pub fn kind(&self) -> &'static str {
        match self.options {
            DataSourceOptions::None => "unknown",
            DataSourceOptions::File { .. } => "file",
            DataSourceOptions::BigQuery(_) => "bigquery",
            DataSourceOptions::Redshift(_) => "redshift",
            DataSourceOptions::Snowflake(_) => "snowflake",
            DataSourceOptions::Trino(_) => "trino",
            DataSourceOptions::Athena(_) => "athena",
            DataSourceOptions::Spark { .. } => "spark",
            DataSourceOptions::Kafka { .. } => "kafka",
            DataSourceOptions::Kinesis { .. } => "kinesis",
            DataSourceOptions::Request { .. } => "request",
            DataSourceOptions::Push => "push",
            DataSourceOptions::Custom { .. } => "custom",
        }
    }

    /// Whether rows arrive one by one (push, Kafka, Kinesis) instead of resting in a table.
    pub fn is_stream(&self) -> bool {
        matches!(
            self.options,
            DataSourceOptions::Push | DataSourceOptions::Kafka { .. } | DataSourceOptions::Kinesis { .. }
        )
    }

    /// The source whose rows rest somewhere: itself, or the batch twin of a push or stream source.
    pub fn batch(&self) -> Option<&Self> {
        if self.is_stream() { self.batch_source.as_deref() } else { Some(self) }
    }

    /// The name a column of the source has in the feature view.
    pub fn mapped<'a>(&'a self, column: &'a str) -> &'a str {
        self.field_mapping.get(column).map_or(column, String::as_str)
    }

    /// The name in the source of a column that the feature view calls `name`.
    pub fn unmapped<'a>(&'a self, name: &'a str) -> &'a str {
        self.field_mapping.iter().find(|(_, mapped)| *mapped == name).map_or(name, |(column, _)| column)
    }
}

fn optional_seconds<S: Serializer>(duration: &Option<TimeDelta>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(crate::time_to_live::seconds_text).serialize(serializer)
}

pub(crate) fn text_or_length<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => serializer.collect_str(&format_args!("<{} bytes>", bytes.len())),
    }
}
