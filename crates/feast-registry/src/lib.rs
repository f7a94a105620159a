//! Where definitions rest: registry stores and the cached handle through which everybody reads them.
//!
//! A [`RegistryHandle`] gives immutable snapshots at the price of a pointer load and keeps them fresh in the
//! background. A store ([`FileRegistry`], [`BucketRegistry`], [`SqlRegistry`], [`RemoteRegistry`]) reads and commits; it
//! knows nothing of caching. This crate knows neither feature data nor what a definition means.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> feast_core::Result<()> {
//! let settings = feast_registry::RegistrySettings {
//!     path: "data/registry.db",
//!     options: &serde_json::Map::new(),
//!     repo_path: std::path::Path::new("feature_repo"),
//!     author: "",
//! };
//! let store = feast_registry::connect("file", &settings)?;
//! let registry = feast_registry::RegistryHandle::new(store, None);
//! assert!(registry.snapshot().await?.projects.is_empty());
//! # Ok(()) }
//! ```

mod handle;
mod parallel;
mod stores;

pub use handle::{COMMIT_ATTEMPTS, RegistryHandle, RegistryHealth, pause};
pub use stores::bucket::BucketRegistry;
pub use stores::file::FileRegistry;
pub use stores::keys::check_options;
pub use stores::remote::RemoteRegistry;
pub use stores::sql::SqlRegistry;
pub use stores::{ConnectRegistry, KNOWN_REGISTRIES, KnownRegistry, RegistrySettings, connect};
