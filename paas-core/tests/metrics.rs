//! What a platform tells in numbers, and of what keeps it from its work: each thing is made to happen.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use paas_core::memory::Script;
use paas_core::metrics::{Family, Value};
use paas_core::testing::chaos::{Chaos, ChaosPlan, Mischief};
use paas_core::{
    Context, DeploymentHandle, DeploymentState, Error, Fault, Kind, Part, Platform, Result, Step, WaitFor,
};
use world::{World, live, new_app, url};

const MINUTE: Duration = Duration::from_secs(60);

async fn family(platform: &Platform, name: &str) -> Family {
    let families = platform.metrics().await;
    families.into_iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no {name}"))
}

async fn number(platform: &Platform, name: &str, labels: &[&str]) -> f64 {
    match family(platform, name).await.value(labels) {
        Some(Value::Number(number)) => *number,
        other => panic!("{name} {labels:?}: {other:?}"),
    }
}

/// How many values a histogram holds under these labels, and their sum.
async fn distribution(platform: &Platform, name: &str, labels: &[&str]) -> (u64, f64) {
    match family(platform, name).await.value(labels) {
        Some(Value::Distribution { sum, count, .. }) => (*count, *sum),
        other => panic!("{name} {labels:?}: {other:?}"),
    }
}

async fn deploying(platform: &Platform, name: &str) -> DeploymentHandle {
    platform.apps().create(new_app(name)).await.unwrap().deployment.unwrap()
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..10_000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it should have come: {what}");
}

async fn is_at(handle: &DeploymentHandle, step: Step) -> bool {
    handle.get().await.unwrap().step == Some(step)
}

