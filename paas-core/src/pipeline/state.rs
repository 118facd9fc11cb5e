//! The state of an operation: a fold over its journal.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::event::{CancelReason, Event, Outcome, Output, Recorded, RetryPlan};
use crate::domain::{
    AppId, CommitId, Generation, Image, Instance, OperationKind, Port, ReleaseNumber, Step, TreeId,
};
use crate::error::Failure;

/// Where an operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Phase {
    /// The journal is empty.
    #[default]
    Empty,
    /// The next step has not begun.
    Ready {
        /// The step.
        next: Step,
    },
    /// A step began; whether it acted is unknown until it finished or failed.
    Running {
        /// The step.
        step: Step,
        /// The number of the try.
        attempt: u32,
    },
    /// A step failed and is to be tried again.
    Waiting {
        /// When and where.
        retry: RetryPlan,
        /// When that was recorded.
        since: Timestamp,
    },
    /// Every step finished.
    Complete,
    /// A step failed for good or the operation was cancelled: effects are being undone.
    Undoing {
        /// The step whose undoing began.
        step: Option<Step>,
    },
    /// This version can't read the journal, and so can do nothing about the operation.
    Stuck {
        /// What it can't read.
        by: IllegalEvent,
    },
    /// It is over.
    Ended {
        /// How.
        outcome: Outcome,
    },
}

/// What the finished steps brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outputs {
    /// The commit and its tree.
    pub fetched: Option<(CommitId, TreeId)>,
    /// The port that the plan expects.
    pub planned_port: Option<Port>,
    /// The image, and whether it had been built before.
    pub built: Option<(Image, bool)>,
    /// The instance and its port.
    pub started: Option<(Instance, Port)>,
    /// The release that went live and where it answers.
    pub routed: Option<(ReleaseNumber, String)>,
}

/// The state of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// What it does and to which app; set by the first event.
    pub identity: Option<(OperationKind, AppId)>,
    /// Where it is.
    pub phase: Phase,
    /// How often each step was begun. A step in it may have had effects.
    pub attempts: BTreeMap<Step, u32>,
    /// What the finished steps brought.
    pub outputs: Outputs,
    /// The number of the instance's substitute name; 0 for the wanted one.
    pub fallback: u32,
    /// Why it is to stop.
    pub cancel: Option<CancelReason>,
    /// Why it fails, and where.
    pub failure: Option<(Step, Failure)>,
    /// How it ends because somebody gave it up.
    pub abandoned: Option<Outcome>,
    /// What is undone already, or was given up.
    pub undone: Vec<Step>,
    /// What could not be undone, and why.
    pub leftovers: Vec<(Step, Failure)>,
    /// The generation of its route: the position of the event that began the step.
    pub route_generation: Generation,
    /// The generation of the route's restoration.
    pub undo_generation: Generation,
    /// How long its steps were busy, and waited to be tried again, in all; an outage of the platform's own parts
    /// and the queue do not count.
    pub busy: Duration,
    /// How many tries in a row ended because a part of the platform itself was out. They do not count as tries.
    pub outages: u32,
    /// The number of events.
    pub version: u64,
}

/// An event that cannot follow what is already in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IllegalEvent {
    /// The journal.
    pub stream: String,
    /// The number of the event.
    pub version: u64,
    /// The type of an event that this version does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

impl IllegalEvent {
    fn of(recorded: &Recorded) -> Self {
        let unknown = match &recorded.event {
            Event::Unknown { name } => Some(name.clone()),
            _ => None,
        };
        Self { stream: recorded.stream.to_string(), version: recorded.version, unknown }
    }
}

impl fmt::Display for IllegalEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, version, unknown } = self;
        match unknown {
            Some(name) => {
                write!(formatter, "event {version} of {stream} (`{name}`) is not known to this version")
            }
            None => write!(formatter, "event {version} of {stream} cannot follow the events before it"),
        }
    }
}

impl std::error::Error for IllegalEvent {}

impl State {
    /// The state after one more event.
    ///
    /// # Errors
    /// [`IllegalEvent`] when the event does not fit; the state is lost, as the journal is broken.
    pub fn apply(mut self, recorded: &Recorded) -> Result<Self, IllegalEvent> {
        if self.follows(recorded) { Ok(self) } else { Err(IllegalEvent::of(recorded)) }
    }

