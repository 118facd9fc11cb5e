//! Counting and tracing calls.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use paas_core::metrics::{Series, Value};
use paas_core::mock::{MockGitProvider, MockLogStore, MockPlanner, MockStateStore};
use paas_core::wrap::Observe;
use paas_core::{
    AppId, Batch, Clock, Committed, Context, DnsService, Error, GitProvider, LogPage, LogQuery, LogStore,
    Metrics, Planner, RandomIds, Reference, StateStore, TestClock,
};

use super::{SECOND, Scripted, context, records, repository, tree, unavailable};

struct Observed<T> {
    adapter: Observe<T>,
    metrics: Arc<Metrics>,
}

fn observe<T>(inner: T) -> Observed<T> {
    let metrics = Arc::new(Metrics::default());
    Observed { adapter: Observe::new(inner, Arc::new(TestClock::new()), metrics.clone()), metrics }
}

impl<T> Observed<T> {
    /// Operation, outcome, count and total of everything seen.
    fn seen(&self) -> Vec<(&'static str, &'static str, u64, Duration)> {
        let families = self.metrics.families();
        let line = |series: &Series| match (series.labels.as_slice(), &series.value) {
            ([operation, outcome], Value::Distribution { sum, count, .. }) => {
                (*operation, *outcome, *count, Duration::from_secs_f64(*sum))
            }
            _ => panic!("{series:?}"),
        };
        families.iter().flat_map(|family| &family.series).map(line).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_counted_by_outcome_with_its_duration() {
    let observed = observe(Scripted::new(async |context: Context, call| {
        context.clock().sleep(SECOND).await;
        match call {
            1 | 2 => Ok(()),
            3 => Err(unavailable()),
            _ => Err(Error::cancelled("dns.set")),
        }
    }));
    let context = context();
    for _ in 0..4 {
        let _ = observed.adapter.set(&context, &records()).await;
    }
    observed.adapter.get(&context, &records().host, records().record_type).await.unwrap();
    let expected = [
        ("dns.get", "ok", 1, Duration::ZERO),
        ("dns.set", "cancelled", 1, SECOND),
        ("dns.set", "ok", 2, 2 * SECOND),
        ("dns.set", "unavailable", 1, SECOND),
    ];
    assert_eq!(observed.seen(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_let_go_of_is_counted_too() {
    let observed = observe(Scripted::new(async |_, _| std::future::pending().await));
    let context = context();
    assert!(observed.adapter.set(&context, &records()).now_or_never().is_none());
    assert_eq!(observed.seen(), [("dns.set", "dropped", 1, Duration::ZERO)]);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_passed_on_unchanged() {
    let observed = observe(Scripted::new(async |_, _| Err(unavailable().code("down").context("zone", "x"))));
    let error = observed.adapter.set(&context(), &records()).await.unwrap_err();
    assert_eq!(format!("{error:?}"), format!("{:?}", unavailable().context("zone", "x")));
    assert_eq!(error.reason(), Some("down"));
}

#[tokio::test(start_paused = true)]
async fn the_stores_and_the_planner_are_observed() {
    let mut store = MockStateStore::new();
    store.expect_commit().times(1).returning(|_| Ok(Committed::default()));
    let store = observe(store);
    store.adapter.commit(Batch::default()).await.unwrap();
    assert_eq!(store.seen(), [("store.commit", "ok", 1, Duration::ZERO)]);

    let mut logs = MockLogStore::new();
    logs.expect_read().times(1).returning(|_| Ok(LogPage::default()));
    let logs = observe(logs);
    let app = AppId::generate(&RandomIds::seeded(TestClock::new(), 1));
    logs.adapter.read(&LogQuery::of(app)).await.unwrap();
    assert_eq!(logs.seen(), [("log_store.read", "ok", 1, Duration::ZERO)]);

    let mut planner = MockPlanner::new();
    planner.expect_plan().times(1).returning(|_| Err(Error::invalid("plan.plan", "nothing fits")));
    let planner = observe(planner);
    planner.adapter.plan(tree('a')).await.unwrap_err();
    assert_eq!(planner.seen(), [("plan.plan", "invalid", 1, Duration::ZERO)]);
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_in_a_span() {
    let written = Written::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
        .with_writer({
            let written = written.clone();
            move || written.clone()
        })
        .finish();
    let mut provider = MockGitProvider::new();
    provider.expect_resolve().returning(|_, _, _| Err(unavailable().context("token", "hunter2")));
    let observed = observe(provider);
    let _guard = tracing::subscriber::set_default(subscriber);
    let repository = repository(Some("hunter2"));
    observed.adapter.resolve(&context(), &repository, &Reference::Default).await.unwrap_err();
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("git.resolve") && text.contains("unavailable"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

/// What a subscriber wrote.
#[derive(Clone, Default)]
struct Written(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
