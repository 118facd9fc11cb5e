//! An embeddable platform-as-a-service engine: a git repository goes in, a verified live URL comes out, durably.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod clock;
mod context;
mod dns;
mod domain;
mod engine;
pub mod error;
mod fingerprint;
mod git;
mod ids;
mod image;
mod ingress;
mod logs;
pub mod memory;
mod metrics;
#[cfg(feature = "mock")]
pub mod mock;
pub mod pipeline;
mod plan;
mod platform;
mod records;
mod runtime;
mod seal;
mod settings;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wrap;

pub use backoff::Backoff;
#[cfg(feature = "testing")]
pub use clock::TestClock;
pub use clock::{Clock, SystemClock};
pub use context::Context;
pub use dns::*;
pub use domain::*;
pub use error::{Error, Failure, Fault, Kind, Result, Retry};
pub use git::*;
pub use ids::{Ids, RandomIds};
pub use image::*;
pub use ingress::*;
pub use logs::*;
pub use metrics::{CallSample, Metrics, Outcome};
pub use pipeline::{Event, Recorded};
pub use plan::*;
pub use platform::*;
pub use records::Versioned;
pub use runtime::*;
pub use seal::{Keyring, Sealed};
pub use settings::{AddressPool, Settings};
pub use store::*;
