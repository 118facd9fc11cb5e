//! Cancelling, superseding, slots, leases and clocks: what several parties do to one app at once.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use paas_core::memory::{MemoryAnswer, MemoryBuilder, Script};
use paas_core::testing::chaos::{Chaos, ChaosPlan, Mischief};
use paas_core::testing::front::Front;
use paas_core::{
    Clock, DeployOptions, DeploymentHandle, DeploymentState, Error, Event, Failure, Fault, Kind, Platform,
    Step, WaitFor,
};
use world::{Idle, World, history, live, new_app, url};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn slow(seconds: u64) -> Script {
    Script { build_time: Duration::from_secs(seconds), ..Script::default() }
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

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(MINUTE, met).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn reaches(handle: &DeploymentHandle, wanted: Step) {
    until(&format!("{wanted:?}"), async || handle.get().await.unwrap().step == Some(wanted)).await;
}

/// Two apps on one build slot: the first one builds for long, the second one waits for the slot.
async fn one_waits_for_a_slot() -> (World, Platform, DeploymentHandle) {
    let mut world = World::new();
    world.settings.build_slots = 1;
    world.push_scripted("slow", slow(600));
    let platform = world.platform().await;
    deploying(&platform, "first").await;
    until("a build", async || world.host.builds_running() == 1).await;
    let waiting = deploying(&platform, "second").await;
    reaches(&waiting, Step::Plan).await;
    until("a place in the queue", async || waiting.queue_position().await.unwrap() == Some(1)).await;
    (world, platform, waiting)
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_build_slot_is_cancelled_at_once() {
    let (world, _platform, waiting) = one_waits_for_a_slot().await;
    waiting.cancel().await.unwrap();
    assert_eq!(settles_within(&waiting, 5 * SECOND).await.state, DeploymentState::Cancelled);
    assert_eq!((world.host.builds_begun(), world.host.builds_running()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_build_slot_is_superseded_at_once() {
    let (_world, platform, waiting) = one_waits_for_a_slot().await;
    let newer = platform.deploy("second").await.unwrap();
    assert_eq!(settles_within(&waiting, 5 * SECOND).await.state, DeploymentState::Superseded);
    tokio::time::timeout(5 * SECOND, reaches(&newer, Step::Plan)).await.unwrap();
    let deletion = platform.apps().delete("second").await.unwrap();
    assert_eq!(settles_within(&deletion, 5 * SECOND).await.state, DeploymentState::Deleted);
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_waiting_build_takes_its_place_from_nobody() {
    let mut world = World::new();
    world.settings.build_slots = 1;
    world.push_page("one");
    let platform = world.platform().await;
    for name in ["a", "b"] {
        live(&platform, name).await;
    }
    world.push_scripted("slow", slow(600));
    deploying(&platform, "first").await;
    until("a build", async || world.host.builds_running() == 1).await;
    for (name, ahead) in [("a", 1), ("b", 2)] {
        let waiting = platform.deploy(name).await.unwrap();
        until("its place", async || waiting.queue_position().await.unwrap() == Some(ahead)).await;
        platform.apps().restart(name).await.unwrap();
        tokio::time::sleep(SECOND).await;
        assert_eq!(waiting.queue_position().await.unwrap(), Some(ahead), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_failed_build_keeps_no_build_slot() {
    let mut world = World::new();
    world.settings.build_slots = 1;
    world.push_page("one");
    let late = ChaosPlan::calm().nth("runtime.ensure", 2, Mischief::Delay(100 * SECOND));
    let platform = world.builder().runtime(chaos(&world, world.runtime.clone(), late)).start().await.unwrap();
    live(&platform, "hello").await;
    let failure = Failure::from(&Error::new(Kind::BuildFailed, "build", "it failed"));
    world.push_scripted("two", Script { build_failure: Some(failure), ..slow(10) });
    let failing = platform.deploy("hello").await.unwrap();
    let behind = platform.apps().restart("hello").await.unwrap();
    failing.settled().await.unwrap();
    world.push_page("three");
    let other = deploying(&platform, "other").await;
    assert_eq!(settles_within(&other, 20 * SECOND).await.state, DeploymentState::Running);
    assert!(!behind.get().await.unwrap().state.is_settled());
    assert_eq!(settles_within(&behind, 2 * MINUTE).await.state, DeploymentState::Running);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_cancelled_in_every_step() {
    let hang = |operation| ChaosPlan::calm().nth(operation, 1, Mischief::Hang);
    for (step, plan) in [
        (Step::Fetch, hang("git.resolve")),
        (Step::Plan, hang("image.key")),
        (Step::Build, hang("image.build")),
        (Step::Start, hang("runtime.ensure")),
        (Step::Verify, hang("ingress.probe")),
        (Step::Route, hang("ingress.publish")),
    ] {
        let world = World::new();
        world.push_page("one");
        let builder = MemoryBuilder::new(world.host.clone());
        let platform = world
            .builder()
            .git(chaos(&world, world.git.clone(), plan.clone()))
            .image_builder(chaos(&world, builder, plan.clone()))
            .runtime(chaos(&world, world.runtime.clone(), plan.clone()))
            .ingress(chaos(&world, world.ingress.clone(), plan.clone()))
            .start()
            .await
            .unwrap();
        let handle = deploying(&platform, "hello").await;
        reaches(&handle, step).await;
        handle.cancel().await.unwrap();
        let deployment = settles_within(&handle, 5 * SECOND).await;
        assert_eq!(deployment.state, DeploymentState::Cancelled, "{step:?}");
        assert!(world.host.instances().is_empty(), "{step:?}");
        let host = "hello.localhost".parse().unwrap();
        assert!(matches!(world.ingress.request(&host), MemoryAnswer::Unknown), "{step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_is_cancelled_at_once() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    world.push_scripted("slow", slow(600));
    let building = platform.deploy("hello").await.unwrap();
    reaches(&building, Step::Build).await;
    let queued = platform.apps().restart("hello").await.unwrap();
    assert_eq!(queued.cancel().await.unwrap().state, DeploymentState::Cancelled);
    assert_eq!(history(&queued).await.len(), 3);
    assert_eq!(settles_within(&building, 700 * SECOND).await.state, DeploymentState::Running);
}

/// The worker has claimed the app and read its status, but not yet the journal.
#[tokio::test(start_paused = true)]
async fn cancelling_between_a_claim_and_its_first_step_leaves_nothing_stuck() {
    for late in 1..=6 {
        let world = World::new();
        world.push_page("one");
        let asking = world.asking().await;
        let handle = deploying(&asking, "hello").await;
        let plan = ChaosPlan::calm().nth("store.get", late, Mischief::Delay(SECOND));
        let store = chaos(&world, world.store.clone(), plan.clone());
        let platform = world.builder().store(store).start().await.unwrap();
        tokio::time::sleep(SECOND / 2).await;
        // Later reads come when it has begun: a cancel is a cancel then, too.
        handle.cancel().await.ok();
        settles_within(&handle, MINUTE).await;
        tokio::time::sleep(2 * SECOND).await;
        assert!(platform.health().await.is_ready(), "read {late}: {:?}", platform.health().await);
        let next = asking.apps().deploy("hello", DeployOptions::default()).await.unwrap();
        assert_eq!(settles_within(&next, MINUTE).await.state, DeploymentState::Running, "read {late}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_short_steps_keep_their_lease() {
    let world = World::new();
    world.push_page("one");
    // Each below the time after which a lease is renewed, together longer than it lasts.
    let late = |operation| {
        (1..10).fold(ChaosPlan::calm(), |plan, nth| {
            plan.nth(operation, nth, Mischief::Delay(Duration::from_millis(4900)))
        })
    };
    let runtime = chaos(&world, world.runtime.clone(), late("runtime.ensure"));
    let runtime = chaos(&world, runtime, late("runtime.list"));
    let ingress = chaos(&world, world.ingress.clone(), late("ingress.probe"));
    let ingress = chaos(&world, ingress, late("ingress.publish"));
    let fenced = Arc::new(Front(world::Fenced::new(world.store.clone())));
    let builder = world.builder().store(fenced.clone()).runtime(runtime).ingress(ingress);
    let platform = builder.start().await.unwrap();
    let handle = deploying(&platform, "hello").await;
    history(&handle).await;
    assert_eq!(handle.get().await.unwrap().state, DeploymentState::Running);
    assert_eq!(fenced.0.refusals(), 0, "a lease ran out under a worker that was there");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_lost_its_lease_writes_nothing_more() {
    let world = World::new();
    world.push_scripted("slow", slow(60));
    let deaf =
        (1..1000).fold(ChaosPlan::calm(), |plan, nth| plan.nth("store.renew", nth, Mischief::FailBefore));
    let fenced = Arc::new(Front(world::Fenced::new(world.store.clone())));
    let first = world.builder().store(chaos(&world, fenced.clone(), deaf)).start().await.unwrap();
    let handle = deploying(&first, "hello").await;
    reaches(&handle, Step::Build).await;
    let second = world.platform().await;
    let handle = second.apps().deployment(handle.id()).await.unwrap();
    assert_eq!(settles_within(&handle, 5 * MINUTE).await.state, DeploymentState::Running);
    for (number, recorded) in (1..).zip(history(&handle).await) {
        assert_eq!(recorded.version, number);
    }
    tokio::time::sleep(MINUTE).await;
    assert!(fenced.0.refusals() > 0, "the first worker tried to go on");
    assert_eq!(world.host.instances().len(), 1);
    assert!(first.health().await.is_ready());
}

#[tokio::test(start_paused = true)]
async fn two_platforms_share_one_store() {
    let mut world = World::new();
    world.settings.build_slots = 1;
    world.push_scripted("slow", slow(5));
    let (one, two) = (world.platform().await, world.platform().await);
    let mut handles = Vec::new();
    for number in 0..10 {
        let platform = if number % 2 == 0 { &one } else { &two };
        handles.push(deploying(platform, &format!("app-{number}")).await);
    }
    let most = async {
        let mut most = 0;
        loop {
            most = most.max(world.host.builds_running());
            if futures::future::join_all(handles.iter().map(DeploymentHandle::get))
                .await
                .into_iter()
                .all(|deployment| deployment.unwrap().state == DeploymentState::Running)
            {
                return most;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let most = tokio::time::timeout(5 * MINUTE, most).await.expect("all run");
    assert_eq!(most, 1, "the slots are the store's");
    assert_eq!((world.host.instances().len(), world.host.builds_begun()), (10, 10));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_events_reads_them_to_the_end() {
    let world = World::new();
    world.push_scripted("slow", slow(10));
    let platform = world.platform().await;
    let late = |plan: ChaosPlan, nth| plan.nth("store.get", nth, Mischief::Delay(MINUTE));
    let late = (1..=100).fold(ChaosPlan::calm(), late);
    let late = Front(Idle(chaos(&world, world.store.clone(), late)));
    let reader = world.builder().store(Arc::new(late)).start().await.unwrap();
    let handle = deploying(&platform, "hello").await;
    let seen = reader.apps().handle_to(&handle.get().await.unwrap());
    assert_eq!(history(&seen).await, handle.history(0).await.unwrap());
    assert!(matches!(history(&seen).await.last().unwrap().event, Event::Ended { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_stalls_and_kills_nothing() {
    const HOUR_SECONDS: i64 = 60 * 60;
    for seconds in [HOUR_SECONDS, -HOUR_SECONDS, 24 * HOUR_SECONDS, -24 * HOUR_SECONDS] {
        let world = World::new();
        world.push_scripted("slow", slow(30));
        let down = Error::new(Kind::Unavailable, "git.resolve", "it answers 503").fault(Fault::Upstream);
        world.git.fail(&url(), &down, 3);
        let platform = world.platform().await;
        let handle = deploying(&platform, "hello").await;
        until("a failure", async || world.git.requests(&url()) >= 2).await;
        world.clock.jump(seconds);
        let began = world.clock.elapsed();
        reaches(&handle, Step::Build).await;
        world.clock.jump(seconds);
        assert_eq!(settles_within(&handle, 5 * MINUTE).await.state, DeploymentState::Running, "{seconds}");
        assert!(world.clock.elapsed() - began < 3 * MINUTE, "{seconds}");
        assert_eq!(world.host.instances().len(), 1);
        platform.shutdown().await;
    }
}
