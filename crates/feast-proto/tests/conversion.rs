//! Objects survive the way through their messages, messages of the real Feast survive the way through objects, and
//! hostile bytes are errors.

#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use chrono::{TimeDelta, TimeZone, Utc};
use feast_core::{BatchFeatures, DataSource, DataSourceOptions, Project};
use feast_core::{
    ErrorCode, FeatureView, FeatureViewKind, Field, LabelFeatures, LoggingConfig, LoggingDestination, ObjectKind,
    OnDemandFeatures, Permission, Policy, RegistryObject, StreamFeatures, TableFormat, ValueType,
};
use feast_proto::{
    AnyMessage, contents_from_registry, core, decode_object, decode_registry, encode_object, message_to_json,
    registry_from_snapshot, snapshot_from_registry, to_json, to_message,
};
use proptest::prelude::*;
use prost::Message;
use serde_json::json;

const FEAST_REGISTRY: &[u8] = include_bytes!("../../../tests/formats/registry/feast-0.67.0.pb");

fn feast_registry() -> core::Registry {
    decode_registry(FEAST_REGISTRY).unwrap()
}

#[test]
fn feasts_registry_survives_the_way_through_a_snapshot() {
    let before = feast_registry();
    let snapshot = snapshot_from_registry(before.clone()).unwrap();
    let after = registry_from_snapshot(&snapshot, None);
    let as_json = |registry: &core::Registry| {
        let mut json = message_to_json("feast.core.Registry", &registry.encode_to_vec()).unwrap();
        // Tables of other stores than SQLite are kept by the store of the registry, not by snapshots.
        json["infra"]["infraObjects"].as_array_mut().unwrap().retain(|object| object.get("sqliteTable").is_some());
        // Their bytes are compared below, by meaning.
        for record in json["featureViewVersionHistory"]["records"].as_array_mut().unwrap() {
            record.as_object_mut().unwrap().remove("featureViewProto");
        }
        json
    };
    let (before_json, after_json) = (as_json(&before), as_json(&after));
    for (name, value) in before_json.as_object().unwrap() {
        if let (Some(before), Some(after)) = (value.as_array(), after_json[name].as_array()) {
            assert_eq!(before.len(), after.len(), "{name}");
            for (before, after) in before.iter().zip(after) {
                assert_eq!(before, after, "{name}");
            }
        }
    }
    assert_eq!(before_json, after_json);

    let records = |registry: &core::Registry| {
        registry.feature_view_version_history.clone().unwrap().records.into_iter().map(|record| {
            let kind: ObjectKind = record.feature_view_type.parse().unwrap();
            to_json(kind, &record.feature_view_proto).unwrap()
        })
    };
    assert!(records(&before).eq(records(&after)));
}

#[test]
fn feasts_registry_has_every_kind_and_means_what_was_declared() {
    let snapshot = snapshot_from_registry(feast_registry()).unwrap();
    let contents = snapshot.project("rides").unwrap();
    for kind in ObjectKind::ALL {
        assert!(!contents.list(*kind).is_empty(), "{kind}");
    }
    let stats = contents.feature_view("driver_stats").unwrap();
    assert_eq!(stats.ttl, Some(TimeDelta::days(1) + TimeDelta::milliseconds(500)));
    assert_eq!(stats.stream_source().unwrap().kind(), "push");
    assert_eq!(stats.batch_source().unwrap().kind(), "file");
    assert_eq!(stats.meta.materialization_intervals.len(), 1);
    assert_eq!(contents.permissions["everybody"].policy, Policy::AllowAll);
    assert!(matches!(contents.data_sources["iceberg"].options, DataSourceOptions::Custom { .. }));
    assert_eq!(snapshot.managed_tables[0].name, "rides_driver_stats");
    assert!(snapshot.versions.iter().any(|record| record.is_of("rides", "entity_less") && record.version_number == 1));
}

