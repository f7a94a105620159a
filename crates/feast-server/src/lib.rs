//! The feature store over HTTP, with the routes, bodies and errors of Feast's feature server.
//!
//! This crate knows protocols: requests become the verbs of [`feast::FeatureStore`], Arrow columns become JSON. It
//! knows no store, no registry format and no configuration file, and it reads no environment variable.
//!
//! ```no_run
//! # async fn example(store: feast::FeatureStore) -> feast_core::Result<()> {
//! let options = feast_server::ServeOptions::default();
//! let shutdown = std::future::pending::<()>();
//! feast_server::serve(store, options, |address| drop(address), shutdown).await
//! # }
//! ```
//!
//! Reading order: [`ServeOptions`], [`serve`], [`router`] and one file per route below it, [`PythonWorkers`],
//! [`feast_class`].

mod options;
mod python_workers;
mod registry;
mod serve;

mod connections;
mod constant;
mod error;
mod histogram;
mod http;
mod json;
mod metrics;
mod offline_batches;
mod online_response;
mod state;
mod threads;
mod timestamp;
mod tls;
mod to_its_end;
mod traces;
mod transformation_client;
mod transformation_service;
mod worker_process;
mod worker_protocol;

pub use constant::serve_constant;
pub use error::{feast_class, feast_module, http_status};
pub use http::router;
pub use online_response::online_response;
pub use options::{METRICS_PORT, ServeOptions};
pub use python_workers::{PythonWorkers, WorkerOptions};
pub use registry::{RegistryAddresses, RegistryServeOptions, serve_registry};
pub use serve::serve;
pub use traces::TraceOptions;
pub use transformation_client::TransformationClient;
pub use transformation_service::serve_transformations;
pub use worker_protocol::{Wanted, WorkerAnswer, WorkerRequest};
