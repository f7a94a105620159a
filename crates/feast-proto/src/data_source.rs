//! `feast.core.DataSource`, and `SavedDatasetStorage`, which is its options alone.

use feast_core::{
    DataSource, DataSourceOptions, Field, FileFormat, Meta, SavedDatasetStorage, StreamFormat, TableFormat,
    TableReference, ValueType,
};

use crate::core;
use crate::core::data_source::{self as message, Options, SourceType};
use crate::core::saved_dataset_storage::Kind as Storage;
use crate::field;
use crate::malformed::{Decoded, Malformed};
use crate::time;

/// Sources inside sources beyond this depth are an attack, not a definition.
const DEEPEST: usize = 16;

/// `project` names the owner of `source` only: sources inside others keep theirs, which Feast leaves empty.
pub(crate) fn to_message(source: &DataSource, project: &str) -> core::DataSource {
    let options = options_message(&source.options);
    let kind = source.type_number.unwrap_or_else(|| kind_of(&source.options) as i32);
    core::DataSource {
        r#type: kind,
        field_mapping: source.field_mapping.clone(),
        timestamp_field: source.timestamp_field.clone(),
        date_partition_column: source.date_partition_column.clone(),
        created_timestamp_column: source.created_timestamp_column.clone(),
        data_source_class_type: source.class_type.clone(),
        name: source.name.clone(),
        project: project.to_owned(),
        description: source.description.clone(),
        tags: source.tags.clone(),
        owner: source.owner.clone(),
        batch_source: source.batch_source.as_deref().map(|batch| Box::new(to_message(batch, &batch.project))),
        timestamp_field_type: source.timestamp_field_type.clone(),
        meta: Some(message::SourceMeta {
            earliest_event_timestamp: time::optional_timestamp_message(source.earliest_event_timestamp),
            latest_event_timestamp: time::optional_timestamp_message(source.latest_event_timestamp),
            created_timestamp: time::optional_timestamp_message(source.meta.created),
            last_updated_timestamp: time::optional_timestamp_message(source.meta.updated),
        }),
        options,
    }
}

/// The message of a source inside another object.
pub(crate) fn nested(source: Option<&DataSource>) -> Option<core::DataSource> {
    source.map(|source| to_message(source, &source.project))
}

pub(crate) fn from_message(message: core::DataSource) -> Decoded<DataSource> {
    at_depth(message, 0)
}

pub(crate) fn optional(message: Option<core::DataSource>) -> Decoded<Option<DataSource>> {
    message.map(from_message).transpose()
}

