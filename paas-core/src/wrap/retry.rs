//! Trying again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::{Class, Pass, Verb};
use crate::backoff::Backoff;
use crate::context::Context;
use crate::error::{self, Result};
use crate::ids::Ids;

/// How often and how long [`Retry`] tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often in all, the first try among them.
    pub attempts: u32,
    /// No attempt begins later than this after the first.
    pub total: Duration,
    /// How long to wait between them.
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 5, total: Duration::from_secs(2 * 60), backoff: Backoff::default() }
    }
}

/// Tries a call again when its error is transient. For callers outside the pipeline, which retries by itself.
///
/// # Guarantees
/// - Only transient errors are retried; every verb of these traits is ensure-style, so a call whose answer was lost
///   can be repeated. A ping is not retried: it asks about now.
/// - What it gives up on is marked [`Exhausted`](error::Retry::Exhausted), which nobody retries again.
/// - It waits no longer than the context's budget, and cancelling ends the wait.
#[derive(Debug)]
pub struct Retry<T> {
    inner: T,
    policy: RetryPolicy,
    ids: Arc<dyn Ids>,
}

impl<T> Retry<T> {
    /// Retries the calls of `inner`; `ids` gives the jitter's randomness.
    pub fn new(inner: T, policy: RetryPolicy, ids: Arc<dyn Ids>) -> Self {
        Self { inner, policy, ids }
    }
}

impl<T: Send + Sync> Pass for Retry<T> {
    type Inner = T;

    fn inner(&self) -> &T {
        &self.inner
    }

    async fn pass<'a, R: Send>(
        &'a self,
        verb: Verb,
        context: &'a Context,
        call: impl Fn() -> BoxFuture<'a, Result<R>> + Send + Sync + 'a,
    ) -> Result<R> {
        let last_start = context.clock().elapsed().saturating_add(self.policy.total);
        let mut retry = 0;
        loop {
            let error = match call().await {
                Err(error) if error.is_transient() && !matches!(verb.class, Class::Ping) => error,
                result => return result,
            };
            let after = match error.retryable() {
                error::Retry::Transient { after } => after,
                error::Retry::Permanent | error::Retry::Exhausted => None,
            };
            let delay = self.policy.backoff.delay(retry, self.ids.random(), after);
            let too_late = context.clock().elapsed().saturating_add(delay) > last_start
                || context.remaining().is_some_and(|remaining| remaining <= delay);
            retry += 1;
            if retry >= self.policy.attempts || too_late {
                return Err(error.retry(error::Retry::Exhausted));
            }
            tracing::debug!(
                operation = verb.operation,
                kind = error.kind().as_str(),
                retry,
                ?delay,
                "trying again"
            );
            context.sleep(verb.operation, delay).await?;
        }
    }

    async fn pass_once<'a, R: Send>(&'a self, _verb: Verb, call: BoxFuture<'a, Result<R>>) -> Result<R> {
        call.await
    }
}
