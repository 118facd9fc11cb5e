//! Deployments: watching, waiting, cancelling.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use paas_core::{Apps, DeploymentHandle, DeploymentId, Error, LogQuery, Result, WaitFor};
use pyo3::prelude::*;

use crate::arguments::duration;
use crate::call::{awaitable, wait};
use crate::error::{exception, word};
use crate::event::Event;
use crate::logs::{self, LogLine};
use crate::stream::Stream;

/// An operation on an app: a deployment, restart, rollback, stop, start or deletion.
///
/// Its attributes say how it was when it was last read: `refresh()` and every call that waits read it again.
/// Forgetting it, or stopping to wait, changes nothing: only `cancel()` and `abandon()` do.
#[derive(Clone)]
#[pyclass(frozen, module = "paas")]
pub(crate) struct Deployment {
    apps: Apps,
    handle: DeploymentHandle,
    /// Shared by every Python object of one handle.
    seen: Arc<Mutex<paas_core::Deployment>>,
}

impl Deployment {
    /// Reads what was just accepted.
    pub(crate) async fn read(apps: Apps, handle: DeploymentHandle) -> Result<Self> {
        let seen = Arc::new(Mutex::new(handle.get().await?));
        Ok(Self { apps, handle, seen })
    }

    /// What was read already.
    pub(crate) fn of(apps: Apps, seen: paas_core::Deployment) -> Self {
        let handle = apps.handle_to(&seen);
        Self { apps, handle, seen: Arc::new(Mutex::new(seen)) }
    }

    pub(crate) fn is(&self, id: &DeploymentId) -> bool {
        self.handle.id() == id
    }

    fn seen(&self) -> MutexGuard<'_, paas_core::Deployment> {
        // A panic while it was held leaves the record whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what a call of the handle answered.
    async fn note(self, call: impl Future<Output = Result<paas_core::Deployment>>) -> Result<Self> {
        let deployment = call.await?;
        *self.seen() = deployment;
        Ok(self)
    }

    async fn refreshed(self) -> Result<Self> {
        let handle = self.handle.clone();
        self.note(handle.get()).await
    }

    async fn cancelled(self) -> Result<Self> {
        let handle = self.handle.clone();
        self.note(handle.cancel()).await
    }

    async fn abandoned(self) -> Result<Self> {
        let handle = self.handle.clone();
        self.note(handle.abandon()).await
    }

    async fn succeeded(self) -> Result<Self> {
        let handle = self.handle.clone();
        match handle.outcome().await {
            Ok(deployment) => self.note(async { Ok(deployment) }).await,
            Err(error) => {
                // It is settled: its record says how. If that can't be read now, the error says enough.
                let _ = self.refreshed().await;
                Err(error)
            }
        }
    }

    async fn waited(self, timeout: Option<f64>) -> Result<bool> {
        let timeout = duration("deployments.wait", timeout)?;
        let waited = self.handle.wait(WaitFor::Settled, timeout).await?;
        *self.seen() = waited.deployment;
        Ok(waited.reached)
    }
}

#[pymethods]
impl Deployment {
    /// Its identifier.
    #[getter]
    fn id(&self) -> &str {
        self.handle.id().as_str()
    }

    /// The id of its app.
    #[getter]
    fn app(&self) -> String {
        self.seen().app.to_string()
    }

    /// What it does: `"deploy"`, `"restart"`, `"config"`, `"rollback"`, `"stop"`, `"start"` or `"delete"`.
    #[getter]
    fn kind(&self) -> String {
        word(&self.seen().kind)
    }

    /// Where it is, in one word.
    #[getter]
    fn state(&self) -> String {
        word(&self.seen().state)
    }

    /// True if it will not change any more.
    #[getter]
    fn settled(&self) -> bool {
        self.seen().state.is_settled()
    }

    /// The step it is at, or ended at.
    #[getter]
    fn step(&self) -> Option<String> {
        self.seen().step.as_ref().map(word)
    }

    /// The commit, once it is known.
    #[getter]
    fn commit(&self) -> Option<String> {
        self.seen().commit.as_ref().map(ToString::to_string)
    }

    /// True if the image had been built before, once that is known.
    #[getter]
    fn cached(&self) -> Option<bool> {
        self.seen().cached
    }

    /// The number of the release that it made, once it is live.
    #[getter]
    fn release(&self) -> Option<u64> {
        self.seen().release.map(|release| release.0)
    }

    /// Why it failed: the exception that `outcome()` raises.
    #[getter]
    fn failure<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let failure = self.seen().failure.clone();
        failure.map(|failure| exception(py, &Error::from(&failure))).transpose()
    }

    /// When it was accepted.
    #[getter]
    fn created_at(&self) -> Timestamp {
        self.seen().created_at
    }

    /// When it was settled.
    #[getter]
    fn settled_at(&self) -> Option<Timestamp> {
        self.seen().settled_at
    }

    /// Reads it again, and answers itself.
    fn refresh(&self, py: Python<'_>) -> PyResult<Self> {
        wait(py, self.clone().refreshed())
    }

    /// As `refresh`.
    fn refresh_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.clone().refreshed())
    }

    /// Waits until it is settled, at most `timeout` seconds, and answers whether it is. That the time is up is an
    /// answer, not an error.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        wait(py, self.clone().waited(timeout))
    }

    /// As `wait`.
    #[pyo3(signature = (timeout=None))]
    fn wait_async<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.clone().waited(timeout))
    }

    /// Waits until it did what was asked, however long that takes, and answers itself. Raises its failure, with
    /// fault, hint and the last log lines; `Cancelled`; `Conflict` with the code `superseded`.
    fn outcome(&self, py: Python<'_>) -> PyResult<Self> {
        wait(py, self.clone().succeeded())
    }

    /// As `outcome`.
    fn outcome_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.clone().succeeded())
    }

    /// Asks it to stop, and answers itself. It is `"cancelled"` only once nothing of it goes on; what served before
    /// still serves. Raises `Conflict` when it is too late.
    fn cancel(&self, py: Python<'_>) -> PyResult<Self> {
        wait(py, self.clone().cancelled())
    }

    /// As `cancel`.
    fn cancel_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.clone().cancelled())
    }

    /// Gives it up when it is `"stuck"`, and answers itself: its journal holds what this version can't read. Running the
    /// version that wrote it, or a newer one, is better. It is `"failed"` once its app's route leads to what is live.
    /// Raises `Conflict` unless it is stuck.
    fn abandon(&self, py: Python<'_>) -> PyResult<Self> {
        wait(py, self.clone().abandoned())
    }

    /// As `abandon`.
    fn abandon_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.clone().abandoned())
    }

    /// Its events behind the version `after`, and those to come until it is over.
    #[pyo3(signature = (after=0))]
    fn events(&self, after: u64) -> Stream {
        Stream::new(self.handle.events(after).map_ok(Event).boxed())
    }

    /// The lines of its log that are stored now, or those behind the line `after`.
    #[pyo3(signature = (after=None))]
    fn logs(&self, after: Option<&LogLine>) -> Stream {
        let query = logs::query(self.seen().app.clone(), after);
        logs::read(self.apps.clone(), LogQuery { deployment: Some(self.handle.id().clone()), ..query })
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.handle.id() == other.handle.id()
    }

    fn __hash__(&self) -> u64 {
        hash(self.handle.id())
    }

    fn __repr__(&self) -> String {
        let seen = self.seen();
        format!("<paas.Deployment {} {} {}>", seen.id, word(&seen.kind), word(&seen.state))
    }
}

/// A hash for Python of what makes two objects equal.
pub(crate) fn hash(value: &impl std::hash::Hash) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
