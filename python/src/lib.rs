//! The native module `feast._feast`.
//!
//! A binding parses, enters Rust through [`runtime::wait`], makes one call, and converts. Across the border travel
//! Arrow streams, definitions as protobuf bytes, scalars, JSON texts and exceptions, nothing else. The user's API is
//! the Python code around it.

mod adapters;
mod command_line;
mod errors;
mod frames;
mod near_runtime;
mod online_features;
mod own_online_store;
mod retrieval_job;
mod runtime;
mod store;
mod transform;

use pyo3::prelude::*;

#[pymodule]
fn _feast(module: &Bound<'_, PyModule>) -> PyResult<()> {
    runtime::watch_process(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<store::Store>()?;
    module.add_class::<retrieval_job::RetrievalJob>()?;
    module.add_class::<online_features::OnlineFeatures>()?;
    module.add_class::<frames::ArrowStream>()?;
    module.add_class::<transform::Transformations>()?;
    module.add_function(wrap_pyfunction!(command_line::cli_main, module)?)
}
