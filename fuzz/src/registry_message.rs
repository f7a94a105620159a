//! A serialized object of the registry: a row of Feast's SQL tables, the object of an `Apply…` call, a commit of our own
//! clients. The first byte says which.

use feast_core::{ErrorCode, ObjectKind};
use feast_proto::registry_store::{Commit, commit_from_message};
use feast_proto::{
    contents_from_registry, decode_object, decode_registry, encode_object, managed_tables, message_to_json,
};
use prost::Message;

use super::describe;

/// One input.
pub fn fuzz(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match ObjectKind::ALL.get(usize::from(*which)) {
        Some(kind) => object(*kind, bytes),
        None => others(bytes),
    }
}

/// Read, described, and written so that reading gives the same again.
fn object(kind: ObjectKind, bytes: &[u8]) {
    let object = match decode_object(kind, bytes) {
        Ok(object) => object,
        Err(error) => return assert_eq!(error.code(), ErrorCode::CorruptRegistry, "{error}"),
    };
    assert_eq!(object.kind(), kind);
    describe(&object);
    let project = "fuzz";
    let once = encode_object(&object, project);
    let again = decode_object(kind, &once).expect("what we write, we read");
    // A view with more than one way to say the same is said in one way from then on. Maps have no order.
    let twice = decode_object(kind, &encode_object(&again, project)).expect("what we write, we read");
    assert_eq!(format!("{again:?}"), format!("{twice:?}"));
}

/// What comes in no row: a commit, the definitions of a repository, records of tables.
fn others(bytes: &[u8]) {
    if let Ok(commit) = Commit::decode(bytes) {
        let _ = commit_from_message(commit);
    }
    if let Ok(registry) = decode_registry(bytes) {
        let _ = contents_from_registry(registry, "fuzz");
    }
    let _ = managed_tables(bytes);
    let _ = message_to_json("feast.registry.ListAllFeatureViewsRequest", bytes);
}
