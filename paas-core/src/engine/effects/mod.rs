//! What the steps do, and how they are undone. Each repeats safely: it looks before it makes.

mod purge;
mod retire;
mod route;
mod run;
mod source;

use std::sync::Arc;
use std::time::Duration;

use crate::context::Context;
use crate::domain::{AppStatus, DeploymentSpec, Image, InstanceName, Step};
use crate::engine::services::Services;
use crate::engine::{Addresses, Collector};
use crate::error::Result;
use crate::git::SourceTree;
use crate::pipeline::{Output, State};
use crate::plan::BuildPlan;
use crate::store::Write;

/// The code of the runtime's error for a name that belongs to something foreign.
pub(crate) const FOREIGN_NAME: &str = "foreign_name";

/// Carries steps out.
#[derive(Debug)]
pub(crate) struct Effects {
    pub(super) services: Arc<Services>,
    pub(crate) addresses: Addresses,
    pub(super) collector: Arc<Collector>,
}

/// What a step has to go by.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    /// What was asked.
    pub spec: &'a DeploymentSpec,
    /// The operation's state.
    pub state: &'a State,
    /// The app's status.
    pub status: &'a AppStatus,
    /// What earlier steps of this process left in memory.
    pub scratch: &'a mut Scratch,
}

/// What a step leaves in memory for the next one; made anew after a crash.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    tree: Option<Arc<dyn SourceTree>>,
    plan: Option<BuildPlan>,
    /// What Retire could not remove when it was tried last.
    pub left: Vec<InstanceName>,
}

/// What a step brought.
#[derive(Debug)]
pub(crate) struct Performed {
    /// Its output.
    pub output: Output,
    /// The image that Plan found built already: Build has nothing to do.
    pub found: Option<Image>,
    /// The records that change in the commit that ends the step.
    pub writes: Vec<Write>,
}

impl From<Output> for Performed {
    fn from(output: Output) -> Self {
        Self { output, found: None, writes: Vec::new() }
    }
}

impl Effects {
    pub(crate) fn new(services: Arc<Services>, collector: Arc<Collector>) -> Self {
        let addresses =
            Addresses::new(services.store.clone(), services.clock.clone(), services.settings.clone());
        Self { services, addresses, collector }
    }

    /// Does a step, within the context's budget.
    pub(crate) async fn perform(
        &self,
        context: &Context,
        step: Step,
        work: &mut Work<'_>,
    ) -> Result<Performed> {
        match step {
            Step::Fetch => self.fetch(context, work).await.map(Performed::from),
            Step::Plan => self.plan(context, work).await,
            Step::Build => self.build(context, work).await.map(Performed::from),
            Step::Start => self.start(context, work).await.map(Performed::from),
            Step::Verify => self.verify(context, work).await.map(Performed::from),
            Step::Route => self.route(context, work).await,
            Step::Retire => self.retire(context, work).await.map(Performed::from),
            Step::Purge => self.purge(context, work).await.map(Performed::from),
        }
    }

    /// Undoes a step that began, and answers the records that change in the commit that ends it.
    pub(crate) async fn undo(
        &self,
        context: &Context,
        step: Step,
        work: &mut Work<'_>,
    ) -> Result<Vec<Write>> {
        match step {
            Step::Start => self.undo_start(context, work).await.map(|()| Vec::new()),
            Step::Route => self.undo_route(context, work).await,
            Step::Fetch | Step::Plan | Step::Build | Step::Verify | Step::Retire | Step::Purge => {
                Ok(Vec::new())
            }
        }
    }

    /// How long a step, or its undoing, may take. The adapters' own limits are tighter: this is the net below them.
    pub(crate) fn budget(&self, step: Step, spec: &DeploymentSpec) -> Duration {
        let settings = &self.services.settings;
        let margin = Duration::from_secs(30);
        match step {
            Step::Fetch => Duration::from_secs(10 * 60),
            Step::Plan => Duration::from_secs(60),
            Step::Build => settings.build_limits.total + margin,
            Step::Start => Duration::from_secs(2 * 60),
            Step::Verify => spec.config.health_check.grace() + spec.config.health_check.timeout() + margin,
            Step::Route => Duration::from_secs(60),
            Step::Retire => settings.drain + settings.stop_grace + 2 * margin,
            Step::Purge => Duration::from_secs(5 * 60),
        }
    }
}
