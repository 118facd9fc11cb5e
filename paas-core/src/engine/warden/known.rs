//! What the warden knows the records to say: a look costs no read of a record while nothing changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::PoisonError;

use futures::TryStreamExt;

use super::{PAGE, Warden};
use crate::domain::{App, AppId, AppStatus, ConditionKind, Deployment, Host, InstanceName, OrgId, Step};
use crate::error::Result;
use crate::ingress::RoutesDigest;
use crate::pipeline::{Event, Output};
use crate::records::{self, RouteRecord, Versioned};
use crate::store::{IndexRange, Position, Scope};

/// What the records say, as of a position in the feed.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The instance that each app should have, if any.
    pub live: BTreeMap<AppId, Live>,
    /// The route that each host should have, if any.
    pub routes: Routes,
    /// Up to where the feed was read; `None` before the first look.
    pub position: Option<Position>,
}

#[derive(Debug)]
pub(super) struct Live {
    pub org: OrgId,
    pub name: InstanceName,
    pub address: SocketAddr,
    pub is_routed: bool,
}

impl Live {
    fn of(status: &AppStatus) -> Option<Self> {
        let instance = status.instance.as_ref()?;
        Some(Self {
            org: status.org.clone(),
            name: instance.name.clone(),
            address: instance.address,
            is_routed: is_routed(status),
        })
    }
}

/// The routes that the ingress should serve.
#[derive(Debug, Default)]
pub(super) struct Routes {
    hosts: BTreeMap<Host, KnownRoute>,
    digest: RoutesDigest,
}

#[derive(Debug)]
pub(super) struct KnownRoute {
    pub app: AppId,
    /// That of the route and its generation, which are in the records.
    pub digest: RoutesDigest,
}

impl Routes {
    pub(super) fn get(&self, host: &Host) -> Option<&KnownRoute> {
        self.hosts.get(host)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Host, &KnownRoute)> {
        self.hosts.iter()
    }

    /// The digest of all of them.
    pub(super) fn digest(&self) -> RoutesDigest {
        self.digest
    }

    fn keep(&mut self, record: &RouteRecord) {
        let RouteRecord { route, generation, .. } = record;
        self.forget(&route.host);
        let digest = RoutesDigest::of(route, *generation);
        self.hosts.insert(route.host.clone(), KnownRoute { app: route.app.clone(), digest });
        self.digest = self.digest.with(digest);
    }

    fn forget(&mut self, host: &Host) {
        if let Some(known) = self.hosts.remove(host) {
            self.digest = self.digest.without(known.digest);
        }
    }

    fn forget_all_of(&mut self, app: &AppId) {
        let of_app = self.hosts.iter().filter(|(_, known)| known.app == *app);
        let hosts: Vec<_> = of_app.map(|(host, _)| host.clone()).collect();
        hosts.iter().for_each(|host| self.forget(host));
    }
}

impl Warden {
    /// Brings what is known up to the records.
    pub(super) async fn learn(&self) -> Result<()> {
        let Some(mut position) = self.locked().position else { return self.learn_all().await };
        loop {
            let page = self.services.store.feed(&Scope::System, position, PAGE).await?;
            let Some(last) = page.last().map(|last| last.position) else { return Ok(()) };
            for stored in page {
                let recorded = records::decode_event(stored);
                if is_change(&recorded.event) {
                    self.learn_of(recorded.stream.as_str()).await?;
                }
            }
            position = last;
            self.locked().position = Some(position);
        }
    }

    async fn learn_all(&self) -> Result<()> {
        let records = self.services.records();
        // Before the records are read: what changes meanwhile is read again.
        let position = records.newest_position().await?;
        let mut live = BTreeMap::new();
        let mut pages = records.pages::<AppStatus>(&Scope::System, "id", IndexRange::all(), PAGE);
        while let Some(page) = pages.try_next().await? {
            let statuses = page.iter().map(|status| &status.value);
            live.extend(statuses.filter_map(|status| Some((status.id.clone(), Live::of(status)?))));
        }
        let mut routes = Routes::default();
        let mut pages = records.pages::<RouteRecord>(&Scope::System, "host", IndexRange::all(), PAGE);
        while let Some(page) = pages.try_next().await? {
            page.iter().for_each(|record| routes.keep(&record.value));
        }
        *self.locked() = Known { live, routes, position: Some(position) };
        Ok(())
    }

    /// Reads again what a stream is about: an operation's app, or an app.
    async fn learn_of(&self, stream: &str) -> Result<()> {
        let records = self.services.records();
        let app = match stream.parse::<AppId>() {
            Ok(app) => app,
            Err(_) => match records.get::<Deployment>(&Scope::System, stream).await? {
                Some(deployment) => deployment.value.app,
                None => return Ok(()),
            },
        };
        let status: Option<Versioned<AppStatus>> = records.get(&Scope::System, app.as_str()).await?;
        self.keep(&app, status.as_ref().map(|status| &status.value));
        self.learn_route(&app).await
    }

    /// Reads again which route an app should have.
    pub(super) async fn learn_route(&self, app: &AppId) -> Result<()> {
        let records = self.services.records();
        let Some(of) = records.get::<App>(&Scope::System, app.as_str()).await? else {
            self.locked().routes.forget_all_of(app);
            return Ok(());
        };
        let host = Host::of_app(&of.value.name, &self.services.settings.domain)?;
        let record: Option<Versioned<RouteRecord>> = records.get(&Scope::System, host.as_str()).await?;
        let routes = &mut self.locked().routes;
        match record {
            Some(record) => routes.keep(&record.value),
            None => routes.forget(&host),
        }
        Ok(())
    }

    /// Keeps what was read of an app.
    pub(super) fn keep(&self, app: &AppId, status: Option<&AppStatus>) {
        let mut known = self.locked();
        match status.and_then(Live::of) {
            Some(live) => drop(known.live.insert(app.clone(), live)),
            None => drop(known.live.remove(app)),
        }
    }

    pub(super) fn locked(&self) -> std::sync::MutexGuard<'_, Known> {
        // Nothing that panics runs under this lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// False while the app's route leads nowhere, because what is live did not run.
pub(super) fn is_routed(status: &AppStatus) -> bool {
    status.conditions.iter().all(|condition| condition.kind != ConditionKind::Routed || condition.holds)
}

/// True for what may change which instance an app should have, or where its route should lead.
fn is_change(event: &Event) -> bool {
    use Output::{Routed, Withdrawn};
    matches!(
        event,
        Event::Finished { output: Routed { .. } | Withdrawn { .. }, .. }
            | Event::UndoFinished { step: Step::Route }
            | Event::RouteDriftFound { .. }
            | Event::InstanceRenamed { .. }
            | Event::InstanceRestored { .. }
            | Event::AppDeleted { .. }
            // It may be any of them, in the words of a newer version.
            | Event::Unknown { .. }
    )
}
