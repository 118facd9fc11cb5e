//! Bad requests: each is refused with the right status, and changes nothing.

use http::Method;
use paas_core::{NewApp, OrgId};
use serde_json::{Value, json};

use crate::world::{REPOSITORY, TOKEN, World, new_app};

#[tokio::test]
async fn json_that_is_none_is_400() {
    let world = World::new().await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep_object = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let twice = format!(r#"{{"name":"hello","repository":"{REPOSITORY}","name":"other"}}"#);
    let twice_inside = format!(r#"{{"name":"hello","repository":"{REPOSITORY}","env":{{"A":"1","A":"2"}}}}"#);
    let nan = format!(r#"{{"name":"hello","repository":"{REPOSITORY}","resources":{{"cpu_millis":NaN}}}}"#);
    for body in
        ["{", "nonsense", "{}{}", "{\"name\":}", "\u{0}", &deep, &deep_object, &twice, &twice_inside, &nan]
    {
        let answer = world.send(Method::POST, "/v1/apps", &[], body).await;
        answer.expect_code(400, "malformed_json");
    }
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let bad_utf8: &[u8] = b"{\"name\":\"\xff\xfe\"}";
    world.raw(Method::POST, "/v1/apps", &headers, bad_utf8).await.expect_code(400, "malformed_json");
    assert!(world.platform.apps().list(1, None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn json_of_the_wrong_shape_is_422_with_the_field_named() {
    let world = World::new().await;
    let with = |field: &str, value: serde_json::Value| {
        let mut new = new_app("hello");
        new[field] = value;
        new
    };
    for (body, field) in [
        (json!({"name": "hello"}), "repository"),
        (with("org_id", json!("org_1")), "org_id"),
        (with("role", json!("admin")), "role"),
        (with("name", json!(1)), "name"),
        (with("port", json!("80")), "port"),
        (with("port", json!(-1)), "port"),
        (with("port", json!(1.5)), "port"),
        (with("env", json!(["A"])), "env"),
        (with("env", json!({"A": 1})), "env.A"),
        (with("deploy", json!("yes")), "deploy"),
        (with("visibility", json!("hidden")), "visibility"),
        (with("resources", json!({"memory": 1})), "resources.memory"),
        (with("resources", json!({"memory_bytes": "1G"})), "resources.memory_bytes"),
        (with("health_check", json!({"timeout_seconds": "5"})), "health_check.timeout_seconds"),
        (json!([]), "the body"),
        (json!("hello"), "the body"),
    ] {
        let answer = world.post("/v1/apps", body.clone()).await.expect_code(422, "invalid");
        assert_eq!(answer.json()["errors"][0]["field"], field, "{body}: {answer:?}");
    }
    let deployed = world.post("/v1/apps", with("deploy", json!(false))).await.expect(201);
    for (body, field) in [
        (json!({"name": "other"}), "name"),
        (json!({"org_id": "x"}), "org_id"),
        (json!({"repository": null}), "repository"),
        (json!({"env": null}), "env"),
        (json!({"env": {"A": {}}}), "env.A"),
        (json!({"port": []}), "port"),
    ] {
        let answer = world.patch("/v1/apps/hello", body.clone()).await.expect_code(422, "invalid");
        assert_eq!(answer.json()["errors"][0]["field"], field, "{body}: {answer:?}");
    }
    assert_eq!(world.get("/v1/apps/hello").await.header("etag"), deployed.header("etag"));
    world.post("/v1/apps/hello/rollbacks", json!({})).await.expect(422);
    world.post("/v1/apps/hello/rollbacks", json!({"release": "v1"})).await.expect(422);
    world.post("/v1/apps/hello/deployments", json!({"cache": false})).await.expect(422);
}

#[tokio::test]
async fn a_body_of_more_than_a_mebibyte_is_413() {
    let world = World::new().await;
    let body = format!("\"{}\"", "x".repeat(2 * 1024 * 1024));
    world.send(Method::POST, "/v1/apps", &[], &body).await.expect_code(413, "body_too_large");
}

#[tokio::test]
async fn a_body_that_does_not_say_that_it_is_json_is_415() {
    let world = World::new().await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        let headers = [("content-type", content_type)];
        let answer = world.send(Method::POST, "/v1/apps", &headers, &new_app("hello").to_string()).await;
        answer.expect_code(415, "not_json");
    }
    let headers = [("content-type", "Application/JSON; charset=utf-8")];
    world.send(Method::POST, "/v1/apps", &headers, &new_app("hello").to_string()).await.expect(201);
}

/// An error's body without what differs between two requests.
fn shape(answer: &crate::world::Answer) -> serde_json::Value {
    let mut body = answer.json();
    body["request_id"] = json!(null);
    body
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_theirs_are_answered_alike() {
    let world = World::new().await;
    let stranger: OrgId = "org_00000000000000000000000001".parse().unwrap();
    let theirs =
        world.platform.org(&stranger).create(NewApp::new("theirs", REPOSITORY).unwrap()).await.unwrap();
    let deployment = theirs.deployment.unwrap();
    let (app, deployment) = (theirs.app.id.to_string(), deployment.id().to_string());

    let unknown = shape(&world.get("/v1/apps/app_00000000000000000000000000").await.expect(404));
    let segments =
        [app.as_str(), "theirs", "nothing", "a%2fb", "%2f", "%00", "%ff", "..;", "a..;b", "A", "app_x"];
    for segment in segments {
        for path in ["", "/status", "/releases", "/deployments", "/logs", "/logs/stream"] {
            let answer = world.get(&format!("/v1/apps/{segment}{path}")).await.expect(404);
            assert_eq!(shape(&answer), unknown, "{segment}{path}");
        }
        for path in ["/actions/restart", "/actions/stop", "/actions/start", "/deployments"] {
            let answer = world.post(&format!("/v1/apps/{segment}{path}"), json!({})).await.expect(404);
            assert_eq!(shape(&answer), unknown, "{segment}{path}");
        }
        let rollback = world.post(&format!("/v1/apps/{segment}/rollbacks"), json!({"release": 1})).await;
        assert_eq!(shape(&rollback.expect(404)), unknown);
        let patch = world.patch(&format!("/v1/apps/{segment}"), json!({"port": 1})).await;
        assert_eq!(shape(&patch.expect(404)), unknown);
        assert_eq!(shape(&world.delete(&format!("/v1/apps/{segment}")).await.expect(404)), unknown);
    }

    let unknown = shape(&world.get("/v1/deployments/dpl_00000000000000000000000000").await.expect(404));
    for segment in [deployment.as_str(), "x", "%2f", "%00", "..;", &app] {
        for path in ["", "/wait", "/events", "/events/stream", "/logs", "/logs/stream"] {
            let answer = world.get(&format!("/v1/deployments/{segment}{path}")).await.expect(404);
            assert_eq!(shape(&answer), unknown, "{segment}{path}");
        }
        let answer =
            world.post(&format!("/v1/deployments/{segment}/actions/cancel"), json!({})).await.expect(404);
        assert_eq!(shape(&answer), unknown);
    }
    for path in ["/v1/apps/..;/x", "/v1/apps/a/b/c", "/v1/../v1/x", "/v2/apps", "/"] {
        world.get(path).await.expect_code(404, "not_found");
    }
    assert!(world.get("/v1/apps").await.json()["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_name_that_another_org_has_is_taken_and_nothing_more_is_told() {
    let world = World::new().await;
    let stranger: OrgId = "org_00000000000000000000000001".parse().unwrap();
    let theirs = NewApp::new("theirs", "https://git.example.com/secret-team/x.git").unwrap();
    let theirs = world.platform.org(&stranger).create(theirs.without_deploying()).await.unwrap();
    world.post("/v1/apps", new_app("ours")).await.expect(201);
    let taken = world.post("/v1/apps", new_app("theirs")).await.expect_code(409, "name_taken");
    let by_us = world.post("/v1/apps", new_app("ours")).await.expect_code(409, "name_taken");
    assert_eq!(shape(&taken).to_string().replace("theirs", "ours"), shape(&by_us).to_string());
    for told in [theirs.app.id.as_str(), stranger.as_str(), "secret-team"] {
        assert!(!taken.text.contains(told), "{taken:?}");
    }
}

#[tokio::test]
async fn every_error_is_a_problem_also_where_pages_are() {
    let world = World::new().await;
    world.get("/docs/nothing-here").await.expect_code(404, "not_found");
    world.post("/docs", json!({})).await.expect_code(405, "method_not_allowed");
    world.post("/openapi.json", json!({})).await.expect_code(405, "method_not_allowed");
}

#[tokio::test]
async fn a_name_that_holds_a_value_is_not_repeated() {
    let world = World::new().await;
    let mut new = new_app("hello");
    new["env"] = json!({"KEY=canary": 1});
    let answer = world.post("/v1/apps", new).await.expect_code(422, "invalid");
    assert_eq!(answer.json()["errors"][0]["field"], "env.KEY");
    assert!(!answer.text.contains("canary"));
    let mut new = new_app("hello");
    new["token=canary"] = json!("x");
    let answer = world.post("/v1/apps", new).await.expect_code(422, "invalid");
    assert!(!answer.text.contains("canary"));
}

#[tokio::test]
async fn a_wrong_method_is_405_and_names_the_right_ones() {
    let world = World::new().await;
    for (method, path, allowed) in [
        (Method::POST, "/v1/apps/hello", "GET,HEAD,PATCH,DELETE"),
        (Method::DELETE, "/v1/apps", "GET,HEAD,POST"),
        (Method::GET, "/v1/apps/hello/actions/stop", "POST"),
        (Method::POST, "/livez", "GET,HEAD"),
        (Method::PUT, "/v1/version", "GET,HEAD"),
    ] {
        let answer = world.send(method, path, &[], "").await.expect_code(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), allowed, "{path}");
    }
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_400() {
    let world = World::new().await;
    world.live("hello").await;
    world.get("/v1/apps?page=2").await.expect_code(400, "invalid_parameter");
    world.get("/v1/apps?limit=1&limit=2").await.expect_code(400, "invalid_parameter");
    world.get("/v1/apps/hello/logs?form=now").await.expect_code(400, "invalid_parameter");
    let before = world.get("/v1/apps/hello/deployments").await.json();
    world
        .post("/v1/apps/hello/deployments?dry_run=true", json!({}))
        .await
        .expect_code(400, "unknown_parameter");
    world.delete("/v1/apps/hello?dry_run=true").await.expect_code(400, "unknown_parameter");
    assert_eq!(world.get("/v1/apps/hello/deployments").await.json(), before);
}

#[tokio::test]
async fn the_same_idempotency_key_has_one_effect() {
    let world = World::new().await;
    let keyed = async |path: &str, body: Value| {
        world.send(Method::POST, path, &[("idempotency-key", "b7a4")], &body.to_string()).await
    };
    let first = keyed("/v1/apps", new_app("hello")).await.expect(201).json();
    let again = keyed("/v1/apps", new_app("hello")).await.expect(201).json();
    assert_eq!((&again["id"], &again["deployment"]["id"]), (&first["id"], &first["deployment"]["id"]));
    for (path, body) in [("/v1/apps", new_app("other")), ("/v1/apps/hello/deployments", json!({}))] {
        keyed(path, body).await.expect_code(422, "idempotency_key_reused");
    }
    world.settled(&first["deployment"]).await;
    for path in ["/v1/apps/hello/deployments", "/v1/apps/hello/actions/restart"] {
        let post = async |key: &str| {
            let headers = [("idempotency-key", key)];
            world.send(Method::POST, path, &headers, "").await.expect(202).json()["id"].clone()
        };
        let id = post(path).await;
        assert_eq!(post(path).await, id, "{path}");
        assert_ne!(post(&format!("{path}2")).await, id, "{path}");
    }
    let bad = [("idempotency-key", "two words")];
    world.send(Method::POST, "/v1/apps/hello/deployments", &bad, "").await.expect(422);
}
