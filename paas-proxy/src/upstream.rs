//! One instance as the proxy sees it: its idle connections, and how one learns that nothing is in flight to it.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use hyper::client::conn::http1::{SendRequest, handshake};
use paas_core::{InstanceName, RouteTarget};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::body::RequestBody;
use crate::lock::locked;
use crate::pages::Page;
use crate::stream::Stream;
use crate::timer::sleep;

/// How many unused connections one worker keeps to one instance.
const MAX_IDLE: usize = 64;

/// A connection with a request on it.
const LEASED: u8 = u8::MAX;

/// An instance.
///
/// Routes and requests in flight hold it; nothing else does. So once no route names it, it is dropped in the moment
/// when the last request ends, and that is what [`gone`](Self::gone) waits for: there is no counter that a request
/// could miss between reading the table and being counted.
#[derive(Debug)]
pub(crate) struct Upstream {
    target: RouteTarget,
    registry: Weak<Registry>,
    /// In how many routes it is.
    routes: AtomicUsize,
    retired: AtomicBool,
    /// Unused connections, for each worker its own: a connection stays on the thread that drives it.
    idle: Box<[Mutex<Vec<Connection>>]>,
    /// Fires to close every connection at once.
    cut: CancellationToken,
    /// Dropped with it.
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
}

/// All instances that routes or requests hold, so that two routes to one instance share it.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    upstreams: Mutex<HashMap<(InstanceName, SocketAddr), Weak<Upstream>>>,
}

/// What became of an instance that was to be retired.
#[derive(Debug)]
pub(crate) enum Retired {
    /// Nothing holds it.
    Absent,
    /// Requests still go to it.
    StillRouted,
    /// Only requests in flight hold it.
    Now(Arc<Upstream>),
}

impl Registry {
    /// Makes the instance keep no unused connection from now on; a later route to it begins anew.
    pub(crate) fn retire(&self, instance: &InstanceName, address: SocketAddr) -> Retired {
        // Declared before the lock, so dropped after it: the last holder takes the lock.
        let present;
        let upstreams = locked(&self.upstreams);
        present = upstreams.get(&(instance.clone(), address)).and_then(Weak::upgrade);
        match &present {
            None => Retired::Absent,
            Some(upstream) if upstream.routes.load(Ordering::SeqCst) > 0 => Retired::StillRouted,
            Some(upstream) => {
                upstream.retired.store(true, Ordering::SeqCst);
                Retired::Now(Arc::clone(upstream))
            }
        }
    }

    /// The instance, to be put into one more route.
    pub(crate) fn routed(self: &Arc<Self>, target: &RouteTarget, workers: usize) -> Arc<Upstream> {
        let key = (target.instance.clone(), target.address);
        // Declared before the lock, so dropped after it: the last holder takes the lock.
        let present;
        let mut upstreams = locked(&self.upstreams);
        present = upstreams.get(&key).and_then(Weak::upgrade);
        let upstream = match &present {
            Some(upstream) if !upstream.retired.load(Ordering::SeqCst) => Arc::clone(upstream),
            _ => {
                let upstream = Arc::new(Upstream {
                    target: target.clone(),
                    registry: Arc::downgrade(self),
                    routes: AtomicUsize::new(0),
                    retired: AtomicBool::new(false),
                    idle: (0..workers).map(|_| Mutex::default()).collect(),
                    cut: CancellationToken::new(),
                    waiting: Mutex::default(),
                });
                upstreams.insert(key, Arc::downgrade(&upstream));
                upstream
            }
        };
        upstream.routes.fetch_add(1, Ordering::SeqCst);
        upstream
    }
}

impl Upstream {
    /// Says that one route less names it.
    pub(crate) fn unrouted(&self) {
        self.routes.fetch_sub(1, Ordering::SeqCst);
    }

    /// Closes the unused connections.
    pub(crate) fn close_idle(&self) {
        for idle in &self.idle {
            locked(idle).clear();
        }
    }

    /// Ends, with an error that says nothing, when the last one who holds it lets go.
    pub(crate) fn gone(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = locked(&self.waiting);
        waiting.retain(|sender| !sender.is_closed());
        waiting.push(sender);
        receiver
    }

