//! Routes in a map, and requests that tests begin and end by hand.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::host::MemoryHost;
use crate::context::Context;
use crate::domain::{Generation, HealthCheck, Host, InstanceName, Route, RouteTarget};
use crate::error::{Error, Kind, Result};
use crate::fingerprint::Fingerprint;
use crate::ingress::{Ingress, Probe, RoutePage, RoutesDigest, ServedRoute, Serving};
use crate::watch;

/// An ingress that routes pretended requests.
///
/// Probes are healthy until [`set_probe`](Self::set_probe) says otherwise, or find what the programs of a
/// [host](Self::before) do; [`fail_next`](Self::fail_next) makes calls fail as they do when a proxy does not answer.
///
/// ```
/// # use std::sync::Arc;
/// # use paas_core::{Context, Generation, Ingress, Result, SystemClock, memory::MemoryIngress};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let ingress = MemoryIngress::new();
/// let context = Context::new(Arc::new(SystemClock::new()));
/// let host = "hello.localhost".parse()?;
/// ingress.withdraw(&context, &host, Generation(7)).await?;
/// assert_eq!(ingress.serving(&context, &host).await?.unwrap().generation, Generation(7));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct MemoryIngress {
    state: Mutex<State>,
    host: Option<MemoryHost>,
    /// Changes with every request that ends: what `drain` waits on.
    ended: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    hosts: BTreeMap<Host, Served>,
    probes: BTreeMap<SocketAddr, VecDeque<Probe>>,
    in_flight: BTreeMap<u64, Flight>,
    next_request: u64,
    failures_left: u32,
}

#[derive(Debug)]
struct Served {
    serving: Serving,
    next_target: usize,
}

#[derive(Debug)]
struct Flight {
    target: RouteTarget,
    cut: bool,
}

/// What a host answers a new request.
#[derive(Debug)]
pub enum MemoryAnswer {
    /// An instance has it; it is in flight until this is dropped.
    Instance(MemoryRequest),
    /// The host is routed to no instance: the app is stopped.
    Stopped,
    /// The host is not routed.
    Unknown,
}

/// A request in flight; dropping it ends it.
#[derive(Debug)]
pub struct MemoryRequest {
    ingress: Arc<MemoryIngress>,
    id: u64,
    target: RouteTarget,
}

impl MemoryRequest {
    /// Which instance has it.
    #[must_use]
    pub fn target(&self) -> &RouteTarget {
        &self.target
    }

    /// True once a drain has cut it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.ingress.locked().in_flight.get(&self.id).is_none_or(|flight| flight.cut)
    }
}

impl Drop for MemoryRequest {
    fn drop(&mut self) {
        self.ingress.locked().in_flight.remove(&self.id);
        self.ingress.ended.send(());
    }
}

impl MemoryIngress {
    /// An ingress without routes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An ingress without routes, whose probes find what the programs on `host` do.
    #[must_use]
    pub fn before(host: MemoryHost) -> Self {
        Self { host: Some(host), ..Self::default() }
    }

    /// Makes every probe of `address` find this.
    pub fn set_probe(&self, address: SocketAddr, probe: Probe) {
        self.script_probes(address, [probe]);
    }

    /// Makes the probes of `address` find these, one after the other; the last one stays.
    pub fn script_probes(&self, address: SocketAddr, probes: impl IntoIterator<Item = Probe>) {
        self.locked().probes.insert(address, probes.into_iter().collect());
    }

    /// Has a host served like this from now on, or not at all, as if somebody had changed it at the proxy.
    pub fn tamper(&self, host: &Host, serving: Option<Serving>) {
        let hosts = &mut self.locked().hosts;
        match serving {
            Some(serving) => drop(hosts.insert(host.clone(), Served { serving, next_target: 0 })),
            None => drop(hosts.remove(host)),
        }
    }

    /// Every route in force.
    #[must_use]
    pub fn routes(&self) -> Vec<ServedRoute> {
        self.locked().routes().collect()
    }

    /// Makes the next `calls` calls of the trait fail with `Unavailable`, without an effect.
    pub fn fail_next(&self, calls: u32) {
        self.locked().failures_left = calls;
    }

