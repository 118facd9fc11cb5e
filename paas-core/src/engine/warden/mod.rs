//! Looks whether what is there is what should be, and has a worker see to each app of which it is not.

mod dns;
mod known;
mod leftovers;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;

use super::due_now;
use super::services::Services;
use crate::domain::{AppId, AppStatus, Instance, OrgId};
use crate::error::Result;
use crate::ingress::RoutesDigest;
use crate::records::Versioned;
use crate::runtime::Selector;
use crate::store::{Batch, Scope};
use known::{Known, Live, is_routed};
pub(crate) use leftovers::Leftovers;

/// How often it looks: drift is repaired within 30 s of the engine answering.
const LOOK: Duration = Duration::from_secs(10);
/// The least time between two looks, however much ends.
const PAUSE: Duration = Duration::from_millis(500);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most events that are read at once.
const PAGE: usize = 500;

/// Compares instances and routes with what the records say.
///
/// # Flow
/// Every [`LOOK`], and when the engine hints that one ended, it lists the engine's instances, all in one call, and compares
/// them with what it knows the records to say; for an app where they differ it reads the record itself. It asks the
/// ingress for the digest of its routes, and lists them only when it is not the one that the records tell. What is still
/// wrong then, and has nothing under way, becomes due work: a worker sees to it under the app's lease, so that no two
/// servers do, and no operation beside.
///
/// # Guarantees
/// It changes nothing itself. Being late, doubled or wrong costs a look.
#[derive(Debug)]
pub(crate) struct Warden {
    services: Arc<Services>,
    known: Mutex<Known>,
    /// The digests of the routes that are served and of those that are known, when they last differed in nothing that could
    /// be put right.
    settled: Mutex<Option<(RoutesDigest, RoutesDigest)>>,
}

impl Warden {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self { services, known: Mutex::default(), settled: Mutex::default() }
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
                tracing::debug!(?error, "the warden can't look at instances now");
            }
            if let Err(error) = self.look_at_routes().await {
                tracing::debug!(?error, "the warden can't look at routes now");
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
            let status = status.as_ref().map(|status| &status.value);
            self.keep(&app, status);
            if is_drifted(status, &of_app) {
                have_seen_to(&self.services, scope, &app).await?;
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
        let is_wrong = |live: &Live| running.get(&live.name) != Some(&live.address) || !live.is_routed;
        let down = known.live.iter().filter(|(_, live)| is_wrong(live));
        let unneeded = unneeded.map(|instance| (instance.org.clone(), instance.app.clone()));
        unneeded.chain(down.map(|(app, live)| (live.org.clone(), app.clone()))).collect()
    }
}

/// Makes an app due: a worker sees to it.
async fn have_seen_to(services: &Services, scope: Scope, app: &AppId) -> Result<()> {
    let batch = Batch { leases: vec![due_now(app, scope)], ..Batch::default() };
    services.store.commit(batch).await.map(drop)
}

/// True if an operation of the app is under way or waits.
fn is_busy(status: &AppStatus) -> bool {
    status.active.is_some() || !status.queue.is_empty()
}

/// True if something has to be done for an app that nothing is under way for.
fn is_drifted(status: Option<&AppStatus>, instances: &[&Instance]) -> bool {
    if status.is_some_and(is_busy) {
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
        || (live.is_some() && !status.is_none_or(is_routed))
}
