//! Releases.

use jiff::Timestamp;
use pyo3::prelude::*;

/// The immutable result of a deployment that went live.
#[pyclass(frozen, module = "paas")]
pub(crate) struct Release(pub(crate) paas_core::Release);

#[pymethods]
impl Release {
    /// Its number within the app, from 1.
    #[getter]
    fn number(&self) -> u64 {
        self.0.number.0
    }

    /// The id of the deployment that made it.
    #[getter]
    fn deployment(&self) -> &str {
        self.0.deployment.as_str()
    }

    /// The commit it was built from.
    #[getter]
    fn commit(&self) -> &str {
        self.0.commit.as_str()
    }

    /// The digest of its image.
    #[getter]
    fn image(&self) -> &str {
        &self.0.image.digest
    }

    /// The port its program listens on.
    #[getter]
    fn port(&self) -> u16 {
        self.0.port.number()
    }

    /// The names of its environment variables; the values are secrets.
    #[getter]
    fn env_names(&self) -> Vec<&str> {
        self.0.config.env_names.iter().map(paas_core::EnvName::as_str).collect()
    }

    /// When it went live.
    #[getter]
    fn created_at(&self) -> Timestamp {
        self.0.created_at
    }

    fn __repr__(&self) -> String {
        format!("<paas.Release {} {}>", self.0.number, self.0.commit.short())
    }
}