/// What the fixture does not have.
fn rare_objects() -> Vec<RegistryObject> {
    let when = Utc.timestamp_opt(1_700_000_000, 123_456_000).unwrap();
    let source = |name: &str, options| DataSource { name: name.to_owned(), options, ..DataSource::default() };
    let lance = TableFormat::Lance {
        catalog: "c".to_owned(),
        namespace: "n".to_owned(),
        version: 7,
        tag: "t".to_owned(),
        properties: [("k".to_owned(), "v".to_owned())].into(),
    };
    let mut objects: Vec<RegistryObject> = vec![
        RegistryObject::Project(Project::new("p").into()),
        RegistryObject::DataSource(source("none", DataSourceOptions::None).into()),
        RegistryObject::DataSource(
            DataSource {
                earliest_event_timestamp: Some(when),
                timestamp_field_type: "TIMESTAMP".to_owned(),
                type_number: Some(99),
                ..source("custom", DataSourceOptions::Custom { configuration: Bytes::from_static(b"\xff\x00") })
            }
            .into(),
        ),
        RegistryObject::DataSource(
            source(
                "lance",
                DataSourceOptions::Spark {
                    table: String::new(),
                    query: String::new(),
                    path: "x".to_owned(),
                    file_format: String::new(),
                    date_partition_column_format: "%Y".to_owned(),
                    table_format: Some(lance),
                },
            )
            .into(),
        ),
        RegistryObject::Permission(
            Permission { name: "p".to_owned(), policy: Policy::Roles(Vec::new()), ..Permission::default() }.into(),
        ),
    ];
    let inner = FeatureView::new("inner", FeatureViewKind::Batch(BatchFeatures::default()));
    let derived = BatchFeatures { source_views: vec![inner.clone()], ..BatchFeatures::default() };
    for (ttl, kind) in [
        (None, FeatureViewKind::Batch(derived)),
        (Some(TimeDelta::zero()), FeatureViewKind::Stream(StreamFeatures::default())),
        (Some(TimeDelta::zero()), FeatureViewKind::OnDemand(OnDemandFeatures::default())),
        (None, FeatureViewKind::Label(LabelFeatures { retain_history: true, ..LabelFeatures::default() })),
    ] {
        let mut view = FeatureView::new("view", kind);
        view.ttl = ttl;
        view.features = vec![Field::new("f", ValueType::ZonedTimestamp)];
        objects.push(RegistryObject::FeatureView(view.into()));
    }
    let destination =
        LoggingDestination::Custom { kind: "k".to_owned(), config: [("a".to_owned(), "b".to_owned())].into() };
    objects.push(RegistryObject::FeatureService(
        feast_core::FeatureService {
            name: "s".to_owned(),
            logging: Some(LoggingConfig { sample_rate: 0.0, destination: Some(destination) }),
            ..Default::default()
        }
        .into(),
    ));
    objects
}

#[test]
fn objects_survive_the_way_through_their_messages() {
    let feast = snapshot_from_registry(feast_registry()).unwrap();
    let contents = feast.project("rides").unwrap();
    for object in contents.objects() {
        assert_eq!(decode_object(object.kind(), &encode_object(&object, "rides")).unwrap(), object);
    }
    for object in rare_objects() {
        let read = decode_object(object.kind(), &encode_object(&object, "")).unwrap();
        assert_eq!(read, object);
    }
}

#[test]
fn a_ttl_of_zero_is_written_and_none_is_not() {
    let spec = |ttl| {
        let mut view = FeatureView::new("v", FeatureViewKind::Batch(BatchFeatures::default()));
        view.ttl = ttl;
        let bytes = encode_object(&RegistryObject::FeatureView(view.into()), "p");
        to_json(ObjectKind::FeatureView, &bytes).unwrap()["spec"].clone()
    };
    assert_eq!(spec(Some(TimeDelta::zero()))["ttl"], "0s");
    assert_eq!(spec(Some(TimeDelta::days(2)))["ttl"], "172800s");
    assert!(spec(None).get("ttl").is_none());
}

#[test]
fn json_is_protobufs() {
    let snapshot = snapshot_from_registry(feast_registry()).unwrap();
    let entity = snapshot.project("rides").unwrap().list(ObjectKind::Entity).remove(0);
    let mut json = to_json(ObjectKind::Entity, &encode_object(&entity, "rides")).unwrap();
    assert!(json["meta"]["createdTimestamp"].as_str().unwrap().ends_with('Z'));
    json.as_object_mut().unwrap().remove("meta");
    let expected = json!({"spec": {
        "name": "driver", "valueType": "INT64", "description": "who drives", "joinKey": "driver_id",
        "tags": {"team": "x"}, "project": "rides", "owner": "a@b",
    }});
    assert_eq!(json, expected);
}

