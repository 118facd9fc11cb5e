//! The domain types refuse what the contract refuses, and keep what they promise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod context;
mod egress;
mod env;
mod error;
mod git_url;
mod ids;
mod limits;
mod names;
mod seal;
mod settings;
