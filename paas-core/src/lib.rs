//! An embeddable platform-as-a-service engine: a git repository goes in, a verified live URL comes out, durably.
//!
//! ```
//! use std::sync::Arc;
//! use paas_core::memory::MemoryGit;
//! use paas_core::{NewApp, Platform};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> paas_core::Result<()> {
//! let repository = "https://git.example.com/team/hello.git";
//! let git = Arc::new(MemoryGit::new());
//! git.commit(&repository.parse()?, &"main".parse()?, [("index.html", "<h1>Hello</h1>")]);
//!
//! let platform = Platform::builder().git(git).start().await?;
//! let created = platform.apps().create(NewApp::new("hello", repository)?).await?;
//! let deployment = created.first_deployment()?.outcome().await?;
//! assert_eq!(deployment.release, Some(paas_core::ReleaseNumber(1)));
//! # Ok(())
//! # }
//! ```
//!
//! # How it fits together
//! [`Platform`] is what programs call. It works through adapters: [`StateStore`], [`GitProvider`], [`Planner`],
//! [`ImageBuilder`], [`ContainerRuntime`], [`Ingress`], [`DnsService`] and [`LogStore`]. What is not given to its
//! builder is in [`memory`]. [`pipeline`] is the pure state machine that every operation follows.
//!
//! # Features
//! `testing`: conformance suites for those who write adapters, seeded faults, the test clock. `mock`: mocks of every
//! trait.

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
pub mod metrics;
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
mod watch;
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
pub use metrics::{Metrics, Outcome};
pub use pipeline::{Event, Recorded};
pub use plan::*;
pub use platform::*;
pub use records::Versioned;
pub use runtime::*;
pub use seal::{Keyring, Sealed};
pub use settings::{AddressPool, Settings};
pub use store::*;

/// The README's program is a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
