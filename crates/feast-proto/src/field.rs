//! `feast.core.FeatureSpecV2`: a column.

use feast_core::{Field, ValueType};

use crate::core;
use crate::malformed::{Decoded, Malformed};

pub(crate) fn to_message(field: &Field) -> core::FeatureSpecV2 {
    core::FeatureSpecV2 {
        name: field.name.clone(),
        value_type: field.value_type as i32,
        tags: field.tags.clone(),
        description: field.description.clone(),
        vector_index: field.vector_index,
        vector_search_metric: field.vector_search_metric.clone(),
        vector_length: field.vector_length,
    }
}

pub(crate) fn to_messages(fields: &[Field]) -> Vec<core::FeatureSpecV2> {
    fields.iter().map(to_message).collect()
}

pub(crate) fn from_message(message: core::FeatureSpecV2) -> Decoded<Field> {
    Ok(Field {
        value_type: value_type(message.value_type, &message.name)?,
        name: message.name,
        tags: message.tags,
        description: message.description,
        vector_index: message.vector_index,
        vector_search_metric: message.vector_search_metric,
        vector_length: message.vector_length,
    })
}

pub(crate) fn from_messages(messages: Vec<core::FeatureSpecV2>) -> Decoded<Vec<Field>> {
    messages.into_iter().map(from_message).collect()
}

/// The type with this number. A type of a later release is an error: read as another type, it would be lost with the
/// next commit.
pub(crate) fn value_type(number: i32, column: &str) -> Decoded<ValueType> {
    ValueType::from_number(number).ok_or_else(|| {
        Malformed::new(format!(
            "gives column `{column}` the value type number {number}, which this version does not know"
        ))
    })
}
