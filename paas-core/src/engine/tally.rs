//! What the engine counts: what was committed, once it is.

use crate::domain::{Crashes, OperationKind};
use crate::error::{Fault, Kind};
use crate::metrics::{Counter, Histogram, Metrics};
use crate::pipeline::{DnsDrift, Drift, Event, Outcome, Output, RouteDrift};

static STEP_DURATION: Histogram<2> = Histogram {
    name: "paas_step_duration_seconds",
    help: "How long steps of operations worked, by outcome: succeeded, cached, retried, failed or cancelled.",
    labels: ["step", "outcome"],
    bounds: &[0.01, 0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0],
};
static STEP_RETRIES: Counter<2> = Counter {
    name: "paas_step_retries_total",
    help: "Steps that failed and are tried again, by whose fault it was.",
    labels: ["step", "fault"],
};
static OPERATIONS_ENDED: Counter<2> = Counter {
    name: "paas_operations_ended_total",
    help: "Operations that ended: succeeded, failed, cancelled or superseded.",
    labels: ["kind", "outcome"],
};
static OPERATIONS_FAILED: Counter<2> = Counter {
    name: "paas_operations_failed_total",
    help: "Operations that failed, by the step and by whose fault it was.",
    labels: ["step", "fault"],
};
static LEASES_LOST: Counter<0> = Counter {
    name: "paas_leases_lost_total",
    help: "Leases that a worker of this server lost while it worked on the app.",
    labels: [],
};
static DRIFT_FOUND: Counter<1> = Counter {
    name: "paas_drift_found_total",
    help: "Instances, routes and DNS records that were not as they should be, by what was wrong with them.",
    labels: ["drift"],
};
static DRIFT_REPAIRED: Counter<1> = Counter {
    name: "paas_drift_repaired_total",
    help: "Instances, routes and DNS records that were put right, by what had been wrong with them.",
    labels: ["drift"],
};

/// Makes known what should be seen from the first time on.
pub(crate) fn begin(metrics: &Metrics) {
    metrics.add(&LEASES_LOST, [], 0);
    let ended = Drift::Ended { code: 0, out_of_memory: false };
    let instances = [ended, Drift::Missing, Drift::CutOff, Drift::Moved, Drift::Unneeded].map(Drift::as_str);
    let (routes, records) = (RouteDrift::ALL.map(RouteDrift::as_str), DnsDrift::ALL.map(DnsDrift::as_str));
    for drift in instances.into_iter().chain(routes).chain(records) {
        metrics.add(&DRIFT_FOUND, [drift], 0);
        metrics.add(&DRIFT_REPAIRED, [drift], 0);
    }
    for fault in [Fault::User, Fault::Platform, Fault::Upstream] {
        for step in OperationKind::Deploy.steps() {
            metrics.add(&STEP_RETRIES, [step.as_str(), fault.as_str()], 0);
            metrics.add(&OPERATIONS_FAILED, [step.as_str(), fault.as_str()], 0);
        }
    }
}

/// Counts an event of an operation.
pub(crate) fn operation(metrics: &Metrics, kind: OperationKind, event: &Event) {
    match event {
        Event::Finished { step, output, busy_millis } => {
            let outcome = match output {
                Output::Built { cached: true, .. } => "cached",
                _ => "succeeded",
            };
            metrics.observe(&STEP_DURATION, [step.as_str(), outcome], seconds(*busy_millis));
        }
        Event::Failed { step, failure, retry, busy_millis, .. } => {
            let outcome = match retry {
                Some(_) => "retried",
                None if failure.kind == Kind::Cancelled => "cancelled",
                None => "failed",
            };
            metrics.observe(&STEP_DURATION, [step.as_str(), outcome], seconds(*busy_millis));
            if retry.is_some() {
                metrics.add(&STEP_RETRIES, [step.as_str(), failure.fault.as_str()], 1);
            }
        }
        Event::Ended { outcome } => {
            metrics.add(&OPERATIONS_ENDED, [kind.as_str(), outcome.as_str()], 1);
            if let Outcome::Failed { step, failure } = outcome {
                metrics.add(&OPERATIONS_FAILED, [step.as_str(), failure.fault.as_str()], 1);
            }
        }
        _ => {}
    }
}

/// Counts a lease that was lost.
pub(crate) fn lease_lost(metrics: &Metrics) {
    metrics.add(&LEASES_LOST, [], 1);
}

/// Counts an event of an app that is seen to; `crashes` is what was wrong with its live instance before.
pub(crate) fn tending(metrics: &Metrics, event: &Event, crashes: Option<&Crashes>) {
    match (event, crashes) {
        (Event::DriftFound { drift, .. }, _) => metrics.add(&DRIFT_FOUND, [drift.as_str()], 1),
        (Event::RouteDriftFound { drift, .. }, _) => metrics.add(&DRIFT_FOUND, [drift.as_str()], 1),
        (Event::DnsDriftFound { drift, .. }, _) => metrics.add(&DRIFT_FOUND, [drift.as_str()], 1),
        (Event::InstanceRestored { .. }, Some(crashes)) => drift_repaired(metrics, crashes.drift.as_str()),
        _ => {}
    }
}

/// Counts what was put right.
pub(crate) fn drift_repaired(metrics: &Metrics, drift: &'static str) {
    metrics.add(&DRIFT_REPAIRED, [drift], 1);
}

#[allow(clippy::cast_precision_loss)] // exact for 285,000 years
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}
