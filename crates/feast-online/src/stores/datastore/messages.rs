//! The part of Datastore's messages (`google.datastore.v1`) that the store uses.

use std::collections::HashMap;

use prost::{Message, Oneof};
use prost_types::Timestamp;

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartitionId {
    #[prost(string, tag = "2")]
    pub(super) project_id: String,
    #[prost(string, tag = "4")]
    pub(super) namespace_id: String,
    #[prost(string, tag = "3")]
    pub(super) database_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PathElement {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(string, tag = "3")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Key {
    #[prost(message, optional, tag = "1")]
    pub(super) partition_id: Option<PartitionId>,
    #[prost(message, repeated, tag = "2")]
    pub(super) path: Vec<PathElement>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum ValueType {
    #[prost(int32, tag = "11")]
    Null(i32),
    #[prost(message, tag = "5")]
    Key(Key),
    #[prost(message, tag = "6")]
    Entity(Entity),
    #[prost(message, tag = "10")]
    Timestamp(Timestamp),
    #[prost(bytes = "vec", tag = "18")]
    Blob(Vec<u8>),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Value {
    #[prost(oneof = "ValueType", tags = "5, 6, 10, 11, 18")]
    pub(super) value_type: Option<ValueType>,
    #[prost(bool, tag = "19")]
    pub(super) exclude_from_indexes: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entity {
    #[prost(message, optional, tag = "1")]
    pub(super) key: Option<Key>,
    #[prost(map = "string, message", tag = "3")]
    pub(super) properties: HashMap<String, Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadOptions {
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(super) transaction: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LookupRequest {
    #[prost(string, tag = "8")]
    pub(super) project_id: String,
    #[prost(string, tag = "9")]
    pub(super) database_id: String,
    #[prost(message, optional, tag = "1")]
    pub(super) read_options: Option<ReadOptions>,
    #[prost(message, repeated, tag = "3")]
    pub(super) keys: Vec<Key>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EntityResult {
    #[prost(message, optional, tag = "1")]
    pub(super) entity: Option<Entity>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LookupResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) found: Vec<EntityResult>,
    #[prost(message, repeated, tag = "3")]
    pub(super) deferred: Vec<Key>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Named1 {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Named2 {
    #[prost(string, tag = "2")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Projection {
    #[prost(message, optional, tag = "1")]
    pub(super) property: Option<Named2>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PropertyFilter {
    #[prost(message, optional, tag = "1")]
    pub(super) property: Option<Named2>,
    /// 11 is `HAS_ANCESTOR`.
    #[prost(int32, tag = "2")]
    pub(super) op: i32,
    #[prost(message, optional, tag = "3")]
    pub(super) value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Filter {
    #[prost(message, optional, tag = "2")]
    pub(super) property_filter: Option<PropertyFilter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Query {
    #[prost(message, repeated, tag = "2")]
    pub(super) projection: Vec<Projection>,
    #[prost(message, repeated, tag = "3")]
    pub(super) kind: Vec<Named1>,
    #[prost(message, optional, tag = "4")]
    pub(super) filter: Option<Filter>,
    #[prost(bytes = "vec", tag = "7")]
    pub(super) start_cursor: Vec<u8>,
    #[prost(message, optional, tag = "12")]
    pub(super) limit: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RunQueryRequest {
    #[prost(string, tag = "8")]
    pub(super) project_id: String,
    #[prost(string, tag = "9")]
    pub(super) database_id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) partition_id: Option<PartitionId>,
    #[prost(message, optional, tag = "3")]
    pub(super) query: Option<Query>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct QueryResultBatch {
    #[prost(message, repeated, tag = "2")]
    pub(super) entity_results: Vec<EntityResult>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) end_cursor: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RunQueryResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) batch: Option<QueryResultBatch>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BeginTransactionRequest {
    #[prost(string, tag = "8")]
    pub(super) project_id: String,
    #[prost(string, tag = "9")]
    pub(super) database_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BeginTransactionResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) transaction: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RollbackRequest {
    #[prost(string, tag = "8")]
    pub(super) project_id: String,
    #[prost(string, tag = "9")]
    pub(super) database_id: String,
    #[prost(bytes = "vec", tag = "1")]
    pub(super) transaction: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RollbackResponse {}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Operation {
    #[prost(message, tag = "6")]
    Upsert(Entity),
    #[prost(message, tag = "7")]
    Delete(Key),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Mutation {
    #[prost(oneof = "Operation", tags = "6, 7")]
    pub(super) operation: Option<Operation>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CommitRequest {
    #[prost(string, tag = "8")]
    pub(super) project_id: String,
    #[prost(string, tag = "9")]
    pub(super) database_id: String,
    /// 1 is with a transaction, 2 without.
    #[prost(int32, tag = "5")]
    pub(super) mode: i32,
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(super) transaction: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "6")]
    pub(super) mutations: Vec<Mutation>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CommitResponse {}

/// `feast.types.EntityKey`, whose values are serialized already.
#[derive(Clone, PartialEq, Message)]
pub(super) struct EntityKey {
    #[prost(string, repeated, tag = "1")]
    pub(super) join_keys: Vec<String>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) entity_values: Vec<Vec<u8>>,
}
