//! Numbers about what happens: counted in memory, told as families, written in Prometheus' text format.
//!
//! ```
//! use paas_core::metrics::{Counter, Metrics, Value, exposition};
//!
//! static RENEWALS: Counter<1> = Counter {
//!     name: "dns_renewals_total",
//!     help: "Records that were written again before they ran out.",
//!     labels: ["provider"],
//! };
//! let metrics = Metrics::default();
//! metrics.add(&RENEWALS, ["example"], 1);
//! let families = metrics.families();
//! assert_eq!(families[0].value(&["example"]), Some(&Value::Number(1.0)));
//! assert!(exposition(&families).contains("dns_renewals_total{provider=\"example\"} 1\n"));
//! ```
//!
//! What a whole platform has to tell is [`Platform::metrics`](crate::Platform::metrics).

mod call;
mod exposition;
mod family;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use call::{CALL_DURATION, Outcome};
pub use exposition::exposition;
pub use family::{Family, Series, Type, Value};

/// Something that is counted: a number that only grows while the program runs.
#[derive(Clone, Copy, Debug)]
pub struct Counter<const LABELS: usize> {
    /// Its name, which ends in `_total`.
    pub name: &'static str,
    /// What it tells, in a sentence.
    pub help: &'static str,
    /// By what it is told apart.
    pub labels: [&'static str; LABELS],
}

/// Something that is measured each time it happens.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<const LABELS: usize> {
    /// Its name, which ends in its unit.
    pub name: &'static str,
    /// What it tells, in a sentence.
    pub help: &'static str,
    /// By what it is told apart.
    pub labels: [&'static str; LABELS],
    /// The upper bounds of its buckets, which belong to them, growing; one without a bound comes behind them.
    pub bounds: &'static [f64],
}

/// Upper bounds for durations in seconds: from a record read in memory to the longest build.
pub const SECONDS: [f64; 11] = [0.0001, 0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0, 900.0];

/// The counters and histograms of a program.
///
/// # Guarantees
/// Its size is bounded: names and labels are in the program's text. Counting takes a lock for less than a microsecond
/// and never waits for anything else.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By name.
    families: Mutex<BTreeMap<&'static str, Counted>>,
}

type Labels = Vec<&'static str>;

#[derive(Debug)]
struct Counted {
    help: &'static str,
    labels: &'static [&'static str],
    numbers: Numbers,
}

#[derive(Debug)]
enum Numbers {
    Counts(BTreeMap<Labels, u64>),
    Distributions(&'static [f64], BTreeMap<Labels, Distribution>),
}

#[derive(Debug)]
struct Distribution {
    sum: f64,
    /// By the first bucket that a value fits in; the last place is for those that fit in none.
    counts: Vec<u64>,
}

impl Metrics {
    /// Counts so many more. Adding none makes the number known: the first one that is counted then shows as a change.
    pub fn add<const LABELS: usize>(
        &self,
        counter: &'static Counter<LABELS>,
        labels: [&'static str; LABELS],
        count: u64,
    ) {
        let mut families = self.locked();
        let family = families.entry(counter.name).or_insert_with(|| Counted {
            help: counter.help,
            labels: &counter.labels,
            numbers: Numbers::Counts(BTreeMap::new()),
        });
        if let Numbers::Counts(series) = &mut family.numbers {
            match series.get_mut(labels.as_slice()) {
                Some(counted) => *counted += count,
                None => drop(series.insert(labels.to_vec(), count)),
            }
        }
    }

    /// Counts a value where it belongs.
    pub fn observe<const LABELS: usize>(
        &self,
        histogram: &'static Histogram<LABELS>,
        labels: [&'static str; LABELS],
        value: f64,
    ) {
        let mut families = self.locked();
        let family = families.entry(histogram.name).or_insert_with(|| Counted {
            help: histogram.help,
            labels: &histogram.labels,
            numbers: Numbers::Distributions(histogram.bounds, BTreeMap::new()),
        });
        if let Numbers::Distributions(bounds, series) = &mut family.numbers {
            match series.get_mut(labels.as_slice()) {
                Some(distribution) => distribution.add(bounds, value),
                None => {
                    let mut distribution = Distribution { sum: 0.0, counts: vec![0; bounds.len() + 1] };
                    distribution.add(bounds, value);
                    series.insert(labels.to_vec(), distribution);
                }
            }
        }
    }

    /// Counts a call of an adapter.
    pub fn record(&self, operation: &'static str, outcome: Outcome, duration: Duration) {
        self.observe(&CALL_DURATION, [operation, outcome.as_str()], duration.as_secs_f64());
    }

    /// Everything counted so far, by name and labels.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        self.locked().iter().map(|(name, counted)| counted.family(name)).collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<&'static str, Counted>> {
        // A panic while it was held leaves at most one value uncounted.
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn family(&self, name: &'static str) -> Family {
        let (r#type, series) = match &self.numbers {
            Numbers::Counts(series) => {
                let series = series.iter().map(|(labels, count)| {
                    #[allow(clippy::cast_precision_loss)] // exact up to 2^53
                    Series { labels: labels.clone(), value: Value::Number(*count as f64) }
                });
                (Type::Counter, series.collect())
            }
            Numbers::Distributions(bounds, series) => {
                let series = series.iter().map(|(labels, distribution)| Series {
                    labels: labels.clone(),
                    value: distribution.value(bounds),
                });
                (Type::Histogram, series.collect())
            }
        };
        Family { name, help: self.help, r#type, labels: self.labels.to_vec(), series }
    }
}

impl Distribution {
    fn add(&mut self, bounds: &[f64], value: f64) {
        self.sum += value;
        self.counts[bounds.partition_point(|bound| *bound < value)] += 1;
    }

    fn value(&self, bounds: &[f64]) -> Value {
        let mut count = 0;
        let mut buckets: Vec<_> = bounds.iter().map(|bound| (*bound, 0)).collect();
        for (bucket, counted) in buckets.iter_mut().zip(&self.counts) {
            count += counted;
            bucket.1 = count;
        }
        Value::Distribution { buckets, sum: self.sum, count: self.counts.iter().sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Result};

    #[test]
    fn a_value_counts_in_every_bucket_that_is_large_enough() {
        let metrics = Metrics::default();
        for milliseconds in [0, 1, 2, 60_000, 3_600_000] {
            metrics.record("image.build", Outcome::Ok, Duration::from_millis(milliseconds));
        }
        let families = metrics.families();
        let Some(Value::Distribution { buckets, sum, count }) = families[0].value(&["image.build", "ok"])
        else {
            panic!("{families:?}")
        };
        let counts: Vec<_> = buckets.iter().map(|(_, count)| *count).collect();
        // The bound itself belongs to its bucket; an hour fits in none.
        assert_eq!(counts, [1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4]);
        assert_eq!((*count, *sum), (5, 3_660.003));
    }

    #[test]
    fn labels_are_apart_and_in_order() {
        let metrics = Metrics::default();
        let failed: Result<()> = Err(Error::cancelled("x"));
        metrics.record("git.fetch", Outcome::of(&Ok(())), Duration::ZERO);
        metrics.record("git.fetch", Outcome::of(&failed), Duration::ZERO);
        metrics.record("dns.get", Outcome::Dropped, Duration::ZERO);
        let families = metrics.families();
        let seen: Vec<_> = families[0].series.iter().map(|series| series.labels.clone()).collect();
        assert_eq!(seen, [["dns.get", "dropped"], ["git.fetch", "cancelled"], ["git.fetch", "ok"]]);
    }
}
