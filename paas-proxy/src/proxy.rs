//! The proxy within a program.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use paas_core::{
    Clock, Context, Error, Generation, HealthCheck, Host, Ingress, InstanceName, Kind, Probe, Result, Route,
    RoutePage, RoutesDigest, Serving,
};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{ProxyConfig, url};
use crate::descriptors::max_connections;
use crate::journal::Journal;
use crate::lock::locked;
use crate::probe::probe;
use crate::service::Shared;
use crate::table::{Change, Table};
use crate::upstream::Retired;
use crate::worker::Worker;

/// How long connections that were cut may take to be gone.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// A running proxy. Dropping it closes its port and every connection at once; [`stop`](Self::stop) lets requests
/// end first.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    journal: Option<Journal>,
    address: SocketAddr,
    port: u16,
    stopping: CancellationToken,
    ending: CancellationToken,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

impl Proxy {
    /// Reads the table from the directory, if there is one, and serves it.
    ///
    /// # Errors
    /// `Unavailable`, with the code `address_in_use`, `address_denied`, `directory_in_use` or `directory_open` (others
    /// can write there) where that is the reason.
    pub async fn start(config: ProxyConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        // It opens files and starts threads.
        tokio::task::spawn_blocking(move || Self::open(&config, clock))
            .await
            .map_err(paas_core::error::map("proxy.start"))?
    }

    fn open(config: &ProxyConfig, clock: Arc<dyn Clock>) -> Result<Self> {
        let count = config.worker_count();
        let shared = Arc::new(Shared { table: Table::new(count), timeouts: config.timeouts, clock });
        let lock = config.directory.as_deref().map(own).transpose()?.map(Arc::new);
        let listener = listen(config.listen)?;
        let journal = match (&config.directory, &lock) {
            (Some(directory), Some(lock)) => {
                Some(Journal::open(directory, Arc::clone(lock), Arc::clone(&shared))?)
            }
            _ => None,
        };
        let address = listener.local_addr().map_err(paas_core::error::map("proxy.start"))?;
        let proxy = Self {
            shared,
            journal,
            address,
            port: config.public_port.unwrap_or_else(|| address.port()),
            stopping: CancellationToken::new(),
            ending: CancellationToken::new(),
            workers: Mutex::default(),
        };
        let places = Arc::new(Semaphore::new(max_connections(config.max_connections)));
        for index in 0..count {
            // Dropping the proxy on an error ends the workers that run already.
            let worker = proxy
                .worker(index, &listener, &places, lock.clone())
                .map_err(paas_core::error::map("proxy.start"))?;
            locked(&proxy.workers).push(worker);
        }
        Ok(proxy)
    }

    fn worker(
        &self,
        index: usize,
        listener: &std::net::TcpListener,
        places: &Arc<Semaphore>,
        lock: Option<Arc<File>>,
    ) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener.try_clone()?)?
        };
        let worker = Worker {
            index,
            shared: Arc::clone(&self.shared),
            places: Arc::clone(places),
            stopping: self.stopping.clone(),
            ending: self.ending.clone(),
            lock,
        };
        std::thread::Builder::new()
            .name(format!("proxy-{index}"))
            .spawn(move || runtime.block_on(worker.run(listener)))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port in apps' URLs.
    pub(crate) fn public_port(&self) -> u16 {
        self.port
    }

    /// Stops accepting, and returns when the requests in flight have ended, or when the configured time for that is
    /// over; what is left then is cut. Routes can't be changed any more.
    pub async fn stop(&self) {
        self.stopping.cancel();
        let mut threads = std::mem::take(&mut *locked(&self.workers));
        threads.extend(self.journal.as_ref().and_then(Journal::close));
        // A thread that panicked has ended too.
        let _ = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        })
        .await;
    }

    async fn change(
        &self,
        operation: &'static str,
        host: &Host,
        generation: Generation,
        route: Option<Route>,
    ) -> Result<()> {
        let Some(journal) = &self.journal else {
            return self.shared.table.change(operation, host, generation, route).map(drop);
        };
        let slot = journal.slot().await?;
        let written = match self.shared.table.change(operation, host, generation, route.clone())? {
            Change::Made => slot.write(host, Some(Serving { generation, route })),
            // The first call may not be on the disk yet, or may have failed there: the next write mends that.
            Change::Repeated => slot.write(host, None),
        };
        written.await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ending.cancel();
    }
}

