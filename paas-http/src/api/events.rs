//! Events as the API shows them: the journal's format is the store's, this one is the clients'.

use axum::response::sse;
use jiff::Timestamp;
use paas_core::pipeline::{CancelReason, Outcome, Output};
use paas_core::{Failure, Recorded, Step as CoreStep};
use serde::Serialize;
use utoipa::ToSchema;

use super::types::{OperationKind, Step, failed_at};
use crate::problem::Problem;
use crate::streams::data;

/// Something that happened in a deployment. Which fields are there depends on the `type`.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Event {
    /// Its number within the deployment, from 1, without gaps: the cursor behind it.
    version: u64,
    #[schema(value_type = String, format = DateTime)]
    at: Option<Timestamp>,
    /// What happened. More may come: ignore what is not known.
    #[serde(rename = "type")]
    kind: EventType,
    /// What the deployment does, when it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<OperationKind>,
    /// The step.
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<Step>,
    /// The number of the try, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// What came of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<StepOutput>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Problem>,
    /// When and where it goes on after a failure; without one the deployment is undone.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<EventRetry>,
    /// The newer deployment that superseded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    superseded_by: Option<String>,
    /// How the deployment ended, or is to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<EventOutcome>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventType {
    Accepted,
    StepStarted,
    StepFinished,
    StepFailed,
    NameTaken,
    CancelRequested,
    UndoStarted,
    UndoFinished,
    UndoFailed,
    /// An operator gave the deployment up: it ends with this outcome.
    Abandoned,
    Ended,
    /// A newer server knows more.
    #[default]
    Other,
}

/// How a deployment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventOutcome {
    Succeeded,
    Failed,
    Cancelled,
    Superseded,
}

/// When and where a failed step goes on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventRetry {
    /// The step to go back to.
    from: Step,
    /// Not before.
    at: Timestamp,
}

/// What came of a step. Which fields are there depends on the step.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct StepOutput {
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    /// How it is built.
    #[serde(skip_serializing_if = "Option::is_none")]
    recipe: Option<String>,
    /// Why it is built like this.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    /// The image's content digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// True if it had been built before.
    #[serde(skip_serializing_if = "Option::is_none")]
    cached: Option<bool>,
    /// The name of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// How many probes it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    probes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// The containers that are gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
    /// The containers that could not be removed yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left: Vec<String>,
}

impl From<Output> for StepOutput {
    fn from(output: Output) -> Self {
        let none = Self::default();
        match output {
            Output::Fetched { commit, .. } => Self { commit: Some(commit.into()), ..none },
            Output::Planned { recipe, reasons, port, .. } => {
                Self { recipe: Some(recipe), reasons, port: port.map(paas_core::Port::number), ..none }
            }
            Output::Built { image, cached } => {
                Self { image: Some(image.digest), cached: Some(cached), ..none }
            }
            Output::Started { instance, port } => {
                Self { instance: Some(instance.name.to_string()), port: Some(port.number()), ..none }
            }
            Output::Verified { probes } => Self { probes: Some(probes), ..none },
            Output::Routed { release, url, .. } => {
                Self { release: Some(release.0), url: (!url.is_empty()).then_some(url), ..none }
            }
            Output::Retired { removed, left } => Self {
                removed: removed.iter().map(ToString::to_string).collect(),
                left: left.iter().map(ToString::to_string).collect(),
                ..none
            },
            Output::Withdrawn { .. } | Output::Purged { .. } => none,
        }
    }
}

impl From<Recorded> for Event {
    fn from(recorded: Recorded) -> Self {
        let at = recorded.at;
        let event = Self { version: recorded.version, at: Some(at), ..Self::default() };
        let problem = |failure, step| Some(problem(failure, step, at));
        match recorded.event {
            paas_core::Event::Accepted { kind, .. } => {
                Self { kind: EventType::Accepted, operation: Some(kind.into()), ..event }
            }
            paas_core::Event::Started { step, attempt } => {
                Self { attempt: Some(attempt), ..event.at_step(EventType::StepStarted, step) }
            }
            paas_core::Event::Finished { step, output, .. } => {
                Self { output: Some(output.into()), ..event.at_step(EventType::StepFinished, step) }
            }
            paas_core::Event::Failed { step, attempt, failure, retry, .. } => Self {
                attempt: Some(attempt),
                failure: problem(failure, step),
                retry: retry.map(|retry| EventRetry { from: retry.from.into(), at: retry.at }),
                ..event.at_step(EventType::StepFailed, step)
            },
            paas_core::Event::NameTaken { .. } => Self { kind: EventType::NameTaken, ..event },
            paas_core::Event::CancelRequested { reason } => {
                let superseded_by = match reason {
                    CancelReason::Requested => None,
                    CancelReason::Superseded { by } => Some(by.into()),
                };
                Self { kind: EventType::CancelRequested, superseded_by, ..event }
            }
            paas_core::Event::UndoStarted { step } => event.at_step(EventType::UndoStarted, step),
            paas_core::Event::UndoFinished { step } => event.at_step(EventType::UndoFinished, step),
            paas_core::Event::UndoFailed { step, failure } => {
                Self { failure: problem(failure, step), ..event.at_step(EventType::UndoFailed, step) }
            }
            paas_core::Event::Abandoned { outcome } => event.with_outcome(EventType::Abandoned, outcome),
            paas_core::Event::Ended { outcome } => event.with_outcome(EventType::Ended, outcome),
            _ => event,
        }
    }
}

fn problem(failure: Failure, step: CoreStep, at: Timestamp) -> Problem {
    failed_at(failure, Some(step.into()), Some(at))
}

impl Event {
    fn at_step(self, kind: EventType, step: CoreStep) -> Self {
        Self { kind, step: Some(step.into()), ..self }
    }

    fn with_outcome(self, kind: EventType, outcome: Outcome) -> Self {
        let (at, event) = (self.at.unwrap_or_default(), Self { kind, ..self });
        match outcome {
            Outcome::Succeeded => Self { outcome: Some(EventOutcome::Succeeded), ..event },
            Outcome::Cancelled => Self { outcome: Some(EventOutcome::Cancelled), ..event },
            Outcome::Superseded { by } => {
                Self { outcome: Some(EventOutcome::Superseded), superseded_by: Some(by.into()), ..event }
            }
            Outcome::Failed { step, failure } => Self {
                outcome: Some(EventOutcome::Failed),
                step: Some(step.into()),
                failure: Some(problem(failure, step, at)),
                ..event
            },
        }
    }

    /// The event as a frame that a client can come back to.
    pub(crate) fn frame(recorded: &Recorded) -> sse::Event {
        let event = Self::from(recorded.clone());
        data(sse::Event::default().id(event.version.to_string()), &event)
    }
}

/// The events of a deployment so far.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventPage {
    pub(crate) items: Vec<Event>,
    /// The cursor of the next page; `null` at the end.
    pub(crate) next_cursor: Option<String>,
    /// Where the stream of events goes on behind these.
    pub(crate) cursor: String,
}
