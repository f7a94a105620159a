//! The options of the store.

use feast_core::{Error, Result};
use serde::Deserialize;

use super::super::options::{self, Secret};
use super::MOST_CHUNK_CELLS;

/// The `online_store` part of `feature_store.yaml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MysqlConfig {
    /// `mysql`.
    #[serde(rename = "type")]
    store_type: String,
    /// Name or address of the server; default 127.0.0.1.
    pub host: String,
    /// Default 3306.
    pub port: u16,
    /// Who connects; default `test`.
    pub user: String,
    pub(super) password: Secret,
    /// Name of the database; default `feast`.
    pub database: String,
    /// Feast's switch from one statement per value to `batch_size` values. Here writes always go in batches; the
    /// switch only decides whether `batch_size` counts.
    pub batch_write: bool,
    /// Values in one transaction, about, where `batch_write` is set.
    pub batch_size: Option<usize>,
}

const KEYS: &[&str] = &["type", "host", "port", "user", "password", "database", "batch_write", "batch_size"];

impl Default for MysqlConfig {
    fn default() -> Self {
        Self {
            store_type: "mysql".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: 3306,
            user: "test".to_owned(),
            password: Secret("test".to_owned()),
            database: "feast".to_owned(),
            batch_write: false,
            batch_size: None,
        }
    }
}

impl MysqlConfig {
    /// Reads the options; none are the defaults.
    ///
    /// # Errors
    /// `InvalidConfiguration` for unknown keys, listing the valid ones, and for values that are none.
    pub fn parse(given: &serde_json::Value) -> Result<Self> {
        let config: Self = options::parse("mysql", KEYS, &[], &["port", "batch_size"], given)?;
        if config.batch_write && config.batch_size.is_none_or(|size| size < 2) {
            return Err(Error::invalid_configuration("`online_store.batch_size` is less than 2, or not given")
                .with_hint("set it to some thousands, or leave out `batch_write`"));
        }
        Ok(config)
    }

    pub(super) fn cells_in_chunk(&self) -> usize {
        self.batch_size.filter(|_| self.batch_write).unwrap_or(MOST_CHUNK_CELLS)
    }
}
