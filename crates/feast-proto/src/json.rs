//! Protobuf's JSON of any message: camelCase names, RFC 3339 times, durations as `172800s`, 64 bit integers as text,
//! bytes in base64. Fields with their default value are left out.

use std::sync::LazyLock;

use feast_core::{Error, ErrorCode, ObjectKind, Result};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use serde_json::Value;

static DESCRIPTORS: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build wrote these descriptors"));

/// The serialized `google.protobuf.FileDescriptorSet` of all files in `protos/`, imports included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The JSON of the serialized message of an object.
///
/// # Errors
/// `CorruptRegistry` when the bytes are not a message of this kind.
pub fn to_json(kind: ObjectKind, bytes: &[u8]) -> Result<Value> {
    message_to_json(crate::message_name(kind), bytes)
}

/// The JSON of any serialized message, by its full name, such as `feast.core.Registry`.
///
/// # Errors
/// `CorruptRegistry` when the bytes are not such a message, `Internal` when there is no message of this name.
pub fn message_to_json(full_name: &str, bytes: &[u8]) -> Result<Value> {
    let descriptor = descriptor(full_name)?;
    let mut message = DynamicMessage::new(descriptor.clone());
    message.merge(bytes).map_err(|error| {
        Error::new(ErrorCode::CorruptRegistry, format!("these {} bytes are not a {full_name}", bytes.len()))
            .with_source(error)
    })?;
    let mut json =
        message.serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new()).map_err(|error| {
            Error::new(ErrorCode::CorruptRegistry, format!("a {full_name} has a value that JSON cannot express"))
                .with_source(error)
        })?;
    sort_maps(&descriptor, &mut json);
    Ok(json)
}

fn descriptor(full_name: &str) -> Result<MessageDescriptor> {
    DESCRIPTORS
        .get_message_by_name(full_name)
        .ok_or_else(|| Error::internal(format!("there is no message `{full_name}` in the compiled protos")))
}

/// Orders the entries of maps by key: the reflection library keeps them in a hash map, and dumps are compared.
fn sort_maps(descriptor: &MessageDescriptor, json: &mut Value) {
    let Value::Object(members) = json else { return };
    for field in descriptor.fields() {
        let Some(member) = members.get_mut(field.json_name()) else { continue };
        if field.is_map() {
            if let Value::Object(entries) = member {
                entries.sort_keys();
                let value = map_value(&field);
                entries.values_mut().for_each(|entry| sort_field(value.as_ref(), entry));
            }
        } else if let Kind::Message(inner) = field.kind() {
            match member {
                Value::Array(items) => items.iter_mut().for_each(|item| sort_maps(&inner, item)),
                single => sort_maps(&inner, single),
            }
        }
    }
}

fn map_value(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    let entry = field.kind().as_message()?.map_entry_value_field();
    entry.kind().as_message().cloned()
}

fn sort_field(descriptor: Option<&MessageDescriptor>, json: &mut Value) {
    if let Some(descriptor) = descriptor {
        sort_maps(descriptor, json);
    }
}