    /// Begins a request, as a browser would.
    #[must_use]
    pub fn request(self: &Arc<Self>, host: &Host) -> MemoryAnswer {
        let mut state = self.locked();
        let Some(served) = state.hosts.get_mut(host) else { return MemoryAnswer::Unknown };
        let Some(route) = &served.serving.route else { return MemoryAnswer::Unknown };
        let Some(target) = route.targets.get(served.next_target % route.targets.len().max(1)).cloned() else {
            return MemoryAnswer::Stopped;
        };
        served.next_target = served.next_target.wrapping_add(1);
        let id = state.next_request;
        state.next_request += 1;
        state.in_flight.insert(id, Flight { target: target.clone(), cut: false });
        MemoryAnswer::Instance(MemoryRequest { ingress: Arc::clone(self), id, target })
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless this call is to fail.
    fn answering(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.locked();
        if state.failures_left > 0 {
            state.failures_left -= 1;
            return Err(Error::new(Kind::Unavailable, operation, "the proxy does not answer"));
        }
        Ok(state)
    }

    fn change(
        &self,
        operation: &'static str,
        host: &Host,
        generation: Generation,
        route: Option<Route>,
    ) -> Result<()> {
        let mut state = self.answering(operation)?;
        match state.hosts.get(host).map(|served| served.serving.generation) {
            Some(present) if present > generation => Err(Error::stale_generation(operation, present)),
            Some(present) if present == generation => Ok(()),
            _ => {
                let serving = Serving { generation, route };
                state.hosts.insert(host.clone(), Served { serving, next_target: 0 });
                Ok(())
            }
        }
    }
}

/// Into how many pages the hosts are divided, however many there are.
const PAGES: u64 = 16;

/// The page that a host stands on: always the same, so that none is passed over while others come and go.
fn page_of(host: &Host) -> u64 {
    let mut fingerprint = Fingerprint::new("memory-ingress/1");
    fingerprint.text(host.as_str());
    fingerprint.finish_short() % PAGES
}

impl State {
    fn routes(&self) -> impl Iterator<Item = ServedRoute> {
        self.hosts.values().filter_map(|Served { serving: Serving { generation, route }, .. }| {
            Some(ServedRoute { route: route.clone()?, generation: *generation })
        })
    }

    fn is_routed(&self, instance: &InstanceName, address: SocketAddr) -> bool {
        self.hosts
            .values()
            .filter_map(|served| served.serving.route.as_ref())
            .flat_map(|route| &route.targets)
            .any(|target| target.instance == *instance && target.address == address)
    }
}

#[async_trait]
impl Ingress for MemoryIngress {
    fn url(&self, host: &Host) -> String {
        format!("http://{host}")
    }

    async fn publish(&self, _context: &Context, route: &Route, generation: Generation) -> Result<()> {
        self.change("ingress.publish", &route.host, generation, Some(route.clone()))
    }

    async fn withdraw(&self, _context: &Context, host: &Host, generation: Generation) -> Result<()> {
        self.change("ingress.withdraw", host, generation, None)
    }

    async fn serving(&self, _context: &Context, host: &Host) -> Result<Option<Serving>> {
        Ok(self.answering("ingress.serving")?.hosts.get(host).map(|served| served.serving.clone()))
    }

    async fn digest(&self, _context: &Context) -> Result<RoutesDigest> {
        let state = self.answering("ingress.digest")?;
        let parts = state.routes().map(|served| RoutesDigest::of(&served.route, served.generation));
        Ok(parts.fold(RoutesDigest::default(), RoutesDigest::with))
    }

    async fn list(&self, _context: &Context, from: u64) -> Result<RoutePage> {
        let state = self.answering("ingress.list")?;
        let routes = state.routes().filter(|served| page_of(&served.route.host) == from).collect();
        Ok(RoutePage { routes, next: (from + 1 < PAGES).then_some(from + 1) })
    }

    async fn drain(&self, context: &Context, instance: &InstanceName, address: SocketAddr) -> Result<()> {
        const OPERATION: &str = "ingress.drain";
        if self.answering(OPERATION)?.is_routed(instance, address) {
            return Err(Error::still_routed(OPERATION, instance));
        }
        let is_of = |flight: &Flight| flight.target.instance == *instance && flight.target.address == address;
        let mut ended = self.ended.subscribe();
        let waited = context
            .run(OPERATION, async {
                ended.until(|()| !self.locked().in_flight.values().any(is_of)).await;
                Ok(())
            })
            .await;
        match waited {
            Err(error) if error.kind() == Kind::Timeout => {
                for flight in self.locked().in_flight.values_mut().filter(|flight| is_of(flight)) {
                    flight.cut = true;
                }
                Ok(())
            }
            other => other,
        }
    }

    async fn probe(&self, _context: &Context, address: SocketAddr, _check: &HealthCheck) -> Result<Probe> {
        let mut state = self.answering("ingress.probe")?;
        let Some(script) = state.probes.get_mut(&address) else {
            return Ok(match &self.host {
                Some(host) if !host.answers(address) => Probe::Unhealthy("connection refused".to_owned()),
                _ => Probe::Healthy,
            });
        };
        let next = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
        Ok(next.unwrap_or(Probe::Healthy))
    }

    async fn ping(&self, _context: &Context) -> Result<()> {
        self.answering("ingress.ping").map(drop)
    }
}
