//! Health checks, asked from where requests will come from.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body::Body;
use hyper_util::rt::TokioIo;
use paas_core::{Context, HealthCheck, HealthCheckKind, Kind, Probe, Result};
use tokio::net::TcpStream;

/// Asks once.
///
/// # Errors
/// Only the call's own cancellation; an instance that does not answer is unhealthy.
pub(crate) async fn probe(context: &Context, address: SocketAddr, check: &HealthCheck) -> Result<Probe> {
    const OPERATION: &str = "ingress.probe";
    let context = context.with_budget(check.timeout());
    let asked = context.run(OPERATION, async {
        Ok(match &check.check {
            HealthCheckKind::Tcp => tcp(address).await,
            HealthCheckKind::Http { path, status } => http(address, path, *status).await,
        })
    });
    match asked.await {
        Ok(Ok(())) => Ok(Probe::Healthy),
        Ok(Err(reason)) => Ok(Probe::Unhealthy(reason)),
        Err(error) if error.kind() == Kind::Timeout => {
            Ok(Probe::Unhealthy(format!("no answer within {} s", check.timeout_seconds)))
        }
        Err(error) => Err(error),
    }
}

async fn tcp(address: SocketAddr) -> Result<(), String> {
    TcpStream::connect(address).await.map(drop).map_err(|error| no_connection(address, &error))
}

fn no_connection(address: SocketAddr, error: &std::io::Error) -> String {
    format!("port {} does not accept a connection: {}", address.port(), error.kind())
}

async fn http(address: SocketAddr, path: &str, wanted: Option<u16>) -> Result<(), String> {
    let tcp = TcpStream::connect(address).await.map_err(|error| no_connection(address, &error))?;
    let broken = |error: hyper::Error| format!("GET {path} got no HTTP answer: {error}");
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake::<_, NoBody>(TokioIo::new(tcp)).await.map_err(broken)?;
    let mut request = Request::new(NoBody);
    *request.uri_mut() =
        path.parse().map_err(|error| format!("the path of the check is invalid: {error}"))?;
    let host = HeaderValue::from_str(&address.to_string()).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("paas-health-check"));
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    // Both in this call: dropping it leaves no connection behind. When the connection ends, so does the request.
    let driven = async {
        let _ = driver.await;
        std::future::pending::<std::convert::Infallible>().await
    };
    let status = tokio::select! {
        biased;
        response = sender.send_request(request) => response.map_err(broken)?.status(),
        never = driven => match never {},
    };
    match wanted {
        Some(wanted) if status.as_u16() != wanted => {
            Err(format!("GET {path} answered {}, not {wanted}", status.as_u16()))
        }
        None if status >= StatusCode::INTERNAL_SERVER_ERROR => {
            Err(format!("GET {path} answered {}", status.as_u16()))
        }
        _ => Ok(()),
    }
}

/// A check sends nothing but its head.
struct NoBody;

impl Body for NoBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}
