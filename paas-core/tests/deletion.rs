//! Deleting an app leaves nothing of it, also when others are deleted at the same time.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::time::Duration;

use paas_core::memory::{MemoryAnswer, MemoryFiles, Program, Script};
use paas_core::{
    AppChanges, Context, DeploymentState, Event, GitUrl, Host, IndexRange, Ingress, LogQuery, LogStore,
    OrgId, Position, Scan, Scope, StateStore, Step,
};
use world::{World, branch, live, new_app, url};

/// The ids of the records of a kind.
async fn records(world: &World, kind: &'static str, index: &'static str) -> Vec<String> {
    let scan = Scan {
        scope: Scope::System,
        kind,
        index,
        range: IndexRange::all(),
        descending: false,
        limit: 100,
        cursor: None,
    };
    world.store.scan(&scan).await.unwrap().items.into_iter().map(|record| record.id).collect()
}

#[tokio::test(start_paused = true)]
async fn delete_leaves_nothing() {
    let world = World::new();
    let program = Program { output: vec!["listening".to_owned()], ..Program::default() };
    world.push_scripted("one", Script { program, ..Script::default() });
    let platform = world.platform().await;
    let app = live(&platform, "hello").await;
    let again = platform.deploy("hello").await.unwrap();
    again.outcome().await.unwrap();
    let host: Host = "hello.localhost".parse().unwrap();
    let context = Context::new(world.clock.clone());
    // Everything that is to go was there.
    assert!(matches!(world.ingress.request(&host), MemoryAnswer::Instance(_)));
    assert!(!world.logs.read(&LogQuery::of(app.id.clone())).await.unwrap().lines.is_empty());
    assert_eq!(records(&world, "release", "app").await.len(), 2);
    assert_eq!(records(&world, "deployment", "app").await.len(), 2);
    assert_eq!(records(&world, "route", "host").await, ["hello.localhost"]);
    let spec = world.store.get(&Scope::System, "deployment_spec", again.id().as_str());
    assert!(spec.await.unwrap().is_some());

    let deletion = platform.apps().delete("hello").await.unwrap();
    assert_eq!(deletion.outcome().await.unwrap().state, DeploymentState::Deleted);
    assert!(world.host.instances().is_empty());
    assert!(world.host.images().is_empty());
    assert!(world.host.networks().is_empty());
    assert!(world.git.fetched(&app.org, &url()).is_empty());
    assert!(matches!(world.ingress.request(&host), MemoryAnswer::Unknown));
    assert!(world.ingress.serving(&context, &host).await.unwrap().unwrap().route.is_none());
    assert!(world.logs.read(&LogQuery::of(app.id.clone())).await.unwrap().lines.is_empty());
    assert!(records(&world, "app", "id").await.is_empty());
    assert!(records(&world, "app_status", "id").await.is_empty());
    assert!(records(&world, "release", "app").await.is_empty());
    assert!(records(&world, "route", "host").await.is_empty());
    // The deletion itself can be looked up for a while.
    assert_eq!(records(&world, "deployment", "app").await, [deletion.id().as_str()]);
    for id in [again.id(), deletion.id()] {
        let spec = world.store.get(&Scope::System, "deployment_spec", id.as_str()).await.unwrap();
        assert!(spec.is_none(), "the specification of {id} is left");
    }
    // An address stays known while it rests, and nobody has it.
    for address in world.store.scan(&addresses()).await.unwrap().items {
        let address: serde_json::Value = serde_json::from_slice(&address.body).unwrap();
        assert!(address.get("freed_at").is_some(), "{address}");
    }
    let mut feed = platform.events(Position(0));
    loop {
        let recorded = futures::StreamExt::next(&mut feed).await.unwrap().unwrap();
        if recorded.event == (Event::AppDeleted { name: app.name.clone() }) {
            break;
        }
    }
    live(&platform, "hello").await;
}

fn addresses() -> Scan {
    Scan {
        scope: Scope::System,
        kind: "address",
        index: "org",
        range: IndexRange::all(),
        descending: false,
        limit: 100,
        cursor: None,
    }
}

#[tokio::test(start_paused = true)]
async fn apps_deleted_at_once_leave_neither_network_nor_mirror() {
    let world = World::new();
    let program = Program { ignores_stop: true, ..Program::default() };
    world.push_scripted("one", Script { program, ..Script::default() });
    let platform = world.platform().await;
    let apps = platform.apps();
    for name in ["one", "two", "three"] {
        live(&platform, name).await;
    }
    let deletions = ["one", "two", "three"].map(|name| apps.delete(name));
    for deletion in futures::future::join_all(deletions).await {
        assert_eq!(deletion.unwrap().outcome().await.unwrap().state, DeploymentState::Deleted);
    }
    assert!(world.host.networks().is_empty());
    assert!(world.git.fetched(&OrgId::default_org(), &url()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_another_app_shares_stays() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "one").await;
    live(&platform, "two").await;
    platform.apps().delete("one").await.unwrap().outcome().await.unwrap();
    assert_eq!(world.host.networks(), [OrgId::default_org()]);
    assert!(!world.git.fetched(&OrgId::default_org(), &url()).is_empty());
    assert_eq!(world.host.instances().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_repository_that_an_app_had_is_forgotten_with_it() {
    let world = World::new();
    world.push_page("one");
    let other: GitUrl = "https://git.example.com/team/other.git".parse().unwrap();
    world.git.commit(&other, &branch("main"), MemoryFiles::from([("index.html", "other")]));
    let platform = world.platform().await;
    let app = live(&platform, "hello").await;
    let changes = AppChanges { repository: Some(other.clone()), ..AppChanges::default() };
    let updated = platform.apps().update("hello", changes, None).await.unwrap();
    updated.deployment.unwrap().outcome().await.unwrap();
    platform.apps().delete("hello").await.unwrap().outcome().await.unwrap();
    for url in [url(), other] {
        assert!(world.git.fetched(&app.org, &url).is_empty(), "the mirror of {url} is left");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_waits_for_what_still_uses_its_images() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    // Something that is not the platform's runs the image: the engine refuses to remove it.
    let image = world.host.images().remove(0);
    world.host.hold_image(&image);
    let deletion = platform.apps().delete("hello").await.unwrap();
    while deletion.get().await.unwrap().step != Some(Step::Purge) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(deletion.get().await.unwrap().state, DeploymentState::Stopping);
    world.host.release_image(&image);
    deletion.outcome().await.unwrap();
    assert!(world.host.images().is_empty());
    assert!(world.host.networks().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_held_up_for_ever_fails_as_the_platforms_and_can_be_repeated() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    let image = world.host.images().remove(0);
    world.host.hold_image(&image);
    let error = platform.apps().delete("hello").await.unwrap().outcome().await.unwrap_err();
    assert_eq!(error.whose(), paas_core::Fault::Platform);
    assert!(error.hinted().is_some());
    world.host.release_image(&image);
    platform.apps().delete("hello").await.unwrap().outcome().await.unwrap();
    assert!(platform.apps().check_name("hello").await.unwrap().is_available);
}

#[tokio::test(start_paused = true)]
async fn an_app_can_be_deleted_before_it_was_ever_deployed() {
    let world = World::new();
    let platform = world.platform().await;
    platform.apps().create(new_app("hello").without_deploying()).await.unwrap();
    platform.apps().delete("hello").await.unwrap().outcome().await.unwrap();
    assert!(platform.apps().list(10, None).await.unwrap().items.is_empty());
}
