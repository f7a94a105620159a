//! Who may do what to which objects.

use regex::Regex;
use serde::Serialize;

use crate::{Error, FeatureViewKind, Meta, RegistryObject, Result, Tags};

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

impl Permission {
    /// Whether it covers an object: one of its types, a name that is what a pattern describes from its beginning to its
    /// end, and all the tags.
    ///
    /// # Errors
    /// `InvalidDefinition` for a pattern that is no regular expression, or one that looks around.
    pub fn covers(&self, object: &RegistryObject) -> Result<bool> {
        if !self.types.iter().any(|kind| kind.includes(object)) {
            return Ok(false);
        }
        let mut names = self.name_patterns.iter().map(|pattern| {
            let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
                Error::invalid_definition(format!("permission `{}` has the name pattern `{pattern}`", self.name))
                    .with_source(error)
                    .with_hint("write a regular expression without look-around and back-references")
            })?;
            Ok(regex.is_match(object.name()))
        });
        let is_named = self.name_patterns.is_empty()
            || names.try_fold(false, |found, matches: Result<bool>| Ok::<bool, Error>(matches? || found))?;
        Ok(is_named && self.required_tags.iter().all(|(name, value)| object.tags().get(name) == Some(value)))
    }
}

impl ResourceType {
    /// Whether an object is of this kind. Batch and stream views are feature views, too, as their classes are in Feast.
    pub fn includes(self, object: &RegistryObject) -> bool {
        match object {
            RegistryObject::Project(_) => self == Self::Project,
            RegistryObject::Entity(_) => self == Self::Entity,
            RegistryObject::DataSource(_) => self == Self::DataSource,
            RegistryObject::FeatureService(_) => self == Self::FeatureService,
            RegistryObject::SavedDataset(_) => self == Self::SavedDataset,
            RegistryObject::ValidationReference(_) => self == Self::ValidationReference,
            RegistryObject::Permission(_) => self == Self::Permission,
            RegistryObject::FeatureView(view) => match &view.kind {
                FeatureViewKind::Batch(batch) => {
                    self == Self::FeatureView || self == Self::BatchFeatureView && batch.transformation.is_some()
                }
                FeatureViewKind::Stream(_) => self == Self::FeatureView || self == Self::StreamFeatureView,
                FeatureViewKind::OnDemand(_) => self == Self::OnDemandFeatureView,
                FeatureViewKind::Label(_) => self == Self::LabelView,
            },
        }
    }

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use super::*;
    use crate::{BatchFeatures, Entity, FeatureView};

    fn view(name: &str, tags: &[(&str, &str)]) -> RegistryObject {
        let mut view = FeatureView::new(name, FeatureViewKind::Batch(BatchFeatures::default()));
        view.tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        RegistryObject::FeatureView(Arc::new(view))
    }

    #[test]
    fn a_permission_covers_what_its_types_patterns_and_tags_say() {
        let entity = Entity { name: "rides".to_owned(), ..Entity::default() };
        let objects =
            [view("rides", &[]), view("my_rides", &[("team", "a")]), RegistryObject::Entity(Arc::new(entity))];
        let covered = |patterns: &[&str], tags: &[(&str, &str)]| {
            let permission = Permission {
                types: vec![ResourceType::FeatureView],
                name_patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
                required_tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
                ..Permission::default()
            };
            objects.iter().map(|object| permission.covers(object)).collect::<Result<Vec<bool>>>()
        };
        assert_eq!(covered(&[], &[]).unwrap(), [true, true, false]);
        assert_eq!(covered(&["rides"], &[]).unwrap(), [true, false, false], "a part of a name is not the name");
        assert_eq!(covered(&["x|rides", "my_.*"], &[]).unwrap(), [true, true, false]);
        assert_eq!(covered(&[], &[("team", "a")]).unwrap(), [false, true, false]);
        assert_eq!(covered(&[], &[("team", "b")]).unwrap(), [false; 3]);
        let error = covered(&["("], &[]).unwrap_err();
        assert_eq!(error.message(), "permission `` has the name pattern `(`");
    }
}
