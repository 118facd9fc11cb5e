//! Wrappers around an adapter, for suites that it passes with and without them.
#![allow(dead_code)] // each test binary uses a part of it

use std::sync::Arc;

use paas_core::wrap::{Observe, Retry, RetryPolicy, Timeout, TimeoutPolicy};
use paas_core::{Metrics, RandomIds, SystemClock};

/// Observed, tried again, and bounded in time.
pub(crate) fn wrapped<T>(inner: T) -> Observe<Retry<Timeout<T>>> {
    let clock = Arc::new(SystemClock::new());
    observed(Retry::new(
        Timeout::new(inner, TimeoutPolicy::default()),
        RetryPolicy::default(),
        Arc::new(RandomIds::new(clock)),
    ))
}

/// Observed only.
pub(crate) fn observed<T>(inner: T) -> Observe<T> {
    Observe::new(inner, Arc::new(SystemClock::new()), Arc::new(Metrics::default()))
}
