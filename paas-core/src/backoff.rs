//! How long to wait before trying again.

use std::time::Duration;

/// Exponential back-off with full jitter: a random time up to `base` doubled with every try, at most `max`.
///
/// Full jitter spreads callers that failed together (Brooker, "Exponential Backoff And Jitter", AWS 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait.
    pub base: Duration,
    /// The bound of every wait.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(500), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after the `attempt`th try (from 1): `random` decides where between nothing and the bound, and
    /// `retry_after` is the least, up to `max`.
    #[must_use]
    pub fn delay(&self, attempt: u32, random: u64, retry_after: Option<Duration>) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let bound = self.base.saturating_mul(1 << doublings).min(self.max);
        let bound_nanoseconds = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        let jittered = Duration::from_nanos(random % bound_nanoseconds.saturating_add(1).max(1));
        jittered.max(retry_after.unwrap_or_default().min(self.max))
    }
}
