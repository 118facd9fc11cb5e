//! The API as clients meet it: over HTTP, on a platform in memory.

mod access;
mod apps;
mod deployments;
mod inputs;
mod lists;
mod logs;
mod operations;
mod world;
