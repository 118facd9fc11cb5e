//! What to do next.

use jiff::Timestamp;

use super::event::Outcome;
use super::state::{IllegalEvent, Phase, State};
use crate::domain::Step;

/// What a worker does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Do, or after a crash repeat, a step.
    Do {
        /// The step.
        step: Step,
        /// The number of the try.
        attempt: u32,
    },
    /// Undo, or after a crash repeat the undoing of, a step.
    Undo {
        /// The step.
        step: Step,
    },
    /// Nothing before this time.
    Sleep {
        /// The time.
        until: Timestamp,
    },
    /// Record the end.
    Finish {
        /// How it ends.
        outcome: Outcome,
    },
    /// Nothing, until a version reads the journal that understands it, or somebody gives the operation up.
    Wait {
        /// What is not understood.
        by: IllegalEvent,
    },
    /// Nothing, ever again.
    Idle,
}

impl State {
    /// What to do next at `now`. Pure: the same state and time give the same answer.
    #[must_use]
    pub fn decide(&self, now: Timestamp) -> Action {
        if let Some(outcome) = self.expected_outcome() {
            return Action::Finish { outcome };
        }
        match (&self.phase, self.to_undo()) {
            (Phase::Stuck { by }, _) => Action::Wait { by: by.clone() },
            (Phase::Running { step, attempt, .. }, _) => Action::Do { step: *step, attempt: *attempt },
            (Phase::Undoing { step: Some(step) }, _) => Action::Undo { step: *step },
            (Phase::Undoing { step: None }, Some(step)) => Action::Undo { step },
            (Phase::Ready { .. } | Phase::Waiting { .. }, Some(step)) if self.cancel.is_some() => {
                Action::Undo { step }
            }
            (Phase::Ready { next }, _) => Action::Do { step: *next, attempt: 1 },
            // A clock that was set back since makes no wait longer than it was meant to be.
            (Phase::Waiting { retry, since }, _) if (*since..retry.at).contains(&now) => {
                Action::Sleep { until: retry.at }
            }
            (Phase::Waiting { retry, .. }, _) => Action::Do { step: retry.from, attempt: retry.attempt },
            (Phase::Empty | Phase::Complete | Phase::Undoing { step: None } | Phase::Ended { .. }, _) => {
                Action::Idle
            }
        }
    }
}
