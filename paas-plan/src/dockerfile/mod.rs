//! Dockerfiles: reading one that a person wrote, and writing one.

mod reader;
mod safety;
mod syntax;
mod words;
mod writer;

pub(crate) use reader::read;
pub(crate) use writer::{DEFAULT_PORT, Installer, Writer};
