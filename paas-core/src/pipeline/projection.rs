//! What an event means for the records that people read.

use jiff::Timestamp;

use super::event::{CancelReason, DnsDrift, Drift, Event, Outcome, Output, Recorded};
use super::state::State;
use crate::domain::{
    AppState, AppStatus, Condition, ConditionKind, Crashes, Deployment, DeploymentState, Generation,
    OperationKind, Step,
};
use crate::error::Failure;

/// Brings both records up to an event. `state` is the operation's state after it.
///
/// Answers true if the app's record changed, so that a step that concerns only the deployment writes one record. Who
/// appends an event puts what this makes of the records into the same commit.
pub fn project(
    state: &State,
    recorded: &Recorded,
    deployment: &mut Deployment,
    status: &mut AppStatus,
) -> bool {
    match &recorded.event {
        Event::Started { step, .. } => {
            deployment.step = Some(*step);
            deployment.state = state_at(deployment.kind, *step);
            activate(status, deployment)
        }
        Event::Finished { step, output, .. } => {
            finish_step(*step, output, recorded, state, deployment, status)
        }
        Event::Failed { step, failure, retry, .. } => {
            deployment.step = Some(*step);
            if retry.is_none() && failure.kind != crate::error::Kind::Cancelled {
                deployment.failure = Some(failure.clone());
            }
            observe_failure(*step, failure, recorded, deployment.kind, status)
        }
        Event::UndoStarted { .. } => activate(status, deployment),
        Event::UndoFinished { step: Step::Route } => {
            status.route = state.undo_generation;
            true
        }
        Event::CancelRequested { reason: CancelReason::Superseded { by } } => {
            deployment.superseded_by.get_or_insert_with(|| by.clone());
            false
        }
        Event::Ended { outcome } => {
            end(outcome, recorded, deployment, status);
            true
        }
        _ => false,
    }
}

/// Brings an app's status up to an event of the app's own stream.
pub(crate) fn project_drift(event: &Event, at: Timestamp, status: &mut AppStatus) {
    use ConditionKind::{ContainerStarted, DnsReady, ImageBuilt, Ready};
    match event {
        Event::DriftFound { drift: Drift::Unneeded | Drift::Moved, .. } => {}
        Event::DriftFound { drift, .. } => {
            let crashes = Crashes::another(status.crashes.as_ref(), *drift, at);
            let how = match drift {
                Drift::Ended { out_of_memory: true, .. } => "it used more memory than it may".to_owned(),
                Drift::Ended { code, .. } => format!("its process ended with code {code}"),
                Drift::CutOff => "it was cut off from its network".to_owned(),
                Drift::Missing | Drift::Unneeded | Drift::Moved => "its container disappeared".to_owned(),
            };
            let reason = match crashes.count {
                1 => how,
                count => format!("{how}: {count} times in a row"),
            };
            for kind in [ContainerStarted, Ready] {
                observe(status, kind, false, &reason, at);
            }
            if crashes.is_loop() {
                status.state = AppState::Crashed;
            }
            status.crashes = Some(crashes);
        }
        Event::InstanceRenamed { to, .. } => {
            if let Some(instance) = &mut status.instance {
                instance.name = to.clone();
            }
        }
        Event::InstanceRestored { .. } => {
            for kind in [ContainerStarted, Ready] {
                observe(status, kind, true, "runs again", at);
            }
            if let Some(crashes) = &mut status.crashes {
                (crashes.is_down, crashes.at) = (false, at);
            }
        }
        Event::ImageGone { deployment, .. } => {
            observe(status, ImageBuilt, false, "its image is gone: its commit is deployed anew", at);
            status.queue.push(deployment.clone());
            status.revival = Some(deployment.clone());
        }
        Event::DnsDriftFound { drift, .. } => {
            let reason = match drift {
                DnsDrift::Missing => "a DNS record of its host is missing",
                DnsDrift::Changed => "a DNS record of its host was changed",
            };
            observe(status, DnsReady, false, reason, at);
        }
        Event::DnsRestored { .. } => observe(status, DnsReady, true, "observed", at),
        Event::InstanceSteady { .. } => {
            status.crashes = None;
            status.state = AppState::Running;
        }
        _ => {}
    }
}

/// The state of an operation at a step, for people.
fn state_at(kind: OperationKind, step: Step) -> DeploymentState {
    match step {
        // Live already: what is being retired is the old one.
        Step::Retire if kind.serves() => DeploymentState::Running,
        _ if !kind.serves() => DeploymentState::Stopping,
        Step::Fetch | Step::Plan | Step::Build => DeploymentState::Building,
        Step::Start | Step::Verify | Step::Route | Step::Retire | Step::Purge => DeploymentState::Starting,
    }
}

fn activate(status: &mut AppStatus, deployment: &Deployment) -> bool {
    if status.active.as_ref() == Some(&deployment.id) {
        return false;
    }
    status.active = Some(deployment.id.clone());
    status.queue.retain(|queued| *queued != deployment.id);
    true
}

