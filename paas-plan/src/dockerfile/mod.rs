//! Dockerfiles: reading one that a person wrote, and writing one.

mod reader;
mod safety;
mod syntax;
mod words;
mod writer;

pub use reader::{DockerfileSummary, NamedImage, read_dockerfile};
pub(crate) use writer::{DEFAULT_PORT, Installer, Writer};
