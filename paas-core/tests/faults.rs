//! What the engine does when its parts fail: outages are waited out, failures end, and what is said about them is true.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use paas_core::memory::{MemoryBuilder, MemoryDns, MemoryPlanner, Script};
use paas_core::pipeline::Output;
use paas_core::testing::chaos::{Chaos, ChaosPlan, Mischief};
use paas_core::{
    BuildPlan, Clock, DeploymentHandle, DeploymentState, DnsService, Error, Event, Fault, Followed, Kind,
    LogQuery, Planner, Platform, Probe, RecordType, Result, SourceTree, Step, WaitFor,
};
use world::{World, history, live, new_app, url};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Every call of an operation meets the mischief.
fn always(operation: &'static str, mischief: Mischief) -> ChaosPlan {
    (1..500).fold(ChaosPlan::calm(), |plan, nth| plan.nth(operation, nth, mischief))
}

fn chaos<T>(world: &World, inner: T, plan: ChaosPlan) -> Arc<Chaos<T>> {
    Arc::new(Chaos::new(inner, world.clock.clone(), 1, plan))
}

async fn deploying(platform: &Platform, name: &str) -> DeploymentHandle {
    platform.apps().create(new_app(name)).await.unwrap().deployment.unwrap()
}

async fn settles_within(handle: &DeploymentHandle, patience: Duration) -> paas_core::Deployment {
    let waited = handle.wait(WaitFor::Settled, patience).await.unwrap();
    assert!(waited.deployment.state.is_settled(), "{:?}", waited.deployment);
    waited.deployment
}

/// How often each step was begun.
async fn begun(handle: &DeploymentHandle, step: Step) -> usize {
    let is_begin = |event: &Event| matches!(event, Event::Started { step: begun, .. } if *begun == step);
    history(handle).await.iter().filter(|recorded| is_begin(&recorded.event)).count()
}

