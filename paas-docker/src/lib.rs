//! Image builder and container runtime on the Docker Engine API.
//!
//! Images are built by the engine's BuildKit, straight from a source tree's archive: nothing is written to disk
//! here. Containers are hardened, on a network per org, with addresses that the platform allocates.
//!
//! ```
//! use std::sync::Arc;
//!
//! use paas_core::{ContainerRuntime, Context, SystemClock};
//! use paas_docker::{DockerBuilder, DockerEngine, DockerRuntime};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let context = Context::new(Arc::new(SystemClock::new()));
//! let engine = DockerEngine::connect(&context, "production").await?;
//! let builder = DockerBuilder::new(engine.clone());
//! let runtime = DockerRuntime::new(engine);
//! runtime.ping(&context).await?;
//! # drop(builder);
//! # Ok::<(), paas_core::Error>(()) }).unwrap();
//! ```
//!
//! # Ownership
//! Everything that is made carries the label `paas.installation`; what does not carry it with this installation's
//! name is never changed or removed.

mod builder;
mod engine;
mod http;
mod runtime;

pub use builder::DockerBuilder;
pub use engine::DockerEngine;
pub use runtime::DockerRuntime;
