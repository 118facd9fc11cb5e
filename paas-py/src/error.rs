//! The one way from the core's errors to Python's exceptions.

use paas_core::{Error, Failure};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use serde::Serialize;

/// The exception of an error: the subclass of `paas.PaasError` for its kind, with everything the error says.
pub(crate) fn raise(error: &Error) -> PyErr {
    Python::attach(|py| exception(py, error).map_or_else(|error| error, PyErr::from_value))
}

/// The same as an object, for what failed earlier.
pub(crate) fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    static FROM_PARTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let failure = Failure::from(error);
    let parts = PyDict::new(py);
    parts.set_item("fault", word(&failure.fault))?;
    parts.set_item("operation", &failure.operation)?;
    parts.set_item("code", &failure.code)?;
    parts.set_item("hint", &failure.hint)?;
    parts.set_item("evidence", PyTuple::new(py, &failure.evidence)?)?;
    parts.set_item("retryable", failure.retryable)?;
    parts.set_item("detail", format!("{error:?}"))?;
    let from_parts = FROM_PARTS.import(py, "paas.errors", "from_parts")?;
    from_parts.call((failure.kind.as_str(), &failure.message), Some(&parts))
}

/// The text of one of the core's words, such as a state or a step.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        // Only enums without fields are words.
        _ => String::new(),
    }
}
