//! For operators: whether it lives, whether it is ready, how much it does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{StatusCode, request};
use jiff::Timestamp;
use paas_core::metrics::{Family, exposition};
use paas_core::{Health, Platform};
use serde::Serialize;
use tokio::sync::OnceCell;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::router::Frontend;

/// Whether the platform can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    ready: bool,
    /// What keeps it from its work; only for those who send the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<Vec<ReadinessProblem>>,
}

/// Something that keeps the platform from doing its work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadinessProblem {
    /// The part: `store`, `engine`, `ingress`, `disk`; `claiming` when no work can be taken up, `operations` when one
    /// can't go on.
    part: &'static str,
    /// What is wrong with it.
    message: String,
    /// What to do about it.
    hint: String,
    /// When it was noticed first.
    since: Timestamp,
    /// How many operations on this server wait for it.
    waiting: usize,
}

/// The version of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Version {
    version: &'static str,
    /// The version of the API.
    api: &'static str,
}

/// Whether the server answers at all.
#[utoipa::path(
    get,
    path = "/livez",
    tag = "operations",
    security(()),
    responses((status = 200, description = "It does", body = String, content_type = "text/plain"))
)]
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// Whether the platform can do its work.
///
/// Store, container engine and proxy answer, the disk has space left, and no operation is stuck.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    security(()),
    responses(
        (status = 200, description = "It can", body = Readiness),
        (status = 503, description = "It can't", body = Readiness),
    )
)]
pub(crate) async fn ready(State(frontend): State<Frontend>, request: request::Parts) -> Response {
    readiness(frontend, request).await
}

/// The same as `/readyz`.
#[utoipa::path(
    get,
    path = "/health",
    tag = "operations",
    security(()),
    responses(
        (status = 200, description = "It can do its work", body = Readiness),
        (status = 503, description = "It can't", body = Readiness),
    )
)]
pub(crate) async fn health(State(frontend): State<Frontend>, request: request::Parts) -> Response {
    readiness(frontend, request).await
}

/// How long what the parts answered holds. Everybody may ask, so asking often must not keep them busy.
const HEALTH_HOLDS: Duration = Duration::from_secs(1);

/// What the parts answered the last time, by the clock's running time. One asks them, the others wait for it.
#[derive(Debug, Default)]
pub(crate) struct RecentHealth(Mutex<Arc<OnceCell<(Duration, Health)>>>);

impl RecentHealth {
    pub(crate) async fn of(&self, platform: &Platform) -> Health {
        let clock = platform.clock();
        let ask = || async {
            let health = platform.health().await;
            (clock.elapsed(), health)
        };
        self.cell(clock.elapsed()).get_or_init(ask).await.1.clone()
    }

    fn cell(&self, now: Duration) -> Arc<OnceCell<(Duration, Health)>> {
        // Nothing that panics runs under this lock.
        let mut cell = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cell.get().is_some_and(|(at, _)| now.saturating_sub(*at) >= HEALTH_HOLDS) {
            *cell = Arc::default();
        }
        cell.clone()
    }
}

async fn readiness(frontend: Frontend, request: request::Parts) -> Response {
    let health = frontend.health().await;
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let ready = health.is_ready();
    let problems = frontend.access().is_granted(&request).then(|| {
        let told = |problem: paas_core::Problem| ReadinessProblem {
            part: problem.part,
            message: problem.message,
            hint: problem.hint,
            since: problem.since,
            waiting: problem.waiting,
        };
        health.problems.into_iter().map(told).collect()
    });
    (status, axum::Json(Readiness { ready, problems })).into_response()
}

/// The version of the server and of the API.
#[utoipa::path(
    get,
    path = "/v1/version",
    tag = "operations",
    responses((status = 200, description = "The versions", body = Version))
)]
pub(crate) async fn version() -> axum::Json<Version> {
    axum::Json(Version { version: env!("CARGO_PKG_VERSION"), api: "v1" })
}

/// Counters, gauges and histograms for Prometheus.
///
/// What a store that does not answer would tell is left out.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses(
        (status = 200, description = "The metrics in Prometheus' text format", body = String, content_type = "text/plain"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn metrics(State(frontend): State<Frontend>) -> Response {
    let mut families = frontend.platform().metrics().await;
    let help = "Streams and waiting requests that are open.";
    #[allow(clippy::cast_precision_loss)] // far below 2^53
    families.push(Family::gauge("paas_http_streams", help, frontend.streams().open() as f64));
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], exposition(&families)).into_response()
}

#[cfg(test)]
mod tests {
    use paas_core::memory::{MemoryHost, MemoryRuntime};
    use paas_core::metrics::{CALL_DURATION, Value};
    use paas_core::wrap::Observe;
    use paas_core::{Clock, Metrics, TestClock};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn asking_often_asks_the_parts_seldom() {
        let (clock, metrics) = (Arc::new(TestClock::new()), Arc::new(Metrics::default()));
        let runtime = MemoryRuntime::new(MemoryHost::new(clock.clone()));
        let runtime = Observe::new(runtime, clock.clone(), metrics.clone());
        let platform =
            Platform::builder().clock(clock.clone()).runtime(Arc::new(runtime)).start().await.unwrap();
        let pings = || {
            let families = metrics.families();
            let calls = families.iter().find(|family| family.name == CALL_DURATION.name);
            match calls.and_then(|calls| calls.value(&["runtime.ping", "ok"])) {
                Some(Value::Distribution { count, .. }) => *count,
                Some(other) => panic!("{other:?}"),
                None => 0,
            }
        };
        let health = RecentHealth::default();
        let before: u64 = pings();
        for round in 1..4 {
            for _ in 0..10 {
                let (one, two) = tokio::join!(health.of(&platform), health.of(&platform));
                assert!(one.is_ready() && two.is_ready());
            }
            assert_eq!(pings(), before + round);
            clock.sleep(HEALTH_HOLDS).await;
        }
    }
}
