//! What a registry holds, as one enum, and how to name one of its objects.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use crate::{
    DataSource, Entity, Error, ErrorCode, FeatureService, FeatureView, FeatureViewKind, Permission, Project,
    SavedDataset, Timestamp, ValidationReference, did_you_mean,
};

/// Free labels, ordered by key.
pub type Tags = BTreeMap<String, String>;

/// When an object was created and last changed; set by the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// First commit of the object.
    pub created: Option<Timestamp>,
    /// Last commit that changed the object.
    pub updated: Option<Timestamp>,
}

/// The kinds of objects a registry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum ObjectKind {
    Project,
    Entity,
    DataSource,
    FeatureView,
    StreamFeatureView,
    OnDemandFeatureView,
    LabelView,
    FeatureService,
    SavedDataset,
    ValidationReference,
    Permission,
}

impl ObjectKind {
    /// All kinds, in the order in which they are applied and listed.
    pub const ALL: &'static [Self] = &[
        Self::Project,
        Self::Entity,
        Self::DataSource,
        Self::FeatureView,
        Self::StreamFeatureView,
        Self::OnDemandFeatureView,
        Self::LabelView,
        Self::FeatureService,
        Self::SavedDataset,
        Self::ValidationReference,
        Self::Permission,
    ];

    /// The kind as an identifier, such as `feature_view`.
    pub fn identifier(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Entity => "entity",
            Self::DataSource => "data_source",
            Self::FeatureView => "feature_view",
            Self::StreamFeatureView => "stream_feature_view",
            Self::OnDemandFeatureView => "on_demand_feature_view",
            Self::LabelView => "label_view",
            Self::FeatureService => "feature_service",
            Self::SavedDataset => "saved_dataset",
            Self::ValidationReference => "validation_reference",
            Self::Permission => "permission",
        }
    }

    /// Whether objects of this kind are feature views, whose names are unique among all such kinds.
    pub fn is_feature_view(self) -> bool {
        matches!(self, Self::FeatureView | Self::StreamFeatureView | Self::OnDemandFeatureView | Self::LabelView)
    }

    /// The code of the error that says there is no such object.
    pub fn not_found(self) -> ErrorCode {
        match self {
            Self::Project => ErrorCode::ProjectNotFound,
            Self::Entity => ErrorCode::EntityNotFound,
            Self::DataSource => ErrorCode::DataSourceNotFound,
            Self::FeatureView | Self::StreamFeatureView | Self::LabelView => ErrorCode::FeatureViewNotFound,
            Self::OnDemandFeatureView => ErrorCode::OnDemandFeatureViewNotFound,
            Self::FeatureService => ErrorCode::FeatureServiceNotFound,
            Self::SavedDataset => ErrorCode::SavedDatasetNotFound,
            Self::ValidationReference => ErrorCode::ValidationReferenceNotFound,
            Self::Permission => ErrorCode::PermissionNotFound,
        }
    }
}

/// The kind in words, such as `feature view`.
impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnDemandFeatureView => f.pad("on demand feature view"),
            other => f.pad(&other.identifier().replace('_', " ")),
        }
    }
}

impl FromStr for ObjectKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wanted = text.to_lowercase().replace(['-', ' '], "_");
        Self::ALL.iter().copied().find(|kind| kind.identifier() == wanted).ok_or_else(|| {
            Error::invalid_request(format!("`{text}` is not a kind of object"))
                .with_hint_opt(did_you_mean(&wanted, Self::ALL.iter().map(|kind| kind.identifier())))
        })
    }
}

/// The name of one object inside its project.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ObjectRef {
    /// Kind of the object.
    pub kind: ObjectKind,
    /// Name, unique per project and kind.
    pub name: String,
}

impl ObjectRef {
    /// Names an object.
    pub fn new(kind: ObjectKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// `kind/name`, the key by which locations in source files are passed around.
    pub fn key(&self) -> String {
        format!("{}/{}", self.kind.identifier(), self.name)
    }

    /// The error that says that this object does not exist in `project`.
    pub fn not_found(&self, project: &str) -> Error {
        let Self { kind, name } = self;
        let message = match kind {
            ObjectKind::Project => format!("project `{name}` does not exist"),
            _ => format!("{kind} `{name}` does not exist in project `{project}`"),
        };
        Error::new(kind.not_found(), message).with_hint("define it and run `feast apply`")
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

/// Any object of a registry. Clones share the object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the names say it")]
pub enum RegistryObject {
    Project(Arc<Project>),
    Entity(Arc<Entity>),
    DataSource(Arc<DataSource>),
    /// Batch, stream, on-demand and label views.
    FeatureView(Arc<FeatureView>),
    FeatureService(Arc<FeatureService>),
    SavedDataset(Arc<SavedDataset>),
    ValidationReference(Arc<ValidationReference>),
    Permission(Arc<Permission>),
}

impl RegistryObject {
    /// Kind of the object.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Project(_) => ObjectKind::Project,
            Self::Entity(_) => ObjectKind::Entity,
            Self::DataSource(_) => ObjectKind::DataSource,
            Self::FeatureView(view) => match view.kind {
                FeatureViewKind::Batch(_) => ObjectKind::FeatureView,
                FeatureViewKind::Stream(_) => ObjectKind::StreamFeatureView,
                FeatureViewKind::OnDemand(_) => ObjectKind::OnDemandFeatureView,
                FeatureViewKind::Label(_) => ObjectKind::LabelView,
            },
            Self::FeatureService(_) => ObjectKind::FeatureService,
            Self::SavedDataset(_) => ObjectKind::SavedDataset,
            Self::ValidationReference(_) => ObjectKind::ValidationReference,
            Self::Permission(_) => ObjectKind::Permission,
        }
    }

    /// Name of the object.
    pub fn name(&self) -> &str {
        match self {
            Self::Project(object) => &object.name,
            Self::Entity(object) => &object.name,
            Self::DataSource(object) => &object.name,
            Self::FeatureView(object) => &object.name,
            Self::FeatureService(object) => &object.name,
            Self::SavedDataset(object) => &object.name,
            Self::ValidationReference(object) => &object.name,
            Self::Permission(object) => &object.name,
        }
    }

    /// Labels of the object.
    pub fn tags(&self) -> &Tags {
        match self {
            Self::Project(object) => &object.tags,
            Self::Entity(object) => &object.tags,
            Self::DataSource(object) => &object.tags,
            Self::FeatureView(object) => &object.tags,
            Self::FeatureService(object) => &object.tags,
            Self::SavedDataset(object) => &object.tags,
            Self::ValidationReference(object) => &object.tags,
            Self::Permission(object) => &object.tags,
        }
    }

    /// Kind and name.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef::new(self.kind(), self.name())
    }

    /// Whether both are one object in memory, as in two snapshots between which it was not changed.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Project(a), Self::Project(b)) => Arc::ptr_eq(a, b),
            (Self::Entity(a), Self::Entity(b)) => Arc::ptr_eq(a, b),
            (Self::DataSource(a), Self::DataSource(b)) => Arc::ptr_eq(a, b),
            (Self::FeatureView(a), Self::FeatureView(b)) => Arc::ptr_eq(a, b),
            (Self::FeatureService(a), Self::FeatureService(b)) => Arc::ptr_eq(a, b),
            (Self::SavedDataset(a), Self::SavedDataset(b)) => Arc::ptr_eq(a, b),
            (Self::ValidationReference(a), Self::ValidationReference(b)) => Arc::ptr_eq(a, b),
            (Self::Permission(a), Self::Permission(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}
