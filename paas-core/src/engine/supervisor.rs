//! Claims due work and gives it to workers.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::effects::Effects;
use super::hub::Hub;
use super::journal::FENCED;
use super::services::Services;
use super::stuck::StuckNote;
use super::tally;
use super::warden::{Leftovers, Warden};
use super::worker::Worker;
use crate::error::{Error, Kind};
use crate::store::{Batch, Claim, Claimed, Lease, LeaseChange, WorkClass};

/// The longest the store is not asked for work: the net below lost hints.
const POLL: Duration = Duration::from_secs(5);
/// The wait after the store failed.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an app is left alone whose operation can't go on.
pub(super) const PARKED: Duration = Duration::from_secs(60);
/// The most leases one claim takes: the rest is for other servers, or for the next claim.
const CLAIM: usize = 64;
/// How long what is under way gets to let go when the platform stops: a server is to be gone 30 s after it was asked.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How many expired records one sweep removes, and how often it sweeps.
const SWEEP_RECORDS: usize = 500;
const SWEEP: Duration = Duration::from_secs(60);

/// The engine of one process.
#[derive(Debug)]
pub(crate) struct Engine {
    worker: Arc<Worker>,
    services: Arc<Services>,
    hub: Arc<Hub>,
    name: String,
    stop: CancellationToken,
    /// Fires when what is still under way is dropped, as if the process had been killed.
    abandon: CancellationToken,
    tasks: TaskTracker,
    busy: Mutex<BTreeMap<WorkClass, usize>>,
}

impl Engine {
    pub(crate) fn new(services: Arc<Services>, effects: Arc<Effects>, hub: Arc<Hub>) -> Arc<Self> {
        tally::begin(&services.metrics);
        let stop = CancellationToken::new();
        let name = format!("worker-{:016x}", services.ids.random());
        let worker =
            Arc::new(Worker { services: services.clone(), effects, hub: hub.clone(), stop: stop.clone() });
        Arc::new(Self {
            worker,
            services,
            hub,
            name,
            stop,
            abandon: CancellationToken::new(),
            tasks: TaskTracker::new(),
            busy: Mutex::default(),
        })
    }

    /// Begins to work.
    pub(crate) fn start(self: &Arc<Self>) {
        let changes = self.services.store.changes();
        let (hub, stop) = (self.hub.clone(), self.stop.clone());
        self.tasks.spawn(async move { hub.run(changes, stop).await });
        let engine = self.clone();
        self.tasks.spawn(async move { engine.claim_work().await });
        let engine = self.clone();
        self.tasks.spawn(async move { engine.sweep().await });
        let warden = Arc::new(Warden::new(self.services.clone()));
        let dns = warden.clone();
        self.spawn(async move { warden.run().await });
        self.spawn(async move { dns.watch_dns().await });
        let leftovers = Leftovers::new(self.services.clone());
        self.spawn(async move { leftovers.run().await });
    }

