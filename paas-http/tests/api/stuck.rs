//! A deployment whose journal the server can't read.

use paas_core::memory::Script;
use paas_core::{Append, Batch, Scope, StateStore, StreamId};
use serde_json::json;

use crate::world::World;

/// A build of an app that is live, in whose journal stands what a newer server wrote; answers the deployment's id.
async fn stuck(world: &World) -> String {
    world.live("hello").await;
    world.push("slow", Script { build_time: std::time::Duration::from_secs(600), ..Script::default() });
    let deployment = world.post("/v1/apps/hello/deployments", json!({})).await.expect(202).json();
    world.until("a build runs", async || world.host.builds_running() > 0).await;
    let id = deployment["id"].as_str().unwrap().to_owned();
    let stream = StreamId::new(id.as_str());
    let before = world.store.events(&Scope::System, &stream, 0, 100).await.unwrap();
    let append = Append {
        scope: Scope::Org(paas_core::OrgId::default_org()),
        stream,
        expect: before.len() as u64,
        at: before[0].at,
        events: vec![br#"{"type":"from_the_future"}"#.to_vec()],
    };
    world.store.commit(Batch { appends: vec![append], ..Batch::default() }).await.unwrap();
    let path = format!("/v1/deployments/{id}");
    let is_stuck = async || world.get(&path).await.expect(200).json()["state"] == "stuck";
    world.until("it is stuck", is_stuck).await;
    id
}

#[tokio::test]
async fn it_is_shown_as_stuck_with_the_reason_and_all_that_is_known() {
    let world = World::new().await;
    let id = stuck(&world).await;
    let path = format!("/v1/deployments/{id}");
    let shown = world.get(&path).await.expect(200).json();
    assert_eq!((&shown["step"], &shown["settled_at"]), (&json!("build"), &json!(null)));
    assert_eq!((&shown["failure"]["code"], &shown["failure"]["retryable"]), (&json!("stuck"), &json!(false)));
    assert!(shown["failure"]["detail"].as_str().unwrap().contains("from_the_future"));
    assert!(shown["failure"]["hint"].as_str().unwrap().contains("abandon"));
    let events = world.get(&format!("{path}/events")).await.expect(200).json();
    let last = events["items"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["type"], last["version"].to_string()),
        (&json!("other"), events["cursor"].as_str().unwrap().to_owned())
    );
    let waited = world.get(&format!("{path}/wait?for=running")).await.expect(200).json();
    assert_eq!((&waited["reached"], &waited["deployment"]["state"]), (&json!(false), &json!("stuck")));
    world.get("/v1/apps/hello").await.expect(200);
    world.get("/v1/apps/hello/deployments").await.expect(200);
    world.post(&format!("{path}/actions/cancel"), json!({})).await.expect_code(409, "stuck");
    let not_ready = async || world.get("/readyz").await.status == 503;
    world.until("the server says so", not_ready).await;
    let ready = world.get("/readyz").await.json();
    let message = ready["problems"][0]["message"].as_str().unwrap();
    assert!(message.contains("hello") && message.contains(&id) && message.contains("from_the_future"));
}

#[tokio::test]
async fn it_can_be_abandoned_and_the_app_deployed_again() {
    let world = World::new().await;
    let id = stuck(&world).await;
    let path = format!("/v1/deployments/{id}");
    let answer = world.post(&format!("{path}/actions/abandon"), json!({})).await.expect(202);
    assert_eq!(answer.header("location"), path);
    let settled = world.settled(&answer.json()).await;
    assert_eq!((&settled["state"], &settled["failure"]["code"]), (&json!("failed"), &json!("abandoned")));
    let frames = world.stream(&format!("{path}/events/stream"), &[]).await.all().await;
    let types: Vec<_> = frames.iter().rev().skip(1).take(5).map(|frame| frame.data["type"].clone()).collect();
    assert_eq!(types, ["ended", "undo_finished", "undo_started", "abandoned", "other"]);
    assert_eq!(frames.last().unwrap().data["reason"], "complete");
    // Twice is once.
    world.post(&format!("{path}/actions/abandon"), json!({})).await.expect(202);
    world.push("two", Script::default());
    let next = world.post("/v1/apps/hello/deployments", json!({})).await.expect(202).json();
    assert_eq!(world.settled(&next).await["state"], "running");
    let ready = async || world.get("/readyz").await.status == 200;
    world.until("the server is ready again", ready).await;
    let path = format!("/v1/deployments/{}/actions/abandon", next["id"].as_str().unwrap());
    let refused = world.post(&path, json!({})).await.expect_code(409, "state");
    assert!(refused.json()["hint"].is_string());
    world.post("/v1/deployments/dpl_00000000000000000000000000/actions/abandon", json!({})).await.expect(404);
}
