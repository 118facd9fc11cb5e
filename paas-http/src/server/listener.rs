//! Accepting connections, and letting go of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use paas_core::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// How many connections are open at most; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take for the head of a request, idle time included.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long requests in flight get when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted, as when files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `closing`, then lets requests in flight end.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    closing: CancellationToken,
    clock: Arc<dyn Clock>,
) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = closing.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, router.clone(), &graceful));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection can't be accepted");
                    clock.sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    tokio::select! {
        biased;
        () = graceful.shutdown() => {}
        () = clock.sleep(STOP_GRACE) => tracing::warn!("requests in flight are cut off"),
    }
    // What is left ends with the set.
    connections.shutdown().await;
}

fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + use<> {
    let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let mut router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        // A router is always ready.
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(stream), answer);
    let connection = graceful.watch(connection);
    async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, %peer, "a connection broke");
        }
    }
}
