//! Retire: drain and remove every instance that is not live.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};

use super::{Effects, Work};
use crate::context::Context;
use crate::domain::{DeploymentSpec, Instance};
use crate::error::Result;
use crate::logs::LogSource;
use crate::pipeline::Output;
use crate::runtime::{Addressing, Selector};

/// How many instances are retired at once.
const CONCURRENCY: usize = 4;

impl Effects {
    /// Fails while trying again can help, with what is left by now in the scratch; an instance that can't be removed is
    /// left, and listed.
    pub(super) async fn retire(&self, context: &Context, work: &mut Work<'_>) -> Result<Output> {
        let spec = work.spec;
        let live =
            work.state.outputs.started.as_ref().filter(|_| spec.kind.serves()).map(|(live, _)| &live.name);
        let selector = Selector::of_app(&spec.org, &spec.app);
        let instances = self.services.runtime.list(context, &selector).await?;
        let old: Vec<_> = instances.into_iter().filter(|instance| Some(&instance.name) != live).collect();
        let results: Vec<_> = stream::iter(old)
            .map(|instance| async move { (self.retire_one(context, &instance).await, instance.name) })
            .buffered(CONCURRENCY)
            .collect()
            .await;
        let (mut removed, mut left, mut transient) = (Vec::new(), Vec::new(), None);
        for (result, name) in results {
            match result {
                Ok(()) => removed.push(name),
                Err(error) => {
                    tracing::warn!(instance = %name, ?error, "an instance could not be retired");
                    context.log(LogSource::System, format!("{name} could not be removed: {error}"));
                    left.push(name);
                    if error.is_transient() {
                        transient.get_or_insert(error);
                    }
                }
            }
        }
        if let Some(error) = transient {
            work.scratch.left = left;
            return Err(error);
        }
        self.free_addresses(context, spec, &selector).await?;
        Ok(Output::Retired { removed, left })
    }

    /// Frees every address of the app that no instance has: one may have been removed by somebody else, or just before
    /// a crash.
    async fn free_addresses(
        &self,
        context: &Context,
        spec: &DeploymentSpec,
        selector: &Selector,
    ) -> Result<()> {
        if self.services.runtime.addressing() == Addressing::Runtime {
            return Ok(());
        }
        let instances = self.services.runtime.list(context, selector).await?;
        let mut kept: BTreeSet<_> = instances.into_iter().map(|instance| instance.deployment).collect();
        // The live one keeps its address whatever became of it: the route leads there.
        kept.extend(spec.kind.serves().then(|| spec.id.clone()));
        self.addresses.free_all(&spec.org, &spec.app, &kept).await
    }

    pub(crate) async fn retire_one(&self, context: &Context, instance: &Instance) -> Result<()> {
        let settings = &self.services.settings;
        let draining = context.with_budget(settings.drain);
        self.services.ingress.drain(&draining, &instance.name, instance.address).await?;
        self.services.runtime.stop(context, &instance.name, settings.stop_grace).await?;
        self.collector.finish(&instance.name).await;
        self.services.runtime.remove(context, &instance.name).await
    }
}
