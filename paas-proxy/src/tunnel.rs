//! Connections that change their protocol: WebSocket and whatever else `Upgrade` names.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::body::{RequestBody, ResponseBody};
use crate::headers;
use crate::pages::Page;
use crate::service::{Busy, Failed, answer, connect};
use crate::stream::Stream;
use crate::upstream::{Lease, Upstream};

/// Asks the instance to change the protocol. If it does, bytes flow both ways until one side ends; otherwise its
/// answer is passed on like any other.
pub(crate) async fn open(
    busy: Busy,
    host: &str,
    upstream: Arc<Upstream>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Page> {
    let client = Arc::clone(busy.client());
    let shared = &client.shared;
    let from_client = hyper::upgrade::on(&mut request);
    let protocol = request.headers().get(UPGRADE).cloned();
    headers::prepare_request(&mut request, &client.address)?;
    mark_upgrade(request.headers_mut(), protocol);

    let (head, incoming) = request.into_parts();
    let (body, sent) = RequestBody::new(incoming, shared.timeouts.idle_body);
    let request = Request::from_parts(head, body);
    let (upstream, mut connection) = connect(&client, host, upstream).await?;
    let mut response =
        answer(shared, &mut connection, request, sent.as_deref()).await.map_err(|failed| match failed {
            Failed::Answered(page) => page,
            Failed::Unsent(_) | Failed::Closed => Page::BadGateway,
        })?;

    *response.version_mut() = Version::HTTP_11;
    let idle_limit = shared.timeouts.idle_body;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        headers::prepare_response(response.headers_mut());
        let lease = Lease { upstream, connection, worker: client.worker, sent };
        return Ok(response.map(|body| ResponseBody::upstream(body, lease, busy, idle_limit)));
    }
    let from_instance = hyper::upgrade::on(&mut response);
    let protocol = response.headers().get(UPGRADE).cloned();
    headers::prepare_response(response.headers_mut());
    mark_upgrade(response.headers_mut(), protocol);
    // It ends with either side, when the instance's connections are cut, or with the worker, which waits for it.
    client.connections.spawn(async move {
        let cut = upstream.cut().clone();
        let ended = cut.run_until_cancelled(tunnel(from_client, from_instance, idle_limit)).await;
        if let Some(Err(error)) = ended {
            tracing::debug!(address = %upstream.address(), %error, "a tunnel broke");
        }
        drop((upstream, busy));
    });
    Ok(response.map(|_| ResponseBody::page(Bytes::new())))
}

fn mark_upgrade(headers: &mut HeaderMap, protocol: Option<HeaderValue>) {
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

async fn tunnel(from_client: OnUpgrade, from_instance: OnUpgrade, idle_limit: Duration) -> io::Result<()> {
    let both = async { tokio::try_join!(from_client, from_instance) };
    let (client, instance) = tokio::time::timeout(idle_limit, both).await?.map_err(io::Error::other)?;
    let ((client, from_client), (instance, from_instance)) = (raw(client)?, raw(instance)?);
    let (client_read, client_write) = client.into_split();
    let (instance_read, instance_write) = instance.into_split();
    let moved = AtomicU64::new(0);
    tokio::try_join!(
        copy(client_read, instance_write, from_client, &moved, idle_limit),
        copy(instance_read, client_write, from_instance, &moved, idle_limit),
    )?;
    Ok(())
}

/// The connection itself, and what had been read beyond the head.
fn raw(upgraded: Upgraded) -> io::Result<(TcpStream, Bytes)> {
    let parts = upgraded
        .downcast::<Stream>()
        .map_err(|_| io::Error::other("the upgraded connection is not one of this proxy's"))?;
    Ok((parts.io.into_tcp(), parts.read_buf))
}

/// Copies one way until its end, or until nothing has moved either way for `idle_limit`.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    first: Bytes,
    moved: &AtomicU64,
    idle_limit: Duration,
) -> io::Result<()> {
    to.write_all(&first).await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let before = moved.load(Ordering::Relaxed);
        match tokio::time::timeout(idle_limit, from.read(&mut buffer)).await {
            Ok(Ok(0)) => return to.shutdown().await,
            Ok(Ok(count)) => {
                tokio::time::timeout(idle_limit, to.write_all(&buffer[..count])).await??;
                moved.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Err(error)) => return Err(error),
            Err(_) if moved.load(Ordering::Relaxed) != before => {}
            Err(elapsed) => return Err(elapsed.into()),
        }
    }
}
