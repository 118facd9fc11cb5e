//! A real git server on this machine, for tests and demonstrations.

mod backend;
mod fault;
mod repository;
mod server;

pub use fault::GitFault;
pub use server::GitServer;
