//! The text of a `feature_store.yaml`: read, its registry and its online store named, everything refused with a hint.

use std::path::Path;

use feast::{FeatureStore, RepoConfig};

/// One input.
pub fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let environment = |name: &str| (name.len() == 1).then(|| "1".to_owned());
    let config = match RepoConfig::parse_with(text, Path::new("/nowhere"), &environment) {
        Ok(config) => config,
        Err(error) => return assert!(error.hint().is_some(), "no hint: {error}"),
    };
    let _ = format!("{config:?} {}", config.effective);
    // Opening connects nothing yet: it only reads the options of stores.
    if let Err(error) = FeatureStore::open(config) {
        assert!(error.hint().is_some(), "no hint: {error}");
    }
}
