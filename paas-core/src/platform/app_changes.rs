//! What people ask for: new apps, and changes of apps.

use std::collections::BTreeMap;

use crate::domain::{
    AppName, CommitId, Env, EnvName, GitRef, GitUrl, HealthCheck, HealthCheckKind, Port, Resources,
    RootDirectory, Secret, Visibility,
};
use crate::error::Result;

/// An app that somebody wants.
///
/// ```
/// # fn main() -> paas_core::Result<()> {
/// use paas_core::NewApp;
/// let app = NewApp::new("hello", "https://git.example.com/team/hello.git")?
///     .branch("main")?
///     .env("GREETING", "Hello")?
///     .port(3000)?;
/// # let _ = app; Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct NewApp {
    /// Its name.
    pub name: AppName,
    /// Its repository.
    pub repository: GitUrl,
    /// The branch or tag; the default branch when not given.
    pub branch: Option<GitRef>,
    /// Always this commit.
    pub commit: Option<CommitId>,
    /// The directory of the repository that holds it.
    pub root_directory: RootDirectory,
    /// The token for a private repository.
    pub token: Option<Secret>,
    /// The port its program listens on.
    pub port: Option<Port>,
    /// Its environment.
    pub env: Env,
    /// Who can reach it.
    pub visibility: Visibility,
    /// What its containers may use.
    pub resources: Resources,
    /// When they count as healthy.
    pub health_check: HealthCheck,
    /// Whether it is deployed at once.
    pub deploy: bool,
}

impl NewApp {
    /// An app of this name from this repository, with the defaults for everything else.
    ///
    /// # Errors
    /// `Invalid` when the name or the address breaks a rule.
    pub fn new(name: &str, repository: &str) -> Result<Self> {
        Ok(Self {
            name: name.parse()?,
            repository: repository.parse()?,
            branch: None,
            commit: None,
            root_directory: RootDirectory::default(),
            token: None,
            port: None,
            env: Env::default(),
            visibility: Visibility::default(),
            resources: Resources::default(),
            health_check: HealthCheck::default(),
            deploy: true,
        })
    }

    /// Deploys this branch or tag.
    ///
    /// # Errors
    /// `Invalid` when it is not a name of one.
    pub fn branch(mut self, branch: &str) -> Result<Self> {
        self.branch = Some(branch.parse()?);
        Ok(self)
    }

    /// The app is in this directory of the repository.
    ///
    /// # Errors
    /// `Invalid` when it is not a path inside it.
    pub fn root_directory(mut self, path: &str) -> Result<Self> {
        self.root_directory = path.parse()?;
        Ok(self)
    }

    /// Reads the repository with this token.
    #[must_use]
    pub fn token(mut self, token: impl Into<Secret>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets an environment variable.
    ///
    /// # Errors
    /// `Invalid` when the name or value breaks a rule.
    pub fn env(mut self, name: &str, value: &str) -> Result<Self> {
        self.env.set(name.parse()?, value.into())?;
        Ok(self)
    }

    /// The program listens on this port.
    ///
    /// # Errors
    /// `Invalid` for 0 or more than 65535.
    pub fn port(mut self, port: u32) -> Result<Self> {
        self.port = Some(port.try_into()?);
        Ok(self)
    }

    /// Keeps it for later: nothing is deployed yet.
    #[must_use]
    pub fn without_deploying(mut self) -> Self {
        self.deploy = false;
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        self.resources.validate()?;
        self.health_check.validate()
    }
}

/// Changes of an app: what is `None` stays; the inner `None` goes back to the default.
#[derive(Clone, Debug, Default)]
pub struct AppChanges {
    /// Another repository.
    pub repository: Option<GitUrl>,
    /// Another branch, or the default one.
    pub branch: Option<Option<GitRef>>,
    /// Pin a commit, or follow the branch again.
    pub commit: Option<Option<CommitId>>,
    /// Another directory.
    pub root_directory: Option<RootDirectory>,
    /// Another token, or none.
    pub token: Option<Option<Secret>>,
    /// Another port, or the default one.
    pub port: Option<Option<Port>>,
    /// Environment variables to set, or with `None` to remove; the others stay.
    pub env: BTreeMap<EnvName, Option<Secret>>,
    /// Who can reach it.
    pub visibility: Option<Visibility>,
    /// What its containers may use.
    pub resources: ResourceChanges,
    /// When they count as healthy.
    pub health_check: HealthCheckChanges,
}

/// Changes of what containers may use: what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceChanges {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// CPU time in thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

impl ResourceChanges {
    /// What the changes make of `before`.
    #[must_use]
    pub fn applied_to(self, before: Resources) -> Resources {
        Resources {
            memory_bytes: self.memory_bytes.unwrap_or(before.memory_bytes),
            cpu_millis: self.cpu_millis.unwrap_or(before.cpu_millis),
            pids: self.pids.unwrap_or(before.pids),
        }
    }
}

/// A change to all of it.
impl From<Resources> for ResourceChanges {
    fn from(wanted: Resources) -> Self {
        Self {
            memory_bytes: Some(wanted.memory_bytes),
            cpu_millis: Some(wanted.cpu_millis),
            pids: Some(wanted.pids),
        }
    }
}

/// Changes of when an instance counts as healthy: what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthCheckChanges {
    /// What is asked.
    pub check: Option<HealthCheckKind>,
    /// How long one probe may take.
    pub timeout_seconds: Option<u32>,
    /// How long an instance may take to become healthy.
    pub grace_seconds: Option<u32>,
}

impl HealthCheckChanges {
    /// What the changes make of `before`.
    #[must_use]
    pub fn applied_to(&self, before: &HealthCheck) -> HealthCheck {
        HealthCheck {
            check: self.check.as_ref().unwrap_or(&before.check).clone(),
            timeout_seconds: self.timeout_seconds.unwrap_or(before.timeout_seconds),
            grace_seconds: self.grace_seconds.unwrap_or(before.grace_seconds),
        }
    }
}

/// A change to all of it.
impl From<HealthCheck> for HealthCheckChanges {
    fn from(wanted: HealthCheck) -> Self {
        Self {
            check: Some(wanted.check),
            timeout_seconds: Some(wanted.timeout_seconds),
            grace_seconds: Some(wanted.grace_seconds),
        }
    }
}

/// What a change of an app sets off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeEffects {
    /// It is deployed anew: another source.
    pub redeploy: bool,
    /// A fresh instance of the same release replaces the running one.
    pub restart: bool,
    /// Its host begins or ceases to lead to it.
    pub dns: bool,
}
