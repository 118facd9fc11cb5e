//! For operators, and for those who write clients.

use std::time::Duration;

use http::Method;
use paas_core::Outcome;
use serde_json::{Value, json};

use crate::prometheus;
use crate::world::World;

#[tokio::test]
async fn it_lives_and_is_ready() {
    let world = World::new().await;
    assert_eq!(world.get("/livez").await.expect(200).text, "ok\n");
    for path in ["/readyz", "/health"] {
        assert_eq!(world.get(path).await.expect(200).json()["ready"], true);
    }
    let version = world.get("/v1/version").await.expect(200).json();
    assert_eq!(version["api"], "v1");
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads_and_tell_of_calls_steps_and_waiting_work() {
    let world = World::new().await;
    world.platform.registry().record("git.fetch", Outcome::Ok, Duration::from_millis(1));
    world.live("hello").await;
    let metrics = world.get("/metrics").await.expect(200);
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let samples = prometheus::parse(&metrics.text);
    for (sample, value) in [
        ("paas_work_waiting{class=\"build\"}", 0.0),
        ("paas_http_streams", 0.0),
        ("paas_part_up{part=\"engine\"}", 1.0),
        ("paas_leases_lost_total", 0.0),
        ("paas_call_duration_seconds_count{operation=\"git.fetch\",outcome=\"ok\"}", 1.0),
        ("paas_call_duration_seconds_bucket{operation=\"git.fetch\",outcome=\"ok\",le=\"0.001\"}", 1.0),
        ("paas_step_duration_seconds_count{step=\"verify\",outcome=\"succeeded\"}", 1.0),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample}: {}", metrics.text);
    }
    for leak in ["hello", "app_", "dpl_", "org_"] {
        assert!(!metrics.text.contains(leak), "{leak}: labels are bounded: {}", metrics.text);
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_what_to_do_to_those_with_the_token_alone() {
    let world = World::new().await;
    world.host.stop_engine();
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status, 503);
    let told = ready.json();
    let problem = &told["problems"][0];
    assert_eq!(
        (&told["ready"], &problem["part"], &problem["waiting"]),
        (&json!(false), &json!("engine"), &json!(0))
    );
    for field in ["message", "hint"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {told}");
    }
    assert!(problem["since"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{told}");
    let open = world.raw(Method::GET, "/readyz", &[], "").await;
    assert_eq!((open.status.as_u16(), open.json()), (503, json!({"ready": false})));
    world.host.start_engine();
    world.until("it is ready", async || world.get("/readyz").await.status == 200).await;
}

#[tokio::test]
async fn every_answer_has_an_id_of_its_own() {
    let world = World::new().await;
    let one = world.get("/v1/apps").await.expect(200).header("request-id").to_owned();
    let two = world.get("/v1/apps").await.expect(200).header("request-id").to_owned();
    assert_ne!(one, two);
}

#[tokio::test]
async fn the_description_is_complete_and_as_it_was() {
    let world = World::new().await;
    let described = world.get("/openapi.json").await.expect(200).json();
    assert!(described["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(described, serde_json::to_value(paas_http::openapi()).unwrap());
    let paths = described["paths"].as_object().unwrap();
    for path in [
        "/v1/apps",
        "/v1/apps/{app}",
        "/v1/app-names/{name}",
        "/v1/apps/{app}/status",
        "/v1/apps/{app}/actions/restart",
        "/v1/apps/{app}/actions/stop",
        "/v1/apps/{app}/actions/start",
        "/v1/apps/{app}/releases",
        "/v1/apps/{app}/rollbacks",
        "/v1/apps/{app}/deployments",
        "/v1/apps/{app}/logs",
        "/v1/apps/{app}/logs/stream",
        "/v1/deployments/{deployment}",
        "/v1/deployments/{deployment}/wait",
        "/v1/deployments/{deployment}/actions/cancel",
        "/v1/deployments/{deployment}/actions/abandon",
        "/v1/deployments/{deployment}/events",
        "/v1/deployments/{deployment}/events/stream",
        "/v1/deployments/{deployment}/logs",
        "/v1/deployments/{deployment}/logs/stream",
        "/livez",
        "/readyz",
        "/health",
        "/metrics",
        "/v1/version",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    let mut ids: Vec<_> = paths
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .map(|endpoint| endpoint["operationId"].clone())
        .collect();
    let all = ids.len();
    ids.sort_by_key(Value::to_string);
    ids.dedup();
    assert_eq!(ids.len(), all, "two endpoints have one operation id");
    let schemas = described["components"]["schemas"].as_object().unwrap();
    for reference in references(&described) {
        assert!(
            schemas.contains_key(reference.strip_prefix("#/components/schemas/").unwrap()),
            "{reference}"
        );
    }
    insta::assert_json_snapshot!(described);
}

/// Every `$ref` within a document.
fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value {
                Value::String(reference) if name == "$ref" => vec![reference.clone()],
                value => references(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn the_pages_to_read_it_come_from_here_alone() {
    let world = World::new().await;
    let index = world.get("/docs/").await.expect(200).text;
    let mut scripts = 0;
    for (attribute, rest) in index.split("=\"").zip(index.split("=\"").skip(1)) {
        if attribute.ends_with("src") || attribute.ends_with("href") {
            let target = rest.split('"').next().unwrap();
            assert!(!target.contains("//"), "{target}");
            let file = world.get(&format!("/docs/{}", target.trim_start_matches("./"))).await;
            assert_eq!(file.status, 200, "{target}");
            scripts += 1;
        }
    }
    assert!(scripts > 2);
    let initializer = world.get("/docs/swagger-initializer.js").await.expect(200).text;
    assert!(initializer.contains("/openapi.json") && !initializer.contains("https://"));
    assert_eq!(json!(world.get("/docs").await.status.as_u16()), json!(303));
}
