//! What is fuzzed: each program here takes one input and fails when it is not met as it should be. `make fuzz` calls them with
//! what libFuzzer makes up, `crates/feast-server/tests/server/fuzz_programs.rs` with what they start from.

use std::future::Future;
use std::sync::LazyLock;

use feast_core::RegistryObject;
use tokio::runtime::Runtime;

pub mod configuration;
pub mod connection;
pub mod http_body;
pub mod online_cell;
pub mod registry_file;
pub mod registry_message;
pub mod seeds;

/// The feature store that tests of the server use.
#[path = "../../crates/feast-server/tests/server/fixture.rs"]
#[allow(missing_docs, dead_code, clippy::unwrap_used, reason = "shared with tests")]
pub mod fixture;

/// The one runtime of the process.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("threads can be started"));

/// Waits for an answer.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.block_on(work)
}

/// What `feast … describe` does with an object.
pub fn describe(object: &RegistryObject) {
    let bytes = feast_proto::encode_object(object, "fuzz");
    feast_proto::to_json(object.kind(), &bytes).expect("what we write has a JSON form");
}