#[test]
fn desired_contents_belong_to_the_project_and_are_checked() {
    let mut registry = core::Registry::default();
    let AnyMessage::FeatureView(view) = to_message(
        &RegistryObject::FeatureView(FeatureView::new("v", FeatureViewKind::Batch(BatchFeatures::default())).into()),
        "elsewhere",
    ) else {
        unreachable!()
    };
    registry.feature_views.push(view.clone());
    let contents = contents_from_registry(registry.clone(), "mine").unwrap();
    assert_eq!(contents.project, Project::default());
    assert_eq!(contents.feature_views["v"].project, "mine");

    registry.feature_views.push(view);
    let twice = contents_from_registry(registry.clone(), "mine").unwrap_err();
    assert_eq!(twice.message(), "feature view `v` is defined twice");

    registry.feature_views.truncate(1);
    let computed = FeatureView::new("v", FeatureViewKind::OnDemand(feast_core::OnDemandFeatures::default()));
    let AnyMessage::OnDemandFeatureView(computed) = to_message(&RegistryObject::FeatureView(computed.into()), "mine")
    else {
        unreachable!()
    };
    registry.on_demand_feature_views.push(computed);
    let twice = contents_from_registry(registry.clone(), "mine").unwrap_err();
    assert_eq!(twice.message(), "on demand feature view `v` is defined twice");

    let other =
        core::Project { spec: Some(core::ProjectSpec { name: "other".to_owned(), ..Default::default() }), meta: None };
    let registry = core::Registry { projects: vec![other], ..Default::default() };
    assert_eq!(contents_from_registry(registry.clone(), "mine").unwrap_err().code(), ErrorCode::InvalidDefinition);
}

#[test]
fn malformed_objects_are_named() {
    let feature = core::FeatureSpecV2 { name: "f".to_owned(), value_type: 9, ..Default::default() };
    let spec = core::FeatureViewSpec { name: "v".to_owned(), features: vec![feature], ..Default::default() };
    let registry = core::Registry {
        feature_views: vec![core::FeatureView { spec: Some(spec), meta: None }],
        ..Default::default()
    };
    let error = snapshot_from_registry(registry).unwrap_err();
    assert_eq!(error.code(), ErrorCode::CorruptRegistry);
    assert!(error.message().starts_with("feature view `v` gives column `f` the value type number 9"), "{error}");

    let mut source = core::DataSource::default();
    for _ in 0..40 {
        source = core::DataSource { batch_source: Some(Box::new(source)), ..Default::default() };
    }
    assert!(decode_object(ObjectKind::DataSource, &source.encode_to_vec()).is_err());
    for _ in 0..100 {
        source = core::DataSource { batch_source: Some(Box::new(source)), ..Default::default() };
    }
    assert!(decode_object(ObjectKind::DataSource, &source.encode_to_vec()).is_err());
    assert!(decode_registry(b"project: rides\n".as_slice()).is_err());
}

/// Feast's bytes with some of them replaced: more likely to get past the first check than random ones.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let edit = (0..FEAST_REGISTRY.len(), any::<u8>());
    (prop::collection::vec(edit, 1..20), 0..FEAST_REGISTRY.len()).prop_map(|(edits, length)| {
        let mut bytes = FEAST_REGISTRY.to_vec();
        for (at, byte) in edits {
            bytes[at] = byte;
        }
        bytes.truncate(length);
        bytes
    })
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..512), damaged()]) {
        if let Ok(registry) = decode_registry(bytes.as_slice()) {
            if let Ok(snapshot) = snapshot_from_registry(registry.clone()) {
                registry_from_snapshot(&snapshot, None);
            }
            let _ = contents_from_registry(registry, "p");
        }
        for kind in ObjectKind::ALL {
            let _ = decode_object(*kind, &bytes);
            let _ = to_json(*kind, &bytes);
        }
    }
}
