use http::Method;
use serde_json::json;

use crate::world::{TOKEN, World, new_app};

#[tokio::test]
async fn nothing_is_answered_without_the_token() {
    let world = World::new().await;
    let paths =
        ["/v1/apps", "/v1/apps/hello", "/v1/version", "/metrics", "/v1/nothing", "/", "/v1/app-names/x"];
    for path in paths {
        let answer = world.raw(Method::GET, path, &[], "").await.expect_code(401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let created = world.raw(Method::POST, "/v1/apps", &[], new_app("hello").to_string()).await;
    created.expect(401);
    world.get("/v1/apps/hello").await.expect(404);
}

#[tokio::test]
async fn only_the_one_token_in_the_one_header_counts() {
    let world = World::new().await;
    let right = format!("Bearer {TOKEN}");
    let lower = format!("bearer {TOKEN}");
    for value in [&right, &lower] {
        world.raw(Method::GET, "/v1/apps", &[("authorization", value)], "").await.expect(200);
    }
    let basic = format!("Basic {TOKEN}");
    let longer = format!("Bearer {TOKEN}x");
    for value in ["", "Bearer", "Bearer ", "Bearer x", TOKEN, &basic, &longer, &right[..right.len() - 1]] {
        world.raw(Method::GET, "/v1/apps", &[("authorization", value)], "").await.expect(401);
    }
    let twice = [("authorization", right.as_str()), ("authorization", right.as_str())];
    world.raw(Method::GET, "/v1/apps", &twice, "").await.expect(401);
}

#[tokio::test]
async fn a_token_in_the_address_is_refused_and_not_echoed() {
    let world = World::new().await;
    for name in ["token", "access_token"] {
        let path = format!("/v1/apps?{name}={TOKEN}");
        let alone = world.raw(Method::GET, &path, &[], "").await.expect(401);
        assert!(!alone.text.contains("canary"));
        world.get(&path).await.expect(401);
    }
}

#[tokio::test]
async fn too_many_bad_attempts_are_429_and_do_not_keep_the_holder_out() {
    let world = World::new().await;
    let bad = [("authorization", "Bearer wrong")];
    let mut limited = None;
    for _ in 0..100 {
        let answer = world.raw(Method::GET, "/v1/apps", &bad, "").await;
        if answer.status == 429 {
            limited = Some(answer.expect_code(429, "rate_limited"));
        }
    }
    let seconds: u64 = limited.unwrap().header("retry-after").parse().unwrap();
    assert!((1..=61).contains(&seconds));
    world.get("/v1/apps").await.expect(200);
}

#[tokio::test]
async fn the_open_endpoints_say_nothing_about_what_the_platform_does() {
    let world = World::new().await;
    world.live("hello").await;
    for path in ["/livez", "/readyz", "/health", "/openapi.json", "/docs/"] {
        let answer = world.raw(Method::GET, path, &[], "").await.expect(200);
        assert!(!answer.text.contains("git.example.com") && !answer.text.contains("canary"), "{path}");
    }
    let open = world.raw(Method::GET, "/readyz", &[], "").await.json();
    assert_eq!(open, json!({"ready": true}));
    let known = world.get("/readyz").await.json();
    assert_eq!(known, json!({"ready": true, "problems": []}));
}

#[tokio::test]
async fn secrets_are_in_no_answer() {
    let world = World::new().await;
    let mut new = new_app("hello");
    new["token"] = json!("canary-repository-token");
    new["env"] = json!({"KEY": "canary-value"});
    let created = world.post("/v1/apps", new).await.expect(201);
    let deployment = created.json()["deployment"]["id"].as_str().unwrap().to_owned();
    world.settled(&created.json()["deployment"]).await;
    let mut texts = vec![created.text];
    for path in [
        "/v1/apps".to_owned(),
        "/v1/apps/hello".to_owned(),
        "/v1/apps/hello/status".to_owned(),
        "/v1/apps/hello/releases".to_owned(),
        "/v1/apps/hello/deployments".to_owned(),
        "/v1/apps/hello/logs".to_owned(),
        format!("/v1/deployments/{deployment}"),
        format!("/v1/deployments/{deployment}/events"),
        format!("/v1/deployments/{deployment}/logs"),
        "/metrics".to_owned(),
    ] {
        texts.push(world.get(&path).await.expect(200).text);
    }
    texts.push(
        world.patch("/v1/apps/hello", json!({"env": {"OTHER": "canary-other"}})).await.expect(200).text,
    );
    texts.push(world.patch("/v1/apps/hello", json!({"token": ["canary-in-a-list"]})).await.expect(422).text);
    texts.push(world.patch("/v1/apps/hello", json!({"env": "canary-env"})).await.expect(422).text);
    texts.push(world.patch("/v1/apps/hello", json!({"env": {"A=canary": "x"}})).await.expect(422).text);
    let url = json!({"repository": "https://user:canary@git.example.com/x.git"});
    texts.push(world.patch("/v1/apps/hello", url).await.expect(422).text);
    for text in texts {
        assert!(!text.contains("canary"), "{text}");
    }
}
