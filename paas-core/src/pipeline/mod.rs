//! The pipeline: a fixed list of steps as a pure state machine over a journal.
//!
//! [`State::apply`] folds the journal, [`State::decide`] says what to do next; neither does anything, reads a
//! clock or draws a random number, so that the same journal always means the same.

mod decide;
mod event;
mod policy;
mod projection;
mod state;

pub use decide::Action;
pub use event::{CancelReason, DnsDrift, Drift, Event, Outcome, Output, Recorded, RetryPlan, RouteDrift};
pub use policy::RetryPolicy;
pub(crate) use policy::{EXITED, may_be_outage};
pub use projection::project;
pub(crate) use projection::{observe, project_drift, shown_state};
pub use state::{IllegalEvent, Outputs, Phase, State};
