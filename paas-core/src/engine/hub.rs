//! Wakes those who wait for a stream or for work. Only a hint: the store is the truth.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::store::{Change, StreamId};
use crate::watch;

/// Spreads the store's hints to those whom they concern.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// The version that each stream is said to have.
    streams: Mutex<BTreeMap<StreamId, watch::Sender<u64>>>,
    /// Any event of any stream.
    feed: watch::Sender<()>,
    work: Notify,
}

/// Waits for news of one stream.
#[derive(Debug)]
pub(crate) struct Watch {
    stream: StreamId,
    receiver: watch::Receiver<u64>,
    hub: Arc<Hub>,
}

impl Hub {
    /// Listens until `stop`.
    pub(crate) async fn run(&self, mut changes: broadcast::Receiver<Change>, stop: CancellationToken) {
        loop {
            let change = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                change = changes.recv() => change,
            };
            match change {
                Ok(Change::Stream { stream, version }) => {
                    let streams = self.locked();
                    if let Some(sender) = streams.get(&stream) {
                        sender.send(version);
                    }
                    drop(streams);
                    self.feed.send(());
                }
                Ok(Change::Work) => self.work.notify_one(),
                // Hints were lost: everybody looks.
                Err(RecvError::Lagged(_)) => {
                    for sender in self.locked().values() {
                        sender.send(u64::MAX);
                    }
                    self.feed.send(());
                    self.work.notify_one();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// News of `stream` from now on.
    pub(crate) fn watch(self: &Arc<Self>, stream: StreamId) -> Watch {
        let receiver = self.locked().entry(stream.clone()).or_default().subscribe();
        Watch { stream, receiver, hub: self.clone() }
    }

    /// News of any stream from now on.
    pub(crate) fn watch_feed(&self) -> watch::Receiver<()> {
        self.feed.subscribe()
    }

    /// Returns when there may be work.
    pub(crate) async fn work(&self) {
        self.work.notified().await;
    }

    /// Has somebody look for work again.
    pub(crate) fn wake(&self) {
        self.work.notify_one();
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<StreamId, watch::Sender<u64>>> {
        // Nothing that panics runs under this lock.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Returns when there may be news since the last time, with the version that the stream is said to have.
    pub(crate) async fn changed(&mut self) -> u64 {
        self.receiver.changed().await;
        self.receiver.value()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut streams = self.hub.locked();
        // This receiver is still counted.
        if streams.get(&self.stream).is_some_and(|sender| sender.receivers() <= 1) {
            streams.remove(&self.stream);
        }
    }
}
