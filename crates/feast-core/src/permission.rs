//! Who may do what to which objects.

use serde::Serialize;

use crate::{Meta, Tags};

/// Who may do what to which objects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Permission {
    /// Unique per project.
    pub name: String,
    /// Owning project.
    #[serde(skip)]
    pub project: String,
    /// Kinds of objects it covers.
    pub types: Vec<ResourceType>,
    /// Regular expressions on object names; empty: all.
    pub name_patterns: Vec<String>,
    /// Labels an object must have.
    pub required_tags: Tags,
    /// What is allowed.
    pub actions: Vec<Action>,
    /// To whom.
    pub policy: Policy,
    /// Free labels.
    pub tags: Tags,
    /// When it was created and changed.
    #[serde(skip)]
    pub meta: Meta,
}

/// Kinds of objects a permission can cover, by Feast's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
#[repr(i32)]
pub enum ResourceType {
    FeatureView = 0,
    OnDemandFeatureView = 1,
    BatchFeatureView = 2,
    StreamFeatureView = 3,
    Entity = 4,
    FeatureService = 5,
    DataSource = 6,
    ValidationReference = 7,
    SavedDataset = 8,
    Permission = 9,
    Project = 10,
    LabelView = 11,
}

/// What can be allowed, by Feast's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
#[repr(i32)]
pub enum Action {
    Create = 0,
    Describe = 1,
    Update = 2,
    Delete = 3,
    ReadOnline = 4,
    ReadOffline = 5,
    WriteOnline = 6,
    WriteOffline = 7,
}

/// To whom something is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Policy {
    /// Everybody; stored as a policy without a type.
    #[default]
    AllowAll,
    Roles(Vec<String>),
    Groups(Vec<String>),
    Namespaces(Vec<String>),
    GroupsAndNamespaces {
        groups: Vec<String>,
        namespaces: Vec<String>,
    },
}

impl ResourceType {
    /// All kinds by number.
    pub const ALL: [Self; 12] = [
        Self::FeatureView,
        Self::OnDemandFeatureView,
        Self::BatchFeatureView,
        Self::StreamFeatureView,
        Self::Entity,
        Self::FeatureService,
        Self::DataSource,
        Self::ValidationReference,
        Self::SavedDataset,
        Self::Permission,
        Self::Project,
        Self::LabelView,
    ];
}

impl Action {
    /// All actions by number.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Describe,
        Self::Update,
        Self::Delete,
        Self::ReadOnline,
        Self::ReadOffline,
        Self::WriteOnline,
        Self::WriteOffline,
    ];
}
