//! `feast.core.FeatureView`, `StreamFeatureView`, `OnDemandFeatureView` and `LabelView`: one type in the core, four
//! messages.

use std::collections::BTreeMap;

use feast_core::{
    BatchFeatures, ConflictPolicy, FeatureView, FeatureViewKind, FeatureViewMeta, FeatureViewState, Interval,
    LabelFeatures, OnDemandFeatures, OnDemandSource, StreamFeatures, UserDefinedFunction,
};

use crate::core;
use crate::core::on_demand_source::Source;
use crate::malformed::{Decoded, Malformed, from_number};
use crate::{batch_aggregations, data_source, feature_service, field, shard_progress, time, transformation};

/// Views inside views beyond this depth are an attack, not a definition.
const DEEPEST: usize = 16;

/// The one value of `version` that Feast writes for views that are not pinned.
const LATEST: &str = "latest";

/// The message of one of the four kinds.
pub(crate) enum ViewMessage {
    Batch(core::FeatureView),
    Stream(core::StreamFeatureView),
    OnDemand(core::OnDemandFeatureView),
    Label(core::LabelView),
}

pub(crate) fn to_message(view: &FeatureView, project: &str) -> ViewMessage {
    match &view.kind {
        FeatureViewKind::Batch(batch) => ViewMessage::Batch(batch_message(view, batch, project)),
        FeatureViewKind::Stream(stream) => ViewMessage::Stream(stream_message(view, stream, project)),
        FeatureViewKind::OnDemand(on_demand) => ViewMessage::OnDemand(on_demand_message(view, on_demand, project)),
        FeatureViewKind::Label(label) => ViewMessage::Label(label_message(view, label, project)),
    }
}

fn batch_message(view: &FeatureView, batch: &BatchFeatures, project: &str) -> core::FeatureView {
    let mut spec = batch_spec(view, batch, project);
    shard_progress::add_to_tags(view, &mut spec.tags);
    core::FeatureView { spec: Some(spec), meta: Some(meta_message(&view.meta)) }
}

fn batch_spec(view: &FeatureView, batch: &BatchFeatures, project: &str) -> core::FeatureViewSpec {
    core::FeatureViewSpec {
        name: view.name.clone(),
        project: project.to_owned(),
        entities: view.entities.clone(),
        features: field::to_messages(&view.features),
        tags: batch_aggregations::to_tags(&view.tags, &batch.aggregations),
        ttl: time::duration_message(view.ttl),
        batch_source: data_source::nested(batch.batch_source.as_ref()),
        online: view.online,
        stream_source: data_source::nested(batch.stream_source.as_ref()),
        description: view.description.clone(),
        owner: view.owner.clone(),
        entity_columns: field::to_messages(&view.entity_columns),
        offline: view.offline,
        source_views: batch.source_views.iter().map(nested_spec).collect(),
        feature_transformation: batch.transformation.as_ref().map(transformation::to_message),
        mode: batch.mode.clone(),
        enable_validation: batch.enable_validation,
        version: view.version.clone(),
        org: view.org.clone(),
        disabled: view.disabled,
    }
}

/// The spec of a view inside another object, where only the message of batch views fits; a view of another kind is
/// written with what it shares with them.
fn nested_spec(view: &FeatureView) -> core::FeatureViewSpec {
    match &view.kind {
        FeatureViewKind::Batch(batch) => batch_spec(view, batch, &view.project),
        _ => {
            let shared = BatchFeatures {
                batch_source: view.batch_source().cloned(),
                stream_source: view.stream_source().cloned(),
                ..BatchFeatures::default()
            };
            batch_spec(view, &shared, &view.project)
        }
    }
}

