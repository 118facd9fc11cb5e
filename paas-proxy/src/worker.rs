//! The threads that carry requests: each accepts, serves and connects on a runtime of its own.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::{Client, Shared, serve};
use crate::stream::{Signs, Stream};
use crate::timer::sleep;

/// The longest head of a request.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How long to wait when no connection can be accepted, as when all file descriptors are in use.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// How often that is said at most.
const ACCEPT_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// One of them.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    /// Places for client connections, of all workers together.
    pub(crate) places: Arc<Semaphore>,
    /// Fires to stop accepting and to end when the requests in flight have ended.
    pub(crate) stopping: CancellationToken,
    /// Fires to end at once.
    pub(crate) ending: CancellationToken,
    /// The directory's, held as long as the port is: who has the one can have the other.
    pub(crate) lock: Option<Arc<File>>,
}

impl Worker {
    /// Carries requests until it is stopped.
    pub(crate) async fn run(mut self, listener: TcpListener) {
        let connections = TaskTracker::new();
        let ending = self.ending.clone();
        let lock = self.lock.take();
        let stopped = async {
            self.accept(listener, &connections).await;
            drop(lock);
            connections.close();
            // Those that do not end by then are closed with the runtime.
            let _ = tokio::time::timeout(self.shared.timeouts.shutdown, connections.wait()).await;
        };
        ending.run_until_cancelled(stopped).await;
    }

    async fn accept(&self, listener: TcpListener, connections: &TaskTracker) {
        let accepting = async {
            let mut warned_at: Option<Duration> = None;
            loop {
                let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((tcp, peer)) => {
                        connections.spawn(self.connection(tcp, peer, place, connections));
                    }
                    Err(error) => {
                        let now = self.shared.clock.elapsed();
                        if warned_at.is_none_or(|at| now.saturating_sub(at) >= ACCEPT_WARNING_INTERVAL) {
                            warned_at = Some(now);
                            tracing::warn!(%error, "no connection can be accepted");
                        }
                        sleep(ACCEPT_BACK_OFF).await;
                    }
                }
            }
        };
        self.stopping.run_until_cancelled(accepting).await;
    }

    fn connection(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        place: OwnedSemaphorePermit,
        connections: &TaskTracker,
    ) -> impl Future<Output = ()> + use<> {
        let signs = Arc::new(Signs::default());
        let client = Arc::new(Client {
            shared: Arc::clone(&self.shared),
            worker: self.index,
            address: forwarded_for(peer.ip()),
            signs: Arc::clone(&signs),
            connections: connections.clone(),
            begun: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            _permit: place,
        });
        let stopping = self.stopping.clone();
        async move {
            if tcp.set_nodelay(true).is_err() {
                return; // it is closed already
            }
            let timeouts = client.shared.timeouts;
            let serving = Arc::clone(&client);
            let connection = http1::Builder::new()
                .max_buf_size(MAX_HEAD_BYTES)
                .serve_connection(
                    Stream::client(tcp, timeouts.idle_body, Arc::clone(&signs)),
                    service_fn(move |request| serve(Arc::clone(&serving), request)),
                )
                .with_upgrades();
            let mut connection = pin!(connection);
            let mut stopping = pin!(stopping.cancelled_owned());
            let mut is_stopping = false;
            let mut seen = 0;
            loop {
                let mut round = pin!(sleep(timeouts.request_head));
                loop {
                    tokio::select! {
                        biased;
                        result = &mut connection => {
                            if let Err(error) = result {
                                tracing::debug!(%error, "a client's connection broke");
                            }
                            return;
                        }
                        () = &mut stopping, if !is_stopping => {
                            is_stopping = true;
                            connection.as_mut().graceful_shutdown();
                        }
                        () = &mut round => break,
                    }
                }
                let begun = client.begun.load(Ordering::Relaxed);
                let is_silent = begun == seen && client.ended.load(Ordering::Relaxed) == begun;
                // Of an answer that has ended, the last bytes may still be on their way.
                if is_silent && !signs.is_stalled() {
                    return; // for a whole round, or too slow with a head
                }
                seen = begun;
            }
        }
    }
}

/// A client's address as instances are told; IPv4 in its own notation also on a socket for both.
fn forwarded_for(address: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&address.to_canonical().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
