//! Which failures are tried again, when, and from where.

use std::time::Duration;

use jiff::Timestamp;

use super::event::RetryPlan;
use super::state::State;
use crate::backoff::Backoff;
use crate::domain::Step;
use crate::error::{Error, Fault, Kind, Retry, UNREACHABLE};

/// The code of the error of an instance whose process ended before it was healthy.
pub(crate) const EXITED: &str = "exited";

/// Bounds of retrying. The defaults are the contract's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The waits between tries.
    pub backoff: Backoff,
    /// How often a step is tried where somebody answers.
    pub attempts: u32,
    /// How often an instance is started: once, and three times more when its process ends or the engine refuses.
    pub start_attempts: u32,
    /// How long an operation may be busy in all.
    pub deadline: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            attempts: 5,
            start_attempts: 4,
            deadline: Duration::from_secs(60 * 60),
        }
    }
}

impl RetryPolicy {
    /// What follows a failure of the running step: another try, or `None`.
    ///
    /// User faults are final, but for a process that ended at start. An upstream that can't be reached is tried until
    /// the deadline.
    #[must_use]
    pub fn after(
        &self,
        state: &State,
        step: Step,
        attempt: u32,
        error: &Error,
        now: Timestamp,
        random: u64,
    ) -> Option<RetryPlan> {
        let runs = matches!(step, Step::Start | Step::Verify | Step::Route);
        let has_exited = runs && error.reason() == Some(EXITED);
        let was_refused =
            step == Step::Start && error.whose() != Fault::User && error.kind() != Kind::Cancelled;
        let (from, tried, allowed) = if has_exited || was_refused {
            (Step::Start, state.attempts.get(&Step::Start).copied().unwrap_or(1), self.start_attempts)
        } else if error.is_transient() && error.reason() == Some(UNREACHABLE) {
            (step, attempt, u32::MAX)
        } else if error.is_transient() && error.whose() != Fault::User {
            (step, attempt, self.attempts)
        } else {
            return None;
        };
        let delay = self.backoff.delay(tried.saturating_sub(1), random, retry_after(error));
        if tried >= allowed || state.busy + delay >= self.deadline {
            return None;
        }
        Some(RetryPlan { from, attempt: tried + 1, at: later(now, delay) })
    }

    /// What follows a failure that came of an outage of the platform's own parts: the same try again, as often as
    /// it takes.
    #[must_use]
    pub fn wait_out(
        &self,
        state: &State,
        step: Step,
        attempt: u32,
        error: &Error,
        now: Timestamp,
        random: u64,
    ) -> RetryPlan {
        let delay = self.backoff.delay(state.outages, random, retry_after(error));
        RetryPlan { from: step, attempt, at: later(now, delay) }
    }
}

/// True for an error that an outage of the platform's own parts gives, but also one of them that answers and refuses
/// for another reason: whether they are out is for whoever can ask them.
pub(crate) fn may_be_outage(error: &Error) -> bool {
    error.whose() == Fault::Platform && error.kind() == Kind::Unavailable && error.is_transient()
}

fn retry_after(error: &Error) -> Option<Duration> {
    match error.retryable() {
        Retry::Transient { after } => after,
        Retry::Permanent | Retry::Exhausted => None,
    }
}

fn later(now: Timestamp, delay: Duration) -> Timestamp {
    now.checked_add(delay).unwrap_or(Timestamp::MAX)
}
