//! The table of routes: read by every request, changed while they run.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use paas_core::{Error, Generation, Host, Result, Route, RoutePage, RoutesDigest, ServedRoute, Serving};

use crate::lock::locked;
use crate::upstream::{Registry, Upstream};

/// A change copies one shard: a dozen entries at 100,000 routes. Empty, they take about a megabyte.
const SHARDS: usize = 8192;

/// How many withdrawals are remembered. The oldest is forgotten first: a change that is older still than it would
/// then be taken.
pub(crate) const MAX_TOMBSTONES: usize = 65_536;

/// How many targets a page of routes holds, or routes without one: a page fits into a message to the program.
const PAGE: usize = 1_000;

/// Which instances answer for which host.
///
/// # Guarantees
/// A reader sees each host's route wholly before or wholly after a change, and never waits for a writer.
#[derive(Debug)]
pub(crate) struct Table {
    shards: Box<[Shard]>,
    hasher: RandomState,
    registry: Arc<Registry>,
    workers: usize,
    tombstones: Mutex<VecDeque<(Host, Generation)>>,
    /// How many hosts are in the shards.
    hosts: AtomicUsize,
    /// That of all routes in force, kept along with them.
    digest: AtomicU64,
}

type Entries = HashMap<Host, Arc<Entry>, RandomState>;

#[derive(Debug)]
struct Shard {
    entries: ArcSwap<Entries>,
    /// Held by whoever changes it.
    changing: Mutex<()>,
}

#[derive(Debug)]
struct Entry {
    serving: Serving,
    upstreams: Box<[Arc<Upstream>]>,
    /// Whose turn it is.
    turn: AtomicUsize,
}

/// What the table says about a request.
#[derive(Debug)]
pub(crate) enum Picked {
    /// This instance answers it.
    Upstream(Arc<Upstream>),
    /// The app is stopped.
    Stopped,
    /// No app has this host.
    Unknown,
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is in force now.
    Made,
    /// It was in force already.
    Repeated,
}