async fn reaches(handle: &DeploymentHandle, wanted: Step) {
    let is_there = async {
        while handle.get().await.unwrap().step != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(MINUTE, is_there).await.unwrap_or_else(|_| panic!("it never reaches {wanted:?}"));
}

#[tokio::test(start_paused = true)]
async fn what_a_part_refuses_while_it_answers_is_no_outage() {
    let world = World::new();
    world.push_page("one");
    let runtime = chaos(&world, world.runtime.clone(), always("runtime.ensure", Mischief::FailBefore));
    let platform = world.builder().runtime(runtime).start().await.unwrap();
    let handle = deploying(&platform, "hello").await;
    let deployment = settles_within(&handle, 5 * MINUTE).await;
    assert_eq!(deployment.state, DeploymentState::Failed);
    assert_eq!(deployment.failure.unwrap().fault, Fault::Platform);
    assert_eq!(begun(&handle, Step::Start).await, 4);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out_and_burns_no_attempt_and_no_time() {
    let world = World::new();
    world.push_scripted("slow", Script { build_time: Duration::from_secs(10), ..Script::default() });
    let platform = world.platform().await;
    let handle = deploying(&platform, "hello").await;
    reaches(&handle, Step::Build).await;
    world.host.stop_engine();
    tokio::time::sleep(2 * HOUR).await;
    assert!(!handle.get().await.unwrap().state.is_settled());
    world.host.start_engine();
    assert_eq!(settles_within(&handle, 2 * MINUTE).await.state, DeploymentState::Running);
    for recorded in history(&handle).await {
        if let Event::Started { step, attempt } = recorded.event {
            assert_eq!(attempt, 1, "{step:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_away_is_waited_for_and_the_log_says_so() {
    let world = World::new();
    world.push_page("one");
    let away = Error::unreachable("git.resolve", "the git server cannot be reached");
    world.git.fail(&url(), &away, u64::MAX);
    let platform = world.platform().await;
    let handle = deploying(&platform, "hello").await;
    tokio::time::sleep(30 * MINUTE).await;
    let waiting = handle.get().await.unwrap();
    assert_eq!((waiting.state, waiting.step), (DeploymentState::Building, Some(Step::Fetch)));
    let tries = world.git.requests(&url());
    assert!((30..200).contains(&tries), "{tries}");
    world.git.fail(&url(), &away, 0);
    // Within one back-off.
    let settled = settles_within(&handle, MINUTE + Duration::from_secs(5)).await;
    assert_eq!(settled.state, DeploymentState::Running, "{settled:?}");
    let query = LogQuery::of(handle.get().await.unwrap().app);
    let log: Vec<_> = handle.follow_logs(query).await.unwrap().try_collect().await.unwrap();
    let is_said =
        |item: &&Followed| matches!(item, Followed::Line(line) if line.text.starts_with("fetch: the git"));
    assert!(log.iter().filter(is_said).count() as u64 >= tries, "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn what_never_gets_through_ends_at_its_deadline() {
    let world = World::new();
    world.push_page("one");
    let away = Error::unreachable("git.resolve", "it answers 503");
    world.git.fail(&url(), &away, u64::MAX);
    let platform = world.platform().await;
    let began = world.clock.elapsed();
    let handle = deploying(&platform, "hello").await;
    let deployment = settles_within(&handle, 2 * HOUR).await;
    assert_eq!(deployment.state, DeploymentState::Failed);
    let took = world.clock.elapsed() - began;
    let deadline = Duration::from_secs(deployment.deadline_seconds);
    assert!(took <= deadline + MINUTE && took > deadline / 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn time_without_a_server_is_not_the_deployments() {
    let world = World::new();
    world.push_page("one");
    world.git.hold();
    let platform = world.platform().await;
    let handle = deploying(&platform, "hello").await;
    reaches(&handle, Step::Fetch).await;
    platform.shutdown().await;
    tokio::time::sleep(3 * HOUR).await;
    world.git.release();
    let platform = world.platform().await;
    let handle = platform.apps().deployment(handle.id()).await.unwrap();
    assert_eq!(settles_within(&handle, 2 * MINUTE).await.state, DeploymentState::Running);
}

#[tokio::test(start_paused = true)]
async fn undoing_waits_an_outage_out() {
    let world = World::new();
    world.push_page("one");
    let ingress =
        chaos(&world, world.ingress.clone(), ChaosPlan::calm().nth("ingress.probe", 1, Mischief::Hang));
    let platform = world.builder().ingress(ingress).start().await.unwrap();
    let handle = deploying(&platform, "hello").await;
    reaches(&handle, Step::Verify).await;
    world.host.stop_engine();
    handle.cancel().await.unwrap();
    tokio::time::sleep(30 * MINUTE).await;
    assert!(!handle.get().await.unwrap().state.is_settled());
    assert_eq!(world.host.instances().len(), 1);
    world.host.start_engine();
    assert_eq!(settles_within(&handle, 2 * MINUTE).await.state, DeploymentState::Cancelled);
    assert!(world.host.instances().is_empty());
}

#[tokio::test(start_paused = true)]
async fn undoing_takes_the_time_it_needs_also_after_a_cancel() {
    let world = World::new();
    world.push_page("one");
    let ingress =
        chaos(&world, world.ingress.clone(), ChaosPlan::calm().nth("ingress.probe", 1, Mischief::Hang));
    let slow = ChaosPlan::calm().nth("runtime.stop", 1, Mischief::Delay(Duration::from_secs(90)));
    let runtime = chaos(&world, world.runtime.clone(), slow);
    let platform = world.builder().ingress(ingress).runtime(runtime.clone()).start().await.unwrap();
    let handle = deploying(&platform, "hello").await;
    reaches(&handle, Step::Verify).await;
    handle.cancel().await.unwrap();
    assert_eq!(settles_within(&handle, 2 * MINUTE).await.state, DeploymentState::Cancelled);
    assert!(world.host.instances().is_empty());
    assert_eq!(runtime.journal().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_undone_is_never_called_cancelled() {
    let world = World::new();
    world.push_page("one");
    let ingress =
        chaos(&world, world.ingress.clone(), ChaosPlan::calm().nth("ingress.probe", 1, Mischief::Hang));
    let runtime = chaos(&world, world.runtime.clone(), always("runtime.remove", Mischief::FailBefore));
    let platform = world.builder().ingress(ingress).runtime(runtime).start().await.unwrap();
    let handle = deploying(&platform, "hello").await;
    reaches(&handle, Step::Verify).await;
    handle.cancel().await.unwrap();
    let deployment = settles_within(&handle, HOUR).await;
    assert_eq!(deployment.state, DeploymentState::Failed);
    let failure = deployment.failure.unwrap();
    assert_eq!(failure.fault, Fault::Platform);
    let left = &world.host.instances()[0].name;
    assert!(failure.message.contains(left.as_str()), "{failure:?}");
    assert!(failure.hint.is_some());
}

/// Panics at its first plan, or never answers any.
#[derive(Debug)]
struct Defective {
    has_panicked: AtomicBool,
    hangs: bool,
}

#[async_trait]
impl Planner for Defective {
    async fn plan(&self, tree: Arc<dyn SourceTree>) -> Result<BuildPlan> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        assert!(self.has_panicked.swap(true, Ordering::SeqCst), "a defect");
        MemoryPlanner.plan(tree).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_panics_fails_the_operation_and_keeps_no_slot() {
    let mut world = World::new();
    world.settings.operation_slots = 1;
    world.push_page("one");
    let planner = Defective { has_panicked: AtomicBool::new(false), hangs: false };
    let platform = world.builder().planner(Arc::new(planner)).start().await.unwrap();
    let error = deploying(&platform, "hello").await.outcome().await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::Internal, Fault::Platform));
    assert!(!error.message().contains("defect"), "{error}");
    let again = platform.deploy("hello").await.unwrap();
    assert_eq!(settles_within(&again, MINUTE).await.state, DeploymentState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_never_ends_is_ended() {
    let world = World::new();
    world.push_page("one");
    let planner = Defective { has_panicked: AtomicBool::new(false), hangs: true };
    let platform = world.builder().planner(Arc::new(planner)).start().await.unwrap();
    let handle = deploying(&platform, "hello").await;
    let deployment = settles_within(&handle, HOUR).await;
    assert_eq!(deployment.state, DeploymentState::Failed);
    let failure = deployment.failure.unwrap();
    assert_eq!((failure.kind, failure.fault), (Kind::Timeout, Fault::Platform));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_crashed_once_and_then_runs_is_running() {
    let world = World::new();
    world.push_page("one");
    let probes = (1..10).fold(ChaosPlan::calm(), |plan, nth| {
        plan.nth("ingress.probe", nth, Mischief::Delay(Duration::from_secs(1)))
    });
    let ingress = chaos(&world, world.ingress.clone(), probes);
    let platform = world.builder().ingress(ingress).start().await.unwrap();
    let handle = deploying(&platform, "hello").await;
    reaches(&handle, Step::Verify).await;
    world.host.restart(&world.host.instances()[0].name);
    let deployment = settles_within(&handle, MINUTE).await;
    assert_eq!(deployment.state, DeploymentState::Running, "{deployment:?}");
    assert_eq!(begun(&handle, Step::Start).await, 2, "the crash was seen");
    assert_eq!(world.host.instances()[0].restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_health_check_that_never_answers_is_the_users_and_not_tried_again() {
    let world = World::new();
    world.push_page("one");
    for last in 2..10 {
        let address = format!("10.181.0.{last}:8080").parse().unwrap();
        world.ingress.set_probe(address, Probe::Unhealthy("it answers 500".to_owned()));
    }
    let platform = world.platform().await;
    let handle = deploying(&platform, "hello").await;
    let deployment = settles_within(&handle, 2 * MINUTE).await;
    assert_eq!(deployment.state, DeploymentState::Failed);
    let failure = deployment.failure.unwrap();
    assert_eq!((failure.kind, failure.fault), (Kind::Unhealthy, Fault::User));
    assert!(failure.message.contains("it answers 500"), "{failure:?}");
    assert_eq!(begun(&handle, Step::Start).await, 1);
    assert!(world.host.instances().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_died_before_its_route_is_not_published() {
    let world = World::new();
    world.push_page("one");
    let hang = ChaosPlan::calm().nth("ingress.publish", 1, Mischief::Hang);
    let platform = world.builder().ingress(chaos(&world, world.ingress.clone(), hang)).start().await.unwrap();
    let handle = deploying(&platform, "hello").await;
    reaches(&handle, Step::Route).await;
    platform.shutdown().await;
    world.host.crash(&world.host.instances()[0].name, 137);
    let platform = world.platform().await;
    let handle = platform.apps().deployment(handle.id()).await.unwrap();
    assert_eq!(settles_within(&handle, MINUTE).await.state, DeploymentState::Running);
    assert_eq!(world.host.containers_begun(), 2);
    assert!(world.host.instances()[0].is_running());
}

fn retired(events: &[paas_core::Recorded]) -> (usize, usize) {
    let output = events.iter().find_map(|recorded| match &recorded.event {
        Event::Finished { output: Output::Retired { removed, left }, .. } => {
            Some((removed.len(), left.len()))
        }
        _ => None,
    });
    output.expect("Retire ended")
}

#[tokio::test(start_paused = true)]
async fn retiring_is_tried_again_and_says_what_it_leaves() {
    for (plan, left) in [
        (ChaosPlan::calm().nth("runtime.remove", 1, Mischief::FailBefore), 0),
        (always("runtime.remove", Mischief::FailBefore), 1),
    ] {
        let world = World::new();
        world.push_page("one");
        let platform =
            world.builder().runtime(chaos(&world, world.runtime.clone(), plan)).start().await.unwrap();
        live(&platform, "hello").await;
        let handle = platform.deploy("hello").await.unwrap();
        assert_eq!(handle.outcome().await.unwrap().state, DeploymentState::Running);
        let events = history(&handle).await;
        assert_eq!(retired(&events).1, left);
        assert_eq!(world.host.instances().len(), 1 + left);
    }
}

#[tokio::test(start_paused = true)]
async fn undoing_a_route_takes_its_name_away() {
    let world = World::new();
    world.push_page("one");
    let dns = Arc::new(MemoryDns::new("192.0.2.1".parse().unwrap()));
    let ingress = chaos(&world, world.ingress.clone(), always("ingress.publish", Mischief::FailBefore));
    let platform = world.builder().dns(dns.clone()).ingress(ingress).start().await.unwrap();
    let handle = deploying(&platform, "hello").await;
    assert_eq!(settles_within(&handle, HOUR).await.state, DeploymentState::Failed);
    assert_eq!(begun(&handle, Step::Route).await, 5);
    let context = paas_core::Context::new(world.clock.clone());
    let record = dns.get(&context, &"hello.localhost".parse().unwrap(), RecordType::A).await.unwrap();
    assert_eq!(record, None);
}

/// Calls fail before or after they took effect, in every adapter: everything still ends, and what is there is what the
/// records say.
#[tokio::test(start_paused = true)]
async fn lost_calls_and_lost_replies_leave_one_instance_an_app() {
    for seed in 1..=8 {
        let world = World::new();
        world.push_page("one");
        let plan = ChaosPlan { fail_before_percent: 4, lose_reply_percent: 4, ..ChaosPlan::calm() };
        let builder = MemoryBuilder::new(world.host.clone());
        macro_rules! chaotic {
            ($inner:expr) => {
                Arc::new(Chaos::new($inner, world.clock.clone(), seed, plan.clone()))
            };
        }
        let platform = world
            .builder()
            .store(chaotic!(world.store.clone()))
            .git(chaotic!(world.git.clone()))
            .image_builder(chaotic!(builder))
            .runtime(chaotic!(world.runtime.clone()))
            .ingress(chaotic!(world.ingress.clone()))
            .start()
            .await;
        let Ok(platform) = platform else { continue };
        // What is asked for reaches the store: only the engine's own calls are disturbed.
        let asking = world.asking().await;
        let apps = asking.apps();
        for name in ["one", "two", "three"] {
            apps.create(new_app(name)).await.unwrap().deployment.unwrap().settled().await.unwrap();
        }
        world.push_page("two");
        for name in ["one", "two", "three"] {
            let redeployed = apps.deploy(name, paas_core::DeployOptions::default()).await.unwrap();
            let ended = tokio::time::timeout(HOUR, history(&redeployed)).await;
            ended.unwrap_or_else(|_| panic!("seed {seed}: {name} never ends"));
        }
        let mut expected = Vec::new();
        for view in apps.list(10, None).await.unwrap().items {
            expected.extend(view.status.instance.map(|instance| instance.name));
        }
        let running: Vec<_> = world.host.instances().into_iter().map(|instance| instance.name).collect();
        for name in &expected {
            assert!(running.contains(name), "seed {seed}: {name} is live and not there");
        }
        platform.shutdown().await;
        asking.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_what_never_ends() {
    let world = World::new();
    world.push_page("one");
    let plan = ChaosPlan::calm().nth("store.commit", 4, Mischief::Hang);
    let platform = world.builder().store(chaos(&world, world.store.clone(), plan)).start().await.unwrap();
    let handle = deploying(&platform, "hello").await;
    world.clock.sleep(Duration::from_secs(5)).await;
    assert!(handle.get().await.unwrap().settled_at.is_none());
    let began = world.clock.elapsed();
    platform.shutdown().await;
    let took = world.clock.elapsed() - began;
    assert!(took < Duration::from_secs(30), "{took:?}");
    // Its lease was not given back: the next one has it when it has run out.
    let platform = world.platform().await;
    let handle = platform.apps().deployment(handle.id()).await.unwrap();
    assert_eq!(settles_within(&handle, MINUTE).await.state, DeploymentState::Running);
    assert_eq!(world.host.instances().len(), 1);
}
