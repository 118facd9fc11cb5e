//! What a platform does when it starts, and what it gives up when it stops.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use paas_core::memory::Script;
use paas_core::{
    Append, Batch, Context, DeploymentState, Event, Expect, Fault, Generation, Host, Ingress, OperationKind,
    Platform, Position, Recorded, Route, Scope, StateStore, StreamId, Write,
};
use world::{World, live};

/// How often an operation of this kind was accepted.
async fn accepted(platform: &Platform, wanted: OperationKind) -> usize {
    let page = platform.apps().deployments("hello", 100, None).await.unwrap();
    page.items.iter().filter(|deployment| deployment.kind == wanted).count()
}

#[tokio::test(start_paused = true)]
async fn an_app_that_stays_down_is_restarted_once_though_another_one_is_broken() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    let broken = live(&platform, "broken").await;
    platform.shutdown().await;
    for instance in world.host.instances() {
        world.host.crash(&instance.name, 137);
    }
    world.host.forget_images();
    let broken = Write::Update {
        scope: Scope::Org(broken.org.clone()),
        kind: "app",
        id: broken.id.to_string(),
        expect: Expect::Any,
        body: b"{}".to_vec(),
    };
    world.store.commit(Batch { writes: vec![broken], ..Batch::default() }).await.unwrap();
    let platform = world.platform().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(accepted(&platform, OperationKind::Restart).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_brings_a_new_instance_makes_a_restart_needless() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    world.push_scripted("two", Script { build_time: Duration::from_secs(60), ..Script::default() });
    let deployment = platform.deploy("hello").await.unwrap();
    platform.shutdown().await;
    world.host.crash(&world.host.instances()[0].name.clone(), 137);
    let platform = world.platform().await;
    let deployment = platform.apps().deployment(deployment.id()).await.unwrap();
    deployment.outcome().await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(accepted(&platform, OperationKind::Restart).await, 0);
    assert!(world.host.instances()[0].is_running());
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_fails_leaves_the_dead_app_to_a_restart() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    let failure = paas_core::Failure::from(&paas_core::Error::new(
        paas_core::Kind::BuildFailed,
        "memory.build",
        "the build ended with code 1",
    ));
    let build_time = Duration::from_secs(60);
    world.push_scripted("two", Script { build_failure: Some(failure), build_time, ..Script::default() });
    let deployment = platform.deploy("hello").await.unwrap().id().clone();
    platform.shutdown().await;
    world.host.crash(&world.host.instances()[0].name.clone(), 137);
    let platform = world.platform().await;
    let deployment = platform.apps().deployment(&deployment).await.unwrap();
    assert_eq!(deployment.settled().await.unwrap().state, DeploymentState::Failed);
    assert_eq!(accepted(&platform, OperationKind::Restart).await, 0);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(accepted(&platform, OperationKind::Restart).await, 1);
    assert!(world.host.instances()[0].is_running());
}

#[tokio::test(start_paused = true)]
async fn routes_newer_than_the_store_are_the_platforms_fault() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let app = live(&platform, "hello").await;
    let host: Host = "hello.localhost".parse().unwrap();
    let context = Context::new(world.clock.clone());
    let route = Route { host, app: app.id, targets: Vec::new() };
    world.ingress.publish(&context, &route, Generation(1_000_000)).await.unwrap();
    let error = platform.deploy("hello").await.unwrap().outcome().await.unwrap_err();
    assert_eq!((error.whose(), error.reason()), (Fault::Platform, Some("stale_generation")));
    assert!(error.hinted().unwrap().contains("saved table"));
}

#[tokio::test(start_paused = true)]
async fn the_feed_leaves_out_what_it_does_not_know_and_ends_with_the_platform() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let app = live(&platform, "hello").await;
    let unknown = Append {
        scope: Scope::Org(app.org.clone()),
        stream: StreamId::new("something-new"),
        expect: 0,
        at: paas_core::Clock::now(&*world.clock),
        events: vec![br#"{"type":"from_the_future"}"#.to_vec()],
    };
    world.store.commit(Batch { appends: vec![unknown], ..Batch::default() }).await.unwrap();
    let feed = platform.events(Position(0));
    platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    platform.shutdown().await;
    let events: Vec<Recorded> =
        tokio::time::timeout(Duration::from_secs(60), feed.try_collect()).await.unwrap().unwrap();
    assert!(events.iter().all(|recorded| recorded.stream.as_str() != "something-new"));
    let accepted = |recorded: &&Recorded| matches!(recorded.event, Event::Accepted { .. });
    assert_eq!(events.iter().filter(accepted).count(), 2, "what came after the unknown event is there");
    let org = platform.org(&app.org).events(Position(0));
    assert_eq!(org.count().await, events.len());
}

#[tokio::test(start_paused = true)]
async fn an_address_whose_instance_vanished_is_given_again() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    // More instances than the org's network has addresses, each removed behind the platform's back.
    for _ in 0..260 {
        let name = world.host.instances()[0].name.clone();
        let context = Context::new(world.clock.clone());
        paas_core::ContainerRuntime::remove(&*world.runtime, &context, &name).await.unwrap();
        platform.apps().restart("hello").await.unwrap().outcome().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
