//! A bare HTTP connection to the engine, for the calls that the client library does not have.

use std::pin::pin;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::FusedFuture;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use paas_core::{Error, Kind, Result};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use crate::engine::Endpoint;

type EngineConnection = Connection<TokioIo<Either<UnixStream, TcpStream>>, Empty<Bytes>>;

/// Connects. The connection has to be polled for its requests to move.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    operation: &'static str,
) -> Result<(SendRequest<Empty<Bytes>>, EngineConnection)> {
    let stream = match endpoint {
        Endpoint::Unix(path) => {
            Either::Left(UnixStream::connect(path).await.map_err(unavailable(operation))?)
        }
        Endpoint::Tcp(address) => {
            Either::Right(TcpStream::connect(address).await.map_err(unavailable(operation))?)
        }
    };
    handshake(TokioIo::new(stream)).await.map_err(unavailable(operation))
}

/// Sends `POST path` without a body and answers the status.
pub(crate) async fn post(endpoint: &Endpoint, operation: &'static str, path: &str) -> Result<StatusCode> {
    let (mut sender, connection) = connect(endpoint, operation).await?;
    let request = Request::post(path).header(http::header::HOST, "docker").body(Empty::new());
    let request = request.map_err(paas_core::error::map(operation))?;
    let mut connection = connection.fuse();
    let response = drive(&mut connection, sender.send_request(request)).await;
    Ok(response.map_err(unavailable(operation))?.status())
}

/// Polls a connection until `work` on it is done. The connection may end first: it does when it is upgraded.
pub(crate) async fn drive<T>(
    connection: &mut (impl FusedFuture + Unpin),
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = &mut *connection, if !connection.is_terminated() => {}
        }
    }
}

pub(crate) fn unavailable<E>(operation: &'static str) -> impl Fn(E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |cause| {
        Error::new(Kind::Unavailable, operation, "the container engine does not answer").source(cause)
    }
}
