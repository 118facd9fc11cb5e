//! For operators: whether it lives, whether it is ready, how much it does.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{StatusCode, request};
use paas_core::{CallSample, Health, Load, Metrics, Platform};
use serde::Serialize;
use tokio::sync::OnceCell;
use utoipa::ToSchema;

use crate::problem::{Problem, Result};
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
    /// The part, such as `store` or `engine`.
    part: &'static str,
    message: String,
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

/// Whether the platform can do its work: store, container engine and proxy answer, and no operation is stuck.
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
        let problems = health.problems.into_iter();
        problems.map(|problem| ReadinessProblem { part: problem.part, message: problem.message }).collect()
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

/// Counters and gauges for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses(
        (status = 200, description = "The metrics in Prometheus' text format", body = String, content_type = "text/plain"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn metrics(State(frontend): State<Frontend>) -> Result<Response> {
    let load = frontend.platform().load().await?;
    let samples = frontend.metrics().map(Metrics::samples).unwrap_or_default();
    let text = exposition(load, frontend.streams().open(), &samples);
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// Prometheus' text format. Operations and outcomes are names in the program's text: nothing in them needs escaping.
fn exposition(load: Load, streams: usize, samples: &[CallSample]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_exposition(&mut text, load, streams, samples);
    text
}

fn write_exposition(
    out: &mut String,
    load: Load,
    streams: usize,
    samples: &[CallSample],
) -> std::fmt::Result {
    writeln!(out, "# HELP paas_work_due Operations that wait for a worker or a build slot, or have one.")?;
    writeln!(out, "# TYPE paas_work_due gauge")?;
    writeln!(out, "paas_work_due{{class=\"operation\"}} {}", load.operations)?;
    writeln!(out, "paas_work_due{{class=\"build\"}} {}", load.builds)?;
    writeln!(out, "# HELP paas_http_streams Streams and waiting requests that are open.")?;
    writeln!(out, "# TYPE paas_http_streams gauge")?;
    writeln!(out, "paas_http_streams {streams}")?;
    writeln!(out, "# HELP paas_call_duration_seconds How long calls of adapters took.")?;
    writeln!(out, "# TYPE paas_call_duration_seconds histogram")?;
    for sample in samples {
        let labels = format!("operation=\"{}\",outcome=\"{}\"", sample.operation, sample.outcome.as_str());
        for (bound, count) in sample.buckets {
            writeln!(
                out,
                "paas_call_duration_seconds_bucket{{{labels},le=\"{}\"}} {count}",
                bound.as_secs_f64()
            )?;
        }
        writeln!(out, "paas_call_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {}", sample.count)?;
        writeln!(out, "paas_call_duration_seconds_sum{{{labels}}} {}", sample.total.as_secs_f64())?;
        writeln!(out, "paas_call_duration_seconds_count{{{labels}}} {}", sample.count)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use paas_core::memory::{MemoryHost, MemoryRuntime};
    use paas_core::wrap::Observe;
    use paas_core::{Clock, Outcome, TestClock};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn asking_often_asks_the_parts_seldom() {
        let (clock, metrics) = (Arc::new(TestClock::new()), Arc::new(Metrics::default()));
        let runtime = MemoryRuntime::new(MemoryHost::new(clock.clone()));
        let runtime = Observe::new(runtime, clock.clone(), metrics.clone());
        let platform =
            Platform::builder().clock(clock.clone()).runtime(Arc::new(runtime)).start().await.unwrap();
        let pings = || {
            let samples = metrics.samples();
            samples
                .iter()
                .filter(|sample| sample.operation == "runtime.ping")
                .map(|sample| sample.count)
                .sum()
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

    #[test]
    fn metrics_are_in_prometheus_text_format() {
        let metrics = Metrics::default();
        metrics.record("git.fetch", Outcome::Ok, Duration::from_millis(30));
        insta::assert_snapshot!(exposition(Load { operations: 2, builds: 1 }, 3, &metrics.samples()));
    }
}