impl Table {
    /// A table without routes, for so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        let hasher = RandomState::new();
        let shard = || Shard {
            entries: ArcSwap::from_pointee(HashMap::with_hasher(hasher.clone())),
            changing: Mutex::default(),
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher,
            registry: Arc::default(),
            workers,
            tombstones: Mutex::default(),
            hosts: AtomicUsize::new(0),
            digest: AtomicU64::new(0),
        }
    }

    /// The instances that routes or requests hold.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The instance whose turn it is to answer for `host`, which is in lower case; one of `tried` only if there is no
    /// other.
    pub(crate) fn pick(&self, host: &str, tried: &[SocketAddr]) -> Picked {
        let entries = self.shard(host).entries.load();
        let Some(entry) = entries.get(host) else { return Picked::Unknown };
        if entry.serving.route.is_none() {
            return Picked::Unknown;
        }
        let upstream = match &*entry.upstreams {
            [] => return Picked::Stopped,
            [only] => only,
            several => {
                let turn = entry.turn.fetch_add(1, Ordering::Relaxed) % several.len();
                let (earlier, later) = several.split_at(turn);
                let untried = |upstream: &&Arc<Upstream>| !tried.contains(&upstream.address());
                later.iter().chain(earlier).find(untried).unwrap_or(&several[turn])
            }
        };
        Picked::Upstream(Arc::clone(upstream))
    }

    /// What is in force for `host`.
    pub(crate) fn serving(&self, host: &Host) -> Option<Serving> {
        self.shard(host.as_str()).entries.load().get(host).map(|entry| entry.serving.clone())
    }

    /// The digest of every route in force.
    pub(crate) fn digest(&self) -> RoutesDigest {
        RoutesDigest(self.digest.load(Ordering::Relaxed))
    }

    /// The routes in the shards from `from` on, as many as a page holds: a host stays in its shard.
    pub(crate) fn page(&self, from: u64) -> RoutePage {
        let (mut routes, mut weight) = (Vec::new(), 0);
        let first = usize::try_from(from).unwrap_or(usize::MAX);
        for (index, shard) in self.shards.iter().enumerate().skip(first) {
            let entries = shard.entries.load_full();
            weight += entries.values().map(|entry| entry.upstreams.len().max(1)).sum::<usize>();
            if weight > PAGE && !routes.is_empty() {
                return RoutePage { routes, next: Some(index as u64) };
            }
            routes.extend(entries.values().filter_map(|entry| {
                let Serving { generation, route } = &entry.serving;
                Some(ServedRoute { route: route.clone()?, generation: *generation })
            }));
        }
        RoutePage { routes, next: None }
    }

    /// How many hosts it knows, withdrawn ones included.
    pub(crate) fn len(&self) -> usize {
        self.hosts.load(Ordering::Relaxed)
    }

    /// Everything that is in force.
    pub(crate) fn all(&self) -> Vec<(Host, Serving)> {
        self.shards
            .iter()
            .flat_map(|shard| {
                let entries = shard.entries.load_full();
                entries.iter().map(|(host, entry)| (host.clone(), entry.serving.clone())).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Puts a route, or none, in force for `host`.
    ///
    /// # Errors
    /// `Conflict`, code `stale_generation`: a newer change is in force.
    pub(crate) fn change(
        &self,
        operation: &'static str,
        host: &Host,
        generation: Generation,
        route: Option<Route>,
    ) -> Result<Change> {
        let shard = self.shard(host.as_str());
        let changing = locked(&shard.changing);
        let present = shard.entries.load_full();
        let replaced = present.get(host);
        match replaced.map(|entry| entry.serving.generation) {
            Some(newer) if newer > generation => return Err(Error::stale_generation(operation, newer)),
            Some(same) if same == generation => return Ok(Change::Repeated),
            _ => {}
        }
        let is_withdrawal = route.is_none();
        let added = digest_of(route.as_ref(), generation);
        let upstreams = route
            .iter()
            .flat_map(|route| &route.targets)
            .map(|target| self.registry.routed(target, self.workers))
            .collect();
        let entry = Entry { serving: Serving { generation, route }, upstreams, turn: AtomicUsize::new(0) };
        let mut entries = Entries::clone(&present);
        entries.insert(host.clone(), Arc::new(entry));
        // Whoever still reads the old entries holds them, and so their instances.
        shard.entries.store(Arc::new(entries));
        if replaced.is_none() {
            self.hosts.fetch_add(1, Ordering::Relaxed);
        }
        let removed = replaced.map_or(RoutesDigest::default(), |entry| {
            digest_of(entry.serving.route.as_ref(), entry.serving.generation)
        });
        self.digest.fetch_add(added.without(removed).0, Ordering::Relaxed);
        for upstream in replaced.iter().flat_map(|entry| &entry.upstreams) {
            upstream.unrouted();
        }
        drop(changing);
        if is_withdrawal {
            self.bury(host, generation);
        }
        Ok(Change::Made)
    }

    /// Remembers a withdrawal, and forgets the oldest when there are too many.
    fn bury(&self, host: &Host, generation: Generation) {
        let forgotten = {
            let mut tombstones = locked(&self.tombstones);
            tombstones.push_back((host.clone(), generation));
            if tombstones.len() > MAX_TOMBSTONES { tombstones.pop_front() } else { None }
        };
        let Some((host, generation)) = forgotten else { return };
        let shard = self.shard(host.as_str());
        let _changing = locked(&shard.changing);
        let present = shard.entries.load_full();
        let is_forgotten =
            |entry: &Arc<Entry>| entry.serving.generation == generation && entry.serving.route.is_none();
        if present.get(&host).is_some_and(is_forgotten) {
            let mut entries = Entries::clone(&present);
            entries.remove(&host);
            shard.entries.store(Arc::new(entries));
            self.hosts.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn shard(&self, host: &str) -> &Shard {
        &self.shards[self.hasher.hash_one(host) as usize % SHARDS]
    }
}

fn digest_of(route: Option<&Route>, generation: Generation) -> RoutesDigest {
    route.map_or(RoutesDigest::default(), |route| RoutesDigest::of(route, generation))
}
