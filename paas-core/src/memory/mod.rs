//! In-memory adapters: small, honest implementations of every trait, for tests, examples and simulation.

mod dns;
mod git;
mod image;
mod ingress;
mod log_store;
mod plan;
mod runtime;
mod state_store;
mod tree;

pub use git::MemoryGit;
pub use tree::{MemoryFile, MemoryFiles, MemoryTree};
