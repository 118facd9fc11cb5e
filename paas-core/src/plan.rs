//! The trait of planners, and what they answer.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::domain::Port;
use crate::error::Result;
use crate::git::SourceTree;

/// How a source tree is built and run, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPlan {
    /// What decides: `dockerfile`, `python`, `node`, `static`.
    pub recipe: String,
    /// The version of the language, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The framework that was recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// Each decision with its reason, in the order they were taken.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// The commands that install dependencies, as arrays of arguments.
    #[serde(default)]
    pub install: Vec<Vec<String>>,
    /// The commands that build.
    #[serde(default)]
    pub build: Vec<Vec<String>>,
    /// The command that starts the app; empty if the image says it.
    #[serde(default)]
    pub start: Vec<String>,
    /// The port that the app will listen on, where the plan knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Where the Dockerfile comes from.
    pub dockerfile: Dockerfile,
    /// The images that the Dockerfile starts or copies from, in order, without repetition.
    #[serde(default)]
    pub base_images: Vec<String>,
}

/// The Dockerfile of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Dockerfile {
    /// A file of the repository, as it stands there.
    Repository {
        /// Its path in the tree.
        path: String,
        /// Its text.
        text: String,
    },
    /// Written by the planner.
    Generated {
        /// Its text.
        text: String,
        /// Files beside it that the build needs and the repository does not have, by their path in the context.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        files: BTreeMap<String, String>,
    },
}

impl Dockerfile {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Repository { text, .. } | Self::Generated { text, .. } => text,
        }
    }
}

/// Decides how a tree is built.
///
/// # Guarantees
/// - Pure: the same tree gives the same plan, to the byte. It reads the tree and nothing else, within bounds of
///   files and bytes, whatever is in it.
/// - A `Dockerfile` at the tree's root wins over everything else.
///
/// # Errors
/// `Invalid`, the user's fault, when nothing fits: the hint says what was looked for. An error of the tree itself
/// comes out as it is.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Planner: Debug + Send + Sync + 'static {
    /// The plan for a tree.
    async fn plan(&self, tree: Arc<dyn SourceTree>) -> Result<BuildPlan>;
}
