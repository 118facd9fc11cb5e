use std::time::Duration;

use paas_core::memory::Script;
use paas_core::{Error, Failure, Kind};
use serde_json::{Value, json};

use crate::world::{World, new_app};

fn slow() -> Script {
    Script { build_time: Duration::from_secs(600), ..Script::default() }
}

async fn until_building(world: &World) {
    world.until("a build runs", async || world.host.builds_running() > 0).await;
}

#[tokio::test]
async fn a_deployment_is_visible_at_once_where_its_location_says() {
    let world = World::new().await;
    world.live("hello").await;
    let answer = world.post("/v1/apps/hello/deployments", json!({"no_cache": true})).await.expect(202);
    let deployment = answer.json();
    let shown = world.get(answer.header("location")).await.expect(200).json();
    assert_eq!(shown["id"], deployment["id"]);
    let list = world.get("/v1/apps/hello/deployments").await.expect(200).json();
    assert_eq!(list["items"][0]["id"], deployment["id"]);
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let settled = world.settled(&deployment).await;
    assert_eq!((&settled["state"], &settled["cached"]), (&json!("running"), &json!(false)));
    let again =
        world.send(http::Method::POST, "/v1/apps/hello/deployments", &[], "").await.expect(202).json();
    assert_eq!(world.settled(&again).await["cached"], true);
}

