//! Looks whether what is there is what should be, and has a worker see to each app of which it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};

use super::due_now;
use super::services::Services;
use crate::domain::{AppId, AppStatus, Deployment, Instance, InstanceName, OrgId};
use crate::error::Result;
use crate::pipeline::{Event, Output};
use crate::records::{self, Versioned};
use crate::runtime::Selector;
use crate::store::{Batch, IndexRange, Position, Scope};

/// How often it looks: drift is repaired within 30 s of the engine answering.
const LOOK: Duration = Duration::from_secs(10);
/// The least time between two looks, however much ends.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most events that are read at once.
const PAGE: usize = 500;

/// Compares instances with what the records say.
///
/// # Flow
/// Every [`LOOK`], and when the engine hints that one ended, it lists the engine's instances, all in one call, and compares them with what it knows the records to
/// say; for an app where they differ it reads the record itself. What is still wrong then, and has nothing under way,
/// becomes due work: a worker sees to it under the app's lease, so that no two servers do, and no operation beside.
///
/// # Guarantees
/// It changes nothing itself. Being late, doubled or wrong costs a look.
#[derive(Debug)]
pub(crate) struct Warden {
    services: Arc<Services>,
    known: Mutex<Known>,
}

/// What the records say, as of a position in the feed: a look costs no read of a record while nothing changes.
#[derive(Debug, Default)]
struct Known {
    /// The instance that each app should have, if any.
    live: BTreeMap<AppId, Live>,
    /// Up to where the feed was read; `None` before the first look.
    position: Option<Position>,
}

#[derive(Debug)]
struct Live {
    org: OrgId,
    name: InstanceName,
    address: SocketAddr,
}

impl Live {
    fn of(status: &AppStatus) -> Option<Self> {
        let instance = status.instance.as_ref()?;
        Some(Self { org: status.org.clone(), name: instance.name.clone(), address: instance.address })
    }
}

impl Warden {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self { services, known: Mutex::default() }
    }

    /// Looks for ever. Dropping it is safe at any time.
    pub(crate) async fn run(&self) {
        let clock = &self.services.clock;
        let mut endings = None;
        loop {
            if endings.is_none() {
                // Before the look: what ends meanwhile is heard of. Without hints, it looks all the same.
                let context = self.services.context().with_budget(PATIENCE);
                endings = self.services.runtime.endings(&context).await.ok();
            }
            if let Err(error) = self.look().await {
                tracing::debug!(?error, "the warden can't look now");
            }
            let ending = async {
                match &mut endings {
                    Some(hints) => hints.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ending = ending => {
                    if ending.is_none() {
                        endings = None;
                    }
                    // Much that ends at once is one look.
                    clock.sleep(PAUSE).await;
                }
                () = clock.sleep(LOOK) => {}
            }
        }
    }

    async fn look(&self) -> Result<()> {
        let context = self.services.context().with_budget(PATIENCE);
        let instances = self.services.runtime.list(&context, &Selector::default()).await;
        self.services.outages.note("engine", self.services.clock.now(), &instances);
        let instances = instances?;
        // After the list: what was begun meanwhile is known then.
        self.learn().await?;
        for (org, app) in self.suspects(&instances) {
            let of_app: Vec<_> = instances.iter().filter(|instance| instance.app == app).collect();
            let scope = Scope::Org(org);
            let status: Option<Versioned<AppStatus>> =
                self.services.records().get(&scope, app.as_str()).await?;
            if is_drifted(status.as_ref().map(|status| &status.value), &of_app) {
                self.have_seen_to(scope, &app).await?;
            }
        }
        Ok(())
    }

    /// The apps whose instances are not what they are known to be.
    fn suspects(&self, instances: &[Instance]) -> BTreeSet<(OrgId, AppId)> {
        let known = self.locked();
        let is_live = |instance: &Instance| {
            known.live.get(&instance.app).is_some_and(|live| live.name == instance.name)
        };
        let unneeded = instances.iter().filter(|instance| !is_live(instance));
        let running = instances.iter().filter(|instance| instance.is_running());
        let running: BTreeMap<_, _> = running.map(|instance| (&instance.name, instance.address)).collect();
        let down = known.live.iter().filter(|(_, live)| running.get(&live.name) != Some(&live.address));
        let unneeded = unneeded.map(|instance| (instance.org.clone(), instance.app.clone()));
        unneeded.chain(down.map(|(app, live)| (live.org.clone(), app.clone()))).collect()
    }

    async fn have_seen_to(&self, scope: Scope, app: &AppId) -> Result<()> {
        let batch = Batch { leases: vec![due_now(app, scope)], ..Batch::default() };
        self.services.store.commit(batch).await.map(drop)
    }

    /// Brings what is known up to the records.
    async fn learn(&self) -> Result<()> {
        let Some(mut position) = self.locked().position else { return self.learn_all().await };
        loop {
            let page = self.services.store.feed(&Scope::System, position, PAGE).await?;
            let Some(last) = page.last().map(|last| last.position) else { return Ok(()) };
            for stored in page {
                // What this version does not know is nothing that it acts on.
                if let Ok(recorded) = records::decode_event(stored)
                    && is_change(&recorded.event)
                {
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
        let mut known = self.locked();
        match status.and_then(|status| Live::of(&status.value)) {
            Some(live) => drop(known.live.insert(app, live)),
            None => drop(known.live.remove(&app)),
        }
        Ok(())
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Known> {
        // Nothing that panics runs under this lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True for what may change which instance an app should have.
fn is_change(event: &Event) -> bool {
    use Output::{Routed, Withdrawn};
    matches!(
        event,
        Event::Finished { output: Routed { .. } | Withdrawn { .. }, .. } | Event::AppDeleted { .. }
    )
}

/// True if something has to be done for an app that nothing is under way for.
fn is_drifted(status: Option<&AppStatus>, instances: &[&Instance]) -> bool {
    if status.is_some_and(|status| status.active.is_some() || !status.queue.is_empty()) {
        return false;
    }
    let live = status.and_then(|status| status.instance.as_ref());
    let is_live = |instance: &Instance| live.is_some_and(|live| live.name == instance.name);
    let is_right = |instance: &Instance| {
        instance.is_running()
            && live.is_some_and(|live| (&live.name, live.address) == (&instance.name, instance.address))
    };
    instances.iter().any(|instance| !is_live(instance))
        || (live.is_some() && !instances.iter().any(|instance| is_right(instance)))
}
