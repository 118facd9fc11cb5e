//! The in-memory planner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::git::{EntryKind, SourceTree};
use crate::plan::{BuildPlan, Dockerfile, Planner};

const OPERATION: &str = "plan";
const DOCKERFILE: &str = "Dockerfile";
/// Far above any Dockerfile that a person wrote.
const DOCKERFILE_MAX_BYTES: u64 = 1024 * 1024;

/// A planner for in-memory platforms, whose builder runs no commands: it asks only whether there is something
/// to build.
///
/// A `Dockerfile` in the tree wins; any other tree with a file in it is a static site; an empty one is refused.
///
/// ```
/// use paas_core::Planner;
/// use paas_core::memory::MemoryPlanner;
/// let planner: std::sync::Arc<dyn Planner> = std::sync::Arc::new(MemoryPlanner);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryPlanner;

#[async_trait]
impl Planner for MemoryPlanner {
    async fn plan(&self, tree: Arc<dyn SourceTree>) -> Result<BuildPlan> {
        if let Some(bytes) = tree.read(DOCKERFILE, DOCKERFILE_MAX_BYTES).await? {
            let text = String::from_utf8(bytes.into()).map_err(|cause| {
                Error::invalid(OPERATION, "the Dockerfile is not UTF-8 text")
                    .hint("save the Dockerfile as UTF-8")
                    .source(cause)
            })?;
            let base_images = base_images(&text);
            let dockerfile = Dockerfile::Repository { path: DOCKERFILE.to_owned(), text };
            return Ok(plan("dockerfile", "there is a Dockerfile", dockerfile, base_images));
        }
        let entries = tree.entries().await?;
        if !entries.iter().any(|entry| matches!(entry.kind, EntryKind::File { .. })) {
            return Err(Error::invalid(OPERATION, "there is nothing to build: the tree has no file")
                .hint("looked for a Dockerfile, then for any file: commit one"));
        }
        let dockerfile =
            Dockerfile::Generated { text: "FROM scratch\nCOPY . /\n".to_owned(), files: BTreeMap::new() };
        Ok(plan("static", "there are files and no Dockerfile", dockerfile, Vec::new()))
    }
}

fn plan(recipe: &str, reason: &str, dockerfile: Dockerfile, base_images: Vec<String>) -> BuildPlan {
    BuildPlan {
        recipe: recipe.to_owned(),
        version: None,
        framework: None,
        reasons: vec![reason.to_owned()],
        install: Vec::new(),
        build: Vec::new(),
        start: Vec::new(),
        port: None,
        dockerfile,
        base_images,
    }
}

/// The image of each `FROM` line that is not an earlier stage, once.
fn base_images(text: &str) -> Vec<String> {
    let mut images = Vec::new();
    let mut known = BTreeSet::from(["scratch"]);
    for line in text.lines() {
        let mut words = line.split_whitespace().filter(|word| !word.starts_with("--"));
        if words.next().is_some_and(|word| word.eq_ignore_ascii_case("from"))
            && let Some(image) = words.next()
        {
            if known.insert(image) {
                images.push(image.to_owned());
            }
            known.extend(words.nth(1));
        }
    }
    images
}