#[tokio::test]
async fn waiting_answers_200_when_the_time_is_up() {
    let world = World::new().await;
    world.push("slow", slow());
    let created = world.post("/v1/apps", new_app("hello")).await.expect(201).json();
    let path = format!("/v1/deployments/{}", created["deployment"]["id"].as_str().unwrap());
    for query in ["for=running&timeout=0", "for=settled&timeout=0", "timeout=0"] {
        let waited = world.get(&format!("{path}/wait?{query}")).await.expect(200).json();
        assert_eq!(waited["reached"], false);
        assert_eq!(waited["deployment"]["id"], created["deployment"]["id"]);
    }
    for query in ["for=ever", "timeout=-1", "timeout=x", "tiemout=1"] {
        world.get(&format!("{path}/wait?{query}")).await.expect_code(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn a_failed_deployment_tells_step_fault_lines_and_hint_as_an_error_does() {
    let world = World::new().await;
    let failure = Failure::from(
        &Error::new(Kind::BuildFailed, "docker.build", "`pip install` ended with code 1")
            .evidence(["ERROR: No matching distribution".to_owned()])
            .hint("check requirements.txt"),
    );
    let script = Script {
        build_failure: Some(failure),
        build_output: vec!["collecting".to_owned()],
        ..Script::default()
    };
    world.push("broken", script);
    let created = world.post("/v1/apps", new_app("hello")).await.expect(201).json();
    let id = created["deployment"]["id"].as_str().unwrap();
    let waited = world.get(&format!("/v1/deployments/{id}/wait?for=running")).await.expect(200).json();
    assert_eq!(waited["reached"], false);
    let deployment = world.get(&format!("/v1/deployments/{id}")).await.expect(200).json();
    assert_eq!((&deployment["state"], &deployment["step"]), (&json!("failed"), &json!("build")));
    let failure = &deployment["failure"];
    assert_eq!(failure["stage"], "build");
    assert_eq!(failure["fault"], "user");
    assert_eq!(failure["code"], "build_failed");
    assert_eq!(failure["evidence"], json!(["ERROR: No matching distribution"]));
    assert_eq!(failure["hint"], "check requirements.txt");
    let problem = world.get("/v1/apps/nothing").await.expect(404).json();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(failure), keys(&problem));
    let cursor = failure["log_cursor"].as_str().unwrap();
    let path = format!("/v1/deployments/{id}/logs?direction=backward&cursor={cursor}");
    assert!(world.get(&path).await.expect(200).text.contains("collecting"));
}

#[tokio::test]
async fn a_build_can_be_cancelled_and_what_is_live_can_not() {
    let world = World::new().await;
    let live = world.live("hello").await;
    world.push("slow", slow());
    let deployment = world.post("/v1/apps/hello/deployments", json!({})).await.expect(202).json();
    until_building(&world).await;
    let path = format!("/v1/deployments/{}/actions/cancel", deployment["id"].as_str().unwrap());
    world.post(&path, json!({})).await.expect(202);
    assert_eq!(world.settled(&deployment).await["state"], "cancelled");
    assert_eq!(world.host.builds_running(), 0);
    world.post(&path, json!({})).await.expect(202);
    let path = format!("/v1/deployments/{}/actions/cancel", live["deployment"]["id"].as_str().unwrap());
    world.post(&path, json!({})).await.expect_code(409, "state");
}

#[tokio::test]
async fn more_than_may_wait_are_429() {
    let world =
        World::with_settings(paas_core::Settings { queue_limit: 2, ..paas_core::Settings::default() }).await;
    world.live("hello").await;
    world.push("slow", slow());
    world.post("/v1/apps/hello/deployments", json!({})).await.expect(202);
    until_building(&world).await;
    let restart = async || world.post("/v1/apps/hello/actions/restart", json!({})).await;
    for _ in 0..2 {
        restart().await.expect(202);
    }
    let refused = restart().await.expect_code(429, "rate_limited");
    assert_eq!(refused.json()["fault"], "user");
    assert!(refused.json()["hint"].is_string());
    let listed = world.get("/v1/apps/hello/deployments").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn one_that_waits_for_a_build_slot_says_at_which_place() {
    let world = World::new().await;
    world.push("slow", slow());
    let apps = ["one", "two", "three"];
    for name in apps {
        world.post("/v1/apps", new_app(name)).await.expect(201);
    }
    until_building(&world).await;
    let place = async |name: &str| {
        let app = world.get(&format!("/v1/apps/{name}")).await.expect(200).json();
        let path = format!("/v1/deployments/{}", app["deployment"]["id"].as_str().unwrap());
        world.get(&path).await.expect(200).json()["queue_position"].as_u64()
    };
    let waits = async || {
        let places = [place("one").await, place("two").await, place("three").await];
        places.iter().flatten().any(|place| *place >= 1)
    };
    world.until("one waits behind another", waits).await;
}

#[tokio::test]
async fn events_are_listed_page_by_page() {
    let world = World::new().await;
    let created = world.live("hello").await;
    let path = format!("/v1/deployments/{}/events", created["deployment"]["id"].as_str().unwrap());
    let handle_over = world.stream(&format!("{path}/stream"), &[]).await.all().await;
    let whole = world.get(&path).await.expect(200).json();
    let items = whole["items"].as_array().unwrap();
    assert_eq!((&items[0]["type"], &items[0]["operation"]), (&json!("accepted"), &json!("deploy")));
    assert_eq!(
        (&items[1]["type"], &items[1]["step"], &items[1]["attempt"]),
        (&json!("step_started"), &json!("fetch"), &json!(1))
    );
    assert!(items[2]["output"]["commit"].is_string());
    let last = items.last().unwrap();
    assert_eq!((&last["type"], &last["outcome"]), (&json!("ended"), &json!("succeeded")));
    let versions: Vec<_> = items.iter().map(|item| item["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, (1..=items.len() as u64).collect::<Vec<_>>());
    assert_eq!(handle_over.len(), items.len() + 1);

    let mut read = Vec::new();
    let mut next = "?limit=2&cursor=0".to_owned();
    while read.len() < items.len() {
        let answer = world.get(&format!("{path}{next}")).await.expect(200);
        let page = answer.json();
        read.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert!(answer.header("link").is_empty());
            break;
        };
        next = format!("?limit=2&cursor={cursor}");
        assert_eq!(answer.header("link"), format!("<{next}>; rel=\"next\""));
    }
    assert_eq!(&read, items);
    for bad in ["x", "-1", "1.5"] {
        world.get(&format!("{path}?cursor={bad}")).await.expect_code(400, "cursor");
    }
}

#[tokio::test]
async fn events_are_streamed_to_their_end_and_from_where_the_reader_was() {
    let world = World::new().await;
    let created = world.post("/v1/apps", new_app("hello")).await.expect(201).json();
    let path = format!("/v1/deployments/{}/events/stream", created["deployment"]["id"].as_str().unwrap());
    let frames = world.stream(&path, &[]).await.all().await;
    let (end, events) = frames.split_last().unwrap();
    assert_eq!((end.event.as_deref(), &end.id), (Some("end"), &None));
    assert_eq!(end.data["reason"], "complete");
    for (number, frame) in events.iter().enumerate() {
        assert_eq!(frame.id, Some((number + 1).to_string()));
        assert_eq!(frame.data["version"], number + 1);
    }
    assert_eq!(events.last().unwrap().data["type"], "ended");
    let by_header = world.stream(&path, &[("last-event-id", "3")]).await.all().await;
    let by_cursor = world.stream(&format!("{path}?cursor=3"), &[]).await.all().await;
    let both = world.stream(&format!("{path}?cursor=1"), &[("last-event-id", "3")]).await.all().await;
    for resumed in [by_header, by_cursor, both] {
        let ids: Vec<_> = resumed.iter().filter_map(|frame| frame.id.clone()).collect();
        assert_eq!(ids, (4..=events.len()).map(|id| id.to_string()).collect::<Vec<_>>());
    }
    world.get(&format!("{path}?cursor=x")).await.expect_code(400, "cursor");
}

#[tokio::test]
async fn a_stream_is_followed_while_things_happen_and_ends_with_the_server() {
    let world = World::new().await;
    world.push("slow", slow());
    let created = world.post("/v1/apps", new_app("hello")).await.expect(201).json();
    let id = created["deployment"]["id"].as_str().unwrap();
    let mut frames = world.stream(&format!("/v1/deployments/{id}/events/stream"), &[]).await;
    while frames.next().await.unwrap().data["step"] != "build" {}
    world.post(&format!("/v1/deployments/{id}/actions/cancel"), json!({})).await.expect(202);
    while frames.next().await.unwrap().event.is_none() {}
    assert!(frames.next().await.is_none());

    let next = world.post("/v1/apps/hello/deployments", json!({})).await.expect(202).json();
    until_building(&world).await;
    let path = format!("/v1/deployments/{}", next["id"].as_str().unwrap());
    let frames = world.stream(&format!("{path}/events/stream"), &[]).await;
    let wait = format!("{path}/wait?timeout=300");
    let (waited, frames, ()) = tokio::join!(world.get(&wait), frames.all(), async {
        world.closing.cancel();
    });
    assert_eq!(waited.expect(200).json()["reached"], false);
    let end = frames.last().unwrap();
    assert_eq!((end.event.as_deref(), &end.data["reason"]), (Some("end"), &json!("closing")));
}

#[tokio::test]
async fn streams_are_bounded_in_number() {
    let world = World::with_streams(1).await;
    world.push("slow", slow());
    let created = world.post("/v1/apps", new_app("hello")).await.expect(201).json();
    let path = format!("/v1/deployments/{}", created["deployment"]["id"].as_str().unwrap());
    let mut frames = world.stream(&format!("{path}/events/stream"), &[]).await;
    frames.next().await.unwrap();
    for more in ["/events/stream", "/logs/stream", "/wait"] {
        let refused = world.get(&format!("{path}{more}")).await.expect_code(503, "unavailable");
        assert!(!refused.header("retry-after").is_empty());
    }
    drop(frames);
    let has_room = async || world.get(&format!("{path}/wait?timeout=0")).await.status == 200;
    world.until("the place is free again", has_room).await;
}
