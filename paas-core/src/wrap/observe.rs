//! Counting and tracing calls.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

use super::{Pass, Verb};
use crate::clock::Clock;
use crate::context::Context;
use crate::error::Result;
use crate::metrics::{Metrics, Outcome};

/// Counts every call in a [`Metrics`] and puts it in a tracing span of its own with operation, outcome and
/// duration: what the caller saw, also when it let go of the call. No argument and no message is in them.
#[derive(Debug)]
pub struct Observe<T> {
    inner: T,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl<T> Observe<T> {
    /// Observes `inner`.
    pub fn new(inner: T, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { inner, clock, metrics }
    }
}

impl<T: Send + Sync> Pass for Observe<T> {
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
        self.pass_once(verb, call()).await
    }

    async fn pass_once<'a, R: Send>(&'a self, verb: Verb, call: BoxFuture<'a, Result<R>>) -> Result<R> {
        let operation = verb.operation;
        let span = tracing::debug_span!("call", operation, outcome = Empty, duration_us = Empty);
        let mut observation = Observation {
            clock: &*self.clock,
            metrics: &self.metrics,
            operation,
            started: self.clock.elapsed(),
            span: span.clone(),
            outcome: Outcome::Dropped,
        };
        let result = call.instrument(span).await;
        observation.outcome = Outcome::of(&result);
        result
    }
}

/// Records a call when it goes away, however that comes about.
struct Observation<'a> {
    clock: &'a dyn Clock,
    metrics: &'a Metrics,
    operation: &'static str,
    started: Duration,
    span: Span,
    outcome: Outcome,
}

impl Drop for Observation<'_> {
    fn drop(&mut self) {
        let duration = self.clock.elapsed().saturating_sub(self.started);
        self.metrics.record(self.operation, self.outcome, duration);
        self.span
            .record("outcome", self.outcome.as_str())
            .record("duration_us", display(duration.as_micros()));
    }
}