#[expect(deprecated, reason = "Feast still writes the old field beside the new one")]
fn stream_message(view: &FeatureView, stream: &StreamFeatures, project: &str) -> core::StreamFeatureView {
    core::StreamFeatureView {
        spec: Some(core::StreamFeatureViewSpec {
            name: view.name.clone(),
            project: project.to_owned(),
            entities: view.entities.clone(),
            features: field::to_messages(&view.features),
            entity_columns: field::to_messages(&view.entity_columns),
            description: view.description.clone(),
            tags: shard_progress::to_tags(view),
            owner: view.owner.clone(),
            ttl: time::duration_message(view.ttl),
            batch_source: data_source::nested(stream.batch_source.as_ref()),
            stream_source: data_source::nested(stream.stream_source.as_ref()),
            online: view.online,
            user_defined_function: old_function_message(stream.user_defined_function.as_ref()),
            mode: stream.mode.clone(),
            aggregations: transformation::aggregation_messages(&stream.aggregations),
            timestamp_field: stream.timestamp_field.clone(),
            feature_transformation: stream.transformation.as_ref().map(transformation::to_message),
            enable_tiling: stream.enable_tiling,
            tiling_hop_size: time::duration_message(stream.tiling_hop_size),
            enable_validation: stream.enable_validation,
            version: view.version.clone(),
            org: view.org.clone(),
            disabled: view.disabled,
        }),
        meta: Some(meta_message(&view.meta)),
    }
}

#[expect(deprecated, reason = "older registries have the old field")]
fn on_demand_message(view: &FeatureView, on_demand: &OnDemandFeatures, project: &str) -> core::OnDemandFeatureView {
    let source = |source: &OnDemandSource| core::OnDemandSource {
        source: Some(match source {
            OnDemandSource::FeatureView(view) => Source::FeatureView(core::FeatureView {
                spec: Some(nested_spec(view)),
                meta: Some(meta_message(&view.meta)),
            }),
            OnDemandSource::Projection(projection) => {
                Source::FeatureViewProjection(feature_service::projection_message(projection))
            }
            OnDemandSource::Request(request) => {
                Source::RequestDataSource(data_source::to_message(request, &request.project))
            }
        }),
    };
    core::OnDemandFeatureView {
        spec: Some(core::OnDemandFeatureViewSpec {
            name: view.name.clone(),
            project: project.to_owned(),
            features: field::to_messages(&view.features),
            sources: on_demand.sources.iter().map(|(name, input)| (name.clone(), source(input))).collect(),
            user_defined_function: old_function_message(on_demand.user_defined_function.as_ref()),
            description: view.description.clone(),
            tags: view.tags.clone(),
            owner: view.owner.clone(),
            feature_transformation: on_demand.transformation.as_ref().map(transformation::to_message),
            mode: on_demand.mode.clone(),
            write_to_online_store: on_demand.write_to_online_store,
            entities: view.entities.clone(),
            entity_columns: field::to_messages(&view.entity_columns),
            singleton: on_demand.singleton,
            aggregations: transformation::aggregation_messages(&on_demand.aggregations),
            version: view.version.clone(),
            org: view.org.clone(),
            disabled: view.disabled,
        }),
        meta: Some(core::OnDemandFeatureViewMeta {
            created_timestamp: time::optional_timestamp_message(view.meta.created),
            last_updated_timestamp: time::optional_timestamp_message(view.meta.updated),
            current_version_number: view.meta.current_version_number,
            version_id: view.meta.version_id.clone(),
            state: view.meta.state as i32,
        }),
    }
}

#[expect(deprecated, reason = "kept as it was stored")]
fn label_message(view: &FeatureView, label: &LabelFeatures, project: &str) -> core::LabelView {
    core::LabelView {
        spec: Some(core::LabelViewSpec {
            name: view.name.clone(),
            project: project.to_owned(),
            entities: view.entities.clone(),
            features: field::to_messages(&view.features),
            tags: view.tags.clone(),
            ttl: time::duration_message(view.ttl),
            source: data_source::nested(label.source.as_ref()),
            online: view.online,
            description: view.description.clone(),
            owner: view.owner.clone(),
            entity_columns: field::to_messages(&view.entity_columns),
            labeler_field: label.labeler_field.clone(),
            conflict_policy: label.conflict_policy as i32,
            retain_history: label.retain_history,
            reference_feature_view: label.reference_feature_view.clone(),
        }),
        meta: Some(core::LabelViewMeta {
            created_timestamp: time::optional_timestamp_message(view.meta.created),
            last_updated_timestamp: time::optional_timestamp_message(view.meta.updated),
        }),
    }
}

fn old_function_message(function: Option<&UserDefinedFunction>) -> Option<core::UserDefinedFunction> {
    function.map(transformation::old_function_message)
}

