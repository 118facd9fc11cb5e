//! Stores that tests put in front of another one: only what they do differently has to be written.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::error::Result;
use crate::store::{
    Backlog, Batch, Change, Claim, Claimed, Committed, Lease, Page, Position, Record, Scan, Scope,
    StateStore, StoredEvent, StreamId, WorkClass, WorkKey,
};

/// What is done differently from the store behind; [`Front`] makes a store of it.
#[async_trait]
pub trait StoreFront: Debug + Send + Sync + 'static {
    /// The store behind.
    fn behind(&self) -> &dyn StateStore;

    /// Returns when a call may go on to the store behind; a commit has only itself to ask.
    async fn admit(&self) {}

    /// As of [`StateStore::commit`].
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.behind().commit(batch).await
    }

    /// As of [`StateStore::events`].
    async fn events(
        &self,
        scope: &Scope,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        self.behind().events(scope, stream, after, limit).await
    }

    /// As of [`StateStore::claim`].
    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        self.behind().claim(claim).await
    }

    /// As of [`StateStore::renew`].
    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease> {
        self.behind().renew(lease, duration).await
    }
}

/// The store that a [`StoreFront`] is.
///
/// ```
/// use std::sync::Arc;
///
/// use paas_core::testing::front::{Front, StoreFront};
/// use paas_core::{Batch, Committed, Error, Kind, Result, StateStore};
///
/// /// Takes nothing.
/// #[derive(Debug)]
/// struct Full(Arc<dyn StateStore>);
///
/// #[async_trait::async_trait]
/// impl StoreFront for Full {
///     fn behind(&self) -> &dyn StateStore {
///         &*self.0
///     }
///
///     async fn commit(&self, _: Batch) -> Result<Committed> {
///         Err(Error::new(Kind::Unavailable, "store.commit", "the disk is full"))
///     }
/// }
///
/// fn full(store: Arc<dyn StateStore>) -> Arc<dyn StateStore> {
///     Arc::new(Front(Full(store)))
/// }
/// ```
#[derive(Debug)]
pub struct Front<T>(pub T);

#[async_trait]
impl<T: StoreFront> StateStore for Front<T> {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.0.commit(batch).await
    }

    async fn get(&self, scope: &Scope, kind: &'static str, id: &str) -> Result<Option<Record>> {
        self.0.admit().await;
        self.0.behind().get(scope, kind, id).await
    }

    async fn find(
        &self,
        scope: &Scope,
        kind: &'static str,
        key: &'static str,
        value: &str,
    ) -> Result<Option<Record>> {
        self.0.admit().await;
        self.0.behind().find(scope, kind, key, value).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<Record>> {
        self.0.admit().await;
        self.0.behind().scan(scan).await
    }

    async fn events(
        &self,
        scope: &Scope,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        self.0.admit().await;
        self.0.events(scope, stream, after, limit).await
    }

    async fn feed(&self, scope: &Scope, after: Position, limit: usize) -> Result<Vec<StoredEvent>> {
        self.0.admit().await;
        self.0.behind().feed(scope, after, limit).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        self.0.admit().await;
        self.0.claim(claim).await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease> {
        self.0.admit().await;
        self.0.renew(lease, duration).await
    }

    async fn backlog(&self, class: WorkClass) -> Result<Backlog> {
        self.0.admit().await;
        self.0.behind().backlog(class).await
    }

    async fn count(&self, class: WorkClass, key: Option<WorkKey>) -> Result<u64> {
        self.0.admit().await;
        self.0.behind().count(class, key).await
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.0.behind().changes()
    }

    async fn sweep(&self, limit: usize) -> Result<usize> {
        self.0.admit().await;
        self.0.behind().sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.admit().await;
        self.0.behind().ping().await
    }
}
