//! In-memory adapters: small, honest implementations of every trait, for tests, examples and simulation.

mod dns;
mod git;
mod image;
mod ingress;
mod log_store;
mod plan;
mod runtime;
mod state_store;

pub use log_store::MemoryLogStore;
pub use state_store::MemoryStore;