    /// Folds a whole journal as it is stored. An event that does not fit makes it [`Stuck`](Phase::Stuck); of what comes
    /// behind that, only that the operation was given up, or is over, is understood.
    #[must_use]
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Recorded>) -> Self {
        let mut state = Self::default();
        for recorded in events {
            state.read(recorded);
        }
        state
    }

    /// Folds one more event of a stored journal, as [`replay`](Self::replay) does.
    pub(crate) fn read(&mut self, recorded: &Recorded) {
        if !self.follows(recorded) {
            if !self.is_stuck() && !self.is_ended() {
                self.phase = Phase::Stuck { by: IllegalEvent::of(recorded) };
            }
            self.version = recorded.version;
        }
    }

    fn follows(&mut self, recorded: &Recorded) -> bool {
        let follows = recorded.version == self.version + 1 && self.absorb(recorded).is_some();
        if follows {
            self.version = recorded.version;
        }
        follows
    }

    /// What it does; deploys, until the first event says so.
    #[must_use]
    pub fn kind(&self) -> OperationKind {
        self.identity.as_ref().map_or(OperationKind::Deploy, |(kind, _)| *kind)
    }

    /// True once nothing can be cancelled any more: Route is finished, and what follows is not undone; or this version can't
    /// read the journal, or somebody gave the operation up.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        let is_behind_route = |step: Step| step > Step::Route;
        match &self.phase {
            Phase::Ready { next } => is_behind_route(*next),
            Phase::Running { step, .. } => is_behind_route(*step),
            Phase::Waiting { retry, .. } => is_behind_route(retry.from),
            Phase::Complete | Phase::Stuck { .. } | Phase::Ended { .. } => true,
            Phase::Empty | Phase::Undoing { .. } => self.abandoned.is_some(),
        }
    }

    /// True if this version can't read the journal.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        matches!(self.phase, Phase::Stuck { .. })
    }

    /// True once it is over.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// The effects that are still to be undone, the newest first.
    #[must_use]
    pub fn to_undo(&self) -> Option<Step> {
        let began = |step: &Step| match &self.abandoned {
            // Nobody knows what it did. Putting the route back to what the records say is right whatever it was;
            // instances that the records do not name are the warden's.
            Some(_) => *step == Step::Route,
            None => self.attempts.contains_key(step),
        };
        [Step::Route, Step::Start].into_iter().find(|step| began(step) && !self.undone.contains(step))
    }

    /// `None` if the event is illegal here.
    fn absorb(&mut self, recorded: &Recorded) -> Option<()> {
        match (&self.phase, &recorded.event) {
            (Phase::Empty, Event::Accepted { kind, app }) => {
                self.identity = Some((*kind, app.clone()));
                self.phase = Phase::Ready { next: *kind.steps().first()? };
            }
            (Phase::Ready { next }, Event::Started { step, attempt: 1 })
                if next == step && self.cancel.is_none() =>
            {
                self.begin(recorded, *step, 1);
            }
            (Phase::Waiting { retry, .. }, Event::Started { step, attempt })
                if retry.from == *step && retry.attempt == *attempt && self.cancel.is_none() =>
            {
                self.begin(recorded, *step, *attempt);
            }
            // Finishing Route makes the release live: after a request to cancel it is undone instead.
            (Phase::Running { step: running, .. }, Event::Finished { step, output, busy_millis })
                if running == step && (*step != Step::Route || self.cancel.is_none()) =>
            {
                self.busy += Duration::from_millis(*busy_millis);
                self.outages = 0;
                self.keep(*step, output)?;
                self.phase =
                    self.kind().step_after(*step).map_or(Phase::Complete, |next| Phase::Ready { next });
            }
            (
                Phase::Running { step: running, attempt: tried },
                Event::Failed { step, attempt, failure, retry, busy_millis },
            ) if running == step && tried == attempt => match retry {
                Some(retry) => {
                    let is_legal = retry.from <= *step && self.attempts.contains_key(&retry.from);
                    let counts = retry.from != *step || retry.attempt > *attempt;
                    if !is_legal {
                        return None;
                    }
                    if counts {
                        self.busy += Duration::from_millis(*busy_millis) + between(recorded.at, retry.at);
                        self.outages = 0;
                    } else {
                        self.outages += 1;
                    }
                    self.phase = Phase::Waiting { retry: retry.clone(), since: recorded.at };
                }
                None => {
                    self.busy += Duration::from_millis(*busy_millis);
                    self.failure = Some((*step, failure.clone()));
                    self.phase =
                        if *step > Step::Route { Phase::Complete } else { Phase::Undoing { step: None } };
                }
            },
            (Phase::Running { step: Step::Start, .. }, Event::NameTaken { fallback })
                if *fallback == self.fallback + 1 =>
            {
                self.fallback = *fallback;
            }
            (phase, Event::CancelRequested { reason }) if *phase != Phase::Empty && !self.is_committed() => {
                // The first reason counts: it is the one that people were told.
                self.cancel.get_or_insert_with(|| reason.clone());
            }
            (Phase::Ready { .. } | Phase::Waiting { .. }, Event::UndoStarted { step })
                if self.cancel.is_some() && self.to_undo() == Some(*step) =>
            {
                self.begin_undo(recorded, *step);
            }
            (Phase::Undoing { step: None }, Event::UndoStarted { step }) if self.to_undo() == Some(*step) => {
                self.begin_undo(recorded, *step);
            }
            (Phase::Undoing { step: Some(undoing) }, Event::UndoFinished { step }) if undoing == step => {
                self.undone.push(*step);
                self.phase = Phase::Undoing { step: None };
            }
            (Phase::Undoing { step: Some(undoing) }, Event::UndoFailed { step, failure })
                if undoing == step =>
            {
                self.undone.push(*step);
                self.leftovers.push((*step, failure.clone()));
                self.phase = Phase::Undoing { step: None };
            }
            (phase, Event::Abandoned { outcome }) if !matches!(phase, Phase::Empty | Phase::Ended { .. }) => {
                self.failure = match outcome {
                    Outcome::Failed { step, failure } => Some((*step, failure.clone())),
                    _ => None,
                };
                self.abandoned = Some(outcome.clone());
                self.cancel = None;
                self.undone.clear();
                self.leftovers.clear();
                self.phase = Phase::Undoing { step: None };
            }
            (phase, Event::Ended { outcome })
                if matches!(phase, Phase::Stuck { .. })
                    || self.expected_outcome().as_ref() == Some(outcome) =>
            {
                self.phase = Phase::Ended { outcome: outcome.clone() };
            }
            _ => return None,
        }
        Some(())
    }

    fn begin(&mut self, recorded: &Recorded, step: Step, attempt: u32) {
        self.attempts.insert(step, attempt);
        if step == Step::Route {
            self.route_generation = Generation(recorded.position.0);
        }
        self.phase = Phase::Running { step, attempt };
    }

    fn begin_undo(&mut self, recorded: &Recorded, step: Step) {
        if step == Step::Route {
            self.undo_generation = Generation(recorded.position.0);
        }
        self.phase = Phase::Undoing { step: Some(step) };
    }

    /// Folds an output in; `None` if it is another step's.
    fn keep(&mut self, step: Step, output: &Output) -> Option<()> {
        match (step, output) {
            (Step::Fetch, Output::Fetched { commit, tree }) => {
                self.outputs.fetched = Some((commit.clone(), tree.clone()));
            }
            (Step::Plan, Output::Planned { port, .. }) => self.outputs.planned_port = *port,
            (Step::Build, Output::Built { image, cached }) => {
                self.outputs.built = Some((image.clone(), *cached));
            }
            (Step::Start, Output::Started { instance, port }) => {
                self.outputs.started = Some((instance.clone(), *port));
            }
            (Step::Route, Output::Routed { release, url, .. }) if self.kind().serves() => {
                self.outputs.routed = Some((*release, url.clone()));
            }
            (Step::Route, Output::Withdrawn { .. }) if !self.kind().serves() => {}
            (Step::Verify, Output::Verified { .. })
            | (Step::Retire, Output::Retired { .. })
            | (Step::Purge, Output::Purged { .. }) => {}
            _ => return None,
        }
        Some(())
    }

    /// How it ends, if it is at its end.
    pub(super) fn expected_outcome(&self) -> Option<Outcome> {
        let is_undone = match &self.phase {
            Phase::Complete => {
                return Some(match &self.failure {
                    Some((step, failure)) => Outcome::Failed { step: *step, failure: failure.clone() },
                    None => Outcome::Succeeded,
                });
            }
            Phase::Ready { .. } | Phase::Waiting { .. } => self.cancel.is_some() && self.to_undo().is_none(),
            Phase::Undoing { step: None } => self.to_undo().is_none(),
            _ => false,
        };
        if !is_undone {
            return None;
        }
        // It is live: what could not be put right is the warden's, as behind Retire.
        if let Some(outcome) = self.abandoned.as_ref().filter(|_| self.failure.is_none()) {
            return Some(outcome.clone());
        }
        if let Some((step, left)) = self.leftovers.first() {
            return Some(self.outcome_with_leftovers(*step, left));
        }
        match (&self.cancel, &self.failure) {
            (Some(CancelReason::Requested), _) => Some(Outcome::Cancelled),
            (Some(CancelReason::Superseded { by }), _) => Some(Outcome::Superseded { by: by.clone() }),
            (None, Some((step, failure))) => Some(Outcome::Failed { step: *step, failure: failure.clone() }),
            (None, None) => None,
        }
    }

    /// What could not be undone is what people must know, whatever the reason to undo was: `cancelled` would say
    /// that nothing goes on.
    fn outcome_with_leftovers(&self, step: Step, left: &Failure) -> Outcome {
        let leftovers: Vec<&str> = self.leftovers.iter().map(|(_, left)| left.message.as_str()).collect();
        let leftovers = leftovers.join("; ");
        match self.failure.as_ref().filter(|_| self.cancel.is_none()) {
            Some((step, failure)) => {
                let message = format!("{}; and {leftovers}", failure.message);
                Outcome::Failed { step: *step, failure: Failure { message, ..failure.clone() } }
            }
            None => Outcome::Failed { step, failure: Failure { message: leftovers, ..left.clone() } },
        }
    }
}

/// Time from `since` to `until`; none when the clock was set back.
fn between(since: Timestamp, until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(since)).unwrap_or_default()
}
