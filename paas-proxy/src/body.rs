//! Bodies on their way through: streamed, bounded in idle time, never boxed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::service::Busy;
use crate::timer::IdleTimer;
use crate::upstream::Lease;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The side that sends it broke off.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// It stopped sending.
    #[error("no bytes came for too long")]
    Idle,
}

/// A client's body with its idle time.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    idle: IdleTimer,
    idle_limit: Duration,
    /// Set once all of it was handed on; none where it was empty from the start.
    sent: Option<Arc<AtomicBool>>,
}

impl RequestBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self { incoming: None, idle: IdleTimer::default(), idle_limit: Duration::MAX, sent: None }
    }

    /// The body, and a flag that says when all of it was handed on, unless it is empty.
    pub(crate) fn new(incoming: Incoming, idle_limit: Duration) -> (Self, Option<Arc<AtomicBool>>) {
        if incoming.is_end_stream() {
            return (Self::empty(), None);
        }
        let sent = Arc::new(AtomicBool::new(false));
        let body = Self {
            incoming: Some(incoming),
            idle: IdleTimer::default(),
            idle_limit,
            sent: Some(Arc::clone(&sent)),
        };
        (body, Some(sent))
    }

    fn finished(&self) {
        if let Some(sent) = &self.sent {
            sent.store(true, Ordering::Release);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let polled = poll_within(incoming, &mut this.idle, this.idle_limit, context);
        if matches!(polled, Poll::Ready(None)) || incoming.is_end_stream() {
            this.finished();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

/// What a client gets: a page of the proxy's, or an instance's answer.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// The proxy's own bytes.
    Page(Bytes),
    /// What the instance sends, with the connection it comes by.
    Upstream(UpstreamBody),
}

/// An instance's body; its connection can be used again once all of it came.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    idle: IdleTimer,
    idle_limit: Duration,
    lease: Option<Lease>,
    /// The request counts as going on until the client has the answer.
    _busy: Busy,
}

impl ResponseBody {
    pub(crate) fn page(bytes: Bytes) -> Self {
        Self::Page(bytes)
    }

    pub(crate) fn upstream(incoming: Incoming, lease: Lease, busy: Busy, idle_limit: Duration) -> Self {
        let mut body = UpstreamBody {
            incoming,
            idle: IdleTimer::default(),
            idle_limit,
            lease: Some(lease),
            _busy: busy,
        };
        if body.incoming.is_end_stream() {
            body.complete();
        }
        Self::Upstream(body)
    }
}

impl UpstreamBody {
    /// Nothing more comes: others may use the connection.
    fn complete(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Page(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Page(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Upstream(body) => {
                let polled = poll_within(&mut body.incoming, &mut body.idle, body.idle_limit, context);
                if matches!(polled, Poll::Ready(None)) || body.incoming.is_end_stream() {
                    body.complete();
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Page(bytes) => bytes.is_empty(),
            Self::Upstream(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Page(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(body) => body.incoming.size_hint(),
        }
    }
}

fn poll_within(
    incoming: &mut Incoming,
    idle: &mut IdleTimer,
    limit: Duration,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    match Pin::new(incoming).poll_frame(context) {
        Poll::Ready(frame) => {
            idle.reset();
            Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
        }
        Poll::Pending => idle.poll_expired(context, limit).map(|()| Some(Err(BodyError::Idle))),
    }
}
