//! Server-sent events: bounded in number, ended by themselves at shutdown.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue};
use paas_core::{Error, Failure, Kind, Retry};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::problem::{Problem, Result};

/// How often a silent stream says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What may wait for long: streams and waiting requests.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    places: Arc<Semaphore>,
    most: usize,
    closing: CancellationToken,
}

/// The last frame of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamEnd {
    /// Why it ends.
    reason: EndReason,
    /// What went wrong, if something did.
    problem: Option<Problem>,
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EndReason {
    /// Nothing more can come.
    Complete,
    /// The server is stopping: come back with the last id.
    Closing,
    /// Something failed: come back with the last id.
    Failed,
}

impl Streams {
    pub(crate) fn new(most: usize, closing: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), most, closing }
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.most - self.places.available_permits()
    }

    /// Fires when the server is stopping.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// A place for one that waits.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().map_err(|_| {
            Error::new(Kind::Unavailable, "streams.open", "too many streams are open")
                .retry(Retry::Transient { after: Some(Duration::from_secs(5)) })
                .into()
        })
    }

    /// Sends items as frames until they end, one fails, or the server stops; then an `end` frame.
    pub(crate) fn send<T: Send + 'static>(
        &self,
        items: impl Stream<Item = Result<T, Error>> + Send + 'static,
        frame: impl Fn(&T) -> Event + Send + 'static,
    ) -> Result<Response> {
        let place = self.place()?;
        let closing = self.closing.clone();
        let mut is_failed = false;
        let frames = items
            .take_until(closing.clone().cancelled_owned())
            .map(Some)
            .chain(futures::stream::once(async { None }))
            .map(move |item| match item {
                Some(Ok(item)) => (frame(&item), false),
                Some(Err(error)) => (end(EndReason::Failed, Some(Failure::from(&error).into())), true),
                None if closing.is_cancelled() => (end(EndReason::Closing, None), true),
                None => (end(EndReason::Complete, None), true),
            })
            // The `end` frame is the last.
            .take_while(move |(_, is_last)| {
                let goes_on = !is_failed;
                is_failed = *is_last;
                std::future::ready(goes_on)
            })
            .map(move |(frame, _)| {
                let _ = &place;
                Ok::<_, Infallible>(frame)
            });
        let mut response = Sse::new(frames).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
        // A proxy that collects answers would hold the frames back.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }
}

fn end(reason: EndReason, problem: Option<Problem>) -> Event {
    data(Event::default().event("end"), &StreamEnd { reason, problem })
}

/// Puts a value into a frame.
pub(crate) fn data<T: Serialize>(event: Event, value: &T) -> Event {
    // JSON has no raw line ends, which alone would be refused; our values always have a JSON form.
    event.data(serde_json::to_string(value).unwrap_or_default())
}

/// Where a stream goes on: the `Last-Event-ID` of a client that comes back, or else its `cursor`.
pub(crate) fn resume_at(headers: &HeaderMap, cursor: Option<&str>) -> Result<Option<String>> {
    match headers.get("last-event-id") {
        Some(value) => value.to_str().map(|id| Some(id.to_owned())).map_err(|_| crate::paging::bad_cursor()),
        None => Ok(cursor.map(str::to_owned)),
    }
}
