//! A named group of features of the same entities, from the same source.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use serde::{Serialize, Serializer};

use crate::{
    DUMMY_ENTITY, DUMMY_JOIN_KEY, DataSource, Error, FeatureViewProjection, Field, Interval, ObjectKind, ObjectRef,
    ShardProgress, Tags, TimeToLive, Timestamp, Transformation, UserDefinedFunction, ValueType,
};

/// A named group of features of the same entities.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FeatureView {
    /// Unique per project among all kinds of feature views, ignoring case.
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
    /// Organisation that owns it.
    pub org: String,
    /// Names of the entities; `["__dummy"]` for views without entities.
    pub entities: Vec<String>,
    /// The features, in declared order.
    pub features: Vec<Field>,
    /// The join key columns with their types; filled by inference.
    pub entity_columns: Vec<Field>,
    /// How far a point-in-time join looks back; `None` and zero mean without limit.
    #[serde(serialize_with = "optional_seconds")]
    pub ttl: Option<TimeDelta>,
    /// Whether values are served from the online store.
    pub online: bool,
    /// Whether materialization also writes to the offline store.
    pub offline: bool,
    /// Disabled views are neither served nor materialized.
    pub disabled: bool,
    /// `latest`, or the pinned version such as `v2`.
    pub version: String,
    /// What kind of view it is.
    #[serde(flatten)]
    pub kind: FeatureViewKind,
    /// What the registry records about it.
    #[serde(skip)]
    pub meta: FeatureViewMeta,
}

/// What a registry records about a view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FeatureViewMeta {
    /// First commit.
    pub created: Option<Timestamp>,
    /// Last commit that changed it.
    pub updated: Option<Timestamp>,
    /// What has been materialized, as stored; may overlap when written by Feast.
    pub materialization_intervals: Vec<Interval>,
    /// What some shards of a split materialization have loaded and others have not yet.
    pub shard_progress: Vec<ShardProgress>,
    /// Number of the newest snapshot of the definition.
    pub current_version_number: i32,
    /// UUID of that snapshot.
    pub version_id: String,
    /// Where it stands on its way to the online store.
    pub state: FeatureViewState,
}

/// Where a view stands on its way to the online store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the names are those of Feast's enum")]
#[repr(i32)]
pub enum FeatureViewState {
    #[default]
    Unspecified = 0,
    Created = 1,
    Generated = 2,
    Materializing = 3,
    AvailableOnline = 4,
}

impl FeatureViewState {
    /// All states by number.
    pub const ALL: [Self; 5] =
        [Self::Unspecified, Self::Created, Self::Generated, Self::Materializing, Self::AvailableOnline];

    /// Feast's name, such as `AVAILABLE_ONLINE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "STATE_UNSPECIFIED",
            Self::Created => "CREATED",
            Self::Generated => "GENERATED",
            Self::Materializing => "MATERIALIZING",
            Self::AvailableOnline => "AVAILABLE_ONLINE",
        }
    }

    /// The states that can follow. A failed materialization goes back one step.
    pub fn successors(self) -> &'static [Self] {
        match self {
            Self::Unspecified => &[Self::Created],
            Self::Created => &[Self::Generated],
            Self::Generated | Self::AvailableOnline => &[Self::Materializing],
            Self::Materializing => &[Self::AvailableOnline, Self::Generated],
        }
    }
}

impl fmt::Display for FeatureViewState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FeatureViewState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|state| state.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            Error::invalid_request(format!("`{text}` is not a state of a feature view"))
                .with_hint_opt(crate::did_you_mean(text, Self::ALL.iter().map(|state| state.name())))
        })
    }
}

/// The kinds of feature views and what is special to each.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum FeatureViewKind {
    Batch(BatchFeatures),
    Stream(StreamFeatures),
    OnDemand(OnDemandFeatures),
    Label(LabelFeatures),
}

/// A view over a batch source, a push source, or other views.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct BatchFeatures {
    /// Where historical rows rest.
    pub batch_source: Option<DataSource>,
    /// Where fresh rows arrive: a push, Kafka or Kinesis source.
    pub stream_source: Option<DataSource>,
    /// Views that are the input of this one.
    pub source_views: Vec<FeatureView>,
    /// How rows are computed from the source; `None`: they are taken as they are.
    pub transformation: Option<Transformation>,
    /// Mode of the transformation; empty without one.
    pub mode: String,
    /// How the rows of an entity key become one.
    pub aggregations: Vec<Aggregation>,
    /// Whether written rows are checked against the schema.
    pub enable_validation: bool,
}

