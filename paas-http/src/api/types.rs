//! What answers look like.

use jiff::Timestamp;
use paas_core::{AppView, Failure};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use super::words::*;
use crate::api::logs::cursor_before;
use crate::problem::Problem;

/// An app: what was asked for, and in short what is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct App {
    id: String,
    org_id: String,
    /// Its name, unique in the whole installation.
    name: String,
    /// The state in one word, the deployment under way considered.
    state: AppState,
    /// Where it answers.
    url: Option<String>,
    /// Whether it should run.
    desired_state: DesiredState,
    /// The repository.
    repository: String,
    /// The branch or tag; the repository's default branch when `null`.
    branch: Option<String>,
    /// The commit that it is pinned to.
    commit: Option<String>,
    /// The directory of the repository that holds it.
    root_directory: String,
    /// Whether it has a token for its repository.
    has_token: bool,
    /// The port its program listens on; found out when `null`.
    port: Option<u16>,
    /// The names of its environment variables. Values are never shown.
    env_names: Vec<String>,
    visibility: Visibility,
    resources: Resources,
    health_check: HealthCheck,
    /// The number of the release that answers.
    live_release: Option<u64>,
    /// The deployment that is under way, or else the next one.
    deployment: Option<Deployment>,
    created_at: Timestamp,
    /// When somebody last changed it.
    updated_at: Timestamp,
}

impl From<AppView> for App {
    fn from(view: AppView) -> Self {
        let AppView { app, status, state, active, .. } = view;
        Self {
            id: app.id.into(),
            org_id: app.org.into(),
            name: app.name.into(),
            state: state.into(),
            url: status.url,
            desired_state: app.desired.into(),
            repository: app.source.repository.into(),
            branch: app.source.branch.map(Into::into),
            commit: app.source.commit.map(Into::into),
            root_directory: app.source.root_directory.into(),
            has_token: app.source.token.is_some(),
            port: app.config.port.map(paas_core::Port::number),
            env_names: app.config.env_names.into_iter().map(Into::into).collect(),
            visibility: app.config.visibility.into(),
            resources: app.config.resources.into(),
            health_check: app.config.health_check.into(),
            live_release: status.live.map(|number| number.0),
            deployment: active.map(Into::into),
            created_at: app.created_at,
            updated_at: app.updated_at,
        }
    }
}

/// What a container may use.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Resources {
    /// Memory in bytes.
    memory_bytes: u64,
    /// CPU time in thousandths of a core.
    cpu_millis: u32,
    /// Processes and threads.
    pids: u32,
}

impl From<paas_core::Resources> for Resources {
    fn from(resources: paas_core::Resources) -> Self {
        let paas_core::Resources { memory_bytes, cpu_millis, pids } = resources;
        Self { memory_bytes, cpu_millis, pids }
    }
}

/// When an instance counts as healthy.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthCheck {
    check: HealthProbe,
    /// How long one probe may take.
    timeout_seconds: u32,
    /// How long an instance may take to become healthy.
    grace_seconds: u32,
}

/// What is asked of an instance.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum HealthProbe {
    /// `GET path` on the app's port.
    Http {
        /// The path, starting with `/`.
        path: String,
        /// The one status that counts; any below 500 when it is not given.
        #[serde(default)]
        status: Option<u16>,
    },
    /// The port accepts a connection.
    Tcp {},
}

impl From<paas_core::HealthCheckKind> for HealthProbe {
    fn from(kind: paas_core::HealthCheckKind) -> Self {
        match kind {
            paas_core::HealthCheckKind::Http { path, status } => Self::Http { path, status },
            paas_core::HealthCheckKind::Tcp => Self::Tcp {},
        }
    }
}

impl From<HealthProbe> for paas_core::HealthCheckKind {
    fn from(probe: HealthProbe) -> Self {
        match probe {
            HealthProbe::Http { path, status } => Self::Http { path, status },
            HealthProbe::Tcp {} => Self::Tcp,
        }
    }
}

impl From<paas_core::HealthCheck> for HealthCheck {
    fn from(health: paas_core::HealthCheck) -> Self {
        let paas_core::HealthCheck { check, timeout_seconds, grace_seconds } = health;
        Self { check: check.into(), timeout_seconds, grace_seconds }
    }
}

/// A changed app, and what the change set off.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UpdatedApp {
    pub(crate) app: App,
    pub(crate) effects: Effects,
    /// The deployment that brings the change to what runs, where one is needed.
    pub(crate) deployment: Option<Deployment>,
}

/// What a change sets off.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Effects {
    /// The app is deployed anew.
    redeploy: bool,
    /// A fresh instance of the same release replaces the running one.
    restart: bool,
    /// Its host begins or ceases to lead to it.
    dns: bool,
}

impl From<paas_core::ChangeEffects> for Effects {
    fn from(effects: paas_core::ChangeEffects) -> Self {
        let paas_core::ChangeEffects { redeploy, restart, dns } = effects;
        Self { redeploy, restart, dns }
    }
}

/// What is happening to an app.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppStatus {
    id: String,
    state: AppState,
    /// Where it answers.
    url: Option<String>,
    /// The number of the release that answers.
    live_release: Option<u64>,
    /// The container that answers.
    instance: Option<Instance>,
    /// The deployment that is under way, or else the next one.
    deployment: Option<Deployment>,
    /// The deployments that wait, oldest first.
    queue: Vec<String>,
    /// Observations, each with its reason.
    conditions: Vec<Condition>,
}

