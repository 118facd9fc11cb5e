//! Stores that tests put in front of another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use paas_core::{
    Batch, Change, Claim, Claimed, Committed, Lease, Page, Position, Record, Result, Scan, Scope, StateStore,
    StoredEvent, StreamId, WorkClass, WorkKey,
};

/// A store for a platform that accepts operations and works on none.
#[derive(Debug)]
pub struct Idle(pub Arc<dyn StateStore>);

#[async_trait]
impl StateStore for Idle {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.0.commit(batch).await
    }

    async fn get(&self, scope: &Scope, kind: &'static str, id: &str) -> Result<Option<Record>> {
        self.0.get(scope, kind, id).await
    }

    async fn find(
        &self,
        scope: &Scope,
        kind: &'static str,
        key: &'static str,
        value: &str,
    ) -> Result<Option<Record>> {
        self.0.find(scope, kind, key, value).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<Record>> {
        self.0.scan(scan).await
    }

    async fn events(
        &self,
        scope: &Scope,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        self.0.events(scope, stream, after, limit).await
    }

    async fn feed(&self, scope: &Scope, after: Position, limit: usize) -> Result<Vec<StoredEvent>> {
        self.0.feed(scope, after, limit).await
    }

    async fn claim(&self, _: &Claim) -> Result<Claimed> {
        Ok(Claimed::default())
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease> {
        self.0.renew(lease, duration).await
    }

    async fn count(&self, class: WorkClass, key: Option<WorkKey>) -> Result<u64> {
        self.0.count(class, key).await
    }

    fn changes(&self) -> tokio::sync::broadcast::Receiver<Change> {
        self.0.changes()
    }

    async fn sweep(&self, limit: usize) -> Result<usize> {
        self.0.sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }
}

/// Counts what was refused because a lease was lost.
#[derive(Debug)]
pub struct Fenced {
    inner: Arc<dyn StateStore>,
    refusals: AtomicUsize,
}

impl Fenced {
    pub fn new(inner: Arc<dyn StateStore>) -> Self {
        Self { inner, refusals: AtomicUsize::new(0) }
    }

    pub fn refusals(&self) -> usize {
        self.refusals.load(Ordering::SeqCst)
    }

    fn note<T>(&self, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(|error| error.reason() == Some("fenced")) {
            self.refusals.fetch_add(1, Ordering::SeqCst);
        }
        result
    }
}

#[async_trait]
impl StateStore for Fenced {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.note(self.inner.commit(batch).await)
    }

    async fn get(&self, scope: &Scope, kind: &'static str, id: &str) -> Result<Option<Record>> {
        self.inner.get(scope, kind, id).await
    }

    async fn find(
        &self,
        scope: &Scope,
        kind: &'static str,
        key: &'static str,
        value: &str,
    ) -> Result<Option<Record>> {
        self.inner.find(scope, kind, key, value).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<Record>> {
        self.inner.scan(scan).await
    }

    async fn events(
        &self,
        scope: &Scope,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        self.inner.events(scope, stream, after, limit).await
    }

    async fn feed(&self, scope: &Scope, after: Position, limit: usize) -> Result<Vec<StoredEvent>> {
        self.inner.feed(scope, after, limit).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        self.inner.claim(claim).await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease> {
        self.note(self.inner.renew(lease, duration).await)
    }

    async fn count(&self, class: WorkClass, key: Option<WorkKey>) -> Result<u64> {
        self.inner.count(class, key).await
    }

    fn changes(&self) -> tokio::sync::broadcast::Receiver<Change> {
        self.inner.changes()
    }

    async fn sweep(&self, limit: usize) -> Result<usize> {
        self.inner.sweep(limit).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
}
