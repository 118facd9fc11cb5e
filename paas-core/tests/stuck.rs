//! Journals that this version can't read: what is told of them, whom they hold up, and the ways out.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use paas_core::memory::{MemoryAnswer, Script};
use paas_core::pipeline::{CancelReason, Output};
use paas_core::testing::chaos::{Chaos, ChaosPlan, Mischief};
use paas_core::testing::front::{Front, StoreFront};
use paas_core::{
    Append, Batch, Clock, DeployOptions, DeploymentHandle, DeploymentState, Event, InstanceName, Kind, OrgId,
    Platform, Position, Result, Scope, StateStore, Step, StoredEvent, StreamId, WaitFor,
};
use world::{World, history, live, new_app};

const MINUTE: Duration = Duration::from_secs(60);
const UNKNOWN: &[u8] = br#"{"type":"from_the_future"}"#;

fn slow() -> Script {
    Script { build_time: 10 * MINUTE, ..Script::default() }
}

async fn append_unknown(world: &World, stream: StreamId) {
    let before = world.store.events(&Scope::System, &stream, 0, usize::MAX).await.unwrap();
    let append = Append {
        scope: Scope::Org(OrgId::default_org()),
        stream,
        expect: before.len() as u64,
        at: world.clock.now(),
        events: vec![UNKNOWN.to_vec()],
    };
    world.store.commit(Batch { appends: vec![append], ..Batch::default() }).await.unwrap();
}

/// A deployment of an app that is live, in the middle of its build.
async fn building(world: &World, platform: &Platform) -> DeploymentHandle {
    world.push_page("one");
    live(platform, "hello").await;
    world.push_scripted("two", slow());
    let handle = platform.apps().deploy("hello", DeployOptions::default()).await.unwrap();
    while world.host.builds_running() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handle
}

async fn stuck(world: &World, platform: &Platform) -> DeploymentHandle {
    let handle = building(world, platform).await;
    append_unknown(world, StreamId::from(handle.id())).await;
    let waited = handle.wait(WaitFor::Settled, MINUTE).await.unwrap();
    assert_eq!(waited.deployment.state, DeploymentState::Stuck);
    handle
}

async fn listed(platform: &Platform) -> Vec<String> {
    let problems = platform.health().await.problems;
    problems.into_iter().map(|problem| format!("{}: {}", problem.part, problem.message)).collect()
}

