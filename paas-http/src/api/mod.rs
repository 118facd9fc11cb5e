//! The endpoints, by area.

pub(crate) mod apps;
pub(crate) mod bodies;
pub(crate) mod deployments;
pub(crate) mod events;
pub(crate) mod logs;
pub(crate) mod operations;
pub(crate) mod types;
pub(crate) mod words;