fn finish_step(
    step: Step,
    output: &Output,
    recorded: &Recorded,
    state: &State,
    deployment: &mut Deployment,
    status: &mut AppStatus,
) -> bool {
    deployment.step = Some(step);
    match output {
        Output::Fetched { commit, .. } => deployment.commit = Some(commit.clone()),
        Output::Built { cached, .. } => deployment.cached = Some(*cached),
        Output::Routed { generation, release, url } => {
            deployment.state = DeploymentState::Running;
            deployment.release = Some(*release);
            deployment.settled_at = Some(recorded.at);
            status.state = AppState::Running;
            (status.crashes, status.revival) = (None, None);
            status.live = Some(*release);
            status.last_release = status.last_release.max(*release);
            status.instance = state.outputs.started.as_ref().map(|(instance, _)| instance.clone());
            status.url = (!url.is_empty()).then(|| url.clone());
            status.route = *generation;
            let source: &[ConditionKind] = match deployment.kind {
                OperationKind::Deploy => &[ConditionKind::SourceFetched, ConditionKind::ImageBuilt],
                _ => &[],
            };
            let served = [
                ConditionKind::ContainerStarted,
                ConditionKind::Healthy,
                ConditionKind::DnsReady,
                ConditionKind::Routed,
                ConditionKind::Ready,
            ];
            for kind in source.iter().chain(&served) {
                observe(status, *kind, true, "observed", recorded.at);
            }
            return true;
        }
        Output::Withdrawn { generation } => return withdraw(*generation, recorded, deployment.kind, status),
        Output::Planned { .. }
        | Output::Started { .. }
        | Output::Verified { .. }
        | Output::Retired { .. }
        | Output::Purged { .. } => {}
    }
    false
}

fn withdraw(
    generation: Generation,
    recorded: &Recorded,
    kind: OperationKind,
    status: &mut AppStatus,
) -> bool {
    status.state = if kind == OperationKind::Delete { AppState::Deleting } else { AppState::Stopped };
    status.instance = None;
    (status.crashes, status.revival) = (None, None);
    status.url = None;
    status.route = generation;
    for condition in
        [ConditionKind::ContainerStarted, ConditionKind::Healthy, ConditionKind::Routed, ConditionKind::Ready]
    {
        observe(status, condition, false, "stopped on request", recorded.at);
    }
    true
}

/// A failure is an observation about the app only while nothing of it is live: otherwise what serves still serves.
fn observe_failure(
    step: Step,
    failure: &Failure,
    recorded: &Recorded,
    kind: OperationKind,
    status: &mut AppStatus,
) -> bool {
    if status.live.is_some() || !kind.serves() {
        return false;
    }
    let condition = match step {
        Step::Fetch => ConditionKind::SourceFetched,
        Step::Plan | Step::Build => ConditionKind::ImageBuilt,
        Step::Start => ConditionKind::ContainerStarted,
        Step::Verify => ConditionKind::Healthy,
        Step::Route | Step::Retire | Step::Purge => ConditionKind::Routed,
    };
    observe(status, condition, false, &failure.message, recorded.at);
    true
}

/// Records an observation about the app, since when it is so.
pub(crate) fn observe(status: &mut AppStatus, kind: ConditionKind, holds: bool, reason: &str, at: Timestamp) {
    let reason = reason.to_owned();
    match status.conditions.iter_mut().find(|condition| condition.kind == kind) {
        Some(condition) if condition.holds == holds && condition.reason == reason => {}
        Some(condition) => *condition = Condition { kind, holds, reason, at },
        None => status.conditions.push(Condition { kind, holds, reason, at }),
    }
}

fn end(outcome: &Outcome, recorded: &Recorded, deployment: &mut Deployment, status: &mut AppStatus) {
    deployment.settled_at.get_or_insert(recorded.at);
    deployment.state = match outcome {
        Outcome::Succeeded => match deployment.kind {
            OperationKind::Stop => DeploymentState::Stopped,
            OperationKind::Delete => DeploymentState::Deleted,
            _ => DeploymentState::Running,
        },
        Outcome::Failed { step, failure } => {
            deployment.step = Some(*step);
            deployment.failure = Some(failure.clone());
            DeploymentState::Failed
        }
        Outcome::Cancelled => DeploymentState::Cancelled,
        Outcome::Superseded { by } => {
            deployment.superseded_by = Some(by.clone());
            DeploymentState::Superseded
        }
    };
    if matches!(outcome, Outcome::Failed { .. }) && status.live.is_none() && deployment.kind.serves() {
        status.state = AppState::Failed;
    }
    if status.revival.as_ref() == Some(&deployment.id) {
        end_revival(outcome, recorded.at, status);
    }
    status.active = status.active.take().filter(|active| *active != deployment.id);
    status.queue.retain(|queued| *queued != deployment.id);
}

/// What the end of the deployment means that was to bring back what is live.
fn end_revival(outcome: &Outcome, at: Timestamp, status: &mut AppStatus) {
    let why = match outcome {
        Outcome::Succeeded => return,
        // Whoever superseded it has another wish; should that come to nothing, it is tried again.
        Outcome::Superseded { .. } => return status.revival = None,
        Outcome::Failed { failure, .. } => failure.message.as_str(),
        Outcome::Cancelled => "that was cancelled",
    };
    let reason = format!("its image is gone, and its commit can't be deployed anew: {why}");
    observe(status, ConditionKind::ImageBuilt, false, &reason, at);
}

/// The state of an app while `active` is under way: derived, so that a step need not write the app's record.
pub(crate) fn shown_state(status: &AppStatus, active: Option<&Deployment>) -> AppState {
    let Some(active) = active.filter(|active| !active.state.is_settled()) else {
        return status.state;
    };
    match (active.kind, active.state, status.state) {
        (OperationKind::Delete, _, _) => AppState::Deleting,
        (OperationKind::Stop, ..) => status.state,
        (_, _, AppState::Running | AppState::Crashed) => AppState::RollingOut,
        (_, DeploymentState::Starting, _) => AppState::Starting,
        (_, DeploymentState::Building, _) => AppState::Building,
        (_, _, AppState::Failed) => AppState::Pending,
        _ => status.state,
    }
}
