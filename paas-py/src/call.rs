//! The two ways to run a call of the platform: blocking, and as an awaitable.

use std::pin::pin;
use std::time::Duration;

use paas_core::Result;
use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::{future_into_py, get_runtime};

use crate::error::raise;

/// How often a blocking call looks for signals: Ctrl-C is answered within this time.
const SIGNAL_POLL: Duration = Duration::from_millis(100);

/// Runs `work` to its end with the interpreter released, unless a signal handler raises: then `work` is dropped,
/// which cancels nothing that was accepted.
pub(crate) fn wait<T: Send>(py: Python<'_>, work: impl Future<Output = Result<T>> + Send) -> PyResult<T> {
    let mut work = pin!(work);
    loop {
        let turn = py.detach(|| {
            get_runtime().block_on(async { tokio::time::timeout(SIGNAL_POLL, work.as_mut()).await })
        });
        match turn {
            Ok(result) => return result.map_err(|error| raise(&error)),
            Err(_) => py.check_signals()?,
        }
    }
}

/// Starts `work` and answers an `asyncio.Future` of it. Cancelling that drops `work`, which cancels nothing that was
/// accepted.
pub(crate) fn awaitable<'py, T>(
    py: Python<'py>,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>>
where
    T: for<'any> IntoPyObject<'any> + Send + 'static,
{
    future_into_py(py, async move { work.await.map_err(|error| raise(&error)) })
}