#[tokio::test(start_paused = true)]
async fn steps_and_operations_are_counted_with_their_time() {
    let world = World::new();
    world.push_scripted("slow", Script { build_time: Duration::from_secs(20), ..Script::default() });
    let platform = world.platform().await;
    live(&platform, "hello").await;
    platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    let (count, sum) = distribution(&platform, "paas_step_duration_seconds", &["build", "succeeded"]).await;
    assert_eq!(count, 1);
    assert!((20.0..21.0).contains(&sum), "{sum}");
    assert_eq!(distribution(&platform, "paas_step_duration_seconds", &["build", "cached"]).await.0, 1);
    until("both have ended", async || {
        number(&platform, "paas_operations_ended_total", &["deploy", "succeeded"]).await == 2.0
    })
    .await;
    assert_eq!(number(&platform, "paas_operations_failed_total", &["build", "user"]).await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn failures_and_retries_are_counted_by_step_and_fault() {
    let world = World::new();
    world.push_page("one");
    let down = Error::new(Kind::Unavailable, "git.resolve", "it answers 503").fault(Fault::Upstream);
    world.git.fail(&url(), &down, 2);
    let platform = world.platform().await;
    assert_eq!(number(&platform, "paas_step_retries_total", &["fetch", "upstream"]).await, 0.0);
    live(&platform, "hello").await;
    assert_eq!(number(&platform, "paas_step_retries_total", &["fetch", "upstream"]).await, 2.0);
    assert_eq!(distribution(&platform, "paas_step_duration_seconds", &["fetch", "retried"]).await.0, 2);
    world.git.fail(&url(), &Error::not_found("git.resolve", "no such branch").fault(Fault::User), 1);
    let handle = platform.deploy("hello").await.unwrap();
    assert_eq!(handle.settled().await.unwrap().state, DeploymentState::Failed);
    handle.outcome().await.unwrap_err();
    until("the end", async || {
        number(&platform, "paas_operations_failed_total", &["fetch", "user"]).await == 1.0
    })
    .await;
    assert_eq!(number(&platform, "paas_operations_ended_total", &["deploy", "failed"]).await, 1.0);
    assert_eq!(distribution(&platform, "paas_step_duration_seconds", &["fetch", "failed"]).await.0, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_superseded_in_the_queue_is_counted_too() {
    let world = World::new();
    world.push_page("one");
    let platform = world.asking().await;
    deploying(&platform, "hello").await;
    platform.deploy("hello").await.unwrap();
    assert_eq!(number(&platform, "paas_operations_ended_total", &["deploy", "superseded"]).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_told_by_class_with_its_age() {
    let mut world = World::new();
    world.settings.build_slots = 1;
    world.push_scripted("slow", Script { build_time: 10 * MINUTE, ..Script::default() });
    let platform = world.platform().await;
    deploying(&platform, "one").await;
    deploying(&platform, "two").await;
    let waiting = async || number(&platform, "paas_work_waiting", &["build"]).await == 1.0;
    until("a build waits for the other", waiting).await;
    tokio::time::sleep(3 * MINUTE).await;
    let age = number(&platform, "paas_work_oldest_seconds", &["build"]).await;
    assert!((180.0..200.0).contains(&age), "{age}");
    assert_eq!(number(&platform, "paas_work_held", &["build"]).await, 1.0);
    assert_eq!(number(&platform, "paas_operations_under_way", &["build"]).await, 1.0);
    assert_eq!(number(&platform, "paas_operations_under_way", &["light"]).await, 0.0);
    assert_eq!(number(&platform, "paas_work_waiting", &["light"]).await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_counted_by_who_lost_it() {
    let world = World::new();
    world.push_scripted("slow", Script { build_time: MINUTE, ..Script::default() });
    let deaf =
        (1..1000).fold(ChaosPlan::calm(), |plan, nth| plan.nth("store.renew", nth, Mischief::FailBefore));
    let store = Arc::new(Chaos::new(world.store.clone(), world.clock.clone(), 1, deaf));
    let first = world.builder().store(store).start().await.unwrap();
    let handle = deploying(&first, "hello").await;
    until("a build", async || is_at(&handle, Step::Build).await).await;
    let second = world.platform().await;
    let waited = handle.wait(WaitFor::Settled, 5 * MINUTE).await.unwrap();
    assert_eq!(waited.deployment.state, DeploymentState::Running);
    until("it is noticed", async || number(&first, "paas_leases_lost_total", &[]).await > 0.0).await;
    assert_eq!(number(&second, "paas_leases_lost_total", &[]).await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn drift_is_counted_when_it_is_found_and_when_it_is_repaired() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    let counted = async |drift| {
        let found = number(&platform, "paas_drift_found_total", &[drift]).await;
        (found, number(&platform, "paas_drift_repaired_total", &[drift]).await)
    };
    assert_eq!((counted("ended").await, counted("missing").await), ((0.0, 0.0), (0.0, 0.0)));
    world.host.crash(&world.host.instances()[0].name.clone(), 1);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(counted("ended").await, (1.0, 1.0));
    // Found at once; what can't be made again is not repaired.
    world.host.forget_images();
    world.host.remove(&world.host.instances()[0].name.clone());
    tokio::time::sleep(MINUTE).await;
    assert_eq!((counted("ended").await, counted("missing").await), ((1.0, 1.0), (1.0, 0.0)));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_with_its_beginning_and_with_who_waits_for_it() {
    let world = World::new();
    world.push_scripted("slow", Script { build_time: MINUTE, ..Script::default() });
    let platform = world.platform().await;
    let handle = deploying(&platform, "hello").await;
    until("a build", async || is_at(&handle, Step::Build).await).await;
    assert!(platform.health().await.is_ready());
    assert_eq!(number(&platform, "paas_part_up", &["engine"]).await, 1.0);
    let began = paas_core::Clock::now(&*world.clock);
    world.host.stop_engine();
    // Nobody asks meanwhile, and yet it is known since when.
    tokio::time::sleep(10 * MINUTE).await;
    let health = platform.health().await;
    let [problem] = health.problems.as_slice() else { panic!("{health:?}") };
    assert_eq!((problem.part, problem.waiting), ("engine", 1));
    let late = problem.since.duration_since(began).as_secs();
    assert!((0..=30).contains(&late), "{late}");
    assert!(!problem.message.is_empty() && problem.hint.contains("engine"), "{problem:?}");
    assert_eq!(platform.health().await.problems[0].since, problem.since);
    assert_eq!(number(&platform, "paas_part_up", &["engine"]).await, 0.0);
    assert_eq!(number(&platform, "paas_part_up", &["store"]).await, 1.0);
    assert_eq!(number(&platform, "paas_part_waiting_operations", &["engine"]).await, 1.0);
    world.host.start_engine();
    assert!(platform.health().await.is_ready());
    handle.outcome().await.unwrap();
    assert_eq!(number(&platform, "paas_part_waiting_operations", &["engine"]).await, 0.0);
}

/// A part of its own that is not well, or does not answer.
#[derive(Debug)]
struct Mill {
    hangs: bool,
}

#[async_trait]
impl Part for Mill {
    fn name(&self) -> &'static str {
        "mill"
    }

    async fn ping(&self, _: &Context) -> Result<()> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(Error::new(Kind::Unavailable, "mill.ping", "there is no wind").hint("wait for it"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_was_added_is_told_of_too() {
    for hangs in [false, true] {
        let world = World::new();
        let platform = world.builder().part(Arc::new(Mill { hangs })).start().await.unwrap();
        let health = platform.health().await;
        let [problem] = health.problems.as_slice() else { panic!("{health:?}") };
        assert_eq!(problem.part, "mill");
        assert!(
            hangs || (problem.message.as_str(), problem.hint.as_str()) == ("there is no wind", "wait for it")
        );
        assert_eq!(number(&platform, "paas_part_up", &["mill"]).await, 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_or_refuses_keeps_nobody_from_the_other_numbers() {
    for mischief in [Mischief::Hang, Mischief::FailBefore] {
        let world = World::new();
        let plan = ["store.claim", "store.ping", "store.backlog"]
            .into_iter()
            .fold(ChaosPlan::calm(), |plan, operation| {
                (2..1000).fold(plan, |plan, nth| plan.nth(operation, nth, mischief))
            });
        let store = Arc::new(Chaos::new(world.store.clone(), world.clock.clone(), 1, plan));
        let platform = world.builder().store(store).start().await.unwrap();
        tokio::time::sleep(MINUTE).await;
        platform.metrics().await;
        let began = paas_core::Clock::elapsed(&*world.clock);
        let families = platform.metrics().await;
        assert!(paas_core::Clock::elapsed(&*world.clock) - began < Duration::from_secs(6), "{mischief:?}");
        let named = |name: &str| families.iter().find(|family| family.name == name).unwrap();
        assert!(named("paas_work_waiting").series.is_empty(), "{mischief:?}");
        assert_eq!(named("paas_part_up").value(&["store"]), Some(&Value::Number(0.0)), "{mischief:?}");
        assert_eq!(named("paas_leases_lost_total").value(&[]), Some(&Value::Number(0.0)));
        if mischief == Mischief::FailBefore {
            let problems = platform.health().await.problems;
            let parts: Vec<_> = problems.iter().map(|problem| problem.part).collect();
            assert_eq!(parts, ["claiming", "store"]);
        }
    }
}
