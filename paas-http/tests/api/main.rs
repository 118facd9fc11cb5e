//! The API as clients meet it: over HTTP, on a platform in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests, and what they share

mod access;
mod apps;
mod deployments;
mod inputs;
mod lists;
mod logs;
mod operations;
mod prometheus;
mod stuck;
mod world;
