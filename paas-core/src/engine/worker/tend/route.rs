//! The route of an app follows its live instance: to where it runs, or to nowhere while it does not.

use super::Tending;
use crate::context::Context;
use crate::domain::{App, ConditionKind, Generation, Host, Instance, Route, RouteTarget};
use crate::engine::tally;
use crate::error::Result;
use crate::ingress::Serving;
use crate::pipeline::{Drift, Event, observe};
use crate::records::{self, RouteRecord, Versioned};
use crate::store::{Batch, Expect, Position, StreamId};

impl Tending<'_> {
    /// Records where the route should lead, if that has changed, and has the ingress serve what is recorded.
    pub(super) async fn see_to_route(
        &mut self,
        context: &Context,
        live: Option<&Instance>,
    ) -> Result<Result<()>> {
        let services = self.worker.services.clone();
        let app: Option<Versioned<App>> =
            services.records().get(&self.lease.scope, self.app.as_str()).await?;
        let Some(app) = app else { return Ok(Ok(())) };
        let host = Host::of_app(&app.value.name, &services.settings.domain)?;
        if let Some(live) = live {
            match services.runtime.inspect(context, &live.name).await {
                Ok(found) => self.lead(&host, live, found.filter(Instance::is_running)).await?,
                Err(error) => return Ok(Err(error)),
            }
        }
        let record: Option<Versioned<RouteRecord>> =
            services.records().get(&self.lease.scope, host.as_str()).await?;
        let Some(RouteRecord { route, generation, .. }) = record.map(|record| record.value) else {
            return Ok(Ok(()));
        };
        let serving = match services.ingress.serving(context, &host).await {
            Ok(serving) => serving,
            Err(error) => return Ok(Err(error)),
        };
        if serving == Some(Serving { generation, route: Some(route.clone()) }) {
            return Ok(Ok(()));
        }
        tracing::info!(%host, "the route is published");
        Ok(services.ingress.publish(context, &route, generation).await)
    }

    /// Records that the route leads to the live instance where it was found running, or to nowhere.
    async fn lead(&mut self, host: &Host, live: &Instance, running: Option<Instance>) -> Result<()> {
        let records = self.worker.services.records();
        let route: Option<Versioned<RouteRecord>> = records.get(&self.lease.scope, host.as_str()).await?;
        let has_moved = running.as_ref().is_some_and(|running| running.address != live.address);
        let targets: Vec<_> = running.iter().map(target).collect();
        let is_right = route.as_ref().is_none_or(|route| route.value.route.targets == targets);
        if is_right && !has_moved {
            return Ok(());
        }
        if has_moved && self.tell(Event::drift(live, Drift::Moved)).await?.is_none() {
            return Ok(());
        }
        // The position of the event that decided it, as of every route: what was told of the instance last.
        let generation = Generation(self.last_told().await?.0);
        let Some(status) = &mut self.status else { return Ok(()) };
        if has_moved {
            status.value.instance = running;
        }
        let route = route.filter(|route| route.value.generation < generation);
        if route.is_some() {
            status.value.route = generation;
            let reason = if targets.is_empty() { "the app does not run now" } else { "observed" };
            let now = self.worker.services.clock.now();
            observe(&mut status.value, ConditionKind::Routed, !targets.is_empty(), reason, now);
        }
        let mut writes = vec![records::update(&status.value, Expect::Version(status.version))?];
        if let Some(RouteRecord { org, route, .. }) = route.map(|route| route.value) {
            let route = Route { targets, ..route };
            writes.push(records::put(&RouteRecord { org, route, generation }, Expect::Any)?);
        }
        let batch = Batch { fence: Some(self.lease.clone()), writes, ..Batch::default() };
        let committed = self.worker.services.store.commit(batch).await?;
        if has_moved {
            tally::drift_repaired(&self.worker.services.metrics, Drift::Moved);
        }
        status.version = committed.versions.first().copied().unwrap_or_default();
        Ok(())
    }

    /// The position of the newest event in the app's own stream.
    async fn last_told(&self) -> Result<Position> {
        let services = &self.worker.services;
        let (scope, stream) = (&self.lease.scope, StreamId::from(self.app));
        let version = services.records().count_events(scope, &stream).await?;
        let last = services.store.events(scope, &stream, version.saturating_sub(1), 1).await?;
        Ok(last.first().map(|last| last.position).unwrap_or_default())
    }
}

fn target(instance: &Instance) -> RouteTarget {
    RouteTarget { instance: instance.name.clone(), address: instance.address }
}
