//! Sees to an app that nothing is under way for: what is there becomes what should be.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Worker;
use crate::context::Context;
use crate::domain::{AppId, AppStatus, Instance};
use crate::engine::journal::FENCED;
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Drift, Event};
use crate::records;
use crate::runtime::{Addressing, Selector};
use crate::store::{Batch, Lease, Scope, StreamId};

/// How often an event is recorded anew after somebody else changed the app.
const TRIES: usize = 20;
/// How long seeing to an app may take: what is left then is for the next look.
const BUDGET: Duration = Duration::from_secs(3 * 60);

impl Worker {
    /// Removes the app's instances that nobody needs. What fails is left for the warden's next look.
    ///
    /// # Errors
    /// `Conflict` with the code `fenced` when the lease was lost; the store's.
    pub(super) async fn tend(
        &self,
        lease: &mut Lease,
        app: &AppId,
        status: Option<&AppStatus>,
    ) -> Result<()> {
        let Scope::Org(org) = lease.scope.clone() else { return Ok(()) };
        let context = self.services.context().with_budget(BUDGET);
        let selector = Selector { org: Some(org.clone()), app: Some(app.clone()) };
        let Ok(instances) = self.services.runtime.list(&context, &selector).await else { return Ok(()) };
        let live = status.and_then(|status| status.instance.as_ref());
        let is_needed = |instance: &Instance| live.is_some_and(|live| live.name == instance.name);
        for instance in instances.iter().filter(|instance| !is_needed(instance)) {
            self.tell(lease, app, instance, Drift::Unneeded).await?;
            let removal = self.effects.retire_one(&context, instance);
            if let Err(error) = self.holding(lease, &context, removal).await? {
                tracing::warn!(instance = %instance.name, ?error, "what nobody needs could not be removed");
                return Ok(());
            }
        }
        if self.services.runtime.addressing() == Addressing::Platform {
            let kept: BTreeSet<_> = live.into_iter().map(|live| live.deployment.clone()).collect();
            self.effects.addresses.free_all(&org, app, &kept).await?;
        }
        Ok(())
    }

    /// Records what was found before anything is done about it.
    async fn tell(&self, lease: &Lease, app: &AppId, instance: &Instance, drift: Drift) -> Result<()> {
        tracing::warn!(%app, instance = %instance.name, ?drift, "putting right what has drifted");
        let event = [Event::DriftFound { instance: instance.name.clone(), drift }];
        for _ in 0..TRIES {
            let stream = StreamId::from(app);
            let version = self.services.records().count_events(&lease.scope, &stream).await?;
            let now = self.services.clock.now();
            let append = records::append(lease.scope.clone(), stream, version, now, &event)?;
            let batch = Batch { fence: Some(lease.clone()), appends: vec![append], ..Batch::default() };
            match self.services.store.commit(batch).await {
                // Somebody changes the app just now.
                Err(error) if error.kind() == Kind::Conflict && error.reason() != Some(FENCED) => {}
                result => return result.map(drop),
            }
        }
        Err(Error::new(Kind::Unavailable, "worker.tell", "the app is being changed by too many at once"))
    }

    /// Renews the lease while `work` is under way; when it is lost, or the platform stops, the work is cancelled. The
    /// outer error is the worker's, the inner one the work's.
    async fn holding<T>(
        &self,
        lease: &mut Lease,
        context: &Context,
        work: impl Future<Output = Result<T>>,
    ) -> Result<Result<T>> {
        let settings = &self.services.settings;
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return Ok(result),
                () = self.stop.cancelled(), if !context.is_cancelled() => context.cancel(),
                () = self.services.clock.sleep(settings.lease_renewal) => {
                    match self.services.store.renew(lease, settings.lease).await {
                        Ok(renewed) => *lease = renewed,
                        Err(error) if error.kind() == Kind::Conflict => {
                            context.cancel();
                            return Err(error);
                        }
                        // The store is out: the lease may still be good.
                        Err(_) => {}
                    }
                }
            }
        }
    }
}