#[async_trait]
impl Ingress for Proxy {
    fn url(&self, host: &Host) -> String {
        url(host, self.port)
    }

    async fn publish(&self, context: &Context, route: &Route, generation: Generation) -> Result<()> {
        const OPERATION: &str = "ingress.publish";
        let change = self.change(OPERATION, &route.host, generation, Some(route.clone()));
        context.run(OPERATION, change).await
    }

    async fn withdraw(&self, context: &Context, host: &Host, generation: Generation) -> Result<()> {
        const OPERATION: &str = "ingress.withdraw";
        context.run(OPERATION, self.change(OPERATION, host, generation, None)).await
    }

    async fn serving(&self, _context: &Context, host: &Host) -> Result<Option<Serving>> {
        Ok(self.shared.table.serving(host))
    }

    async fn digest(&self, _context: &Context) -> Result<RoutesDigest> {
        Ok(self.shared.table.digest())
    }

    async fn list(&self, _context: &Context, from: u64) -> Result<RoutePage> {
        Ok(self.shared.table.page(from))
    }

    async fn drain(&self, context: &Context, instance: &InstanceName, address: SocketAddr) -> Result<()> {
        const OPERATION: &str = "ingress.drain";
        let upstream = match self.shared.table.registry().retire(instance, address) {
            Retired::Absent => return Ok(()),
            Retired::StillRouted => return Err(Error::still_routed(OPERATION, instance)),
            Retired::Now(upstream) => upstream,
        };
        upstream.close_idle();
        let mut gone = upstream.gone();
        let cut = upstream.cut().clone();
        // From here only requests hold it.
        drop(upstream);
        let waited = context.run(OPERATION, async {
            let _ = (&mut gone).await;
            Ok(())
        });
        match waited.await {
            Err(error) if error.kind() == Kind::Timeout => {
                cut.cancel();
                // Each connection closes itself at its next turn.
                let _ = tokio::time::timeout(CUT_GRACE, gone).await;
                Ok(())
            }
            other => other,
        }
    }

    async fn probe(&self, context: &Context, address: SocketAddr, check: &HealthCheck) -> Result<Probe> {
        probe(context, address, check).await
    }

    async fn ping(&self, _context: &Context) -> Result<()> {
        if self.stopping.is_cancelled() {
            return Err(Error::new(Kind::Unavailable, "ingress.ping", "the proxy is stopping"));
        }
        Ok(())
    }
}

fn listen(address: SocketAddr) -> Result<std::net::TcpListener> {
    let failed = |error: io::Error| {
        let failure = |message: String| {
            Error::new(Kind::Unavailable, "proxy.listen", message).context("address", address)
        };
        let port = address.port();
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                failure(format!("the proxy needs port {port}, which another program has"))
                    .code("address_in_use")
                    .hint(format!("`ss -ltnp 'sport = :{port}'` shows it; end it, or choose another port"))
            }
            io::ErrorKind::PermissionDenied => failure(format!("the proxy may not listen on port {port}"))
                .code("address_denied")
                .hint("ports below 1024 need the capability CAP_NET_BIND_SERVICE; or choose another port"),
            io::ErrorKind::AddrNotAvailable => {
                failure(format!("{} is not an address of this machine", address.ip()))
                    .code("address_unavailable")
            }
            _ => failure(format!("the proxy can't listen on {address}")),
        }
        .source(error)
    };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Makes the directory, if it is not there. What is durable in it has to be found after a loss of power.
fn make(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    File::open(directory.canonicalize()?.parent().unwrap_or(directory))?.sync_all()
}

/// Makes the directory, if it is not there, and locks it.
fn own(directory: &Path) -> Result<File> {
    const OPERATION: &str = "proxy.lock_directory";
    let failure = |message: &'static str| {
        Error::new(Kind::Unavailable, OPERATION, message).context("directory", directory.display())
    };
    let unusable = |error: io::Error| failure("the proxy's directory can't be used").source(error);
    make(directory).map_err(unusable)?;
    let mode = fs::metadata(directory).map_err(unusable)?.permissions().mode();
    if mode & 0o022 != 0 {
        // They could put files of their own in the place of the proxy's.
        return Err(failure("others can write in the proxy's directory")
            .code("directory_open")
            .hint(format!("`chmod go-w {}`, or choose a directory of its own", directory.display())));
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let lock = options.open(directory.join("lock")).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(failure("another proxy uses this directory")
            .code("directory_in_use")
            .hint("one proxy needs a directory for itself")),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}
