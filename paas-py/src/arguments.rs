//! What callers hand in.

use std::time::Duration;

use paas_core::memory::MemoryFiles;
use paas_core::{AppRef, Env, Error, Port, Result, Secret};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyEllipsis, PyMapping, PyString};

use crate::app::App;

/// An `App`, or the name or id of one.
pub(crate) struct AppArgument(pub(crate) AppRef);

impl<'py> FromPyObject<'_, 'py> for AppArgument {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(app) = object.cast::<App>() {
            return Ok(Self(app.get().reference()));
        }
        match object.cast::<PyString>() {
            Ok(text) => Ok(Self(text.to_str()?.into())),
            Err(_) => Err(PyTypeError::new_err("an App is wanted, or the name or id of one")),
        }
    }
}

/// A text that is a secret from here on.
#[derive(Clone)]
pub(crate) struct SecretText(pub(crate) Secret);

impl<'py> FromPyObject<'_, 'py> for SecretText {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.cast::<PyString>() {
            Ok(text) => Ok(Self(text.to_str()?.into())),
            // The value is not repeated.
            Err(_) => Err(PyTypeError::new_err("a text is wanted")),
        }
    }
}

/// Any mapping from texts.
pub(crate) struct Pairs<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'py, T: for<'any> FromPyObject<'any, 'py, Error = PyErr>> FromPyObject<'_, 'py> for Pairs<T> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let pair = |item: Bound<'py, PyAny>| {
            let (key, value): (String, Bound<'py, PyAny>) = item.extract()?;
            Ok((key, value.extract()?))
        };
        object.cast::<PyMapping>()?.items()?.iter().map(pair).collect::<PyResult<_>>().map(Self)
    }
}

impl Pairs<SecretText> {
    pub(crate) fn into_env(self) -> Result<Env> {
        let mut env = Env::default();
        for (name, value) in self.0 {
            env.set(name.parse()?, value.0)?;
        }
        Ok(env)
    }
}

/// The content of a file: text or bytes.
pub(crate) struct Content(Vec<u8>);

impl<'py> FromPyObject<'_, 'py> for Content {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self(bytes.as_bytes().to_vec()));
        }
        match object.cast::<PyString>() {
            Ok(text) => Ok(Self(text.to_str()?.as_bytes().to_vec())),
            Err(_) => Err(PyTypeError::new_err("a file's content is str or bytes")),
        }
    }
}

impl Pairs<Content> {
    pub(crate) fn into_files(self) -> MemoryFiles {
        self.0.into_iter().map(|(path, content)| (path, content.0)).collect()
    }
}

/// A change of a value: `...` keeps it, `None` goes back to the default.
pub(crate) enum Change<T> {
    Keep,
    Reset,
    Set(T),
}

impl<T> Change<T> {
    /// As the core's changes have it.
    pub(crate) fn parsed<U>(self, parse: impl FnOnce(T) -> Result<U>) -> Result<Option<Option<U>>> {
        Ok(match self {
            Self::Keep => None,
            Self::Reset => Some(None),
            Self::Set(value) => Some(Some(parse(value)?)),
        })
    }
}

impl<'a, 'py, T: FromPyObject<'a, 'py, Error: Into<PyErr>>> FromPyObject<'a, 'py> for Change<T> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        if object.is(PyEllipsis::get(object.py())) {
            Ok(Self::Keep)
        } else if object.is_none() {
            Ok(Self::Reset)
        } else {
            object.extract().map(Self::Set).map_err(Into::into)
        }
    }
}

/// Numbers outside the range are the core's to refuse.
pub(crate) fn port(number: i64) -> Result<Port> {
    u32::try_from(number).unwrap_or(u32::MAX).try_into()
}

/// A time in seconds; without one, no end.
pub(crate) fn duration(operation: &'static str, seconds: Option<f64>) -> Result<Duration> {
    match seconds {
        None => Ok(Duration::MAX),
        Some(f64::INFINITY) => Ok(Duration::MAX),
        Some(seconds) => Duration::try_from_secs_f64(seconds)
            .map_err(|_| Error::invalid(operation, "a time is a number of seconds that is not negative")),
    }
}
