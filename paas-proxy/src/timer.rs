//! The data plane's waits: the only file that arms tokio's timers.
//!
//! They bound waiting for the network and run on the workers' own runtimes; nothing that the platform decides
//! depends on them, so they do not go through the injected clock.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// A wait that starts now.
#[allow(clippy::disallowed_methods)] // see the file's head
pub(crate) fn sleep(duration: Duration) -> Sleep {
    tokio::time::sleep(duration)
}

/// Measures how long something has been pending. It costs nothing while everything is ready at once.
#[derive(Debug, Default)]
pub(crate) struct IdleTimer(Option<Pin<Box<Sleep>>>);

impl IdleTimer {
    /// Something happened: the time starts anew at the next wait.
    pub(crate) fn reset(&mut self) {
        self.0 = None;
    }

    /// Ready when `limit` has passed since the first poll after a reset.
    pub(crate) fn poll_expired(&mut self, context: &mut Context<'_>, limit: Duration) -> Poll<()> {
        self.0.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(context)
    }
}
