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

pub use log_store::MemoryLogStore;
pub use state_store::MemoryStore;
mod tree;

pub use git::MemoryGit;
pub use tree::{MemoryFiles, MemoryTree};
pub use plan::MemoryPlanner;
pub use host::{MemoryHost, Program, ProgramExit, Script};
pub use image::MemoryBuilder;
pub use runtime::MemoryRuntime;
pub use dns::MemoryDns;
pub use ingress::{MemoryAnswer, MemoryIngress, MemoryRequest};
