//! Apps: what people asked for, and beside it what is.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    AppId, AppName, CommitId, Crashes, DeploymentId, EnvName, Generation, GitRef, GitUrl, HealthCheck,
    Instance, OrgId, Port, ReleaseNumber, Resources, RootDirectory,
};
use crate::seal::Sealed;

/// Where an app's code comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The repository.
    pub repository: GitUrl,
    /// The branch or tag; the repository's default branch when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<GitRef>,
    /// Always this commit, whatever the branch says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The directory that holds the app.
    #[serde(default)]
    pub root_directory: RootDirectory,
    /// The token for a private repository, sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Sealed>,
}

/// Who can reach an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// It has a route: everybody who reaches the proxy.
    #[default]
    Public,
    /// It has no route: only the org's own apps, on their network.
    Private,
}

/// Whether an app should run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredState {
    /// It should.
    #[default]
    Running,
    /// It should not, and keeps everything else.
    Stopped,
}

/// The part of an app that a release snapshots: rolling back brings it back with the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The port the program listens on; the plan's, the image's or 8080 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// The environment variables, sealed. See [`App::config`].
    pub env: Sealed,
    /// Their names, in order, so that nobody opens the values to list them.
    #[serde(default)]
    pub env_names: Vec<EnvName>,
    /// Who can reach it.
    #[serde(default)]
    pub visibility: Visibility,
    /// What its containers may use.
    #[serde(default)]
    pub resources: Resources,
    /// When they count as healthy.
    #[serde(default)]
    pub health_check: HealthCheck,
}

/// An app, as asked for. What is happening to it stands in [`AppStatus`], so that a status change never
/// breaks an `If-Match`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its identifier.
    pub id: AppId,
    /// Its owner.
    pub org: OrgId,
    /// Its name, and its host's first label.
    pub name: AppName,
    /// Where its code comes from.
    pub source: Source,
    /// What the next release will run with.
    pub config: Config,
    /// Whether it should run.
    #[serde(default)]
    pub desired: DesiredState,
    /// When it was created.
    pub created_at: Timestamp,
    /// When somebody last changed it.
    pub updated_at: Timestamp,
}

/// The state of an app, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppState {
    /// Nothing was deployed yet.
    Pending,
    /// The first deployment fetches, plans or builds.
    Building,
    /// The first instance starts, or a stopped app starts again.
    Starting,
    /// It answers.
    Running,
    /// The first deployment failed: nothing answers.
    Failed,
    /// It answers, and something newer is on its way.
    RollingOut,
    /// Its process keeps ending, [so often](Crashes::LOOP) in a row. It is still started again, ever less often.
    Crashed,
    /// It was stopped on request.
    Stopped,
    /// It is being removed.
    Deleting,
}

/// What a [`Condition`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionKind {
    /// The commit is here.
    SourceFetched,
    /// The image is here.
    ImageBuilt,
    /// The container runs.
    ContainerStarted,
    /// The health check was answered.
    Healthy,
    /// The ingress serves the route.
    Routed,
    /// The name points at the ingress.
    DnsReady,
    /// All of it.
    Ready,
}

/// An observation about an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What it is about.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub holds: bool,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
}

/// What is happening to an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    /// The app.
    pub id: AppId,
    /// Its owner.
    pub org: OrgId,
    /// The state between operations. While one is active, see [`AppStatus::active`].
    pub state: AppState,
    /// The operation that a worker is busy with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<DeploymentId>,
    /// The accepted operations behind it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queue: Vec<DeploymentId>,
    /// The release that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<ReleaseNumber>,
    /// The instance that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    /// The generation of the route that was published last.
    #[serde(default)]
    pub route: Generation,
    /// Where it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The number of the newest release; the next one gets the number after it.
    pub last_release: ReleaseNumber,
    /// How its process keeps ending by itself, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crashes: Option<Crashes>,
    /// The deployment that was to bring back what is live, whose image was gone: while it says so, there is no second one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revival: Option<DeploymentId>,
    /// Observations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl AppStatus {
    /// The operation that is under way, or comes next.
    #[must_use]
    pub fn next_operation(&self) -> Option<&DeploymentId> {
        self.active.as_ref().or(self.queue.first())
    }
}