    /// Fires to close every connection at once.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Where it answers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.target.address
    }

    /// An unused connection that still seems open.
    pub(crate) fn idle(&self, worker: usize) -> Option<Connection> {
        let mut idle = locked(self.idle.get(worker)?);
        // The last one used first: it is the least likely to be closed by the other side.
        while let Some(connection) = idle.pop() {
            // Else it is closed, or still busy with a request body that the instance did not want.
            if connection.sender.is_ready() {
                connection.idle_rounds.store(LEASED, Ordering::Relaxed);
                return Some(connection);
            }
        }
        None
    }

    /// Opens a connection, driven by a task of the worker's that ends with it.
    pub(crate) async fn connect(&self, limits: ConnectLimits) -> Result<Connection, ConnectError> {
        let tcp = open(self.address(), limits.connect).await?;
        let (sender, driver) = handshake(Stream::upstream(tcp, limits.write)).await?;
        let idle_rounds = Arc::new(AtomicU8::new(LEASED));
        let (cut, rounds) = (self.cut.clone(), Arc::clone(&idle_rounds));
        tokio::spawn(async move {
            let mut driver = std::pin::pin!(driver.with_upgrades());
            let mut cut = std::pin::pin!(cut.cancelled_owned());
            loop {
                let mut round = std::pin::pin!(sleep(limits.idle));
                tokio::select! {
                    biased;
                    _ = &mut driver => return, // its user has the error
                    () = &mut cut => return,
                    () = &mut round => match rounds.load(Ordering::Relaxed) {
                        LEASED => {}
                        0 => rounds.store(1, Ordering::Relaxed),
                        // Unused for a whole round. A request that takes it in this moment is sent again.
                        _ => return,
                    },
                }
            }
        });
        Ok(Connection { sender, idle_rounds })
    }

    fn keep(&self, worker: usize, connection: Connection) {
        if self.retired.load(Ordering::SeqCst) || connection.sender.is_closed() {
            return;
        }
        if let Some(idle) = self.idle.get(worker) {
            let mut idle = locked(idle);
            if idle.len() >= MAX_IDLE {
                idle.retain(|connection| !connection.sender.is_closed());
            }
            if idle.len() < MAX_IDLE {
                idle.push(connection);
            }
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let Some(registry) = self.registry.upgrade() else { return };
        let key = (self.target.instance.clone(), self.target.address);
        let mut upstreams = locked(&registry.upstreams);
        if upstreams.get(&key).is_some_and(|upstream| upstream.strong_count() == 0) {
            upstreams.remove(&key);
        }
    }
}

/// How long opening and using a connection may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectLimits {
    pub(crate) connect: Duration,
    pub(crate) write: Duration,
    pub(crate) idle: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Refused(#[from] std::io::Error),
    #[error("the connection was not accepted in time")]
    TimedOut,
    #[error(transparent)]
    Handshake(#[from] hyper::Error),
}

impl ConnectError {
    /// What the client is told.
    pub(crate) fn page(&self) -> Page {
        match self {
            Self::TimedOut => Page::GatewayTimeout,
            Self::Refused(_) | Self::Handshake(_) => Page::BadGateway,
        }
    }
}

/// Opens a TCP connection within `limit`.
pub(crate) async fn open(address: SocketAddr, limit: Duration) -> Result<TcpStream, ConnectError> {
    let tcp = tokio::time::timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| ConnectError::TimedOut)??;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// A connection to an instance, idle or with one request on it. Dropping it closes it.
pub(crate) struct Connection {
    /// Where requests go in.
    pub(crate) sender: SendRequest<RequestBody>,
    /// For how many of its driver's rounds it has been unused, or [`LEASED`].
    idle_rounds: Arc<AtomicU8>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").field("closed", &self.sender.is_closed()).finish()
    }
}

/// A connection with a request on it: a request in flight.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) connection: Connection,
    pub(crate) worker: usize,
    /// Says whether all of the request's body went out, if it had one.
    pub(crate) sent: Option<Arc<AtomicBool>>,
}

impl Lease {
    /// The whole answer came. The connection is kept for the next request, unless the instance answered before it
    /// had the whole request.
    pub(crate) fn finish(self) {
        if self.sent.is_none_or(|sent| sent.load(Ordering::Acquire)) {
            self.connection.idle_rounds.store(0, Ordering::Relaxed);
            self.upstream.keep(self.worker, self.connection);
        }
    }
}
