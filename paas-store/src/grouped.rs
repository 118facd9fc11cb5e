//! How well commits are grouped.

use paas_core::Metrics;
use paas_core::metrics::Histogram;

static COMMITS: Histogram<1> = Histogram {
    name: "paas_store_commits_per_transaction",
    help: "How many commits became durable with one transaction.",
    labels: ["store"],
    bounds: &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
};

/// Counts a transaction with so many commits; one without is a sweep or a question whether it can be written.
pub(crate) fn grouped(metrics: &Metrics, store: &'static str, commits: usize) {
    if commits > 0 {
        #[allow(clippy::cast_precision_loss)] // some hundreds
        metrics.observe(&COMMITS, [store], commits as f64);
    }
}
