//! Stores that tests put in front of another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use paas_core::testing::front::StoreFront;
use paas_core::{Batch, Claim, Claimed, Committed, Lease, Result, StateStore};

/// A store for a platform that accepts operations and works on none.
#[derive(Debug)]
pub struct Idle(pub Arc<dyn StateStore>);

#[async_trait]
impl StoreFront for Idle {
    fn behind(&self) -> &dyn StateStore {
        &*self.0
    }

    async fn claim(&self, _: &Claim) -> Result<Claimed> {
        Ok(Claimed::default())
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
impl StoreFront for Fenced {
    fn behind(&self) -> &dyn StateStore {
        &*self.inner
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        self.note(self.inner.commit(batch).await)
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease> {
        self.note(self.inner.renew(lease, duration).await)
    }
}