/// A view over a stream.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[allow(missing_docs, reason = "the names are those of Feast's message")]
pub struct StreamFeatures {
    pub batch_source: Option<DataSource>,
    pub stream_source: Option<DataSource>,
    pub user_defined_function: Option<UserDefinedFunction>,
    pub transformation: Option<Transformation>,
    pub mode: String,
    pub aggregations: Vec<Aggregation>,
    pub timestamp_field: String,
    pub enable_tiling: bool,
    #[serde(serialize_with = "optional_seconds")]
    pub tiling_hop_size: Option<TimeDelta>,
    pub enable_validation: bool,
}

/// A view computed at request time.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[allow(missing_docs, reason = "the names are those of Feast's message")]
pub struct OnDemandFeatures {
    pub sources: BTreeMap<String, OnDemandSource>,
    /// Where older registries keep the function.
    pub user_defined_function: Option<UserDefinedFunction>,
    pub transformation: Option<Transformation>,
    pub mode: String,
    /// Computed when written instead of when read.
    pub write_to_online_store: bool,
    /// The function gets one row at a time.
    pub singleton: bool,
    pub aggregations: Vec<Aggregation>,
}

/// One input of an on-demand view.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
#[expect(clippy::large_enum_variant, reason = "a view has few sources, and nobody copies them")]
pub enum OnDemandSource {
    FeatureView(Box<FeatureView>),
    Projection(FeatureViewProjection),
    Request(DataSource),
}

/// A view of labels given by people or programs.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[allow(missing_docs, reason = "the names are those of Feast's message")]
pub struct LabelFeatures {
    pub source: Option<DataSource>,
    pub labeler_field: String,
    pub conflict_policy: ConflictPolicy,
    pub retain_history: bool,
    pub reference_feature_view: String,
}

/// Which label counts when several were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the names are those of Feast's enum")]
#[repr(i32)]
pub enum ConflictPolicy {
    #[default]
    LastWriteWins = 0,
    LabelerPriority = 1,
    MajorityVote = 2,
}

/// A function over a time window.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[allow(missing_docs, reason = "the names are those of Feast's message")]
pub struct Aggregation {
    pub name: String,
    pub column: String,
    pub function: String,
    #[serde(serialize_with = "optional_seconds")]
    pub time_window: Option<TimeDelta>,
    #[serde(serialize_with = "optional_seconds")]
    pub slide_interval: Option<TimeDelta>,
}

impl Aggregation {
    /// Feast's name of the feature that it makes.
    pub fn feature_name(&self) -> String {
        if !self.name.is_empty() {
            return self.name.clone();
        }
        let base = format!("{}_{}", self.function, self.column);
        match self.time_window.map(|window| window.num_seconds()).filter(|seconds| *seconds > 0) {
            Some(seconds) => format!("{base}_{seconds}s"),
            None => base,
        }
    }
}

impl FeatureView {
    /// A batch view without source, to be filled by the caller.
    pub fn new(name: impl Into<String>, kind: FeatureViewKind) -> Self {
        Self {
            name: name.into(),
            project: String::new(),
            description: String::new(),
            tags: Tags::new(),
            owner: String::new(),
            org: String::new(),
            entities: Vec::new(),
            features: Vec::new(),
            entity_columns: Vec::new(),
            ttl: Some(TimeDelta::zero()),
            online: true,
            offline: false,
            disabled: false,
            version: "latest".to_owned(),
            kind,
            meta: FeatureViewMeta::default(),
        }
    }

    /// Kind of the view as a kind of registry object.
    pub fn object_kind(&self) -> ObjectKind {
        match self.kind {
            FeatureViewKind::Batch(_) => ObjectKind::FeatureView,
            FeatureViewKind::Stream(_) => ObjectKind::StreamFeatureView,
            FeatureViewKind::OnDemand(_) => ObjectKind::OnDemandFeatureView,
            FeatureViewKind::Label(_) => ObjectKind::LabelView,
        }
    }

