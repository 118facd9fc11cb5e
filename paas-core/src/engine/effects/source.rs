//! Fetch, Plan and Build: from a repository to an image.

use std::sync::Arc;

use super::{Effects, Performed, Work};
use crate::context::Context;
use crate::domain::{CommitId, Step};
use crate::error::{Error, Result};
use crate::git::{Reference, SourceTree};
use crate::image::BuildRequest;
use crate::logs::LogSource;
use crate::pipeline::Output;

impl Effects {
    pub(super) async fn fetch(&self, context: &Context, work: &mut Work<'_>) -> Result<Output> {
        let spec = work.spec;
        let source = &spec.source;
        let repository = self.services.repository(&spec.org, &spec.app, source)?;
        let reference = match (&source.commit, &source.branch) {
            (Some(commit), _) => Reference::Commit(commit.clone()),
            (None, Some(branch)) => Reference::Named(branch.clone()),
            (None, None) => Reference::Default,
        };
        let revision = self.services.git.resolve(context, &repository, &reference).await?;
        let of_branch = revision.branch.as_ref().map(|branch| format!(" of {branch}")).unwrap_or_default();
        context.log(
            LogSource::System,
            format!("fetching {}{of_branch} from {}", revision.commit.short(), source.repository),
        );
        let tree =
            self.services.git.fetch(context, &repository, &revision.commit, &source.root_directory).await?;
        let output = Output::Fetched { commit: revision.commit, tree: tree.id() };
        work.scratch.tree = Some(tree);
        Ok(output)
    }

    pub(super) async fn plan(&self, context: &Context, work: &mut Work<'_>) -> Result<Performed> {
        let request = self.build_request(context, work).await?;
        let (plan, builder) = (&request.plan, &self.services.builder);
        let version = plan.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        context.log(LogSource::System, format!("plan: {}{version}", plan.recipe));
        for reason in &plan.reasons {
            context.log(LogSource::System, format!("  {reason}"));
        }
        let key = builder.key(context, &request).await?;
        let found = if request.no_cache { None } else { builder.find(context, &key).await? };
        if found.is_some() {
            context.log(LogSource::System, "the same tree was built before: using the cached image");
        }
        let output = Output::Planned {
            recipe: plan.recipe.clone(),
            reasons: plan.reasons.clone(),
            key,
            port: plan.port,
        };
        Ok(Performed { output, found, writes: Vec::new() })
    }

    pub(super) async fn build(&self, context: &Context, work: &mut Work<'_>) -> Result<Output> {
        let request = self.build_request(context, work).await?;
        let builder = &self.services.builder;
        // Asked again: the base images may have changed while the build waited for its slot.
        let key = builder.key(context, &request).await?;
        let image = builder.build(context, &request, &key).await?;
        Ok(Output::Built { image, cached: false })
    }

    async fn build_request(&self, context: &Context, work: &mut Work<'_>) -> Result<BuildRequest> {
        let tree = self.tree(context, work).await?;
        let plan = match work.scratch.plan.take() {
            Some(plan) => plan,
            None => self.services.planner.plan(tree.clone()).await?,
        };
        work.scratch.plan = Some(plan.clone());
        let spec = work.spec;
        Ok(BuildRequest {
            org: spec.org.clone(),
            app: spec.app.clone(),
            deployment: spec.id.clone(),
            tree,
            plan,
            no_cache: spec.no_cache,
            limits: self.services.settings.build_limits.clone(),
        })
    }

    /// The tree that Fetch brought; after a restart it is opened again.
    async fn tree(&self, context: &Context, work: &mut Work<'_>) -> Result<Arc<dyn SourceTree>> {
        if let Some(tree) = &work.scratch.tree {
            return Ok(tree.clone());
        }
        let spec = work.spec;
        let commit: &CommitId =
            work.state.outputs.fetched.as_ref().map(|(commit, _)| commit).ok_or_else(|| {
                Error::internal(
                    "effects.tree",
                    format!("{:?} comes before it is known what to build", Step::Fetch),
                )
            })?;
        let repository = self.services.repository(&spec.org, &spec.app, &spec.source)?;
        let tree = self.services.git.fetch(context, &repository, commit, &spec.source.root_directory).await?;
        work.scratch.tree = Some(tree.clone());
        Ok(tree)
    }
}
