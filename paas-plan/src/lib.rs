//! Reads a source tree and answers how it is built and run: a plan, with its reasons, and the Dockerfile it means.
//!
//! ```
//! use std::sync::Arc;
//! use paas_core::{Planner, memory::MemoryTree};
//! use paas_plan::SourcePlanner;
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let tree = MemoryTree::new([
//!     ("requirements.txt", "flask"),
//!     ("app.py", "from flask import Flask\napp = Flask(__name__)\n"),
//! ])?;
//! let plan = SourcePlanner::default().plan(Arc::new(tree)).await?;
//! assert_eq!(plan.recipe, "python");
//! assert_eq!(plan.framework.as_deref(), Some("Flask"));
//! assert_eq!(plan.start, ["gunicorn", "--threads", "4", "--keep-alive", "75", "app:app"]);
//! assert!(plan.dockerfile.text().starts_with("FROM python:3.13-slim\n"));
//! # Ok::<(), paas_core::Error>(()) }).unwrap();
//! ```
//!
//! A `Dockerfile` in the tree wins. Otherwise the first recipe that fits completely decides; a recipe is one module
//! in `recipes`, named there and put in its list.

mod base_images;
mod dockerfile;
mod planner;
mod recipes;
mod source;
mod version;

pub use base_images::BaseImages;
pub use dockerfile::{DockerfileSummary, NamedImage, read_dockerfile};
pub use planner::SourcePlanner;

/// The operation that every error of this crate names.
const OPERATION: &str = "plan";
