//! Named points before and after every call of an adapter, for tests that end a program there.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::front::StoreFront;
use crate::context::Context;
use crate::error::Result;
use crate::store::{Batch, Committed, StateStore};
use crate::wrap::{Pass, Verb};

/// What is called at every point, with its name: `runtime.ensure before`, `commit finished fetch, started plan after`.
pub type Hook = Arc<dyn Fn(&str) + Send + Sync>;

/// Calls a hook before and after each call of an adapter. It implements every trait; a store is better off with
/// [`FailPointStore`], whose points tell commits apart.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use paas_core::memory::MemoryIngress;
/// use paas_core::testing::fail_point::FailPoints;
/// use paas_core::{Context, Ingress, SystemClock};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> paas_core::Result<()> {
/// let passed = Arc::new(Mutex::new(Vec::new()));
/// let told = passed.clone();
/// let hook = Arc::new(move |point: &str| told.lock().unwrap().push(point.to_owned()));
/// let ingress = FailPoints::new(Arc::new(MemoryIngress::new()), hook);
/// ingress.ping(&Context::new(Arc::new(SystemClock::new()))).await?;
/// assert_eq!(*passed.lock().unwrap(), ["ingress.ping before", "ingress.ping after"]);
/// # Ok(())
/// # }
/// ```
pub struct FailPoints<T> {
    inner: T,
    hook: Hook,
}

impl<T> FailPoints<T> {
    /// Calls `hook` around the calls of `inner`.
    pub fn new(inner: T, hook: Hook) -> Self {
        Self { inner, hook }
    }
}

impl<T: fmt::Debug> fmt::Debug for FailPoints<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("FailPoints").field(&self.inner).finish()
    }
}

async fn around<R>(hook: &Hook, name: &str, call: impl Future<Output = R>) -> R {
    hook(&format!("{name} before"));
    let answer = call.await;
    hook(&format!("{name} after"));
    answer
}

impl<T: Send + Sync> Pass for FailPoints<T> {
    type Inner = T;

    fn inner(&self) -> &T {
        &self.inner
    }

    async fn pass<'a, R: Send>(
        &'a self,
        verb: Verb,
        _context: &'a Context,
        call: impl Fn() -> BoxFuture<'a, Result<R>> + Send + Sync + 'a,
    ) -> Result<R> {
        around(&self.hook, verb.operation, call()).await
    }

    async fn pass_once<'a, R: Send>(&'a self, verb: Verb, call: BoxFuture<'a, Result<R>>) -> Result<R> {
        around(&self.hook, verb.operation, call).await
    }
}

/// A store whose commits are points by what they record. Its reads are none. [`Front`](super::front::Front) makes a store
/// of it.
pub struct FailPointStore {
    store: Arc<dyn StateStore>,
    hook: Hook,
}

impl FailPointStore {
    /// Calls `hook` around the commits of `store`.
    pub fn new(store: Arc<dyn StateStore>, hook: Hook) -> Self {
        Self { store, hook }
    }
}

impl fmt::Debug for FailPointStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("FailPointStore").field(&self.store).finish()
    }
}

#[async_trait]
impl StoreFront for FailPointStore {
    fn behind(&self) -> &dyn StateStore {
        &*self.store
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        around(&self.hook, &name_of(&batch), self.store.commit(batch)).await
    }
}

/// What a commit does, in words: the events that it appends, or else that it changes records or leases.
fn name_of(batch: &Batch) -> String {
    let word = |event: &serde_json::Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    let events = batch.appends.iter().flat_map(|append| &append.events);
    let events: Vec<_> = events
        .filter_map(|event| serde_json::from_slice::<serde_json::Value>(event).ok())
        .map(|event| format!("{} {}", word(&event, "type"), word(&event, "step")).trim().to_owned())
        .collect();
    match (events.is_empty(), batch.writes.is_empty()) {
        (false, _) => format!("commit {}", events.join(", ")),
        (true, false) => "commit of records".to_owned(),
        (true, true) => "commit of leases".to_owned(),
    }
}
