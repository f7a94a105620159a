//! Listing and describing what the registry holds.

use std::sync::Arc;

use feast_core::{Permission, PermissionAction, Policy, RegistryObject, ResourceType};

use crate::support::{Repository, assert_told, rides};

#[test]
fn every_kind_is_listed() {
    let repository = Repository::applied();
    let lists = [
        "projects",
        "entities",
        "data-sources",
        "feature-views",
        "on-demand-feature-views",
        "stream-feature-views",
        "label-views",
        "feature-services",
        "saved-datasets",
        "validation-references",
        "permissions",
        "features",
    ];
    let told: String = lists.iter().map(|kind| format!("{kind}\n{}", repository.run(&[kind, "list"]))).collect();
    assert_told!(told, @r"
    projects
    exit code: 0
    ----- stdout -----
    NAME    DESCRIPTION        TAGS   OWNER
    rides   Rides of a fleet
    ----- stderr -----
    entities
    exit code: 0
    ----- stdout -----
    NAME     DESCRIPTION   TYPE
    driver   A driver      ValueType.INT64
    ----- stderr -----
    data-sources
    exit code: 0
    ----- stdout -----
    NAME           CLASS
    driver_stats   feast.infra.offline_stores.file_source.FileSource
    ----- stderr -----
    feature-views
    exit code: 0
    ----- stdout -----
    NAME                  ENTITIES   TYPE          ENABLED   STATE
    driver_hourly_stats   driver     FeatureView   Yes       STATE_UNSPECIFIED
    ----- stderr -----
    on-demand-feature-views
    exit code: 0
    ----- stdout -----
    NAME
    ----- stderr -----
    stream-feature-views
    exit code: 0
    ----- stdout -----
    NAME
    ----- stderr -----
    label-views
    exit code: 0
    ----- stdout -----
    NAME   ENTITIES   CONFLICT_POLICY
    ----- stderr -----
    feature-services
    exit code: 0
    ----- stdout -----
    NAME              FEATURES
    driver_activity   driver_hourly_stats:conv_rate
    ----- stderr -----
    saved-datasets
    exit code: 0
    ----- stdout -----
    NAME
    ----- stderr -----
    validation-references
    exit code: 0
    ----- stdout -----
    NAME
    ----- stderr -----
    permissions
    exit code: 0
    ----- stdout -----
    NAME   TYPES   NAME_PATTERNS   ACTIONS   ROLES   REQUIRED_TAGS
    ----- stderr -----
    features
    exit code: 0
    ----- stdout -----
    Feature           Feature View          Data Type
    conv_rate         driver_hourly_stats   Float32
    avg_daily_trips   driver_hourly_stats   Int64
    ----- stderr -----
    ");
}

#[test]
fn lists_are_also_for_programs() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["feature-views", "list", "--output", "json"]), @r#"
    exit code: 0
    ----- stdout -----
    [
      {
        "name": "driver_hourly_stats",
        "entities": [
          "driver"
        ],
        "type": "FeatureView",
        "enabled": "Yes",
        "state": "STATE_UNSPECIFIED"
      }
    ]
    ----- stderr -----
    "#);
    assert_told!(repository.run(&["features", "list", "--output", "json"]), @r#"
    exit code: 0
    ----- stdout -----
    [
      {
        "feature_name": "conv_rate",
        "feature_view": "driver_hourly_stats",
        "dtype": "Float32"
      },
      {
        "feature_name": "avg_daily_trips",
        "feature_view": "driver_hourly_stats",
        "dtype": "Int64"
      }
    ]
    ----- stderr -----
    "#);
}

