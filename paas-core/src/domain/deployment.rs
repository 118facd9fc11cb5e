//! Operations: every change to a running app. People call them deployments and watch them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AppId, CommitId, Config, DeploymentId, DesiredState, OrgId, ReleaseNumber, Source};
use crate::error::Failure;

/// What an operation does, and so which steps it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Fetch, plan, build and run the source.
    Deploy,
    /// Replace the instance by a fresh one of the live release.
    Restart,
    /// Run the live release's image with the app's changed configuration.
    Config,
    /// Run an old release again: code and configuration.
    Rollback,
    /// Take the route away, then the instance.
    Stop,
    /// Run the live release again after a stop.
    Start,
    /// Remove everything the app has.
    Delete,
}

/// One step of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Resolve the ref and bring the commit here.
    Fetch,
    /// Decide how it is built, and whether it was built before.
    Plan,
    /// Build the image.
    Build,
    /// Start a container.
    Start,
    /// Wait until it answers its health check.
    Verify,
    /// Write DNS, publish the route, read both back.
    Route,
    /// Drain and remove every instance that is not live.
    Retire,
    /// Remove images, mirror, logs and records.
    Purge,
}

/// The state of an operation, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Accepted; no step has begun.
    Queued,
    /// Fetching, planning, building, or waiting for a build slot.
    Building,
    /// Starting, checking or routing.
    Starting,
    /// Stopping or deleting.
    Stopping,
    /// Live.
    Running,
    /// Stopped, as asked.
    Stopped,
    /// Deleted, as asked.
    Deleted,
    /// A newer deployment was accepted first.
    Superseded,
    /// It failed; what served before still serves.
    Failed,
    /// It was cancelled; what served before still serves.
    Cancelled,
    /// Its journal holds what this version can't read: it goes on with a version that can, or is
    /// [abandoned](crate::DeploymentHandle::abandon). Never recorded.
    Stuck,
}

impl OperationKind {
    /// The text of it, as its serialised form has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Restart => "restart",
            Self::Config => "config",
            Self::Rollback => "rollback",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Delete => "delete",
        }
    }

    /// The steps it takes, in order.
    #[must_use]
    pub fn steps(self) -> &'static [Step] {
        match self {
            Self::Deploy => {
                &[Step::Fetch, Step::Plan, Step::Build, Step::Start, Step::Verify, Step::Route, Step::Retire]
            }
            Self::Restart | Self::Config | Self::Rollback | Self::Start => {
                &[Step::Start, Step::Verify, Step::Route, Step::Retire]
            }
            Self::Stop => &[Step::Route, Step::Retire],
            Self::Delete => &[Step::Route, Step::Retire, Step::Purge],
        }
    }

    /// The step behind `step`, if there is one.
    #[must_use]
    pub fn step_after(self, step: Step) -> Option<Step> {
        let steps = self.steps();
        let at = steps.iter().position(|known| *known == step)?;
        steps.get(at + 1).copied()
    }

    /// True if it ends with an instance that answers; the others take the route away.
    #[must_use]
    pub fn serves(self) -> bool {
        !matches!(self, Self::Stop | Self::Delete)
    }

    /// What the app should do once it did what was asked; `None` when it leaves that as it was.
    #[must_use]
    pub fn desired(self) -> Option<DesiredState> {
        match self {
            Self::Deploy | Self::Rollback | Self::Start => Some(DesiredState::Running),
            Self::Stop => Some(DesiredState::Stopped),
            Self::Restart | Self::Config | Self::Delete => None,
        }
    }

    /// True if accepting it makes an earlier `other` of the same app pointless.
    #[must_use]
    pub fn supersedes(self, other: Self) -> bool {
        match self {
            Self::Deploy | Self::Rollback => matches!(other, Self::Deploy | Self::Rollback),
            Self::Stop | Self::Delete => other.serves(),
            Self::Restart | Self::Config | Self::Start => false,
        }
    }
}

impl Step {
    /// The text of it, as its serialised form has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Plan => "plan",
            Self::Build => "build",
            Self::Start => "start",
            Self::Verify => "verify",
            Self::Route => "route",
            Self::Retire => "retire",
            Self::Purge => "purge",
        }
    }
}

impl DeploymentState {
    /// True if it will not change any more (a [`Stuck`](Self::Stuck) one waits for an operator).
    #[must_use]
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Queued | Self::Building | Self::Starting | Self::Stopping)
    }

    /// True if it did what was asked.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Running | Self::Stopped | Self::Deleted)
    }
}

/// What was asked of an operation, as it stood when it was accepted: written once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentSpec {
    /// The operation.
    pub id: DeploymentId,
    /// The owner.
    pub org: OrgId,
    /// The app.
    pub app: AppId,
    /// What it does.
    pub kind: OperationKind,
    /// The source.
    pub source: Source,
    /// The configuration to run with.
    pub config: Config,
    /// The release to roll back to; the other kinds that do not build run the one that is live when they begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_release: Option<ReleaseNumber>,
    /// Build it even if the same tree was built before.
    #[serde(default)]
    pub no_cache: bool,
}

/// An operation as people see it. The journal of the same id is the truth; every commit that changes the
/// state writes both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its identifier, and the name of its journal.
    pub id: DeploymentId,
    /// The owner.
    pub org: OrgId,
    /// The app.
    pub app: AppId,
    /// What it does.
    pub kind: OperationKind,
    /// Where it is.
    pub state: DeploymentState,
    /// The step it is at, or ended at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// The commit, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// True if the image had been built before, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached: Option<bool>,
    /// The release that it made, once it is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseNumber>,
    /// The newer deployment that superseded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<DeploymentId>,
    /// Why it failed, or is stuck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Timestamp>,
    /// How long it may be busy, in seconds; waiting in the queue or for a lost engine does not count.
    pub deadline_seconds: u64,
}
