//! Events, as `paas.Event`.

use paas_core::{Recorded, error};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::error::raise;

/// An event on its way to Python.
pub(crate) struct Event(pub(crate) Recorded);

impl<'py> IntoPyObject<'py> for Event {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let Self(recorded) = self;
        let text = serde_json::to_string(&recorded.event)
            .map_err(|cause| raise(&error::map("events.encode")(cause)))?;
        let data = LOADS.import(py, "json", "loads")?.call1((text,))?;
        let place = (recorded.stream.to_string(), recorded.version, recorded.position.0, recorded.at);
        CLASS.import(py, "paas.events", "Event")?.call1((place.0, place.1, place.2, place.3, data))
    }
}