fn meta_message(meta: &FeatureViewMeta) -> core::FeatureViewMeta {
    let interval = |interval: &Interval| core::MaterializationInterval {
        start_time: Some(time::timestamp_message(interval.start)),
        end_time: Some(time::timestamp_message(interval.end)),
    };
    core::FeatureViewMeta {
        created_timestamp: time::optional_timestamp_message(meta.created),
        last_updated_timestamp: time::optional_timestamp_message(meta.updated),
        materialization_intervals: meta.materialization_intervals.iter().map(interval).collect(),
        current_version_number: meta.current_version_number,
        version_id: meta.version_id.clone(),
        state: meta.state as i32,
    }
}

pub(crate) fn from_message(message: ViewMessage) -> Decoded<FeatureView> {
    match message {
        ViewMessage::Batch(message) => batch(message, 0),
        ViewMessage::Stream(message) => stream(message),
        ViewMessage::OnDemand(message) => on_demand(message),
        ViewMessage::Label(message) => label(message),
    }
}

fn batch(message: core::FeatureView, depth: usize) -> Decoded<FeatureView> {
    if depth > DEEPEST {
        return Err(Malformed::new(format!("has views inside views, more than {DEEPEST} deep")));
    }
    let mut spec = message.spec.unwrap_or_default();
    let shard_progress = shard_progress::take_from_tags(&mut spec.tags);
    let source_view = |spec| batch(core::FeatureView { spec: Some(spec), meta: None }, depth + 1);
    let kind = FeatureViewKind::Batch(BatchFeatures {
        batch_source: data_source::optional(spec.batch_source)?,
        stream_source: data_source::optional(spec.stream_source)?,
        source_views: spec.source_views.into_iter().map(source_view).collect::<Decoded<_>>()?,
        transformation: spec.feature_transformation.and_then(transformation::from_message),
        mode: spec.mode,
        aggregations: batch_aggregations::take_from_tags(&mut spec.tags),
        enable_validation: spec.enable_validation,
    });
    Ok(FeatureView {
        name: spec.name,
        project: spec.project,
        description: spec.description,
        tags: spec.tags,
        owner: spec.owner,
        org: spec.org,
        entities: spec.entities,
        features: field::from_messages(spec.features)?,
        entity_columns: field::from_messages(spec.entity_columns)?,
        ttl: time::duration(spec.ttl)?,
        online: spec.online,
        offline: spec.offline,
        disabled: spec.disabled,
        version: version(spec.version),
        kind,
        meta: FeatureViewMeta { shard_progress, ..meta(message.meta.unwrap_or_default())? },
    })
}

#[expect(deprecated, reason = "Feast still writes the old field beside the new one")]
fn stream(message: core::StreamFeatureView) -> Decoded<FeatureView> {
    let mut spec = message.spec.unwrap_or_default();
    let shard_progress = shard_progress::take_from_tags(&mut spec.tags);
    let kind = FeatureViewKind::Stream(StreamFeatures {
        batch_source: data_source::optional(spec.batch_source)?,
        stream_source: data_source::optional(spec.stream_source)?,
        user_defined_function: spec.user_defined_function.map(transformation::old_function),
        transformation: spec.feature_transformation.and_then(transformation::from_message),
        mode: spec.mode,
        aggregations: transformation::aggregations(spec.aggregations)?,
        timestamp_field: spec.timestamp_field,
        enable_tiling: spec.enable_tiling,
        tiling_hop_size: time::duration(spec.tiling_hop_size)?,
        enable_validation: spec.enable_validation,
    });
    Ok(FeatureView {
        name: spec.name,
        project: spec.project,
        description: spec.description,
        tags: spec.tags,
        owner: spec.owner,
        org: spec.org,
        entities: spec.entities,
        features: field::from_messages(spec.features)?,
        entity_columns: field::from_messages(spec.entity_columns)?,
        ttl: time::duration(spec.ttl)?,
        online: spec.online,
        offline: false,
        disabled: spec.disabled,
        version: version(spec.version),
        kind,
        meta: FeatureViewMeta { shard_progress, ..meta(message.meta.unwrap_or_default())? },
    })
}