#[test]
fn lists_are_filtered_by_tags() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["entities", "list", "--tags", "team:fleet"]), @r"
    exit code: 0
    ----- stdout -----
    NAME     DESCRIPTION   TYPE
    driver   A driver      ValueType.INT64
    ----- stderr -----
    ");
    assert_told!(repository.run(&["entities", "list", "--tags", "team:fleet,stage:test"]), @r"
    exit code: 0
    ----- stdout -----
    NAME   DESCRIPTION   TYPE
    ----- stderr -----
    ");
    assert_told!(repository.run(&["entities", "list", "--tags", "team"]), @r"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: invalid value 'team' for '--tags <KEY:VALUE>': not a tag; write `key:value`

    For more information, try '--help'.
    ");
}

#[test]
fn objects_are_described_in_yaml() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["entities", "describe", "driver"]), @r"
    exit code: 0
    ----- stdout -----
    spec:
      name: driver
      valueType: INT64
      description: A driver
      joinKey: driver_id
      tags:
        team: fleet
    meta:
      createdTimestamp: '[time]'
      lastUpdatedTimestamp: '[time]'

    ----- stderr -----
    ");
    assert_told!(repository.run(&["feature-views", "describe", "driver_hourly_stats"]), @r"
    exit code: 0
    ----- stdout -----
    spec:
      name: driver_hourly_stats
      entities:
      - driver
      features:
      - name: conv_rate
        valueType: FLOAT
      - name: avg_daily_trips
        valueType: INT64
      ttl: 86400s
      batchSource:
        type: BATCH_FILE
        timestampField: event_timestamp
        createdTimestampColumn: created
        fileOptions:
          uri: data/driver_stats.parquet
        dataSourceClassType: feast.infra.offline_stores.file_source.FileSource
        name: driver_stats
        meta: {}
      online: true
      entityColumns:
      - name: driver_id
        valueType: INT64
      version: latest
    meta:
      createdTimestamp: '[time]'
      lastUpdatedTimestamp: '[time]'
      versionId: [uuid]

    ----- stderr -----
    ");
    assert_told!(repository.run(&["projects", "current_project"]), @r"
    exit code: 0
    ----- stdout -----
    spec:
      name: rides
      description: Rides of a fleet
    meta:
      createdTimestamp: '[time]'
      lastUpdatedTimestamp: '[time]'

    ----- stderr -----
    ");
    assert_told!(repository.run(&["features", "describe", "conv_rate"]), @r#"
    exit code: 0
    ----- stdout -----
    [
      {
        "Feature Name": "conv_rate",
        "Feature View": "driver_hourly_stats",
        "Data Type": "Float32",
        "Description": "",
        "Online Store": true,
        "Source": {
          "type": "BATCH_FILE",
          "timestampField": "event_timestamp",
          "createdTimestampColumn": "created",
          "fileOptions": {
            "uri": "data/driver_stats.parquet"
          },
          "dataSourceClassType": "feast.infra.offline_stores.file_source.FileSource",
          "name": "driver_stats",
          "meta": {}
        }
      }
    ]
    ----- stderr -----
    "#);
}

#[test]
fn a_wrong_name_is_told_with_the_right_one() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["entities", "describe", "drver"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: entity `drver` does not exist in project `rides`
    hint: did you mean `driver`?
    ");
    assert_told!(repository.run(&["features", "describe", "conv_rat"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: no feature view of project `rides` has a feature `conv_rat`
    hint: did you mean `conv_rate`?
    ");
    assert_told!(repository.run(&["projects", "describe", "ridse"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: project `ridse` does not exist
    hint: did you mean `rides`?
    ");
}

#[test]
fn views_are_disabled_and_enabled() {
    let repository = Repository::materialized();
    let view = "driver_hourly_stats";
    assert_told!(repository.run(&["feature-views", "disable", view]), @r"
    exit code: 0
    ----- stdout -----
    feature view `driver_hourly_stats` is disabled
    ----- stderr -----
    ");
    assert_told!(repository.run(&["feature-views", "list"]), @r"
    exit code: 0
    ----- stdout -----
    NAME                  ENTITIES   TYPE          ENABLED   STATE
    driver_hourly_stats   driver     FeatureView   No        AVAILABLE_ONLINE
    ----- stderr -----
    ");
    let values = ["get-online-features", "-e", "driver_id=1001", "-f", "driver_hourly_stats:conv_rate"];
    assert_told!(repository.run(&values), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: feature view `driver_hourly_stats` is disabled
    hint: enable it with `feast feature-views enable driver_hourly_stats`
    ");
    assert_told!(repository.run(&["feature-views", "enable", view]), @r"
    exit code: 0
    ----- stdout -----
    feature view `driver_hourly_stats` is enabled
    ----- stderr -----
    ");
    assert_told!(repository.run(&["feature-views", "enable", view]), @r"
    exit code: 0
    ----- stdout -----
    feature view `driver_hourly_stats` is enabled already
    ----- stderr -----
    ");
    assert!(repository.output(&values).status.success());
}

#[test]
fn states_follow_each_other() {
    let repository = Repository::materialized();
    let view = "driver_hourly_stats";
    assert_told!(repository.run(&["feature-views", "set-state", view, "GENERATED"]), @r"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: feature view `driver_hourly_stats` cannot go from AVAILABLE_ONLINE to GENERATED
    hint: from AVAILABLE_ONLINE it can go to `MATERIALIZING`
    ");
    assert_told!(repository.run(&["feature-views", "set-state", view, "materializing"]), @r"
    exit code: 0
    ----- stdout -----
    feature view `driver_hourly_stats` is MATERIALIZING
    ----- stderr -----
    ");
    assert_told!(repository.run(&["feature-views", "set-state", view, "READY"]), @r"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: invalid value 'READY' for '<STATE>': not a state of a feature view; valid names are `STATE_UNSPECIFIED`, `CREATED`, `GENERATED`, `MATERIALIZING` and `AVAILABLE_ONLINE`

    For more information, try '--help'.
    ");
}

#[test]
fn versions_are_listed() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["feature-views", "list-versions", "driver_hourly_stats"]), @r"
    exit code: 0
    ----- stdout -----
    VERSION   TYPE           CREATED                            VERSION_ID
    v0        feature_view   [time]   [uuid]
    ----- stderr -----
    ");
}

#[test]
fn the_registry_is_dumped_as_json() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["registry-dump"]), @r#"
    exit code: 0
    ----- stdout -----
    {
      "dataSources": [
        {
          "createdTimestampColumn": "created",
          "dataSourceClassType": "feast.infra.offline_stores.file_source.FileSource",
          "fileOptions": {
            "uri": "data/driver_stats.parquet"
          },
          "meta": {
            "createdTimestamp": "[time]",
            "lastUpdatedTimestamp": "[time]"
          },
          "name": "driver_stats",
          "timestampField": "event_timestamp",
          "type": "BATCH_FILE"
        }
      ],
      "entities": [
        {
          "meta": {
            "createdTimestamp": "[time]",
            "lastUpdatedTimestamp": "[time]"
          },
          "spec": {
            "joinKey": "__dummy_id",
            "name": "__dummy"
          }
        },
        {
          "meta": {
            "createdTimestamp": "[time]",
            "lastUpdatedTimestamp": "[time]"
          },
          "spec": {
            "description": "A driver",
            "joinKey": "driver_id",
            "name": "driver",
            "tags": {
              "team": "fleet"
            },
            "valueType": "INT64"
          }
        }
      ],
      "featureServices": [
        {
          "meta": {
            "createdTimestamp": "[time]",
            "lastUpdatedTimestamp": "[time]"
          },
          "spec": {
            "features": [
              {
                "featureColumns": [
                  {
                    "name": "conv_rate",
                    "valueType": "FLOAT"
                  }
                ],
                "featureViewName": "driver_hourly_stats"
              }
            ],
            "name": "driver_activity"
          }
        }
      ],
      "featureViews": [
        {
          "meta": {
            "createdTimestamp": "[time]",
            "lastUpdatedTimestamp": "[time]",
            "versionId": "[uuid]"
          },
          "spec": {
            "batchSource": {
              "createdTimestampColumn": "created",
              "dataSourceClassType": "feast.infra.offline_stores.file_source.FileSource",
              "fileOptions": {
                "uri": "data/driver_stats.parquet"
              },
              "meta": {},
              "name": "driver_stats",
              "timestampField": "event_timestamp",
              "type": "BATCH_FILE"
            },
            "entities": [
              "driver"
            ],
            "entityColumns": [
              {
                "name": "driver_id",
                "valueType": "INT64"
              }
            ],
            "features": [
              {
                "name": "conv_rate",
                "valueType": "FLOAT"
              },
              {
                "name": "avg_daily_trips",
                "valueType": "INT64"
              }
            ],
            "name": "driver_hourly_stats",
            "online": true,
            "ttl": "86400s",
            "version": "latest"
          }
        }
      ],
      "project": "rides"
    }
    ----- stderr -----
    "#);
}

#[test]
fn the_configuration_is_shown_without_secrets() {
    let repository = Repository::new();
    repository.write(
        "feature_store.yaml",
        "project: rides\nregistry:\n  path: postgresql://feast:hunter2@db/feast\n  registry_type: sql\n\
         online_store:\n  type: redis\n  connection_string: redis:6379,password=hunter2\n",
    );
    assert_told!(repository.run(&["configuration"]), @r"
    exit code: 0
    ----- stdout -----
    project: rides
    registry:
      registry_type: sql
      path: postgresql://feast:********@db/feast
      cache_ttl_seconds: 600
    online_store:
      type: redis
      connection_string: '********'
    offline_store:
      type: dask
    entity_key_serialization_version: 3
    provider: local
    batch_engine:
      type: local
    auth:
      type: no_auth
    ----- stderr -----
    ");
}

/// Feast 0.67 looks for required tags in no object but permissions themselves; here they are looked for, as its
/// documents say.
#[test]
fn what_permissions_cover_is_shown() {
    let repository = Repository::new();
    let mut contents = rides();
    let permission = |name: &str, types: &[ResourceType], patterns: &[&str], tags: &[(&str, &str)]| Permission {
        name: name.to_owned(),
        types: types.to_vec(),
        name_patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
        required_tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        actions: vec![PermissionAction::Describe, PermissionAction::ReadOnline],
        policy: Policy::Roles(vec!["reader".to_owned()]),
        ..Permission::default()
    };
    let kinds = [ResourceType::FeatureView, ResourceType::Entity];
    let all = Permission {
        actions: PermissionAction::ALL.to_vec(),
        ..permission("sources", &[ResourceType::DataSource], &[], &[])
    };
    for permission in [
        permission("fleet", &kinds, &[], &[("team", "fleet")]),
        permission("hourly", &kinds, &["driver_hourly_.*"], &[]),
        all,
    ] {
        contents.put(RegistryObject::Permission(Arc::new(permission)));
    }
    repository.define(contents);
    assert!(repository.output(&["apply"]).status.success());
    assert_told!(repository.run(&["permissions", "list", "-v"]), @r"
    exit code: 0
    ----- stdout -----
    NAME      TYPE          OBJECTS
    fleet     FeatureView
    fleet     Entity        driver
    hourly    FeatureView   driver_hourly_stats
    hourly    Entity
    sources   DataSource    driver_stats
    ----- stderr -----
    ");
    assert_told!(repository.run(&["permissions", "check"]), @r"
    exit code: 0
    ----- stdout -----
    NAME                  TYPE              COVERED   UNSECURED ACTIONS
    rides                 project           No        CREATE, DESCRIBE, UPDATE, DELETE, READ_ONLINE, READ_OFFLINE, WRITE_ONLINE, WRITE_OFFLINE
    driver                entity            Yes       CREATE, UPDATE, DELETE, READ_OFFLINE, WRITE_ONLINE, WRITE_OFFLINE
    driver_hourly_stats   feature view      Yes       CREATE, UPDATE, DELETE, READ_OFFLINE, WRITE_ONLINE, WRITE_OFFLINE
    driver_activity       feature service   No        CREATE, DESCRIBE, UPDATE, DELETE, READ_ONLINE, READ_OFFLINE, WRITE_ONLINE, WRITE_OFFLINE
    fleet                 permission        No        CREATE, DESCRIBE, UPDATE, DELETE, READ_ONLINE, READ_OFFLINE, WRITE_ONLINE, WRITE_OFFLINE
    hourly                permission        No        CREATE, DESCRIBE, UPDATE, DELETE, READ_ONLINE, READ_OFFLINE, WRITE_ONLINE, WRITE_OFFLINE
    sources               permission        No        CREATE, DESCRIBE, UPDATE, DELETE, READ_ONLINE, READ_OFFLINE, WRITE_ONLINE, WRITE_OFFLINE
    ----- stderr -----
    ");
}
