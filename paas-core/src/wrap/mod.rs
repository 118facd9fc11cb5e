//! Wrappers: what every adapter can be given without knowing of it.
//!
//! Each is a plain struct around an adapter and implements the same traits. Put together outermost first:
//! [`Observe`] → [`Cache`] → [`Retry`] → [`Timeout`] → the adapter. So a hit costs no attempt, every attempt has
//! its own time, and what is observed is what the caller saw. [`Retry`] is for callers outside the pipeline: the
//! engine retries by itself, and two silent retriers on one path multiply.
//!
//! ```
//! # #[cfg(feature = "mock")] {
//! use std::sync::Arc;
//! use paas_core::wrap::{Cache, Observe, Retry, RetryPolicy, Timeout, TimeoutPolicy};
//! use paas_core::{GitProvider, Metrics, RandomIds, SystemClock};
//! # let provider = paas_core::mock::MockGitProvider::new();
//!
//! let clock = Arc::new(SystemClock::new());
//! let metrics = Arc::new(Metrics::default());
//! let provider = Timeout::new(provider, TimeoutPolicy::default());
//! let provider = Retry::new(provider, RetryPolicy::default(), Arc::new(RandomIds::new(clock.clone())));
//! let provider = Observe::new(Cache::trees(provider, 16), clock, metrics);
//! let provider: Arc<dyn GitProvider> = Arc::new(provider);
//! # }
//! ```
//!
//! [`SourceTree`](crate::SourceTree)s that a wrapped provider brings, and streams once they are open, are not
//! wrapped.

mod cache;
mod delegate;
mod observe;
mod retry;
mod single_flight;
mod timeout;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::context::Context;
use crate::error::{Fault, Result};

pub use cache::Cache;
pub use observe::Observe;
pub use retry::{Retry, RetryPolicy};
pub use timeout::{Timeout, TimeoutPolicy};

/// What kind of call a method is: how long it may take, and whether trying it again makes sense.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Class {
    /// It asks, or changes something small.
    Call,
    /// It moves a repository.
    Transfer,
    /// It waits for as long as it was told to.
    Wait(Duration),
    /// It asks whether the other side answers now.
    Ping,
    /// It ends by itself with the context's budget.
    Budgeted,
}

/// What a wrapper knows of the method it passes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verb {
    /// The trait and the method, such as `git.fetch`.
    pub(crate) operation: &'static str,
    pub(crate) class: Class,
    /// Whose fault it is when nothing answers.
    pub(crate) fault: Fault,
}

/// How a wrapper passes a call on to what it wraps: all that differs between the wrappers.
pub(crate) trait Pass: Sync {
    type Inner: ?Sized;

    fn inner(&self) -> &Self::Inner;

    /// The context that the inner call gets.
    fn context(&self, context: &Context) -> Context {
        context.clone()
    }

    /// Passes on a call that has a context, as often as it likes.
    fn pass<'a, R: Send>(
        &'a self,
        verb: Verb,
        context: &'a Context,
        call: impl Fn() -> BoxFuture<'a, Result<R>> + Send + Sync + 'a,
    ) -> impl Future<Output = Result<R>> + Send;

    /// Passes on a call that has none.
    fn pass_once<'a, R: Send>(
        &'a self,
        verb: Verb,
        call: BoxFuture<'a, Result<R>>,
    ) -> impl Future<Output = Result<R>> + Send;
}

/// An adapter that is shared is an adapter: so that `Observe<Arc<dyn GitProvider>>` is one.
impl<T: Send + Sync + ?Sized> Pass for Arc<T> {
    type Inner = T;

    fn inner(&self) -> &T {
        self
    }

    async fn pass<'a, R: Send>(
        &'a self,
        _verb: Verb,
        _context: &'a Context,
        call: impl Fn() -> BoxFuture<'a, Result<R>> + Send + Sync + 'a,
    ) -> Result<R> {
        call().await
    }

    async fn pass_once<'a, R: Send>(&'a self, _verb: Verb, call: BoxFuture<'a, Result<R>>) -> Result<R> {
        call.await
    }
}
