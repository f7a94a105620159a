//! Texts that name a place or a feature: connection strings of Redis, URLs of databases, buckets and servers, references
//! to features. The first byte says which.

use std::path::Path;

use feast::parse_selection;
use feast_core::{FeatureReference, ProjectContents, RetrievalPlan};
use feast_registry::RegistrySettings;
use serde_json::{Map, Value, json};

/// One input.
pub fn fuzz(bytes: &[u8]) {
    let Some((which, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let options = Map::<String, Value>::new();
    let registry = |kind: &str| {
        let settings = RegistrySettings { path: text, options: &options, repo_path: Path::new("/nowhere"), author: "" };
        told(feast_registry::connect(kind, &settings).err());
    };
    let online = |name: &str, options: Value| told(feast_online::connect(name, &options, Path::new("/nowhere")).err());
    match which {
        0 => online("redis", json!({"connection_string": text})),
        1 => online("redis", json!({"connection_string": text, "redis_type": "redis_cluster"})),
        2 => online("redis", json!({"connection_string": text, "redis_type": "redis_sentinel"})),
        3 => registry("sql"),
        // Making the client of a bucket reads the certificates of the system, a third of a second.
        4 if !text.starts_with("s3://") && !text.starts_with("gs://") => registry("file"),
        4 => {}
        5 => registry("remote"),
        6 => online("dynamodb", json!({"region": "eu-north-1", "endpoint_url": text})),
        7 => online("remote", json!({"path": text})),
        8 => online("postgres", json!({"host": text, "database": text, "user": text, "password": text})),
        _ => {
            if let Ok(reference) = text.parse::<FeatureReference>() {
                let again = reference.to_string().parse::<FeatureReference>().expect("what we write, we read");
                assert_eq!(again, reference);
            }
            told(RetrievalPlan::resolve(&ProjectContents::default(), &parse_selection(text), true).err());
        }
    }
}

fn told(error: Option<feast_core::Error>) {
    if let Some(error) = error {
        assert!(error.hint().is_some(), "no hint: {error}");
    }
}
