//! Requests that come twice with the same key: one effect.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::sync::Arc;
use std::time::Duration;

use paas_core::testing::chaos::{Chaos, ChaosPlan, Mischief};
use paas_core::{Apps, DeployOptions, Kind, Platform};
use world::{World, live, new_app};

fn keyed(platform: &Platform, key: &str, asked: &str) -> Apps {
    platform.apps().repeatable(key.parse().unwrap(), &[asked])
}

async fn operations(platform: &Platform) -> usize {
    platform.apps().deployments("hello", 100, None).await.unwrap().items.len()
}

#[tokio::test(start_paused = true)]
async fn a_repeated_creation_makes_one_app() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let create = async || keyed(&platform, "key", "create hello").create(new_app("hello")).await.unwrap();
    let (one, two) = tokio::join!(create(), create());
    assert_eq!(one.app.id, two.app.id);
    one.deployment.unwrap().outcome().await.unwrap();
    let late = create().await;
    assert_eq!((&late.app.id, late.view().status.live.is_some()), (&two.app.id, true));
    assert_eq!(late.first_deployment().unwrap().id(), two.first_deployment().unwrap().id());
    // Without the key, or with another, the name is taken.
    let taken = platform.apps().create(new_app("hello")).await.unwrap_err();
    assert_eq!(taken.reason(), Some("name_taken"));
    let taken = keyed(&platform, "other", "create hello").create(new_app("hello")).await.unwrap_err();
    assert_eq!(taken.reason(), Some("name_taken"));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_deployment_is_the_same_one_for_a_day() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    let deploy = async |key: &str| {
        let apps = keyed(&platform, key, "deploy hello");
        apps.deploy("hello", DeployOptions::default()).await.unwrap().id().clone()
    };
    let (first, again) = (deploy("key").await, deploy("key").await);
    assert_eq!(first, again);
    tokio::time::sleep(Duration::from_secs(23 * 3600)).await;
    assert_eq!(deploy("key").await, first);
    assert_ne!(deploy("other").await, first);
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_ne!(deploy("key").await, first, "a day later it is a new request");
    assert_eq!(operations(&platform).await, 4);
}

#[tokio::test(start_paused = true)]
async fn another_request_with_the_same_key_is_refused() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    keyed(&platform, "key", "restart hello").restart("hello").await.unwrap();
    let error = keyed(&platform, "key", "stop hello").stop("hello").await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Invalid, Some("idempotency_key_reused")));
    assert!(error.hinted().is_some());
    let other_org = "org_00000000000000000000000002".parse().unwrap();
    let theirs = platform.org(&other_org).repeatable("key".parse().unwrap(), &["create"]);
    theirs.create(new_app("theirs")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_answer_was_lost_can_be_repeated() {
    let world = World::new();
    world.push_page("one");
    let lost = ChaosPlan::calm().nth("store.commit", 1, Mischief::LoseReply);
    let store = Chaos::new(world.store.clone(), world.clock.clone(), 1, lost);
    let asking = world.asking().await;
    let platform = world.builder().store(Arc::new(store)).start().await.unwrap();
    let create = async || keyed(&platform, "key", "create hello").create(new_app("hello")).await;
    assert_eq!(create().await.unwrap_err().kind(), Kind::Unavailable);
    let created = create().await.unwrap();
    created.deployment.unwrap().outcome().await.unwrap();
    assert_eq!(operations(&asking).await, 1);
}