#[expect(deprecated, reason = "older registries have the old field")]
fn on_demand(message: core::OnDemandFeatureView) -> Decoded<FeatureView> {
    let spec = message.spec.unwrap_or_default();
    let meta = message.meta.unwrap_or_default();
    let mut sources = BTreeMap::new();
    for (name, source) in spec.sources {
        let source = match source.source {
            Some(Source::FeatureView(view)) => OnDemandSource::FeatureView(Box::new(batch(view, 1)?)),
            Some(Source::FeatureViewProjection(projection)) => {
                OnDemandSource::Projection(feature_service::projection(projection)?)
            }
            Some(Source::RequestDataSource(request)) => OnDemandSource::Request(data_source::from_message(request)?),
            None => {
                return Err(Malformed::new(format!("has an input `{name}` of a kind that this version does not know")));
            }
        };
        sources.insert(name, source);
    }
    let kind = FeatureViewKind::OnDemand(OnDemandFeatures {
        sources,
        user_defined_function: spec.user_defined_function.map(transformation::old_function),
        transformation: spec.feature_transformation.and_then(transformation::from_message),
        mode: spec.mode,
        write_to_online_store: spec.write_to_online_store,
        singleton: spec.singleton,
        aggregations: transformation::aggregations(spec.aggregations)?,
    });
    Ok(FeatureView {
        project: spec.project,
        description: spec.description,
        tags: spec.tags,
        owner: spec.owner,
        org: spec.org,
        entities: spec.entities,
        features: field::from_messages(spec.features)?,
        entity_columns: field::from_messages(spec.entity_columns)?,
        disabled: spec.disabled,
        version: version(spec.version),
        meta: FeatureViewMeta {
            created: time::timestamp(meta.created_timestamp)?,
            updated: time::timestamp(meta.last_updated_timestamp)?,
            materialization_intervals: Vec::new(),
            shard_progress: Vec::new(),
            current_version_number: meta.current_version_number,
            version_id: meta.version_id,
            state: state(meta.state)?,
        },
        ..FeatureView::new(spec.name, kind)
    })
}

#[expect(deprecated, reason = "kept as it was stored")]
fn label(message: core::LabelView) -> Decoded<FeatureView> {
    const POLICIES: [ConflictPolicy; 3] =
        [ConflictPolicy::LastWriteWins, ConflictPolicy::LabelerPriority, ConflictPolicy::MajorityVote];
    let spec = message.spec.unwrap_or_default();
    let meta = message.meta.unwrap_or_default();
    let kind = FeatureViewKind::Label(LabelFeatures {
        source: data_source::optional(spec.source)?,
        labeler_field: spec.labeler_field,
        conflict_policy: from_number(&POLICIES, spec.conflict_policy, "conflict policy")?,
        retain_history: spec.retain_history,
        reference_feature_view: spec.reference_feature_view,
    });
    Ok(FeatureView {
        project: spec.project,
        description: spec.description,
        tags: spec.tags,
        owner: spec.owner,
        entities: spec.entities,
        features: field::from_messages(spec.features)?,
        entity_columns: field::from_messages(spec.entity_columns)?,
        ttl: time::duration(spec.ttl)?,
        online: spec.online,
        meta: FeatureViewMeta {
            created: time::timestamp(meta.created_timestamp)?,
            updated: time::timestamp(meta.last_updated_timestamp)?,
            ..FeatureViewMeta::default()
        },
        ..FeatureView::new(spec.name, kind)
    })
}

/// Registries from before versions have none, which means the same as `latest`.
pub(crate) fn version(text: String) -> String {
    if text.is_empty() { LATEST.to_owned() } else { text }
}

fn meta(message: core::FeatureViewMeta) -> Decoded<FeatureViewMeta> {
    // As stored, even when the ends are the wrong way round: merging them is the reader's business. An end that is
    // not there has the default of protobuf, the epoch.
    let interval = |message: core::MaterializationInterval| -> Decoded<Interval> {
        Ok(Interval {
            start: time::timestamp(message.start_time)?.unwrap_or_default(),
            end: time::timestamp(message.end_time)?.unwrap_or_default(),
        })
    };
    Ok(FeatureViewMeta {
        created: time::timestamp(message.created_timestamp)?,
        updated: time::timestamp(message.last_updated_timestamp)?,
        materialization_intervals: message
            .materialization_intervals
            .into_iter()
            .map(interval)
            .collect::<Decoded<_>>()?,
        shard_progress: Vec::new(),
        current_version_number: message.current_version_number,
        version_id: message.version_id,
        state: state(message.state)?,
    })
}

pub(crate) fn state(number: i32) -> Decoded<FeatureViewState> {
    from_number(&FeatureViewState::ALL, number, "state")
}
