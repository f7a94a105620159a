//! What features describe, and the column that identifies it.

use serde::Serialize;

use crate::{Meta, Tags, ValueType};

/// Name of the entity of views that have none.
pub const DUMMY_ENTITY: &str = "__dummy";
/// Join key of views without entities.
pub const DUMMY_JOIN_KEY: &str = "__dummy_id";
/// The one value of [`DUMMY_JOIN_KEY`].
pub const DUMMY_JOIN_KEY_VALUE: &str = "";

/// What features describe: a driver, a route, an airport.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Entity {
    /// Name in definitions.
    pub name: String,
    /// Owning project.
    #[serde(skip)]
    pub project: String,
    /// Type of the join key; [`ValueType::Invalid`] until inferred.
    pub value_type: ValueType,
    /// For people.
    pub description: String,
    /// Column that identifies the entity.
    pub join_key: String,
    /// Free labels.
    pub tags: Tags,
    /// Who answers for it.
    pub owner: String,
    /// When it was created and changed.
    #[serde(skip)]
    pub meta: Meta,
}

impl Entity {
    /// An entity without description, tags and owner.
    pub fn new(name: impl Into<String>, join_key: impl Into<String>, value_type: ValueType) -> Self {
        Self { name: name.into(), join_key: join_key.into(), value_type, ..Self::default() }
    }

    /// The entity that views without entities refer to.
    pub fn dummy() -> Self {
        Self::new(DUMMY_ENTITY, DUMMY_JOIN_KEY, ValueType::Invalid)
    }
}
