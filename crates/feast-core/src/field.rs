//! A named, typed column of a feature view or a request.

use serde::Serialize;

use crate::{Tags, ValueType};

/// A named, typed column: a feature, a join key column or a request field.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Field {
    /// Column name.
    pub name: String,
    /// Declared type.
    pub value_type: ValueType,
    /// Free labels.
    pub tags: Tags,
    /// For people.
    pub description: String,
    /// Whether similarity search is wanted.
    pub vector_index: bool,
    /// `L2`, `cosine`, `inner_product` or `L1`; empty when not declared.
    pub vector_search_metric: String,
    /// Dimensions of the vector; 0 when not declared.
    pub vector_length: i32,
}

impl Field {
    /// A field without tags and description.
    pub fn new(name: impl Into<String>, value_type: ValueType) -> Self {
        Self { name: name.into(), value_type, ..Self::default() }
    }
}
