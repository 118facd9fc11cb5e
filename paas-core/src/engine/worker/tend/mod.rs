//! Sees to an app that nothing is under way for: what is there becomes what should be.

mod dns;
mod images;
mod revival;
mod route;

use std::collections::BTreeSet;
use std::time::Duration;

use super::{MAX_FALLBACKS, Worker};
use crate::context::Context;
use crate::domain::{AppId, AppStatus, Crashes, DeploymentId, Instance, InstanceName, InstanceState, OrgId};
use crate::engine::effects::{FOREIGN_NAME, Scratch, Work};
use crate::engine::journal::{FENCED, Journal};
use crate::engine::tally;
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Drift, Event, project_drift};
use crate::records::{self, Versioned};
use crate::runtime::{Addressing, Selector};
use crate::store::{Append, Batch, Expect, Lease, Position, Scope, StreamId, Write};

/// The code of the runtime's error for a release whose image is gone.
const IMAGE_MISSING: &str = "image_missing";
/// How often an event is recorded anew after somebody else changed the app.
const TRIES: usize = 20;
/// How long seeing to an app may take: what is left then is for the next look.
const BUDGET: Duration = Duration::from_secs(3 * 60);
/// The wait after something could not be put right.
const AGAIN: Duration = Duration::from_secs(10);

impl Worker {
    /// Makes the app's live instance run, has its route follow, and removes instances and images that nobody needs;
    /// answers when to look again.
    ///
    /// # Errors
    /// `Conflict` with the code `fenced` when the lease was lost; the store's.
    pub(super) async fn tend(
        &self,
        lease: &mut Lease,
        app: &AppId,
        status: Option<Versioned<AppStatus>>,
    ) -> Result<Option<Duration>> {
        let Scope::Org(org) = lease.scope.clone() else { return Ok(None) };
        let mut tending = Tending { worker: self, lease, app, org, status };
        let context = self.services.context().with_budget(BUDGET);
        match tending.see_to(&context).await? {
            // The deployment that brings back what is live was accepted.
            Ok(()) if tending.is_busy() => Ok(Some(Duration::ZERO)),
            Ok(()) => {
                let crashes = tending.status.and_then(|status| status.value.crashes);
                Ok(crashes.map(|crashes| crashes.wait(self.services.clock.now())))
            }
            Err(error) => {
                tracing::warn!(?error, "what has drifted can't be put right yet");
                Ok(Some(AGAIN))
            }
        }
    }
}

/// One worker on one app that nothing is under way for.
struct Tending<'a> {
    worker: &'a Worker,
    lease: &'a mut Lease,
    app: &'a AppId,
    org: OrgId,
    /// `None` when there is no such app any more.
    status: Option<Versioned<AppStatus>>,
}

/// The substitute that comes after a name of a deployment's instance, if there is another one.
fn next_name(deployment: &DeploymentId, name: &InstanceName) -> Option<InstanceName> {
    let mut names = (0..=MAX_FALLBACKS).map(|fallback| InstanceName::of(deployment, fallback));
    names.find(|taken| taken == name)?;
    names.next()
}

/// What is to be done about the live instance.
enum Care {
    Nothing,
    /// Record it.
    Tell(Event),
    /// Make it run, once what is wrong is recorded.
    Restore(Option<Drift>),
}

impl Care {
    fn of(
        found: Option<&InstanceState>,
        crashes: Option<&Crashes>,
        live: &Instance,
        now: jiff::Timestamp,
    ) -> Self {
        match (found, crashes) {
            (None | Some(InstanceState::Exited { .. } | InstanceState::CutOff), Some(crashes))
                if crashes.is_down =>
            {
                if crashes.wait(now).is_zero() {
                    Self::Restore(None)
                } else {
                    Self::Nothing
                }
            }
            (None, _) => Self::Restore(Some(Drift::Missing)),
            (Some(InstanceState::CutOff), _) => Self::Restore(Some(Drift::CutOff)),
            (Some(InstanceState::Running), None) => Self::Nothing,
            (Some(InstanceState::Running), Some(crashes)) if crashes.is_over(now) => {
                Self::Tell(Event::InstanceSteady { instance: live.name.clone() })
            }
            (Some(InstanceState::Running), Some(crashes)) if !crashes.is_down => Self::Nothing,
            // It was started again, and nobody lived to record it.
            (Some(InstanceState::Running), Some(_)) => Self::Restore(None),
            (Some(InstanceState::Exited { code, out_of_memory }), _) => {
                let (code, out_of_memory) = (*code, *out_of_memory);
                Self::Tell(Event::drift(live, Drift::Ended { code, out_of_memory }))
            }
        }
    }
}

