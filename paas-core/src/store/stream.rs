//! Event streams and the feed over all of them.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Batch, Scope, is_key};
use crate::domain::{AppId, DeploymentId};

/// The name of an event stream: the id of what it is about.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(Arc<str>);

impl StreamId {
    /// The stream of this name.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&DeploymentId> for StreamId {
    fn from(id: &DeploymentId) -> Self {
        Self::new(id.as_str())
    }
}

impl From<&AppId> for StreamId {
    fn from(id: &AppId) -> Self {
        Self::new(id.as_str())
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The place of an event in the order of all events: starts at 1, grows with gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

/// Events to append to one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The owner of the stream: another one than that of its events is a `Conflict`.
    pub scope: Scope,
    /// The stream; it exists once it has an event.
    pub stream: StreamId,
    /// The version the stream must have: the number of its events.
    pub expect: u64,
    /// The time the events get.
    pub at: Timestamp,
    /// The events.
    pub events: Vec<Vec<u8>>,
}

impl Append {
    pub(super) fn is_bounded(&self) -> bool {
        is_key(self.stream.as_str()) && self.events.iter().all(|body| body.len() <= Batch::MAX_BODY_BYTES)
    }
}

/// An event as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its stream.
    pub stream: StreamId,
    /// Its number within the stream, from 1, without gaps.
    pub version: u64,
    /// Its place in the feed.
    pub position: Position,
    /// When it was appended.
    pub at: Timestamp,
    /// The event; the store does not look into it.
    pub body: Vec<u8>,
}

/// A hint that something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A stream has new events.
    Stream {
        /// The stream.
        stream: StreamId,
        /// The version that it has by now.
        version: u64,
    },
    /// Work became due, or a slot became free.
    Work,
}
