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
mod tree;

pub use dns::MemoryDns;
pub use git::MemoryGit;
pub use host::{MemoryHost, Program, ProgramExit, Script};
pub use image::MemoryBuilder;
pub use ingress::{MemoryAnswer, MemoryIngress, MemoryRequest};
pub use log_store::MemoryLogStore;
pub use plan::MemoryPlanner;
pub use runtime::MemoryRuntime;
pub use state_store::MemoryStore;
pub use tree::{MemoryFile, MemoryFiles, MemoryTree};
