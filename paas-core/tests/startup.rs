//! What a platform does when it starts, and what it gives up when it stops.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use paas_core::{
    Append, Batch, Context, Event, Fault, Generation, Host, Ingress, Keyring, Kind, Position, Recorded,
    Route, Scope, StateStore, StreamId,
};
use world::{World, live};

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
async fn the_feed_shows_that_there_is_what_it_does_not_know_and_ends_with_the_platform() {
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
    let new = events.iter().find(|recorded| recorded.stream.as_str() == "something-new").unwrap();
    assert_eq!(new.event, Event::Unknown { name: "from_the_future".to_owned() });
    let accepted = |recorded: &&Recorded| matches!(recorded.event, Event::Accepted { .. });
    assert_eq!(events.iter().filter(accepted).count(), 2, "what came after the unknown event is there");
    let org = platform.org(&app.org).events(Position(0));
    assert_eq!(org.count().await, events.len());
}

#[tokio::test(start_paused = true)]
async fn another_key_than_the_stores_starts_nothing() {
    let world = World::new();
    world.platform().await.shutdown().await;
    let others = tempfile::tempdir().unwrap();
    let file = others.path().join("master.key");
    let other = Keyring::open(&file).unwrap();
    let refused = world.builder().keyring(other).start().await.unwrap_err();
    assert_eq!((refused.kind(), refused.reason()), (Kind::Invalid, Some("other_key")), "{refused:?}");
    assert!(refused.hinted().unwrap().contains("backup"));
    // A new key comes before the old one, which still opens.
    let old = std::fs::read_to_string(world.key.path().join("master.key")).unwrap();
    let new = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, new + &old).unwrap();
    world.builder().keyring(Keyring::open(&file).unwrap()).start().await.unwrap().shutdown().await;
    world.platform().await.shutdown().await;
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
