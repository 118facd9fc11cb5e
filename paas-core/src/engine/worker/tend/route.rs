//! The route of an app follows its live instance: to where it runs, or to nowhere while it does not. What the ingress
//! serves follows the record.

use std::sync::atomic::Ordering;

use super::Tending;
use crate::context::Context;
use crate::domain::{App, ConditionKind, Generation, Host, Instance, Route, RouteTarget};
use crate::engine::tally;
use crate::error::Result;
use crate::ingress::Serving;
use crate::pipeline::{Drift, Event, RouteDrift, observe};
use crate::records::{self, RouteRecord, Versioned};
use crate::store::{Batch, Expect, Position, StreamId};

impl Tending<'_> {
    /// Records where the route should lead, if that has changed, and has the ingress serve what is recorded; answers when
    /// it does.
    pub(super) async fn see_to_route(
        &mut self,
        context: &Context,
        live: Option<&Instance>,
    ) -> Result<Result<()>> {
        let services = self.worker.services.clone();
        let Some(host) = self.host().await? else { return Ok(Ok(())) };
        // What changes here the ingress can't serve yet; nor can one that was not told everything since the start.
        let mut is_told = services.is_published.load(Ordering::Relaxed);
        if let Some(live) = live {
            match services.runtime.inspect(context, &live.name).await {
                Ok(found) => is_told &= !self.lead(&host, live, found.filter(Instance::is_running)).await?,
                Err(error) => return Ok(Err(error)),
            }
        }
        let record: Option<Versioned<RouteRecord>> =
            services.records().get(&self.lease.scope, host.as_str()).await?;
        let serving = match services.ingress.serving(context, &host).await {
            Ok(serving) => serving,
            Err(error) => return Ok(Err(error)),
        };
        let Some(RouteRecord { route, mut generation, .. }) = record.map(|record| record.value) else {
            return self.withdraw(context, &host, serving).await;
        };
        if serving == Some(Serving { generation, route: Some(route.clone()) }) {
            return Ok(Ok(()));
        }
        let present = serving.as_ref().map(|serving| serving.generation);
        let drift = RouteDrift::of(serving.as_ref(), generation);
        if is_told {
            let Some(told) = self.tell_of_route(&host, drift, present).await? else { return Ok(Ok(())) };
            if present >= Some(generation) {
                generation = told;
                self.record_generation(&route, generation).await?;
            }
        }
        let published = services.ingress.publish(context, &route, generation).await;
        if is_told && published.is_ok() {
            tally::drift_repaired(&services.metrics, drift.as_str());
        }
        Ok(published)
    }

    /// Takes away what the ingress serves for the host of an app that has no route.
    async fn withdraw(
        &mut self,
        context: &Context,
        host: &Host,
        serving: Option<Serving>,
    ) -> Result<Result<()>> {
        let Some(Serving { generation, route: Some(route) }) = serving else { return Ok(Ok(())) };
        if route.app != *self.app {
            return Ok(Ok(()));
        }
        let drift = RouteDrift::Unneeded;
        let Some(told) = self.tell_of_route(host, drift, Some(generation)).await? else { return Ok(Ok(())) };
        let services = &self.worker.services;
        let withdrawn = services.ingress.withdraw(context, host, told).await;
        if withdrawn.is_ok() {
            tally::drift_repaired(&services.metrics, drift.as_str());
        }
        Ok(withdrawn)
    }

    /// Records what is wrong with a route, and answers the generation that a change of it has by that; `None` if there is
    /// an operation by now, or what is served is newer than the store: then nothing is to be done.
    async fn tell_of_route(
        &mut self,
        host: &Host,
        drift: RouteDrift,
        present: Option<Generation>,
    ) -> Result<Option<Generation>> {
        let newest = present.unwrap_or_default().0;
        if !self.worker.services.records().has_position(newest).await? {
            tracing::error!(%host, "the proxy's route is newer than anything in the store");
            return Ok(None);
        }
        let told = self.tell(Event::RouteDriftFound { host: host.clone(), drift }).await?;
        Ok(told.map(|position| Generation(position.0)))
    }

    /// Records that a route is published as a newer one than the ingress has.
    async fn record_generation(&mut self, route: &Route, generation: Generation) -> Result<()> {
        let record = RouteRecord { org: self.org.clone(), route: route.clone(), generation };
        let mut writes = vec![records::put(&record, Expect::Any)?];
        if let Some(status) = &mut self.status {
            status.value.route = generation;
            writes.insert(0, records::update(&status.value, Expect::Version(status.version))?);
        }
        let batch = Batch { fence: Some(self.lease.clone()), writes, ..Batch::default() };
        let committed = self.worker.services.store.commit(batch).await?;
        if let Some(status) = &mut self.status {
            status.version = committed.versions.first().copied().unwrap_or_default();
        }
        Ok(())
    }

    /// The host of the app, also of one that is gone; `None` if there never was such an app.
    pub(super) async fn host(&self) -> Result<Option<Host>> {
        let services = &self.worker.services;
        let (scope, domain) = (&self.lease.scope, &services.settings.domain);
        if let Some(app) = services.records().get::<App>(scope, self.app.as_str()).await? {
            return Host::of_app(&app.value.name, domain).map(Some);
        }
        let first = services.store.events(scope, &StreamId::from(self.app), 0, 1).await?;
        match first.into_iter().map(records::decode_event).next().map(|first| first.event) {
            Some(Event::AppCreated { name }) => Host::of_app(&name, domain).map(Some),
            _ => Ok(None),
        }
    }

    /// Records that the route leads to the live instance where it was found running, or to nowhere; answers whether that is
    /// a change.
    async fn lead(&mut self, host: &Host, live: &Instance, running: Option<Instance>) -> Result<bool> {
        let records = self.worker.services.records();
        let route: Option<Versioned<RouteRecord>> = records.get(&self.lease.scope, host.as_str()).await?;
        let has_moved = running.as_ref().is_some_and(|running| running.address != live.address);
        let targets: Vec<_> = running.iter().map(target).collect();
        let is_right = route.as_ref().is_none_or(|route| route.value.route.targets == targets);
        if is_right && !has_moved {
            return Ok(false);
        }
        if has_moved && self.tell(Event::drift(live, Drift::Moved)).await?.is_none() {
            return Ok(false);
        }
        // The position of the event that decided it, as of every route: what was told of the instance last.
        let generation = Generation(self.last_told().await?.0);
        let Some(status) = &mut self.status else { return Ok(false) };
        if has_moved {
            status.value.instance = running;
        }
        let route = route.filter(|route| route.value.generation < generation);
        let is_changed = route.is_some();
        if is_changed {
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
            tally::drift_repaired(&self.worker.services.metrics, Drift::Moved.as_str());
        }
        status.version = committed.versions.first().copied().unwrap_or_default();
        Ok(is_changed)
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
