//! From the product's error to the exception that users of Feast catch.

use feast_core::Error;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

use crate::transform::Cause;

/// The exception for an error: the class that Feast raises, made by `feast.errors`.
pub(crate) fn to_python(error: &Error) -> PyErr {
    Python::attach(|py| {
        // What a user's function raised stands behind the error; Ctrl-C while it ran is no error of its.
        let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Cause>());
        let cause = cause.map(|cause| cause.exception.clone_ref(py));
        if let Some(interrupt) = cause.as_ref().filter(|cause| cause.is_instance_of::<PyKeyboardInterrupt>(py)) {
            return interrupt.clone_ref(py);
        }
        let class = feast_server::feast_class(error.code());
        let made = py
            .import("feast.errors")
            .and_then(|errors| errors.call_method1("_from_native", (class, error.to_string(), error.hint())));
        match made {
            Ok(exception) => {
                let exception = PyErr::from_value(exception);
                exception.set_cause(py, cause);
                exception
            }
            Err(broken) => broken,
        }
    })
}

/// Converts the error of a result.
pub(crate) trait IntoPyResult<T> {
    /// The value, or the exception.
    fn py(self) -> PyResult<T>;
}

impl<T> IntoPyResult<T> for feast_core::Result<T> {
    fn py(self) -> PyResult<T> {
        self.map_err(|error| to_python(&error))
    }
}
