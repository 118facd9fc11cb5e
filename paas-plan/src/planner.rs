//! The planner: asks each recipe in turn.

use std::sync::Arc;

use async_trait::async_trait;
use paas_core::{BuildPlan, Error, Planner, Result, SourceTree};

use crate::recipes::{RECIPES, Verdict};
use crate::source::Source;
use crate::{BaseImages, OPERATION};

/// Plans by looking at the tree: at its Dockerfile, or at the manifests of the languages it knows.
///
/// # Guarantees
/// It looks through paths up to three parts long and reads at most a few dozen files of at most 1 MiB. Nothing of the
/// repository becomes an instruction of a generated Dockerfile.
#[derive(Clone, Debug, Default)]
pub struct SourcePlanner {
    images: BaseImages,
}

impl SourcePlanner {
    /// A planner whose generated Dockerfiles start from these images.
    #[must_use]
    pub fn new(images: BaseImages) -> Self {
        Self { images }
    }
}

#[async_trait]
impl Planner for SourcePlanner {
    async fn plan(&self, tree: Arc<dyn SourceTree>) -> Result<BuildPlan> {
        let source = Source::new(tree).await?;
        let mut unfinished = None;
        for recipe in RECIPES {
            match recipe.judge(&source, &self.images).await? {
                Verdict::Fits(plan) => return Ok(*plan),
                Verdict::Unfinished(error) => unfinished = unfinished.or(Some(error)),
                Verdict::Foreign => {}
            }
        }
        Err(unfinished.unwrap_or_else(|| {
            let looked_for: Vec<&str> = RECIPES.iter().map(|recipe| recipe.looks_for()).collect();
            Error::invalid(OPERATION, "nothing in the repository says how it is built").hint(format!(
                "looked for {}: add one of them, or set the root directory",
                looked_for.join("; ")
            ))
        }))
    }
}
