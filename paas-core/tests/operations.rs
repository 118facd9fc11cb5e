//! What follows from operations that fail, are cancelled, or meet each other.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::time::Duration;

use paas_core::memory::Script;
use paas_core::{AppChanges, DeploymentHandle, DeploymentState, Step};
use world::{World, new_app};

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
