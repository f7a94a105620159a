//! The feature store as a library. One program: each would be linked with all of the product.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "tests")]

mod embedded;
mod killed;
mod materialize;
mod postgres_offline;
