//! Apps, as they were when they were read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use paas_core::{AppRef, AppView, Apps, DeploymentHandle, Error, Result};
use pyo3::prelude::*;

use crate::call::{awaitable, wait};
use crate::deployment::{Deployment, hash};
use crate::error::{raise, word};
use crate::logs::{self, LogLine};
use crate::stream::Stream;

/// An app. Its attributes say how it was when it was last read: `refresh()` reads it again.
#[derive(Clone)]
#[pyclass(frozen, module = "paas")]
pub(crate) struct App {
    apps: Apps,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    view: AppView,
    /// The newest operation that this object knows of.
    deployment: Option<Deployment>,
}

impl App {
    /// What a reading answered; `deployment` is the operation that was just accepted for it.
    pub(crate) async fn of(apps: Apps, view: AppView, deployment: Option<DeploymentHandle>) -> Result<Self> {
        let deployment = match deployment {
            Some(handle) => Some(Deployment::read(apps.clone(), handle).await?),
            None => active(&apps, &view, None),
        };
        Ok(Self { apps, seen: Arc::new(Mutex::new(Seen { view, deployment })) })
    }

    /// Which app it is, for calls.
    pub(crate) fn reference(&self) -> AppRef {
        AppRef::from(&self.seen().view.app)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // A panic while it was held leaves the record whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn refreshed(self) -> Result<Self> {
        let (reference, known) = (self.reference(), self.seen().deployment.clone());
        let view = self.apps.get(reference).await?;
        let deployment = active(&self.apps, &view, known);
        *self.seen() = Seen { view, deployment };
        Ok(self)
    }
}

/// The operation that is under way, or else the one that was known.
fn active(apps: &Apps, view: &AppView, known: Option<Deployment>) -> Option<Deployment> {
    match &view.active {
        Some(active) if !known.as_ref().is_some_and(|known| known.is(&active.id)) => {
            Some(Deployment::of(apps.clone(), active.clone()))
        }
        _ => known,
    }
}

#[pymethods]
impl App {
    /// Its identifier, which never changes.
    #[getter]
    fn id(&self) -> String {
        self.seen().view.app.id.to_string()
    }

    /// Its name, and its host's first label.
    #[getter]
    fn name(&self) -> String {
        self.seen().view.app.name.to_string()
    }

    /// Its state, in one word.
    #[getter]
    fn state(&self) -> String {
        word(&self.seen().view.state)
    }

    /// Where it answers; `None` while it does not.
    #[getter]
    fn url(&self) -> Option<String> {
        self.seen().view.status.url.clone()
    }

    /// Its repository.
    #[getter]
    fn repository(&self) -> String {
        self.seen().view.app.source.repository.to_string()
    }

    /// The branch or tag it follows; `None` is the repository's default branch.
    #[getter]
    fn branch(&self) -> Option<String> {
        self.seen().view.app.source.branch.as_ref().map(ToString::to_string)
    }

    /// The port its program listens on, where it was given.
    #[getter]
    fn port(&self) -> Option<u16> {
        self.seen().view.app.config.port.map(paas_core::Port::number)
    }

    /// The names of its environment variables; the values are secrets.
    #[getter]
    fn env_names(&self) -> Vec<String> {
        self.seen().view.app.config.env_names.iter().map(ToString::to_string).collect()
    }

    /// The number of the release that answers.
    #[getter]
    fn release(&self) -> Option<u64> {
        self.seen().view.status.live.map(|release| release.0)
    }

    /// When it was created.
    #[getter]
    fn created_at(&self) -> Timestamp {
        self.seen().view.app.created_at
    }

    /// When somebody last changed it.
    #[getter]
    fn updated_at(&self) -> Timestamp {
        self.seen().view.app.updated_at
    }

    /// The newest operation on it that this object has seen: of a new app, its first deployment. Raises `NotFound`
    /// when it has seen none.
    #[getter]
    fn deployment(&self) -> PyResult<Deployment> {
        self.seen().deployment.clone().ok_or_else(|| {
            raise(
                &Error::not_found("app.deployment", "no operation on the app is under way")
                    .hint("deploy it, or look through `apps.deployments(app)`"),
            )
        })
    }

    /// Reads it again, and answers itself.
    fn refresh(&self, py: Python<'_>) -> PyResult<Self> {
        wait(py, self.clone().refreshed())
    }

    /// As `refresh`.
    fn refresh_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.clone().refreshed())
    }

    /// The lines of its log that are stored now, or those behind the line `after`: of builds, of its program and of
    /// the platform.
    #[pyo3(signature = (after=None))]
    fn logs(&self, after: Option<&LogLine>) -> Stream {
        logs::read(self.apps.clone(), logs::query(self.seen().view.app.id.clone(), after))
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.reference() == other.reference()
    }

    fn __hash__(&self) -> u64 {
        hash(&self.seen().view.app.id)
    }

    fn __repr__(&self) -> String {
        let seen = self.seen();
        format!("<paas.App {} {}>", seen.view.app.name, word(&seen.view.state))
    }
}
