//! Counts and durations of calls.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Kind, Result};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It answered.
    Ok,
    /// It failed, with an error of this kind.
    Failed(Kind),
    /// Whoever asked let go of it before it ended.
    Dropped,
}

impl Outcome {
    /// The outcome that a result means.
    pub fn of<T>(result: &Result<T>) -> Self {
        result.as_ref().map_or_else(|error| Self::Failed(error.kind()), |_| Self::Ok)
    }

    /// The text of it: `ok`, `dropped`, or the kind's.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(kind) => kind.as_str(),
            Self::Dropped => "dropped",
        }
    }
}

/// The calls of one operation that ended the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSample {
    /// The operation, such as `git.fetch`.
    pub operation: &'static str,
    /// How they ended.
    pub outcome: Outcome,
    /// How many they were.
    pub count: u64,
    /// How long they took together.
    pub total: Duration,
    /// How many of them took at most so long; each bucket counts those of the one before it too.
    pub buckets: [(Duration, u64); Metrics::BUCKETS.len()],
}

/// Counts calls by operation and outcome, with a histogram of their durations.
///
/// # Guarantees
/// Its size is bounded: operations are names in the program's text, outcomes are few. Recording takes a lock for
/// some nanoseconds and never waits for anything else.
///
/// ```
/// use std::time::Duration;
/// use paas_core::{Metrics, Outcome};
/// let metrics = Metrics::default();
/// metrics.record("git.fetch", Outcome::Ok, Duration::from_millis(30));
/// let samples = metrics.samples();
/// assert_eq!((samples[0].operation, samples[0].outcome.as_str(), samples[0].count), ("git.fetch", "ok", 1));
/// ```
#[derive(Debug, Default)]
pub struct Metrics {
    calls: Mutex<BTreeMap<(&'static str, Outcome), Series>>,
}

#[derive(Debug, Default)]
struct Series {
    total: Duration,
    /// By the first bucket that a call fits in; the last place is for those that fit in none.
    counts: [u64; Metrics::BUCKETS.len() + 1],
}

impl Metrics {
    /// The upper bounds of the histograms: from a record read in memory to the longest build.
    pub const BUCKETS: [Duration; 11] = [
        Duration::from_micros(100),
        Duration::from_millis(1),
        Duration::from_millis(5),
        Duration::from_millis(25),
        Duration::from_millis(100),
        Duration::from_millis(500),
        Duration::from_secs(2),
        Duration::from_secs(10),
        Duration::from_secs(60),
        Duration::from_secs(5 * 60),
        Duration::from_secs(15 * 60),
    ];

    /// Counts one call.
    pub fn record(&self, operation: &'static str, outcome: Outcome, duration: Duration) {
        let bucket = Self::BUCKETS.partition_point(|bound| *bound < duration);
        let mut calls = self.locked();
        let series = calls.entry((operation, outcome)).or_default();
        series.counts[bucket] += 1;
        series.total = series.total.saturating_add(duration);
    }

    /// Everything counted so far, in the order of operations.
    #[must_use]
    pub fn samples(&self) -> Vec<CallSample> {
        let sample = |(&(operation, outcome), series): (&(&'static str, Outcome), &Series)| {
            let mut count = 0;
            let mut buckets = Self::BUCKETS.map(|bound| (bound, 0));
            for (bucket, counted) in buckets.iter_mut().zip(series.counts) {
                count += counted;
                bucket.1 = count;
            }
            count += series.counts[Self::BUCKETS.len()];
            CallSample { operation, outcome, count, total: series.total, buckets }
        };
        self.locked().iter().map(sample).collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<(&'static str, Outcome), Series>> {
        // A panic while it was held leaves at most one call uncounted.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_call_counts_in_every_bucket_that_is_long_enough() {
        let metrics = Metrics::default();
        for milliseconds in [0, 1, 2, 60_000, 3_600_000] {
            metrics.record("image.build", Outcome::Ok, Duration::from_millis(milliseconds));
        }
        let samples = metrics.samples();
        let [sample] = samples.as_slice() else { panic!("{samples:?}") };
        let counts = sample.buckets.map(|(_, count)| count);
        // The bound itself belongs to its bucket; an hour fits in none.
        assert_eq!(counts, [1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4]);
        assert_eq!((sample.count, sample.total), (5, Duration::from_millis(3_660_003)));
    }

    #[test]
    fn outcomes_are_apart_and_in_order() {
        let metrics = Metrics::default();
        let failed: Result<()> = Err(Error::cancelled("x"));
        metrics.record("git.fetch", Outcome::of(&failed), Duration::ZERO);
        metrics.record("git.fetch", Outcome::of(&Ok(())), Duration::ZERO);
        metrics.record("dns.get", Outcome::Dropped, Duration::ZERO);
        let seen: Vec<_> = metrics.samples().iter().map(|s| (s.operation, s.outcome.as_str())).collect();
        assert_eq!(seen, [("dns.get", "dropped"), ("git.fetch", "ok"), ("git.fetch", "cancelled")]);
    }
}