    /// Runs work of the platform that ends when the engine stops.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Stops claiming, has short steps end, gives back the rest, and returns when nothing of it runs any more, within
    /// [`STOP_PATIENCE`]. What was under way goes on at the next start, or on another server at once.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.tasks.wait() => return,
            () = self.services.clock.sleep(STOP_PATIENCE) => {}
        }
        tracing::warn!(
            tasks = self.tasks.len(),
            "some work does not let go: it is left as a kill would leave it"
        );
        self.abandon.cancel();
        self.tasks.wait().await;
    }

    /// How many workers there are, by class.
    pub(crate) fn workers(&self) -> BTreeMap<WorkClass, usize> {
        locked(&self.busy).clone()
    }

    async fn claim_work(self: Arc<Self>) {
        while !self.stop.is_cancelled() {
            let claimed = self.services.store.claim(&self.claim()).await;
            self.services.outages.note("claiming", self.services.clock.now(), &claimed);
            let wait = match claimed {
                Ok(Claimed { leases, next_due }) => {
                    let is_empty = leases.is_empty();
                    for lease in leases {
                        self.clone().work_on(lease);
                    }
                    if !is_empty {
                        continue;
                    }
                    next_due.map_or(POLL, |wait| wait.min(POLL))
                }
                Err(error) => {
                    tracing::warn!(?error, "no work can be claimed");
                    PAUSE
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.hub.work() => {}
                () = self.services.clock.sleep(wait) => {}
            }
        }
    }

    fn claim(&self) -> Claim {
        let settings = &self.services.settings;
        let busy = locked(&self.busy);
        let free = |class: WorkClass, slots: usize| {
            (class, slots.saturating_sub(busy.get(&class).copied().unwrap_or_default()).min(CLAIM))
        };
        Claim {
            worker: self.name.clone(),
            limit: BTreeMap::from([
                free(WorkClass::Light, settings.operation_slots),
                free(WorkClass::Build, settings.build_slots),
            ]),
            slots: BTreeMap::from([(WorkClass::Build, settings.build_slots)]),
            duration: settings.lease,
        }
    }

    fn work_on(self: Arc<Self>, lease: Lease) {
        *locked(&self.busy).entry(lease.class).or_default() += 1;
        let tasks = self.tasks.clone();
        tasks.spawn(async move {
            let busy = Busy { engine: self.clone(), class: lease.class };
            let work = AssertUnwindSafe(self.work(lease.clone())).catch_unwind();
            let work = tokio::select! {
                biased;
                () = self.abandon.cancelled() => return,
                work = work => work,
            };
            if work.is_err() {
                self.park(&lease, &Error::internal("engine.work", "a worker panicked")).await;
            }
            drop(busy);
            // What it released may have been looked at while it still counted as busy.
            self.hub.wake();
        });
    }

    /// Works on one lease; when the store is out in between, goes on as soon as it answers, if the lease still holds.
    async fn work(&self, mut lease: Lease) {
        let app = lease.key.clone();
        loop {
            let error = match self.worker.run(lease.clone()).await {
                Ok(()) => return,
                Err(error) => error,
            };
            if error.reason() == Some(FENCED) {
                tracing::info!(%app, ?error, "another worker has the app now");
                tally::lease_lost(&self.services.metrics);
                return;
            }
            // A conflict that is not about the lease is with somebody who changed the app: it is read anew.
            if !error.is_transient() && error.kind() != Kind::Conflict {
                self.park(&lease, &error).await;
                return;
            }
            tracing::warn!(%app, ?error, "the store can't take it now: waiting");
            loop {
                if self.stop.is_cancelled() {
                    return;
                }
                self.services.clock.sleep(PAUSE).await;
                match self.services.store.renew(&lease, self.services.settings.lease).await {
                    Ok(renewed) => {
                        lease = renewed;
                        break;
                    }
                    Err(error) if error.kind() == Kind::Conflict => {
                        tally::lease_lost(&self.services.metrics);
                        return;
                    }
                    Err(_) => {}
                }
            }
        }
    }

    /// Leaves an app alone for a while whose operation can't go on, so that it takes no slot, and an upgrade or a mended
    /// record gets it going. A note says so to whoever asks any server.
    async fn park(&self, lease: &Lease, error: &Error) {
        let app = &lease.key;
        tracing::error!(%app, ?error, "an operation can't go on");
        let next = Some((WorkClass::Light, PARKED));
        let release = LeaseChange::Release { lease: lease.clone(), next };
        let note = StuckNote::write(&self.services, lease, error).await;
        let note =
            note.inspect_err(|error| tracing::warn!(%app, ?error, "it can't be noted that an app is stuck"));
        let batch = Batch {
            fence: Some(lease.clone()),
            writes: note.into_iter().collect(),
            leases: vec![release],
            ..Batch::default()
        };
        if let Err(error) = self.services.store.commit(batch).await {
            // The lease runs out by itself.
            tracing::warn!(%app, ?error, "the lease could not be given back");
        }
    }

    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.services.clock.sleep(SWEEP) => {}
            }
            if let Err(error) = self.services.store.sweep(SWEEP_RECORDS).await {
                tracing::warn!(?error, "expired records could not be removed");
            }
        }
    }
}

/// Counts a worker until it is dropped, however it ends.
struct Busy {
    engine: Arc<Engine>,
    class: WorkClass,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(count) = locked(&self.engine.busy).get_mut(&self.class) {
            *count -= 1;
        }
    }
}

/// Nothing that panics runs under these locks.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
