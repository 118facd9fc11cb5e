//! The engine: claims due apps, and takes their operations through the pipeline.
//!
//! # Flow
//! The supervisor claims leases and gives each to a worker. A worker replays the journal of the app's operation,
//! asks [`State::decide`](crate::pipeline::State::decide) what to do, records that it begins, acts, and records
//! the outcome together with the beginning of the next step: one commit a step.
//!
//! # Guarantees
//! - Nothing is done that was not recorded first; what was recorded is repeated after a crash, under the same names.
//! - A worker whose lease was lost writes nothing more and publishes nothing more.

mod acceptance;
mod addresses;
mod collector;
mod effects;
mod hub;
mod journal;
mod outages;
mod services;
mod stuck;
mod supervisor;
pub(crate) mod tally;
mod warden;
mod wish;
mod worker;

use std::time::Duration;

use crate::domain::AppId;
use crate::store::{LeaseChange, Scope, WorkClass};

pub(crate) use acceptance::Acceptance;
pub(crate) use addresses::Addresses;
pub(crate) use collector::Collector;
pub(crate) use effects::Effects;
pub(crate) use hub::{Hub, Watch};
pub(crate) use outages::Outages;
pub(crate) use services::{PING_PATIENCE, Services};
pub(crate) use stuck::StuckNote;
pub(crate) use supervisor::Engine;
pub(crate) use wish::take_back;

/// Has a worker look at an app now.
pub(crate) fn due_now(app: &AppId, scope: Scope) -> LeaseChange {
    LeaseChange::Schedule { key: app.to_string(), scope, class: WorkClass::Light, after: Duration::ZERO }
}