    /// Kind and name.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef::new(self.object_kind(), &self.name)
    }

    /// Where historical rows rest, for the kinds that have such a source.
    pub fn batch_source(&self) -> Option<&DataSource> {
        match &self.kind {
            FeatureViewKind::Batch(batch) => batch.batch_source.as_ref(),
            FeatureViewKind::Stream(stream) => stream.batch_source.as_ref(),
            FeatureViewKind::Label(label) => label.source.as_ref().and_then(DataSource::batch),
            FeatureViewKind::OnDemand(_) => None,
        }
    }

    /// Views that are the input of this one.
    pub fn source_views(&self) -> &[Self] {
        match &self.kind {
            FeatureViewKind::Batch(batch) => &batch.source_views,
            _ => &[],
        }
    }

    /// Where the rows of a view over other views are kept, once they were computed.
    pub fn sink(&self) -> Option<&DataSource> {
        self.batch_source().filter(|_| !self.source_views().is_empty())
    }

    /// Where fresh rows arrive.
    pub fn stream_source(&self) -> Option<&DataSource> {
        match &self.kind {
            FeatureViewKind::Batch(batch) => batch.stream_source.as_ref(),
            FeatureViewKind::Stream(stream) => stream.stream_source.as_ref(),
            FeatureViewKind::Label(label) => label.source.as_ref().filter(|source| source.is_stream()),
            FeatureViewKind::OnDemand(_) => None,
        }
    }

    /// Sets the batch source of the kinds that have one.
    pub fn batch_source_mut(&mut self) -> Option<&mut DataSource> {
        match &mut self.kind {
            FeatureViewKind::Batch(batch) => batch.batch_source.as_mut(),
            FeatureViewKind::Stream(stream) => stream.batch_source.as_mut(),
            FeatureViewKind::Label(label) => label.source.as_mut(),
            FeatureViewKind::OnDemand(_) => None,
        }
    }

    /// The on-demand part, for views of that kind.
    pub fn on_demand(&self) -> Option<&OnDemandFeatures> {
        match &self.kind {
            FeatureViewKind::OnDemand(on_demand) => Some(on_demand),
            _ => None,
        }
    }

    /// Whether the view has rows of its own in the online store.
    pub fn has_online_table(&self) -> bool {
        match &self.kind {
            FeatureViewKind::OnDemand(on_demand) => on_demand.write_to_online_store,
            _ => self.online,
        }
    }

    /// Whether the rows of the view are computed, and not those of its source.
    pub fn is_computed(&self) -> bool {
        match &self.kind {
            FeatureViewKind::Batch(batch) => {
                batch.transformation.is_some() || !batch.source_views.is_empty() || !batch.aggregations.is_empty()
            }
            FeatureViewKind::Stream(stream) => {
                stream.transformation.is_some()
                    || stream.user_defined_function.is_some()
                    || !stream.aggregations.is_empty()
            }
            FeatureViewKind::OnDemand(_) | FeatureViewKind::Label(_) => false,
        }
    }

    /// Whether the view has no entity and therefore one row for all.
    pub fn is_entity_less(&self) -> bool {
        self.entities.is_empty() || self.entities == [DUMMY_ENTITY]
    }

    /// Names of the join key columns, in the order of the entities.
    pub fn join_keys(&self) -> impl Iterator<Item = &str> {
        self.entity_columns.iter().map(|column| column.name.as_str())
    }

    /// The join key columns; for entity-less views the dummy key.
    pub fn key_columns(&self) -> Vec<Field> {
        if self.is_entity_less() {
            vec![Field::new(DUMMY_JOIN_KEY, ValueType::String)]
        } else {
            self.entity_columns.clone()
        }
    }

    /// The feature with this name.
    pub fn feature(&self, name: &str) -> Option<&Field> {
        self.features.iter().find(|field| field.name == name)
    }

    /// How far a point-in-time join looks back.
    pub fn time_to_live(&self) -> TimeToLive {
        TimeToLive::new(self.ttl)
    }

    /// End of the newest materialized interval.
    pub fn most_recent_end(&self) -> Option<Timestamp> {
        self.meta.materialization_intervals.iter().map(|interval| interval.end).max()
    }

    /// All sources the view names, nested batch sources included.
    pub fn data_sources(&self) -> Vec<&DataSource> {
        let mut direct: Vec<&DataSource> = Vec::new();
        match &self.kind {
            FeatureViewKind::Batch(batch) => {
                direct.extend(batch.batch_source.iter().chain(&batch.stream_source));
            }
            FeatureViewKind::Stream(stream) => {
                direct.extend(stream.batch_source.iter().chain(&stream.stream_source));
            }
            FeatureViewKind::Label(label) => direct.extend(&label.source),
            FeatureViewKind::OnDemand(on_demand) => {
                direct.extend(on_demand.sources.values().filter_map(|source| match source {
                    OnDemandSource::Request(request) => Some(request),
                    _ => None,
                }));
            }
        }
        let nested: Vec<&DataSource> = direct.iter().filter_map(|source| source.batch_source.as_deref()).collect();
        direct.extend(nested);
        direct
    }
}

fn optional_seconds<S: Serializer>(duration: &Option<TimeDelta>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(crate::time_to_live::seconds_text).serialize(serializer)
}
