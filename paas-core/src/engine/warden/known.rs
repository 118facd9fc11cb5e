//! What the warden knows the records to say: a look costs no read of a record while nothing changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::PoisonError;

use futures::TryStreamExt;

use super::{PAGE, Warden};
use crate::domain::{AppId, AppStatus, ConditionKind, Deployment, InstanceName, OrgId};
use crate::error::Result;
use crate::pipeline::{Event, Output};
use crate::records::{self, Versioned};
use crate::store::{IndexRange, Position, Scope};

/// What the records say, as of a position in the feed.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The instance that each app should have, if any.
    pub live: BTreeMap<AppId, Live>,
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
        *self.locked() = Known { live, position: Some(position) };
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
            | Event::InstanceRenamed { .. }
            | Event::InstanceRestored { .. }
            | Event::AppDeleted { .. }
            // It may be any of them, in the words of a newer version.
            | Event::Unknown { .. }
    )
}
