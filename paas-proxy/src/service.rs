//! One request: from the client's head to the instance's answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use paas_core::Clock;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

use crate::body::{RequestBody, ResponseBody};
use crate::config::Timeouts;
use crate::headers::{self, MAX_HOST_BYTES};
use crate::pages::Page;
use crate::stream::Signs;
use crate::table::{Picked, Table};
use crate::tunnel;
use crate::upstream::{ConnectLimits, Connection, Lease, Upstream};

/// How often a request is tried: once, again after a closed idle connection, and again after another.
const MAX_ATTEMPTS: u32 = 3;

/// On how many instances a connection is tried.
const MAX_INSTANCES: usize = 3;

/// What all connections of a proxy share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: Table,
    pub(crate) timeouts: Timeouts,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Shared {
    pub(crate) fn connect_limits(&self) -> ConnectLimits {
        ConnectLimits {
            connect: self.timeouts.connect,
            write: self.timeouts.idle_body,
            idle: self.timeouts.idle_upstream,
        }
    }
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    /// The thread that carries it.
    pub(crate) worker: usize,
    /// Its address, as instances are told.
    pub(crate) address: HeaderValue,
    /// What its bytes have shown.
    pub(crate) signs: Arc<Signs>,
    /// Where its tunnel is counted, when it becomes one: a stop waits for it.
    pub(crate) connections: TaskTracker,
    /// How many requests began and how many ended: what tells a busy client from a silent one.
    pub(crate) begun: AtomicU32,
    pub(crate) ended: AtomicU32,
    /// Its place among the open connections.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// Counts a request as ended, however it ends.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Client>);

impl Busy {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        client.begun.fetch_add(1, Ordering::Relaxed);
        Self(client)
    }

    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers one request. A failure is a page.
pub(crate) async fn serve(
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let busy = Busy::new(client);
    Ok(match route(busy, request).await {
        Ok(response) => response,
        Err(page) => page.response(),
    })
}

async fn route(busy: Busy, mut request: Request<Incoming>) -> Result<Response<ResponseBody>, Page> {
    let client = busy.client();
    if client.signs.is_ambiguous() {
        return Err(Page::BadRequest);
    }
    let mut buffer = [0; MAX_HOST_BYTES];
    let host = headers::host_of(&request, &mut buffer)?;
    if request.method() == Method::CONNECT {
        return Err(Page::MethodNotAllowed);
    }
    // Unknown hosts are told apart before anything is changed.
    let upstream = pick(client, host, &[])?;
    if headers::wants_upgrade(&request) {
        return tunnel::open(busy, host, upstream, request).await;
    }
    headers::prepare_request(&mut request, &client.address)?;
    forward(busy, host, upstream, request).await
}

/// The instance whose turn it is, one that was not tried yet if there is one.
fn pick(client: &Client, host: &str, tried: &[SocketAddr]) -> Result<Arc<Upstream>, Page> {
    match client.shared.table.pick(host, tried) {
        Picked::Upstream(upstream) => Ok(upstream),
        Picked::Stopped => Err(Page::Stopped),
        Picked::Unknown => Err(Page::UnknownHost),
    }
}

/// Opens a connection to the instance, or else to another of the host: one beside it, or one that replaced it meanwhile.
pub(crate) async fn connect(
    client: &Client,
    host: &str,
    mut upstream: Arc<Upstream>,
) -> Result<(Arc<Upstream>, Connection), Page> {
    let mut tried = Vec::new();
    loop {
        let error = match upstream.connect(client.shared.connect_limits()).await {
            Ok(connection) => return Ok((upstream, connection)),
            Err(error) => error,
        };
        tracing::debug!(address = %upstream.address(), %error, "no connection to the instance");
        tried.push(upstream.address());
        let other = pick(client, host, &tried)?;
        if tried.len() == MAX_INSTANCES || tried.contains(&other.address()) {
            return Err(error.page());
        }
        upstream = other;
    }
}

async fn forward(
    busy: Busy,
    host: &str,
    mut upstream: Arc<Upstream>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Page> {
    let client = busy.client();
    let shared = &client.shared;
    let is_idempotent = headers::is_idempotent(request.method());
    let (mut request, sent) = {
        let (head, incoming) = request.into_parts();
        let (body, sent) = RequestBody::new(incoming, shared.timeouts.idle_body);
        (Request::from_parts(head, body), sent)
    };
    // The instance may close a used connection under the request, which then can't be told from one that had its
    // effect. What can't be sent again goes out on a new connection, whose use comes right behind its opening.
    let is_repeatable = is_idempotent && sent.is_none();
    let mut may_reuse = is_repeatable;
    if !is_repeatable {
        // The instance is the one to close it, and so to keep its remains: a proxy would run out of local ports.
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    for _ in 0..MAX_ATTEMPTS {
        let reused = if may_reuse { upstream.idle(client.worker) } else { None };
        let copy = reused.is_some().then(|| copy_of(&request));
        let mut connection = match reused {
            Some(connection) => connection,
            None => {
                let connection;
                (upstream, connection) = connect(client, host, upstream).await?;
                connection
            }
        };
        match answer(shared, &mut connection, request, sent.as_deref()).await {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Err(Page::BadGateway); // nobody asked for it
            }
            Ok(mut response) => {
                headers::prepare_response(response.headers_mut());
                *response.version_mut() = Version::HTTP_11;
                let lease = Lease { upstream, connection, worker: client.worker, sent };
                let idle_limit = shared.timeouts.idle_body;
                return Ok(response.map(|body| ResponseBody::upstream(body, lease, busy, idle_limit)));
            }
            Err(Failed::Unsent(again)) => request = *again,
            Err(Failed::Closed) => request = copy.ok_or(Page::BadGateway)?,
            Err(Failed::Answered(page)) => return Err(page),
        }
        may_reuse = false;
        upstream = pick(client, host, &[])?;
    }
    Err(Page::BadGateway)
}

fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Why there is no answer.
pub(crate) enum Failed {
    /// The connection was closed before anything was written: the request as it was.
    Unsent(Box<Request<RequestBody>>),
    /// The connection was closed before an answer came.
    Closed,
    /// Nothing that another try could mend.
    Answered(Page),
}

/// Sends a request and waits for the head of its answer; time counts from when the request was handed on wholly.
pub(crate) async fn answer(
    shared: &Shared,
    connection: &mut Connection,
    request: Request<RequestBody>,
    sent: Option<&AtomicBool>,
) -> Result<Response<Incoming>, Failed> {
    let mut answer = std::pin::pin!(connection.sender.try_send_request(request));
    loop {
        match tokio::time::timeout(shared.timeouts.response_head, &mut answer).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(mut failed)) => {
                return Err(match failed.take_message() {
                    Some(request) => Failed::Unsent(Box::new(request)),
                    // The client's body failed, not the instance.
                    None if failed.error().is_user() => Failed::Answered(Page::RequestTimeout),
                    None if failed.error().is_parse() => Failed::Answered(Page::BadGateway),
                    None => Failed::Closed,
                });
            }
            // The body is still on its way, and bounded by its own idle time.
            Err(_) if sent.is_some_and(|sent| !sent.load(Ordering::Acquire)) => {}
            Err(_) => return Err(Failed::Answered(Page::GatewayTimeout)),
        }
    }
}
