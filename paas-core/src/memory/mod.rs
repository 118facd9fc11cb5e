//! In-memory adapters: small, honest implementations of every trait, for tests, examples and simulation.

mod dns;
mod git;
mod host;
mod image;
mod ingress;
mod log_store;
mod plan;
mod runtime;
mod state_store;

pub use host::{MemoryHost, Program, ProgramExit, Script};
pub use image::MemoryBuilder;
pub use runtime::MemoryRuntime;
