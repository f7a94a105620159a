//! The fast path: rows into online stores, and features out of them.
//!
//! This crate knows Arrow columns, entity keys and stores. It knows no registry, no SQL engine, no HTTP and no Python:
//! a request arrives as a [`RetrievalPlan`](feast_core::RetrievalPlan) with [`EntityRows`] and leaves as
//! [`OnlineFeatures`]; a batch arrives as a record batch and leaves as an [`OwnedWrite`].
//!
//! ```
//! use feast_online::{EntityColumn, EntityRows, EntityValue};
//!
//! let drivers = EntityColumn::Values(vec![EntityValue::Int(1001), EntityValue::String("1002".to_owned())]);
//! let rows = EntityRows::new(vec![("driver_id".to_owned(), drivers)])?;
//! assert_eq!(rows.len(), 2);
//! # Ok::<(), feast_core::Error>(())
//! ```
//!
//! Reading order: [`EntityRows`] (what the caller gives), [`retrieve`], [`on_demand_input`] (what is computed from the
//! answer), [`SubstraitPlan`], [`Expressions`], [`online_rows`] and
//! [`PlainRows`] (what is written), the stores.

mod aggregates;
mod coerce;
mod entity_rows;
mod expressions;
mod on_demand;
mod plain_rows;
mod retrieve;
mod substrait;
mod write;

pub mod stores;

pub use aggregates::check_aggregations;
pub use coerce::coerce_column;
pub use entity_rows::{EntityColumn, EntityRows, EntityValue};
pub use expressions::{Expressions, FunctionMode};
pub use on_demand::{computed_columns, on_demand_input};
pub use plain_rows::{PlainColumn, PlainRows};
pub use retrieve::{
    EntityColumnValues, Fallback, FieldStatus, OnlineColumn, OnlineFeatures, RetrieveOptions, StoredFeatures,
    StoredView, Timings, TtlPolicy, ViewFailure, retrieve, retrieve_stored,
};
pub use stores::{after_fork, before_fork, connect, managed_table};
pub use substrait::SubstraitPlan;
pub use write::{OwnedWrite, entity_keys, online_rows};
