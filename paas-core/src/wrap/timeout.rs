//! Bounding how long a call takes.

use std::time::Duration;

use futures::future::BoxFuture;

use super::{Class, Pass, Verb};
use crate::context::Context;
use crate::error::{Error, Kind, Result};

/// How long [`Timeout`] lets a call take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutPolicy {
    /// A call that asks or changes something small. A call that was told how long to wait (a build, a stop with
    /// its grace, a probe) gets this on top.
    pub call: Duration,
    /// Bringing a commit.
    pub transfer: Duration,
    /// How long a call may take to clean up behind itself once its time is over.
    pub grace: Duration,
}

impl Default for TimeoutPolicy {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(60),
            // The provider's own limit is 5 minutes, and says better what happened.
            transfer: Duration::from_secs(6 * 60),
            grace: Duration::from_secs(10),
        }
    }
}

impl TimeoutPolicy {
    fn limit(&self, class: Class) -> Option<Duration> {
        match class {
            Class::Call | Class::Ping => Some(self.call),
            Class::Transfer => Some(self.transfer),
            Class::Wait(told) => Some(self.call.saturating_add(told)),
            Class::Budgeted => None,
        }
    }
}

/// Ends calls that take too long: for adapters whose other side may never answer.
///
/// # Flow
/// When its time is over the call is cancelled through its context, then gets a grace to clean up and answer. Only a
/// call that does not heed its context is dropped.
///
/// # Guarantees
/// - A call ends after its limit and the grace at the latest, with `Timeout` naming the operation. An answer that
///   comes within the grace counts, and so does any failure but `Cancelled`.
/// - A stream is bounded in opening only. Draining has the context's budget alone, as its trait says.
#[derive(Debug)]
pub struct Timeout<T> {
    inner: T,
    policy: TimeoutPolicy,
}

impl<T> Timeout<T> {
    /// Bounds the calls of `inner`.
    pub fn new(inner: T, policy: TimeoutPolicy) -> Self {
        Self { inner, policy }
    }
}

impl<T: Send + Sync> Pass for Timeout<T> {
    type Inner = T;

    fn inner(&self) -> &T {
        &self.inner
    }

    /// With a cancellation of its own: only this call is cancelled when its time is over.
    fn context(&self, context: &Context) -> Context {
        context.child()
    }

    async fn pass<'a, R: Send>(
        &'a self,
        verb: Verb,
        context: &'a Context,
        call: impl Fn() -> BoxFuture<'a, Result<R>> + Send + Sync + 'a,
    ) -> Result<R> {
        let mut call = call();
        let Some(limit) = self.policy.limit(verb.class) else {
            return call.await;
        };
        tokio::select! {
            biased;
            result = &mut call => return result,
            () = context.clock().sleep(limit) => {}
        }
        let is_callers_wish = context.is_cancelled();
        context.cancel();
        let timeout = Error::new(
            Kind::Timeout,
            verb.operation,
            format!("there was no answer within {} seconds", limit.as_secs_f32()),
        )
        .fault(verb.fault);
        tokio::select! {
            biased;
            result = call => match result {
                Err(error) if error.kind() == Kind::Cancelled && !is_callers_wish => Err(timeout.source(error)),
                result => result,
            },
            () = context.clock().sleep(self.policy.grace) => Err(timeout),
        }
    }

    async fn pass_once<'a, R: Send>(&'a self, _verb: Verb, call: BoxFuture<'a, Result<R>>) -> Result<R> {
        call.await
    }
}
