//! What the calls on apps take and answer.

use super::{ChangeEffects, DeploymentHandle};
use crate::domain::{App, AppId, AppName, AppState, AppStatus, Deployment};
use crate::error::{Error, Kind, Result};
use crate::pipeline::shown_state;
use crate::records::Versioned;

/// Which app: by id or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppRef {
    /// By its id, which never changes.
    Id(AppId),
    /// By its name.
    Name(AppName),
    /// By a text that is neither: there is no such app.
    Unknown,
}

impl From<AppId> for AppRef {
    fn from(id: AppId) -> Self {
        Self::Id(id)
    }
}

impl From<&App> for AppRef {
    fn from(app: &App) -> Self {
        Self::Id(app.id.clone())
    }
}

impl From<AppName> for AppRef {
    fn from(name: AppName) -> Self {
        Self::Name(name)
    }
}

impl From<&str> for AppRef {
    fn from(text: &str) -> Self {
        match (text.parse(), text.parse()) {
            (Ok(id), _) => Self::Id(id),
            (_, Ok(name)) => Self::Name(name),
            _ => Self::Unknown,
        }
    }
}

/// An app with what is happening to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppView {
    /// What was asked for.
    pub app: App,
    /// The version of what was asked for; a status change leaves it alone.
    pub version: u64,
    /// What is.
    pub status: AppStatus,
    /// The state in one word, the operation under way considered.
    pub state: AppState,
    /// The operation that is under way, or else the next one.
    pub active: Option<Deployment>,
}

/// A new app, and its first deployment if it was wanted at once.
#[derive(Clone, Debug)]
pub struct Created {
    /// The app.
    pub app: App,
    /// Its first deployment.
    pub deployment: Option<DeploymentHandle>,
    pub(super) version: u64,
    pub(super) status: AppStatus,
    pub(super) active: Option<Deployment>,
}

impl Created {
    /// The app as it was made, with what was to happen to it then; when the request was repeated, as it is by now.
    #[must_use]
    pub fn view(&self) -> AppView {
        let (status, active) = (self.status.clone(), self.active.clone());
        let state = shown_state(&status, active.as_ref());
        AppView { app: self.app.clone(), version: self.version, status, state, active }
    }

    /// The app's first deployment.
    ///
    /// # Errors
    /// `Conflict` when the app was created without deploying it.
    pub fn first_deployment(&self) -> Result<DeploymentHandle> {
        self.deployment.clone().ok_or_else(|| {
            Error::new(Kind::Conflict, "apps.first_deployment", "the app was created without deploying it")
                .hint("deploy it, or leave out `without_deploying`")
        })
    }
}

/// A changed app, and what the change set off.
#[derive(Clone, Debug)]
pub struct Updated {
    /// The app.
    pub app: Versioned<App>,
    /// The operation that brings the change to what runs, where one is needed.
    pub deployment: Option<DeploymentHandle>,
    /// What that operation does.
    pub effects: ChangeEffects,
}

/// Whether a name can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameCheck {
    /// True if it can.
    pub is_available: bool,
    /// Why it can't.
    pub reason: Option<String>,
    /// Names like it that can be had.
    pub suggestions: Vec<AppName>,
}

/// The version of a record that was just made.
pub(super) const FIRST_VERSION: u64 = 1;