fn at_depth(message: core::DataSource, depth: usize) -> Decoded<DataSource> {
    if depth > DEEPEST {
        return Err(Malformed::new(format!("has sources inside sources, more than {DEEPEST} deep")));
    }
    let meta = message.meta.unwrap_or_default();
    let options = match message.options {
        Some(options) => options_from_message(options)?,
        // Feast writes no options for push sources.
        None if message.r#type == SourceType::PushSource as i32 => DataSourceOptions::Push,
        None => DataSourceOptions::None,
    };
    Ok(DataSource {
        name: message.name,
        project: message.project,
        description: message.description,
        tags: message.tags,
        owner: message.owner,
        field_mapping: message.field_mapping,
        timestamp_field: message.timestamp_field,
        date_partition_column: message.date_partition_column,
        created_timestamp_column: message.created_timestamp_column,
        timestamp_field_type: message.timestamp_field_type,
        class_type: message.data_source_class_type,
        type_number: Some(message.r#type).filter(|number| *number != kind_of(&options) as i32),
        batch_source: message.batch_source.map(|batch| at_depth(*batch, depth + 1)).transpose()?.map(Box::new),
        options,
        meta: Meta {
            created: time::timestamp(meta.created_timestamp)?,
            updated: time::timestamp(meta.last_updated_timestamp)?,
        },
        earliest_event_timestamp: time::timestamp(meta.earliest_event_timestamp)?,
        latest_event_timestamp: time::timestamp(meta.latest_event_timestamp)?,
    })
}

/// The kind that Feast writes beside the options.
pub(crate) fn kind_of(options: &DataSourceOptions) -> SourceType {
    match options {
        DataSourceOptions::None => SourceType::Invalid,
        DataSourceOptions::File { .. } => SourceType::BatchFile,
        DataSourceOptions::BigQuery(_) => SourceType::BatchBigquery,
        DataSourceOptions::Redshift(_) => SourceType::BatchRedshift,
        DataSourceOptions::Snowflake(_) => SourceType::BatchSnowflake,
        DataSourceOptions::Trino(_) => SourceType::BatchTrino,
        DataSourceOptions::Athena(_) => SourceType::BatchAthena,
        DataSourceOptions::Spark { .. } => SourceType::BatchSpark,
        DataSourceOptions::Kafka { .. } => SourceType::StreamKafka,
        DataSourceOptions::Kinesis { .. } => SourceType::StreamKinesis,
        DataSourceOptions::Request { .. } => SourceType::RequestSource,
        DataSourceOptions::Push => SourceType::PushSource,
        DataSourceOptions::Custom { .. } => SourceType::CustomSource,
    }
}

fn options_message(options: &DataSourceOptions) -> Option<Options> {
    Some(match options {
        DataSourceOptions::None | DataSourceOptions::Push => return None,
        DataSourceOptions::File { format, uri, s3_endpoint_override } => Options::FileOptions(message::FileOptions {
            file_format: format.as_ref().map(file_format_message),
            uri: uri.clone(),
            s3_endpoint_override: s3_endpoint_override.clone(),
        }),
        DataSourceOptions::BigQuery(table) => Options::BigqueryOptions(message::BigQueryOptions {
            table: table.table.clone(),
            query: table.query.clone(),
        }),
        DataSourceOptions::Trino(table) => {
            Options::TrinoOptions(message::TrinoOptions { table: table.table.clone(), query: table.query.clone() })
        }
        DataSourceOptions::Redshift(table) => Options::RedshiftOptions(message::RedshiftOptions {
            table: table.table.clone(),
            query: table.query.clone(),
            schema: table.schema.clone(),
            database: table.database.clone(),
        }),
        DataSourceOptions::Snowflake(table) => Options::SnowflakeOptions(message::SnowflakeOptions {
            table: table.table.clone(),
            query: table.query.clone(),
            schema: table.schema.clone(),
            database: table.database.clone(),
        }),
        DataSourceOptions::Athena(table) => Options::AthenaOptions(message::AthenaOptions {
            table: table.table.clone(),
            query: table.query.clone(),
            database: table.database.clone(),
            data_source: table.data_source.clone(),
        }),
        DataSourceOptions::Spark { table, query, path, file_format, date_partition_column_format, table_format } => {
            Options::SparkOptions(message::SparkOptions {
                table: table.clone(),
                query: query.clone(),
                path: path.clone(),
                file_format: file_format.clone(),
                date_partition_column_format: date_partition_column_format.clone(),
                table_format: table_format.as_ref().map(table_format_message),
            })
        }
        DataSourceOptions::Kafka { bootstrap_servers, topic, message_format, watermark_delay_threshold } => {
            Options::KafkaOptions(message::KafkaOptions {
                kafka_bootstrap_servers: bootstrap_servers.clone(),
                topic: topic.clone(),
                message_format: message_format.as_ref().map(stream_format_message),
                watermark_delay_threshold: time::duration_message(*watermark_delay_threshold),
            })
        }
        DataSourceOptions::Kinesis { region, stream_name, record_format } => {
            Options::KinesisOptions(message::KinesisOptions {
                region: region.clone(),
                stream_name: stream_name.clone(),
                record_format: record_format.as_ref().map(stream_format_message),
            })
        }
        DataSourceOptions::Request { schema } => Options::RequestDataOptions(message::RequestDataOptions {
            schema: field::to_messages(schema),
            ..Default::default()
        }),
        DataSourceOptions::Custom { configuration } => {
            Options::CustomOptions(message::CustomSourceOptions { configuration: configuration.clone() })
        }
    })
}

fn options_from_message(options: Options) -> Decoded<DataSourceOptions> {
    Ok(match options {
        Options::FileOptions(options) => DataSourceOptions::File {
            format: options.file_format.and_then(file_format),
            uri: options.uri,
            s3_endpoint_override: options.s3_endpoint_override,
        },
        Options::BigqueryOptions(options) => DataSourceOptions::BigQuery(TableReference {
            table: options.table,
            query: options.query,
            ..TableReference::default()
        }),
        Options::TrinoOptions(options) => DataSourceOptions::Trino(TableReference {
            table: options.table,
            query: options.query,
            ..TableReference::default()
        }),
        Options::RedshiftOptions(options) => DataSourceOptions::Redshift(TableReference {
            table: options.table,
            query: options.query,
            schema: options.schema,
            database: options.database,
            data_source: String::new(),
        }),
        Options::SnowflakeOptions(options) => DataSourceOptions::Snowflake(TableReference {
            table: options.table,
            query: options.query,
            schema: options.schema,
            database: options.database,
            data_source: String::new(),
        }),
        Options::AthenaOptions(options) => DataSourceOptions::Athena(TableReference {
            table: options.table,
            query: options.query,
            schema: String::new(),
            database: options.database,
            data_source: options.data_source,
        }),
        Options::SparkOptions(options) => DataSourceOptions::Spark {
            table: options.table,
            query: options.query,
            path: options.path,
            file_format: options.file_format,
            date_partition_column_format: options.date_partition_column_format,
            table_format: options.table_format.and_then(table_format),
        },
        Options::KafkaOptions(options) => DataSourceOptions::Kafka {
            bootstrap_servers: options.kafka_bootstrap_servers,
            topic: options.topic,
            message_format: options.message_format.and_then(stream_format),
            watermark_delay_threshold: time::duration(options.watermark_delay_threshold)?,
        },
        Options::KinesisOptions(options) => DataSourceOptions::Kinesis {
            region: options.region,
            stream_name: options.stream_name,
            record_format: options.record_format.and_then(stream_format),
        },
        Options::RequestDataOptions(options) => DataSourceOptions::Request { schema: request_schema(options)? },
        Options::PushOptions(_) => DataSourceOptions::Push,
        Options::CustomOptions(options) => DataSourceOptions::Custom { configuration: options.configuration },
    })
}

/// Releases long gone wrote a map without order.
fn request_schema(options: message::RequestDataOptions) -> Decoded<Vec<Field>> {
    if !options.schema.is_empty() {
        return field::from_messages(options.schema);
    }
    let typed = |(name, number): (String, i32)| -> Decoded<Field> {
        let value_type: ValueType = field::value_type(number, &name)?;
        Ok(Field::new(name, value_type))
    };
    options.deprecated_schema.into_iter().map(typed).collect()
}

#[expect(deprecated, reason = "file sources of Delta tables still have it")]
fn file_format_message(format: &FileFormat) -> core::FileFormat {
    use core::file_format::{Format, ParquetFormat};
    core::FileFormat {
        format: Some(match format {
            FileFormat::Parquet => Format::ParquetFormat(ParquetFormat {}),
            FileFormat::Delta { checkpoint_location, properties } => {
                Format::DeltaFormat(core::table_format::DeltaFormat {
                    checkpoint_location: checkpoint_location.clone(),
                    properties: properties.clone(),
                })
            }
        }),
    }
}

#[expect(deprecated, reason = "file sources of Delta tables still have it")]
pub(crate) fn file_format(format: core::FileFormat) -> Option<FileFormat> {
    use core::file_format::Format;
    Some(match format.format? {
        Format::ParquetFormat(_) => FileFormat::Parquet,
        Format::DeltaFormat(delta) => {
            FileFormat::Delta { checkpoint_location: delta.checkpoint_location, properties: delta.properties }
        }
    })
}

fn table_format_message(format: &TableFormat) -> core::TableFormat {
    use core::table_format::{DeltaFormat, Format, HudiFormat, IcebergFormat, LanceFormat};
    core::TableFormat {
        format: Some(match format.clone() {
            TableFormat::Iceberg { catalog, namespace, properties } => {
                Format::IcebergFormat(IcebergFormat { catalog, namespace, properties })
            }
            TableFormat::Delta { checkpoint_location, properties } => {
                Format::DeltaFormat(DeltaFormat { checkpoint_location, properties })
            }
            TableFormat::Hudi { table_type, record_key, precombine_field, properties } => {
                Format::HudiFormat(HudiFormat { table_type, record_key, precombine_field, properties })
            }
            TableFormat::Lance { catalog, namespace, version, tag, properties } => {
                Format::LanceFormat(LanceFormat { catalog, namespace, version, tag, properties })
            }
        }),
    }
}

fn table_format(format: core::TableFormat) -> Option<TableFormat> {
    use core::table_format::Format;
    Some(match format.format? {
        Format::IcebergFormat(table) => {
            TableFormat::Iceberg { catalog: table.catalog, namespace: table.namespace, properties: table.properties }
        }
        Format::DeltaFormat(table) => {
            TableFormat::Delta { checkpoint_location: table.checkpoint_location, properties: table.properties }
        }
        Format::HudiFormat(table) => TableFormat::Hudi {
            table_type: table.table_type,
            record_key: table.record_key,
            precombine_field: table.precombine_field,
            properties: table.properties,
        },
        Format::LanceFormat(table) => TableFormat::Lance {
            catalog: table.catalog,
            namespace: table.namespace,
            version: table.version,
            tag: table.tag,
            properties: table.properties,
        },
    })
}

fn stream_format_message(format: &StreamFormat) -> core::StreamFormat {
    use core::stream_format::{AvroFormat, Format, JsonFormat, ProtoFormat};
    core::StreamFormat {
        format: Some(match format.clone() {
            StreamFormat::Avro { schema_json } => Format::AvroFormat(AvroFormat { schema_json }),
            StreamFormat::Proto { class_path } => Format::ProtoFormat(ProtoFormat { class_path }),
            StreamFormat::Json { schema_json } => Format::JsonFormat(JsonFormat { schema_json }),
        }),
    }
}

fn stream_format(format: core::StreamFormat) -> Option<StreamFormat> {
    use core::stream_format::Format;
    Some(match format.format? {
        Format::AvroFormat(format) => StreamFormat::Avro { schema_json: format.schema_json },
        Format::ProtoFormat(format) => StreamFormat::Proto { class_path: format.class_path },
        Format::JsonFormat(format) => StreamFormat::Json { schema_json: format.schema_json },
    })
}

/// `None` for options that no storage has.
pub(crate) fn storage_message(storage: &SavedDatasetStorage) -> core::SavedDatasetStorage {
    let kind = options_message(&storage.0).and_then(|options| {
        Some(match options {
            Options::FileOptions(options) => Storage::FileStorage(options),
            Options::BigqueryOptions(options) => Storage::BigqueryStorage(options),
            Options::RedshiftOptions(options) => Storage::RedshiftStorage(options),
            Options::SnowflakeOptions(options) => Storage::SnowflakeStorage(options),
            Options::TrinoOptions(options) => Storage::TrinoStorage(options),
            Options::SparkOptions(options) => Storage::SparkStorage(options),
            Options::CustomOptions(options) => Storage::CustomStorage(options),
            Options::AthenaOptions(options) => Storage::AthenaStorage(options),
            _ => return None,
        })
    });
    core::SavedDatasetStorage { kind }
}

pub(crate) fn storage(message: core::SavedDatasetStorage) -> Decoded<SavedDatasetStorage> {
    let Some(kind) = message.kind else { return Ok(SavedDatasetStorage::default()) };
    options_from_message(match kind {
        Storage::FileStorage(options) => Options::FileOptions(options),
        Storage::BigqueryStorage(options) => Options::BigqueryOptions(options),
        Storage::RedshiftStorage(options) => Options::RedshiftOptions(options),
        Storage::SnowflakeStorage(options) => Options::SnowflakeOptions(options),
        Storage::TrinoStorage(options) => Options::TrinoOptions(options),
        Storage::SparkStorage(options) => Options::SparkOptions(options),
        Storage::CustomStorage(options) => Options::CustomOptions(options),
        Storage::AthenaStorage(options) => Options::AthenaOptions(options),
    })
    .map(SavedDatasetStorage)
}