impl From<AppView> for AppStatus {
    fn from(view: AppView) -> Self {
        let AppView { app, status, state, active, .. } = view;
        Self {
            id: app.id.into(),
            state: state.into(),
            url: status.url,
            live_release: status.live.map(|number| number.0),
            instance: status.instance.map(Into::into),
            deployment: active.map(Into::into),
            queue: status.queue.into_iter().map(Into::into).collect(),
            conditions: status.conditions.into_iter().map(Into::into).collect(),
        }
    }
}

/// A container of a release.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Instance {
    name: String,
    /// The deployment that made it.
    deployment_id: String,
    /// Where it answers within the platform.
    address: String,
}

impl From<paas_core::Instance> for Instance {
    fn from(instance: paas_core::Instance) -> Self {
        Self {
            name: instance.name.to_string(),
            deployment_id: instance.deployment.into(),
            address: instance.address.to_string(),
        }
    }
}

/// An observation about an app.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Condition {
    kind: ConditionKind,
    /// Whether it holds.
    holds: bool,
    /// Why.
    reason: String,
    /// Since when.
    since: Timestamp,
}

impl From<paas_core::Condition> for Condition {
    fn from(condition: paas_core::Condition) -> Self {
        let paas_core::Condition { kind, holds, reason, at } = condition;
        Self { kind: kind.into(), holds, reason, since: at }
    }
}

/// A change to a running app, as people watch it: a deployment, a restart, a deletion.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Deployment {
    id: String,
    app_id: String,
    /// What it does.
    kind: OperationKind,
    state: DeploymentState,
    /// The step it is at, or ended at.
    step: Option<Step>,
    /// The commit, once it is known.
    commit: Option<String>,
    /// True if the image had been built before, once that is known.
    cached: Option<bool>,
    /// The number of the release that it made, once it is live.
    release: Option<u64>,
    /// The newer deployment that superseded it.
    superseded_by: Option<String>,
    /// Why it failed, or is stuck: the same object as the body of an error.
    failure: Option<Problem>,
    /// How many are ahead of it for a worker or a build slot; only where one deployment is asked for that waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<u64>,
    created_at: Timestamp,
    /// When it was settled.
    settled_at: Option<Timestamp>,
    /// How long it may be busy; waiting does not count.
    deadline_seconds: u64,
}

impl From<paas_core::Deployment> for Deployment {
    fn from(deployment: paas_core::Deployment) -> Self {
        let step = deployment.step.map(Step::from);
        let failure = deployment.failure.map(|failure| failed_at(failure, step, deployment.settled_at));
        Self {
            id: deployment.id.into(),
            app_id: deployment.app.into(),
            kind: deployment.kind.into(),
            state: deployment.state.into(),
            step,
            commit: deployment.commit.map(Into::into),
            cached: deployment.cached,
            release: deployment.release.map(|number| number.0),
            superseded_by: deployment.superseded_by.map(Into::into),
            failure,
            queue_position: None,
            created_at: deployment.created_at,
            settled_at: deployment.settled_at,
            deadline_seconds: deployment.deadline_seconds,
        }
    }
}

impl Deployment {
    pub(crate) fn queued_at(self, position: Option<u64>) -> Self {
        Self { queue_position: position, ..self }
    }
}

/// A failure of a step: where to read on about it.
pub(crate) fn failed_at(failure: Failure, step: Option<Step>, at: Option<Timestamp>) -> Problem {
    let mut problem = Problem::from(failure);
    if let Some(step) = step {
        problem = problem.stage(step.as_str());
    }
    match at {
        Some(at) => problem.log_cursor(cursor_before(at)),
        None => problem,
    }
}

/// A deployment after waiting for it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Waited {
    pub(crate) deployment: Deployment,
    /// Whether what was waited for came.
    pub(crate) reached: bool,
}

/// The immutable result of a deployment that went live.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Release {
    app_id: String,
    /// Its number within the app.
    number: u64,
    /// The deployment that made it.
    deployment_id: String,
    /// The commit it was built from.
    commit: String,
    /// The image's content digest.
    image: String,
    /// The port its program listens on.
    port: u16,
    /// The names of its environment variables.
    env_names: Vec<String>,
    created_at: Timestamp,
}

impl From<paas_core::Release> for Release {
    fn from(release: paas_core::Release) -> Self {
        Self {
            app_id: release.app.into(),
            number: release.number.0,
            deployment_id: release.deployment.into(),
            commit: release.commit.into(),
            image: release.image.digest,
            port: release.port.number(),
            env_names: release.config.env_names.into_iter().map(Into::into).collect(),
            created_at: release.created_at,
        }
    }
}

/// Whether a name can be had; only creating the app makes sure of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NameCheck {
    name: String,
    available: bool,
    /// Why it can't be had.
    reason: Option<String>,
    /// Names like it that can be had.
    suggestions: Vec<String>,
}

impl NameCheck {
    pub(crate) fn of(name: String, check: paas_core::NameCheck) -> Self {
        let suggestions = check.suggestions.into_iter().map(Into::into).collect();
        Self { name, available: check.is_available, reason: check.reason, suggestions }
    }
}
