//! `feast.core.SavedDataset` and `ValidationReference`.

use feast_core::{Profile, SavedDataset, SavedDatasetColumn, SavedDatasetMeta, ValidationReference};

use crate::core;
use crate::core::ge_validation_profiler::UserDefinedProfiler;
use crate::core::validation_reference::{CachedProfile, Profiler};
use crate::malformed::Decoded;
use crate::{data_source, time};

pub(crate) fn to_message(dataset: &SavedDataset, project: &str) -> core::SavedDataset {
    let column = |column: &SavedDatasetColumn| core::SavedDatasetColumn {
        name: column.name.clone(),
        r#type: column.value_type.clone(),
        description: column.description.clone(),
        nullable: column.nullable,
    };
    core::SavedDataset {
        spec: Some(core::SavedDatasetSpec {
            name: dataset.name.clone(),
            project: project.to_owned(),
            features: dataset.features.clone(),
            join_keys: dataset.join_keys.clone(),
            full_feature_names: dataset.full_feature_names,
            storage: Some(data_source::storage_message(&dataset.storage)),
            tags: dataset.tags.clone(),
            feature_service_name: dataset.feature_service_name.clone(),
            namespace: dataset.namespace.clone(),
            collection: dataset.collection.clone(),
            description: dataset.description.clone(),
            columns: dataset.columns.iter().map(column).collect(),
        }),
        meta: Some(core::SavedDatasetMeta {
            created_timestamp: time::optional_timestamp_message(dataset.meta.created),
            last_updated_timestamp: time::optional_timestamp_message(dataset.meta.updated),
            min_event_timestamp: time::optional_timestamp_message(dataset.meta.min_event_timestamp),
            max_event_timestamp: time::optional_timestamp_message(dataset.meta.max_event_timestamp),
        }),
    }
}

pub(crate) fn from_message(message: core::SavedDataset) -> Decoded<SavedDataset> {
    let spec = message.spec.unwrap_or_default();
    let meta = message.meta.unwrap_or_default();
    let column = |column: core::SavedDatasetColumn| SavedDatasetColumn {
        name: column.name,
        value_type: column.r#type,
        description: column.description,
        nullable: column.nullable,
    };
    Ok(SavedDataset {
        name: spec.name,
        project: spec.project,
        features: spec.features,
        join_keys: spec.join_keys,
        full_feature_names: spec.full_feature_names,
        storage: data_source::storage(spec.storage.unwrap_or_default())?,
        feature_service_name: spec.feature_service_name,
        tags: spec.tags,
        namespace: spec.namespace,
        collection: spec.collection,
        description: spec.description,
        columns: spec.columns.into_iter().map(column).collect(),
        meta: SavedDatasetMeta {
            created: time::timestamp(meta.created_timestamp)?,
            updated: time::timestamp(meta.last_updated_timestamp)?,
            min_event_timestamp: time::timestamp(meta.min_event_timestamp)?,
            max_event_timestamp: time::timestamp(meta.max_event_timestamp)?,
        },
    })
}

pub(crate) fn reference_message(reference: &ValidationReference, project: &str) -> core::ValidationReference {
    core::ValidationReference {
        name: reference.name.clone(),
        reference_dataset_name: reference.reference_dataset_name.clone(),
        project: project.to_owned(),
        description: reference.description.clone(),
        tags: reference.tags.clone(),
        profiler: reference.profiler.as_ref().map(|profiler| {
            Profiler::GeProfiler(core::GeValidationProfiler {
                profiler: Some(UserDefinedProfiler { body: profiler.0.clone() }),
            })
        }),
        cached_profile: reference.cached_profile.as_ref().map(|profile| {
            CachedProfile::GeProfile(core::GeValidationProfile { expectation_suite: profile.0.clone() })
        }),
    }
}

pub(crate) fn reference(message: core::ValidationReference) -> ValidationReference {
    ValidationReference {
        name: message.name,
        project: message.project,
        reference_dataset_name: message.reference_dataset_name,
        description: message.description,
        tags: message.tags,
        profiler: message
            .profiler
            .map(|Profiler::GeProfiler(profiler)| Profile(profiler.profiler.unwrap_or_default().body)),
        cached_profile: message
            .cached_profile
            .map(|CachedProfile::GeProfile(profile)| Profile(profile.expectation_suite)),
    }
}
