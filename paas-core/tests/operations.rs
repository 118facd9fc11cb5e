//! What follows from operations that fail, are cancelled, or meet each other.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use paas_core::memory::Script;
use paas_core::{
    AppChanges, AppState, DeploymentHandle, DeploymentState, DesiredState, Env, Event, Fault, Kind, NewApp,
    Position, ReleaseNumber, Step, StreamId,
};
use world::{World, live, new_app};

fn slow(seconds: u64) -> Script {
    Script { build_time: Duration::from_secs(seconds), ..Script::default() }
}

fn greeting(text: &str) -> AppChanges {
    AppChanges { env: [("GREETING".parse().unwrap(), Some(text.into()))].into(), ..AppChanges::default() }
}

/// Waits until the operation is at a step.
async fn reach(handle: &DeploymentHandle, step: Step) {
    while handle.get().await.unwrap().step != Some(step) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_configuration_changed_during_the_first_deployment_goes_live() {
    let world = World::new();
    world.push_scripted("slow", slow(600));
    let platform = world.platform().await;
    let first = platform.apps().create(new_app("hello")).await.unwrap().deployment.unwrap();
    reach(&first, Step::Build).await;
    let updated = platform.apps().update("hello", greeting("Hello"), None).await.unwrap();
    assert!(updated.effects.redeploy);
    updated.deployment.expect("a deployment with the new configuration").outcome().await.unwrap();
    assert_eq!(first.settled().await.unwrap().state, DeploymentState::Superseded);
    let release = platform.apps().releases("hello", 1, None).await.unwrap().items.remove(0);
    assert_eq!(release.config, platform.apps().get("hello").await.unwrap().app.config);
    assert_eq!(release.config.env_names.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_changed_before_the_first_deployment_is_kept_for_it() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let apps = platform.apps();
    apps.create(new_app("hello").without_deploying()).await.unwrap();
    assert!(apps.update("hello", greeting("Hello"), None).await.unwrap().deployment.is_none());
    platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    let release = apps.releases("hello", 1, None).await.unwrap().items.remove(0);
    assert_eq!(release.config.env_names.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_start_failed_can_be_started_again() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let apps = platform.apps();
    live(&platform, "hello").await;
    apps.stop("hello").await.unwrap().outcome().await.unwrap();
    world.host.forget_images();
    apps.start("hello").await.unwrap().outcome().await.unwrap_err();
    let view = apps.get("hello").await.unwrap();
    assert_eq!((view.state, view.app.desired), (AppState::Stopped, DesiredState::Stopped));
    assert_eq!(apps.restart("hello").await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(apps.stop("hello").await.unwrap_err().kind(), Kind::Conflict);
    apps.start("hello").await.expect("it does not run: it can be started").settled().await.unwrap();
    platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    let view = apps.get("hello").await.unwrap();
    assert_eq!((view.state, view.app.desired), (AppState::Running, DesiredState::Running));
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_stop_was_cancelled_runs() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let apps = platform.apps();
    live(&platform, "hello").await;
    world.ingress.fail_next(3);
    let stop = apps.stop("hello").await.unwrap();
    reach(&stop, Step::Route).await;
    stop.cancel().await.unwrap();
    assert_eq!(stop.settled().await.unwrap().state, DeploymentState::Cancelled);
    let view = apps.get("hello").await.unwrap();
    assert_eq!((view.state, view.app.desired), (AppState::Running, DesiredState::Running));
    assert_eq!(apps.start("hello").await.unwrap_err().kind(), Kind::Conflict);
    let updated = apps.update("hello", greeting("Hello"), None).await.unwrap();
    updated.deployment.expect("the app runs: the change reaches it").outcome().await.unwrap();
    apps.restart("hello").await.unwrap().outcome().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_failed_leaves_the_configuration() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let apps = platform.apps();
    live(&platform, "hello").await;
    let updated = apps.update("hello", greeting("Hello"), None).await.unwrap();
    updated.deployment.unwrap().outcome().await.unwrap();
    let before = apps.get("hello").await.unwrap().app.config;

    // The image is there while the rollback is accepted, and gone when it begins.
    world.git.hold();
    let ahead = platform.deploy("hello").await.unwrap();
    reach(&ahead, Step::Fetch).await;
    let rollback = apps.rollback("hello", ReleaseNumber(1)).await.unwrap();
    world.host.forget_images();
    world.git.release();
    rollback.outcome().await.unwrap_err();
    let after = apps.get("hello").await.unwrap();
    assert_eq!(after.state, AppState::Running);
    assert_eq!(after.app.config, before);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_was_cancelled_while_it_waited_leaves_the_configuration() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let apps = platform.apps();
    live(&platform, "hello").await;
    let updated = apps.update("hello", greeting("Hello"), None).await.unwrap();
    updated.deployment.unwrap().outcome().await.unwrap();
    let before = apps.get("hello").await.unwrap().app.config;
    world.ingress.fail_next(1000);
    let ahead = apps.restart("hello").await.unwrap();
    reach(&ahead, Step::Verify).await;
    let rollback = apps.rollback("hello", ReleaseNumber(1)).await.unwrap();
    assert!(apps.get("hello").await.unwrap().app.config.env_names.is_empty());
    assert_eq!(rollback.cancel().await.unwrap().state, DeploymentState::Cancelled);
    assert_eq!(apps.get("hello").await.unwrap().app.config, before);
    world.ingress.fail_next(0);
    ahead.outcome().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_cancelled_stop_decides_what_the_app_should_do() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let apps = platform.apps();
    live(&platform, "hello").await;
    world.ingress.fail_next(1000);
    let stop = apps.stop("hello").await.unwrap();
    reach(&stop, Step::Route).await;
    let start = apps.start("hello").await.expect("the app is being stopped");
    start.cancel().await.unwrap();
    assert_eq!(apps.get("hello").await.unwrap().app.desired, DesiredState::Stopped);
    world.ingress.fail_next(0);
    stop.outcome().await.unwrap();
    assert_eq!(apps.get("hello").await.unwrap().state, AppState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn more_operations_than_may_wait_are_refused() {
    let mut world = World::new();
    world.settings.queue_limit = 2;
    world.push_page("one");
    let platform = world.platform().await;
    let apps = platform.apps();
    live(&platform, "hello").await;
    world.git.hold();
    let first = platform.deploy("hello").await.unwrap();
    reach(&first, Step::Fetch).await;
    let second = apps.restart("hello").await.unwrap();
    let third = apps.restart("hello").await.unwrap();
    let error = apps.restart("hello").await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::RateLimited, Fault::User));
    assert!(error.hinted().is_some());
    assert_eq!(first.queue_position().await.unwrap(), None, "it does not wait");
    assert_eq!(second.queue_position().await.unwrap(), Some(1));
    assert_eq!(third.queue_position().await.unwrap(), Some(2));
    world.git.release();
    third.outcome().await.unwrap();
    apps.restart("hello").await.unwrap().outcome().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_largest_environments_are_stored_and_run() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    // What takes six bytes for one in the record.
    let mut escapes = Env::default();
    let per_value = (Env::MAX_TOTAL_BYTES / 16 - 3) / 6;
    for at in 10..26 {
        escapes.set(format!("V{at}").parse().unwrap(), "\u{1}".repeat(per_value).into()).unwrap();
    }
    assert!(escapes.set("W".parse().unwrap(), "\u{1}".repeat(64).into()).is_err(), "it is at the limit");
    let mut names = Env::default();
    for at in 0..Env::MAX_VARIABLES {
        names.set(format!("{}{at:03}", "V".repeat(253)).parse().unwrap(), "x".into()).unwrap();
    }
    for (name, env) in [("escapes", escapes), ("names", names)] {
        let new = NewApp { env, ..new_app(name) };
        platform.apps().create(new).await.unwrap().deployment.unwrap().outcome().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn every_change_of_an_app_is_an_event_of_its_own_stream() {
    let world = World::new();
    let platform = world.platform().await;
    let created = platform.apps().create(new_app("hello").without_deploying()).await.unwrap();
    for number in 0..9 {
        platform.apps().update("hello", greeting(&number.to_string()), None).await.unwrap();
    }
    let events: Vec<_> = platform.events(Position(0)).take(10).try_collect().await.unwrap();
    assert!(events.iter().all(|recorded| recorded.stream == StreamId::from(&created.app.id)));
    assert!(events.iter().map(|recorded| recorded.version).eq(1..=10));
    assert!(events[1..].iter().all(|recorded| matches!(recorded.event, Event::AppChanged { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_being_deleted_is_not_changed() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    platform.apps().stop("hello").await.unwrap().outcome().await.unwrap();
    world.ingress.fail_next(5);
    let deletion = platform.apps().delete("hello").await.unwrap();
    let error = platform.apps().update("hello", greeting("Hello"), None).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Conflict, Some("state")));
    deletion.outcome().await.unwrap();
}
