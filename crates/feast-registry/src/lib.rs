//! Where definitions rest: registry stores and the cached handle through which everybody reads them.
//!
//! A [`RegistryHandle`] gives immutable snapshots at the price of a pointer load and keeps them fresh in the
//! background. A store ([`FileRegistry`]) reads and commits; it knows nothing of caching. This crate knows neither
//! feature data nor what a definition means.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> feast_core::Result<()> {
//! let store = feast_registry::connect("file", "data/registry.db", std::path::Path::new("feature_repo"))?;
//! let registry = feast_registry::RegistryHandle::new(store, None);
//! assert!(registry.snapshot().await?.projects.is_empty());
//! # Ok(()) }
//! ```

mod handle;
mod stores;

pub use handle::{COMMIT_ATTEMPTS, RegistryHandle, RegistryHealth, pause};
pub use stores::file::FileRegistry;
pub use stores::{ConnectRegistry, KNOWN_REGISTRIES, KnownRegistry, connect};