impl Tending<'_> {
    /// The outer error is the worker's, the inner one the engine's.
    async fn see_to(&mut self, context: &Context) -> Result<Result<()>> {
        let selector = Selector::of_app(&self.org, self.app);
        let instances = match self.worker.services.runtime.list(context, &selector).await {
            Ok(instances) => instances,
            Err(error) => return Ok(Err(error)),
        };
        let live = self.status.as_ref().and_then(|status| status.value.instance.clone());
        let is_live = |instance: &&Instance| live.as_ref().is_some_and(|live| live.name == instance.name);
        let mut restored = Ok(());
        if let Some(live) = &live {
            let mut found = instances.iter().find(is_live).map(|found| found.state.clone());
            if matches!(found, Some(InstanceState::Exited { .. })) {
                // A list does not tell everything about an end.
                found = match self.worker.services.runtime.inspect(context, &live.name).await {
                    Ok(instance) => instance.map(|instance| instance.state),
                    Err(error) => return Ok(Err(error)),
                };
            }
            restored = self.see_to_live(context, live, found.as_ref()).await?;
        }
        // It may have another name by now, or can't be made to run.
        let live = self.status.as_ref().and_then(|status| status.value.instance.clone());
        if let Err(error) = restored.and(self.see_to_route(context, live.as_ref()).await?) {
            return Ok(Err(error));
        }
        for instance in instances.iter().filter(|instance| !is_live(instance)) {
            if self.tell(Event::drift(instance, Drift::Unneeded)).await?.is_none() {
                return Ok(Ok(()));
            }
            let removal = self.worker.effects.retire_one(context, instance);
            if let Err(error) = self.holding(context, removal).await? {
                return Ok(Err(error));
            }
            tally::drift_repaired(&self.worker.services.metrics, Drift::Unneeded.as_str());
        }
        if self.worker.services.runtime.addressing() == Addressing::Platform {
            let kept: BTreeSet<_> = live.into_iter().map(|live| live.deployment).collect();
            self.worker.effects.addresses.free_all(&self.org, self.app, &kept).await?;
        }
        if let Err(error) = self.see_to_dns(context).await? {
            // It may be long until it answers, and it may not like to be asked: the next look brings it up again.
            tracing::warn!(?error, "the DNS records can't be put right yet");
        }
        self.collect_images(context).await
    }

    async fn see_to_live(
        &mut self,
        context: &Context,
        live: &Instance,
        found: Option<&InstanceState>,
    ) -> Result<Result<()>> {
        let crashes = self.status.as_ref().and_then(|status| status.value.crashes.as_ref());
        match Care::of(found, crashes, live, self.worker.services.clock.now()) {
            Care::Nothing => {}
            Care::Tell(event) => drop(self.tell(event).await?),
            Care::Restore(drift) => {
                if let Some(drift) = drift
                    && self.tell(Event::drift(live, drift)).await?.is_none()
                {
                    return Ok(Ok(()));
                }
                let mut name = live.name.clone();
                loop {
                    match self.restore(context, &live.deployment, &name).await? {
                        Ok(()) => break,
                        Err(error) if error.reason() == Some(FOREIGN_NAME) => {
                            let Some(to) = next_name(&live.deployment, &name) else { return Ok(Err(error)) };
                            let renamed = Event::InstanceRenamed { instance: name, to: to.clone() };
                            if self.tell(renamed).await?.is_none() {
                                return Ok(Ok(()));
                            }
                            name = to;
                        }
                        Err(error) if error.reason() == Some(IMAGE_MISSING) => {
                            return self.revive(error).await;
                        }
                        Err(error) => return Ok(Err(error)),
                    }
                }
                self.tell(Event::InstanceRestored { instance: name }).await?;
            }
        }
        Ok(Ok(()))
    }

    /// Makes the instance run that a deployment brought, under a name.
    async fn restore(
        &mut self,
        context: &Context,
        deployment: &DeploymentId,
        name: &InstanceName,
    ) -> Result<Result<()>> {
        let services = self.worker.services.clone();
        let journal = Journal::load(services, self.lease.clone(), self.app, deployment).await?;
        let Some(journal) = journal else {
            let unknown = "the operation that brought the live instance is not known";
            return Ok(Err(Error::internal("worker.restore", unknown)));
        };
        let work = Work {
            spec: &journal.spec,
            state: &journal.state,
            status: journal.status(),
            scratch: &mut Scratch::default(),
        };
        let restoring = self.worker.effects.restore(context, &work, name);
        self.holding(context, restoring).await
    }

    /// Records what was found before anything is done about it, or what was done, with what that means for the status.
    /// Answers the event's position; `None` if there is an operation by now: it goes first.
    async fn tell(&mut self, event: Event) -> Result<Option<Position>> {
        self.tell_with(event, Vec::new(), None).await
    }

    /// As [`tell`](Self::tell), with more in the same commit.
    async fn tell_with(
        &mut self,
        event: Event,
        writes: Vec<Write>,
        other: Option<Append>,
    ) -> Result<Option<Position>> {
        tracing::warn!(?event, "seeing to an app");
        let Worker { services, .. } = self.worker;
        let (records, stream) = (services.records(), StreamId::from(self.app));
        for _ in 0..TRIES {
            let at = services.clock.now();
            let version = records.count_events(&self.lease.scope, &stream).await?;
            let event = std::slice::from_ref(&event);
            let append = records::append(self.lease.scope.clone(), stream.clone(), version, at, event)?;
            let mut batch = Batch { fence: Some(self.lease.clone()), ..Batch::default() };
            batch.appends.push(append);
            batch.appends.extend(other.clone());
            let mut changed = self.status.clone();
            if let Some(status) = &mut changed {
                project_drift(&event[0], at, &mut status.value);
                batch.writes.push(records::update(&status.value, Expect::Version(status.version))?);
            }
            batch.writes.extend(writes.clone());
            match services.store.commit(batch).await {
                Ok(committed) => {
                    let crashes = self.status.as_ref().and_then(|status| status.value.crashes.as_ref());
                    tally::tending(&services.metrics, &event[0], crashes);
                    let position = committed.positions.first().copied();
                    for (status, version) in changed.iter_mut().zip(committed.versions) {
                        status.version = version;
                    }
                    self.status = changed;
                    return Ok(position);
                }
                // Somebody changes the app just now.
                Err(error) if error.kind() == Kind::Conflict && error.reason() != Some(FENCED) => {
                    self.status = records.get(&self.lease.scope, self.app.as_str()).await?;
                    if self.is_busy() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(Kind::Unavailable, "worker.tell", "the app is being changed by too many at once"))
    }

    /// True if an operation of the app waits: it goes first.
    fn is_busy(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.value.next_operation().is_some())
    }

    /// Renews the lease while `work` is under way; when it is lost, or the platform stops, the work is cancelled.
    async fn holding<T>(
        &mut self,
        context: &Context,
        work: impl Future<Output = Result<T>>,
    ) -> Result<Result<T>> {
        let Worker { services, stop, .. } = self.worker;
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return Ok(result),
                () = stop.cancelled(), if !context.is_cancelled() => context.cancel(),
                () = services.clock.sleep(services.settings.lease_renewal) => {
                    match services.store.renew(self.lease, services.settings.lease).await {
                        Ok(renewed) => *self.lease = renewed,
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
