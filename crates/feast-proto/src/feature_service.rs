//! `feast.core.FeatureService` and the projections of which it consists.

use feast_core::{FeatureService, FeatureViewProjection, LoggingConfig, LoggingDestination};

use crate::core;
use crate::core::logging_config::{self, Destination};
use crate::malformed::Decoded;
use crate::{data_source, field, time};

pub(crate) fn to_message(service: &FeatureService, project: &str) -> core::FeatureService {
    core::FeatureService {
        spec: Some(core::FeatureServiceSpec {
            name: service.name.clone(),
            project: project.to_owned(),
            features: service.projections.iter().map(projection_message).collect(),
            tags: service.tags.clone(),
            description: service.description.clone(),
            owner: service.owner.clone(),
            logging_config: service.logging.as_ref().map(logging_message),
            precompute_online: service.precompute_online,
        }),
        meta: Some(core::FeatureServiceMeta {
            created_timestamp: time::optional_timestamp_message(service.meta.created),
            last_updated_timestamp: time::optional_timestamp_message(service.meta.updated),
        }),
    }
}

pub(crate) fn from_message(message: core::FeatureService) -> Decoded<FeatureService> {
    let spec = message.spec.unwrap_or_default();
    let meta = message.meta.unwrap_or_default();
    Ok(FeatureService {
        name: spec.name,
        project: spec.project,
        projections: spec.features.into_iter().map(projection).collect::<Decoded<_>>()?,
        tags: spec.tags,
        description: spec.description,
        owner: spec.owner,
        logging: spec.logging_config.map(logging),
        precompute_online: spec.precompute_online,
        meta: time::meta(meta.created_timestamp, meta.last_updated_timestamp)?,
    })
}

/// What Feast copies from the source (such as the created timestamp column under the name `timestamp_field`) is
/// written as it came in.
pub(crate) fn projection_message(projection: &FeatureViewProjection) -> core::FeatureViewProjection {
    core::FeatureViewProjection {
        feature_view_name: projection.feature_view_name.clone(),
        feature_columns: field::to_messages(&projection.features),
        feature_view_name_alias: projection.alias.clone(),
        join_key_map: projection.join_key_map.clone(),
        timestamp_field: projection.timestamp_field.clone(),
        date_partition_column: projection.date_partition_column.clone(),
        created_timestamp_column: projection.created_timestamp_column.clone(),
        batch_source: data_source::nested(projection.batch_source.as_ref()),
        stream_source: data_source::nested(projection.stream_source.as_ref()),
        version_tag: projection.version_tag,
        view_type: projection.view_type.clone(),
    }
}

pub(crate) fn projection(message: core::FeatureViewProjection) -> Decoded<FeatureViewProjection> {
    Ok(FeatureViewProjection {
        feature_view_name: message.feature_view_name,
        alias: message.feature_view_name_alias,
        features: field::from_messages(message.feature_columns)?,
        join_key_map: message.join_key_map,
        version_tag: message.version_tag,
        view_type: message.view_type,
        timestamp_field: message.timestamp_field,
        date_partition_column: message.date_partition_column,
        created_timestamp_column: message.created_timestamp_column,
        batch_source: data_source::optional(message.batch_source)?,
        stream_source: data_source::optional(message.stream_source)?,
    })
}

fn logging_message(logging: &LoggingConfig) -> core::LoggingConfig {
    use logging_config as message;
    let destination = logging.destination.clone().map(|destination| match destination {
        LoggingDestination::File { path, s3_endpoint_override, partition_by } => {
            Destination::FileDestination(message::FileDestination { path, s3_endpoint_override, partition_by })
        }
        LoggingDestination::BigQuery { table_ref } => {
            Destination::BigqueryDestination(message::BigQueryDestination { table_ref })
        }
        LoggingDestination::Redshift { table_name } => {
            Destination::RedshiftDestination(message::RedshiftDestination { table_name })
        }
        LoggingDestination::Athena { table_name } => {
            Destination::AthenaDestination(message::AthenaDestination { table_name })
        }
        LoggingDestination::Snowflake { table_name } => {
            Destination::SnowflakeDestination(message::SnowflakeDestination { table_name })
        }
        LoggingDestination::Custom { kind, config } => {
            Destination::CustomDestination(message::CustomDestination { kind, config })
        }
        LoggingDestination::CouchbaseColumnar { database, scope, collection } => {
            Destination::CouchbaseColumnarDestination(message::CouchbaseColumnarDestination {
                database,
                scope,
                collection,
            })
        }
    });
    core::LoggingConfig { sample_rate: logging.sample_rate, destination }
}

fn logging(message: core::LoggingConfig) -> LoggingConfig {
    let destination = message.destination.map(|destination| match destination {
        Destination::FileDestination(to) => LoggingDestination::File {
            path: to.path,
            s3_endpoint_override: to.s3_endpoint_override,
            partition_by: to.partition_by,
        },
        Destination::BigqueryDestination(to) => LoggingDestination::BigQuery { table_ref: to.table_ref },
        Destination::RedshiftDestination(to) => LoggingDestination::Redshift { table_name: to.table_name },
        Destination::AthenaDestination(to) => LoggingDestination::Athena { table_name: to.table_name },
        Destination::SnowflakeDestination(to) => LoggingDestination::Snowflake { table_name: to.table_name },
        Destination::CustomDestination(to) => LoggingDestination::Custom { kind: to.kind, config: to.config },
        Destination::CouchbaseColumnarDestination(to) => {
            LoggingDestination::CouchbaseColumnar { database: to.database, scope: to.scope, collection: to.collection }
        }
    });
    LoggingConfig { sample_rate: message.sample_rate, destination }
}
