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
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// How many connections are open at most, where there are files for so many; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take for the head of a request, idle time included.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long a client may leave an answer unread.
const READ_PATIENCE: Duration = Duration::from_secs(30);
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
    let most = connections_for(raised_file_limit());
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = closing.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < most => match accepted {
                Ok((stream, peer)) => {
                    cut_when_unread(&stream, READ_PATIENCE);
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

/// Takes as many files as the system lets this program have: the customary limit of 1024 is soon used up.
fn raised_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.unwrap_or(u64::MAX)
}

/// At least half of the files stay for the store, git servers and the engine: idle callers must not take them.
fn connections_for(files: u64) -> usize {
    usize::try_from(files / 2).map_or(MAX_CONNECTIONS, |half| half.min(MAX_CONNECTIONS))
}

/// Has the system break the connection when the peer takes nothing for so long.
fn cut_when_unread(stream: &TcpStream, patience: Duration) {
    let milliseconds = patience.as_millis().try_into().unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(stream, milliseconds) {
        tracing::debug!(%error, "a connection that broke already");
    }
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn files_are_left_for_others() {
        assert_eq!([64, 1024, 8192, u64::MAX].map(connections_for), [32, 512, 4096, 4096]);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        cut_when_unread(&stream, Duration::from_millis(300));
        // More than all buffers hold.
        let router = Router::new().route("/", axum::routing::get(|| async { vec![0_u8; 64 << 20] }));
        let graceful = GracefulShutdown::new();
        tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        connection(stream, peer, router, &graceful).await;
        let read = client.read_to_end(&mut Vec::new()).await;
        assert!(read.is_err() || read.is_ok_and(|bytes| bytes < 64 << 20));
    }
}
