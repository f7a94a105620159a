//! From the product's error to the exception that users of Feast catch.

use feast_core::Error;
use pyo3::prelude::*;

/// The exception for an error: the class that Feast raises, made by `feast.errors`.
pub(crate) fn to_python(error: &Error) -> PyErr {
    Python::attach(|py| {
        let class = feast_server::feast_class(error.code());
        let made = py
            .import("feast.errors")
            .and_then(|errors| errors.call_method1("_from_native", (class, error.to_string(), error.hint())));
        match made {
            Ok(exception) => PyErr::from_value(exception),
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
