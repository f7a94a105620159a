//! The vocabulary and the rules of the feature store, and the traits its backends implement.
//!
//! This crate knows Arrow and nothing else: no protobuf, no SQL, no HTTP, no Python, no runtime and no I/O.
//! Resolving, comparing and validating are pure functions over an immutable [`RegistrySnapshot`].
//!
//! ```
//! use feast_core::{Entity, EntityKeyEncoder, ValueType};
//!
//! let driver = Entity::new("driver", "driver_id", ValueType::Int64);
//! assert_eq!(driver.join_key, "driver_id");
//! assert_eq!(feast_core::ENTITY_KEY_VERSION, 3);
//! # let _: Option<EntityKeyEncoder> = None;
//! ```
//!
//! Reading order: definitions ([`Project`], [`Entity`], [`DataSource`], [`FeatureView`], [`FeatureService`]), the
//! snapshot that holds them, how a request is resolved against it ([`RetrievalPlan`]), then the plug-in traits
//! ([`RegistryStore`], [`OnlineStore`], [`Transformer`]).

mod error;
mod memo;
mod scalar;
mod suggest;
mod turns;

mod value_type;

mod data_source;
mod entity;
mod feature_service;
mod feature_view;
mod field;
mod object;
mod objects;
mod permission;
mod project;
mod saved_dataset;
mod transformation;

mod diff;
mod infer;
mod registry;
mod retrieval;
mod validate;

mod entity_key;
mod interval;
mod online;
mod push_plan;
mod serialized_rows;
mod shard;
mod time_to_live;
mod transformer;

pub use data_source::{DataSource, DataSourceOptions, FileFormat, StreamFormat, TableFormat, TableReference};
pub use diff::{Action, ChangeClass, FieldChange, ObjectChange, RegistryDiff, changed_fields, diff};
pub use entity::{DUMMY_ENTITY, DUMMY_JOIN_KEY, DUMMY_JOIN_KEY_VALUE, Entity};
pub use entity_key::{ENTITY_KEY_VERSION, EntityKeyEncoder, EntityKeys};
pub use error::{Error, ErrorCode, ErrorKind, Result};
pub use feature_service::{FeatureService, FeatureViewProjection, LoggingConfig, LoggingDestination};
pub use feature_view::{
    Aggregation, BatchFeatures, ConflictPolicy, FeatureView, FeatureViewKind, FeatureViewMeta, FeatureViewState,
    LabelFeatures, OnDemandFeatures, OnDemandSource, StreamFeatures,
};
pub use field::Field;
pub use infer::{Inferred, SourceSchemas, infer, infer_projections};
pub use interval::{Interval, merge_intervals};
pub use memo::Memo;
pub use object::{Meta, ObjectKind, ObjectRef, RegistryObject, Tags};
pub use objects::Objects;
pub use online::{
    CellPlace, KnownStore, LoadOrder, LoadingServer, NewestValue, OnlineRead, OnlineRows, OnlineStore, OnlineTable,
    OnlineWrite, Reading, RowCells, SerializedWrite, StoredCells, StoredRows, StoredTable, TableChange, Wait,
    WantedColumns, Window, Writing, timestamp_type,
};
pub use permission::{Action as PermissionAction, Permission, Policy, ResourceType};
pub use project::Project;
pub use push_plan::{PushPlan, PushedTable, PushedView};
pub use registry::{
    CommitRecord, ManagedTable, ObjectRevision, PastDefinition, ProjectContents, RegistryChange, RegistryChanges,
    RegistryHistory, RegistrySnapshot, RegistryStore, RegistryVersion, VersionRecord, net_revisions,
};
pub use retrieval::{
    EntityAlias, FeatureReference, FeatureSelection, PlannedFeature, PlannedJoinKey, PlannedKeySet,
    PlannedOnDemandView, PlannedView, RetrievalPlan, Versions,
};
pub use saved_dataset::{
    Profile, SavedDataset, SavedDatasetColumn, SavedDatasetMeta, SavedDatasetStorage, ValidationReference,
};
pub use scalar::Scalar;
pub use serialized_rows::SerializedRows;
pub use shard::{Shard, ShardProgress, complete_shard};
pub use suggest::{did_you_mean, list_names};
pub use time_to_live::{TimeToLive, is_expired, span_text};
pub use transformation::{Substrait, Transformation, UserDefinedFunction};
pub use transformer::{BatchFunctions, Rows, Transformer};
pub use turns::Turns;
pub use validate::{Problem, validate};
pub use value_type::{OPAQUE_VALUE_KEY, ValueType};

/// An instant in UTC. Stores and Arrow columns keep microseconds.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