#[tokio::test(start_paused = true)]
async fn it_is_told_with_app_deployment_and_reason_and_holds_up_nobody_else() {
    let mut world = World::new();
    (world.settings.build_slots, world.settings.operation_slots) = (1, 1);
    let platform = world.platform().await;
    let handle = stuck(&world, &platform).await;
    assert_eq!(world.host.builds_running(), 0, "what nobody can record does not go on");
    let app = handle.get().await.unwrap().app;
    let version = handle.history(0).await.unwrap().len();
    let reason =
        format!("event {version} of {} (`from_the_future`) is not known to this version", handle.id());
    let expected = format!("operations: hello ({app}, {}) is stuck: {reason}", handle.id());
    assert_eq!(listed(&platform).await, [expected]);
    let failure = handle.get().await.unwrap().failure.unwrap();
    assert_eq!(failure.message, format!("the deployment can't go on: {reason}"));
    assert_eq!(handle.get().await.unwrap().step, Some(Step::Build));
    let error = handle.outcome().await.unwrap_err();
    assert_eq!((error.reason(), error.is_transient()), (Some("stuck"), false));
    let error = handle.cancel().await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Conflict, Some("stuck")));

    world.push_page("three");
    let other = platform.apps().create(new_app("other")).await.unwrap().deployment.unwrap();
    assert_eq!(
        other.wait(WaitFor::Success, MINUTE).await.unwrap().deployment.state,
        DeploymentState::Running
    );
    assert_eq!(listed(&platform).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_server_says_so_also_after_a_restart() {
    let world = World::new();
    let platform = world.platform().await;
    let handle = stuck(&world, &platform).await;
    let another = world.asking().await;
    let told = listed(&platform).await;
    assert_eq!(listed(&another).await, told);
    let seen = another.apps().deployment(handle.id()).await.unwrap();
    assert_eq!(seen.get().await.unwrap().state, DeploymentState::Stuck);
    platform.shutdown().await;
    let platform = world.platform().await;
    assert_eq!(listed(&platform).await, told);
    tokio::time::sleep(20 * MINUTE).await;
    assert_eq!(listed(&platform).await, told);
}

/// A store whose events are read in other words.
#[derive(Debug)]
struct Rewording(Arc<dyn StateStore>, fn(&mut StoredEvent));

#[async_trait]
impl StoreFront for Rewording {
    fn behind(&self) -> &dyn StateStore {
        &*self.0
    }

    async fn events(
        &self,
        scope: &Scope,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        let mut events = self.0.events(scope, stream, after, limit).await?;
        events.iter_mut().for_each(self.1);
        Ok(events)
    }
}

/// As the version reads it that wrote what the others do not know: a request to stop.
fn understood(event: &mut StoredEvent) {
    if event.body == UNKNOWN {
        let meant = Event::CancelRequested { reason: CancelReason::Requested };
        event.body = serde_json::to_vec(&meant).unwrap();
    }
}

/// As if an operation had started its instance in words of a newer version.
fn hidden(event: &mut StoredEvent) {
    let read = Event::decode(&event.body);
    if let Event::NameTaken { .. } | Event::Finished { output: Output::Built { .. }, .. } = read {
        event.body = UNKNOWN.to_vec();
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_goes_on_by_itself_within_a_minute() {
    let world = World::new();
    let old = world.platform().await;
    let handle = stuck(&world, &old).await;
    // The old one goes on working: it sees the same as before, until the newer one has gone on.
    let newer = world
        .builder()
        .store(Arc::new(Front(Rewording(world.store.clone(), understood))))
        .start()
        .await
        .unwrap();
    assert!(matches!(
        newer.apps().deployment(handle.id()).await.unwrap().get().await.unwrap().state,
        DeploymentState::Building
    ));
    old.shutdown().await;
    let upgraded = newer.apps().deployment(handle.id()).await.unwrap();
    let waited = upgraded.wait(WaitFor::Settled, MINUTE + Duration::from_secs(1)).await.unwrap();
    assert_eq!(waited.deployment.state, DeploymentState::Cancelled);
    assert!(newer.health().await.is_ready());
    // Whoever goes back to the old one finds that it is over.
    let old = world.asking().await;
    assert!(old.health().await.is_ready());
    let handle = old.apps().deployment(handle.id()).await.unwrap();
    let events = history(&handle).await;
    assert!(events.iter().any(|recorded| matches!(recorded.event, Event::Unknown { .. })));
    assert!(matches!(events.last().unwrap().event, Event::Ended { .. }));
    assert_eq!(handle.abandon().await.unwrap_err().kind(), Kind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_stuck_can_be_abandoned() {
    let world = World::new();
    let platform = world.platform().await;
    let handle = building(&world, &platform).await;
    for _ in 0..2 {
        let error = handle.abandon().await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (Kind::Conflict, Some("state")));
        assert!(error.hinted().is_some());
        handle.cancel().await.unwrap();
        handle.settled().await.unwrap();
    }
    assert!(matches!(history(&handle).await.last().unwrap().event, Event::Ended { .. }));
}

#[tokio::test(start_paused = true)]
async fn abandoning_ends_it_as_failed_and_leaves_what_is_live() {
    let world = World::new();
    let platform = world.platform().await;
    let handle = stuck(&world, &platform).await;
    let before = platform.apps().get("hello").await.unwrap().status;
    // Another server may be the one that is asked.
    let asked = world.asking().await.apps().deployment(handle.id()).await.unwrap();
    asked.abandon().await.unwrap();
    let ended = handle.wait(WaitFor::Settled, Duration::from_secs(5)).await.unwrap().deployment;
    let failure = ended.failure.unwrap();
    assert_eq!((ended.state, failure.code.as_deref()), (DeploymentState::Failed, Some("abandoned")));
    assert!(failure.message.contains("an operator") && failure.message.contains("from_the_future"));
    assert_eq!(listed(&platform).await, Vec::<String>::new());
    let after = platform.apps().get("hello").await.unwrap().status;
    assert_eq!((after.live, after.instance, after.state), (before.live, before.instance, before.state));
    assert_eq!((after.active, after.queue.len()), (None, 0));
    let types: Vec<_> =
        history(&handle).await.into_iter().rev().take(5).map(|recorded| recorded.event).collect();
    assert!(matches!(
        &types[..],
        [
            Event::Ended { .. },
            Event::UndoFinished { step: Step::Route },
            Event::UndoStarted { step: Step::Route },
            Event::Abandoned { .. },
            Event::Unknown { .. },
        ]
    ));
}

#[tokio::test(start_paused = true)]
async fn what_was_routed_when_it_got_stuck_leads_back_to_what_is_live() {
    let world = World::new();
    world.push_page("one");
    // The second route is published, and never read back.
    let plan = ChaosPlan::calm().nth("ingress.serving", 2, Mischief::Hang);
    let ingress = Chaos::new(world.ingress.clone(), world.clock.clone(), 1, plan);
    let platform = world.builder().ingress(Arc::new(ingress)).start().await.unwrap();
    live(&platform, "hello").await;
    let live = world.host.instances().remove(0).name;
    world.push_page("two");
    let handle = platform.apps().deploy("hello", DeployOptions::default()).await.unwrap();
    while handle.get().await.unwrap().step != Some(Step::Route) || routed(&world) == live {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    append_unknown(&world, StreamId::from(handle.id())).await;
    handle.wait(WaitFor::Settled, MINUTE).await.unwrap();
    assert_ne!(routed(&world), live, "nobody knows whether it is to be taken back");
    assert_eq!(world.host.instances().len(), 2);
    handle.abandon().await.unwrap();
    assert_eq!(handle.settled().await.unwrap().state, DeploymentState::Failed);
    assert_eq!(routed(&world), live);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.host.instances().len(), 1, "the warden removes what nobody needs");
    assert_eq!(world.host.instances()[0].name, live);
}

/// The instance that requests reach.
fn routed(world: &World) -> InstanceName {
    match world.ingress.request(&"hello.localhost".parse().unwrap()) {
        MemoryAnswer::Instance(request) => request.target().instance.clone(),
        MemoryAnswer::Stopped | MemoryAnswer::Unknown => panic!("it is not routed"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_build_that_is_given_up_while_it_runs_ends() {
    let world = World::new();
    let platform = world.platform().await;
    let handle = building(&world, &platform).await;
    append_unknown(&world, StreamId::from(handle.id())).await;
    handle.abandon().await.unwrap();
    let ended = handle.wait(WaitFor::Settled, MINUTE).await.unwrap().deployment;
    assert_eq!((ended.state, world.host.builds_running()), (DeploymentState::Failed, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_app_can_be_deleted_once_its_operation_is_given_up() {
    let world = World::new();
    let platform = world.platform().await;
    let handle = stuck(&world, &platform).await;
    let deletion = platform.apps().delete("hello").await.unwrap();
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(deletion.get().await.unwrap().state, DeploymentState::Queued);
    handle.abandon().await.unwrap();
    assert_eq!(deletion.settled().await.unwrap().state, DeploymentState::Deleted);
    assert_eq!(listed(&platform).await, Vec::<String>::new());
    assert!(platform.apps().check_name("hello").await.unwrap().is_available);
}

#[tokio::test(start_paused = true)]
async fn what_an_app_is_told_in_words_of_a_newer_version_holds_up_nothing() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let app = live(&platform, "hello").await;
    append_unknown(&world, StreamId::from(&app.id)).await;
    let instance = world.host.instances().remove(0).name;
    world.host.remove(&instance);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.host.instances().len(), 1);
    platform.apps().restart("hello").await.unwrap().outcome().await.unwrap();
    assert!(platform.health().await.is_ready());
    let feed = platform.events(Position(0));
    platform.shutdown().await;
    let events: Vec<_> = feed.try_collect().await.unwrap();
    let unknown = events.iter().filter(|recorded| matches!(recorded.event, Event::Unknown { .. }));
    assert!(unknown.map(|recorded| &recorded.stream).eq([&StreamId::from(&app.id)]));
}

#[tokio::test(start_paused = true)]
async fn a_live_instance_is_made_again_whatever_else_its_journal_says() {
    let world = World::new();
    world.push_page("one");
    let platform = world.asking().await;
    let handle = platform.apps().create(new_app("hello")).await.unwrap().deployment.unwrap();
    platform.shutdown().await;
    // Its name is a substitute, which only the journal tells.
    world.host.take_name(InstanceName::of(handle.id(), 0));
    let newer = world
        .builder()
        .store(Arc::new(Front(Rewording(world.store.clone(), understood))))
        .start()
        .await
        .unwrap();
    newer.apps().deployment(handle.id()).await.unwrap().outcome().await.unwrap();
    newer.shutdown().await;
    // As if a newer version had recorded more before it started the instance.
    let rewording = Arc::new(Front(Rewording(world.store.clone(), hidden)));
    let platform = world.builder().store(rewording).start().await.unwrap();
    let before = world.host.instances().remove(0);
    world.host.remove(&before.name);
    tokio::time::sleep(MINUTE).await;
    let after = world.host.instances().remove(0);
    assert_eq!((&after.name, after.address), (&before.name, before.address));
    assert!(platform.health().await.is_ready());
}
