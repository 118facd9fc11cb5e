use paas_core::memory::Script;
use serde_json::{Value, json};

use crate::world::{REPOSITORY, World, new_app};

#[tokio::test]
async fn a_new_app_is_answered_with_its_deployment_and_becomes_live() {
    let world = World::new().await;
    let created = world.post("/v1/apps", new_app("hello")).await.expect(201);
    let app = created.json();
    let id = app["id"].as_str().unwrap();
    assert!(id.starts_with("app_"));
    assert_eq!(created.header("location"), format!("/v1/apps/{id}"));
    assert!(!created.header("etag").is_empty());
    assert!(app["state"].is_string());
    assert!(app["deployment"]["id"].as_str().unwrap().starts_with("dpl_"));
    let deployment = world.settled(&app["deployment"]).await;
    assert_eq!(deployment["state"], "running");
    assert_eq!(deployment["release"], 1);
    for reference in [id, "hello"] {
        let shown = world.get(&format!("/v1/apps/{reference}")).await.expect(200).json();
        assert_eq!((&shown["id"], &shown["state"]), (&app["id"], &json!("running")));
        assert!(shown["url"].is_string());
        assert_eq!(shown["live_release"], 1);
    }
    let status = world.get("/v1/apps/hello/status").await.expect(200).json();
    assert_eq!(status["state"], "running");
    assert!(status["instance"]["address"].is_string());
    let ready =
        status["conditions"].as_array().unwrap().iter().find(|condition| condition["kind"] == "ready");
    assert_eq!(ready.unwrap()["holds"], true);
}

#[tokio::test]
async fn an_app_can_wait_for_its_first_deployment() {
    let world = World::new().await;
    let mut new = new_app("hello");
    new["deploy"] = json!(false);
    let app = world.post("/v1/apps", new).await.expect(201).json();
    assert_eq!((&app["state"], &app["deployment"]), (&json!("pending"), &Value::Null));
}

#[tokio::test]
async fn of_two_apps_with_one_name_at_the_same_moment_one_is_made() {
    let world = World::new().await;
    for round in 0..8 {
        let name = format!("app-{round}");
        let (one, two) =
            tokio::join!(world.post("/v1/apps", new_app(&name)), world.post("/v1/apps", new_app(&name)));
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409]);
        let refused = if one.status == 409 { one } else { two };
        let problem = refused.expect_code(409, "name_taken").json();
        assert_eq!((&problem["fault"], &problem["retryable"]), (&json!("user"), &json!(false)));
        assert!(problem["hint"].is_string());
    }
}

#[tokio::test]
async fn a_name_can_be_checked_first() {
    let world = World::new().await;
    let check = world.get("/v1/app-names/hello").await.expect(200).json();
    assert_eq!(check, json!({"name": "hello", "available": true, "reason": null, "suggestions": []}));
    world.post("/v1/apps", new_app("hello")).await.expect(201);
    let check = world.get("/v1/app-names/hello").await.expect(200).json();
    assert_eq!((&check["available"], &check["suggestions"][0]), (&json!(false), &json!("hello-2")));
    let check = world.get("/v1/app-names/Not%20a%20name").await.expect(200).json();
    assert_eq!(check["available"], false);
    assert!(check["reason"].is_string());
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_says_what_it_sets_off() {
    let world = World::new().await;
    let mut new = new_app("hello");
    new["env"] = json!({"KEEP": "1", "DROP": "2"});
    new["resources"] = json!({"cpu_millis": 500});
    let created = world.post("/v1/apps", new).await.expect(201).json();
    world.settled(&created["deployment"]).await;

    let patch = json!({
        "env": {"DROP": null, "ADD": "line\n'\"$(id)${X}"},
        "port": 3000,
        "resources": {"memory_bytes": 67_108_864},
        "health_check": {"timeout_seconds": 7},
    });
    let updated = world.patch("/v1/apps/hello", patch).await.expect(200).json();
    assert_eq!(updated["effects"], json!({"redeploy": false, "restart": true, "dns": false}));
    assert_eq!(updated["deployment"]["kind"], "config");
    let app = &updated["app"];
    assert_eq!(app["env_names"], json!(["ADD", "KEEP"]));
    assert_eq!(app["port"], 3000);
    assert_eq!(app["resources"], json!({"memory_bytes": 67_108_864, "cpu_millis": 500, "pids": 256}));
    assert_eq!(
        (&app["health_check"]["timeout_seconds"], &app["health_check"]["grace_seconds"]),
        (&json!(7), &json!(60))
    );
    world.settled(&updated["deployment"]).await;

    let patch = json!({"port": null, "resources": null, "health_check": {"check": {"type": "tcp"}}});
    let updated = world.patch("/v1/apps/hello", patch).await.expect(200).json();
    assert_eq!(updated["app"]["port"], Value::Null);
    assert_eq!(updated["app"]["resources"]["cpu_millis"], 1000);
    assert_eq!(updated["app"]["health_check"]["check"], json!({"type": "tcp"}));
    world.settled(&updated["deployment"]).await;

    let updated = world.patch("/v1/apps/hello", json!({"visibility": "private"})).await.expect(200).json();
    assert_eq!(updated["effects"], json!({"redeploy": false, "restart": true, "dns": true}));
    world.settled(&updated["deployment"]).await;

    let updated = world.patch("/v1/apps/hello", json!({"branch": "main"})).await.expect(200).json();
    assert_eq!(updated["effects"], json!({"redeploy": true, "restart": false, "dns": false}));
    world.settled(&updated["deployment"]).await;

    let updated = world.patch("/v1/apps/hello", json!({})).await.expect(200).json();
    assert_eq!(updated["effects"], json!({"redeploy": false, "restart": false, "dns": false}));
    assert_eq!(updated["deployment"], Value::Null);
}

#[tokio::test]
async fn a_change_of_a_version_that_is_gone_is_412() {
    let world = World::new().await;
    let mut new = new_app("hello");
    new["deploy"] = json!(false);
    let first = world.post("/v1/apps", new).await.expect(201).header("etag").to_owned();
    let patch = |tag: String, port: u16| {
        let world = &world;
        async move {
            let headers = [("if-match", tag.as_str())];
            world
                .send(http::Method::PATCH, "/v1/apps/hello", &headers, &json!({"port": port}).to_string())
                .await
        }
    };
    let second = patch(first.clone(), 3001).await.expect(200).header("etag").to_owned();
    assert_ne!(first, second);
    assert_eq!(world.get("/v1/apps/hello").await.header("etag"), second);
    for tag in [first.clone(), "\"x\"".to_owned(), format!("W/{second}"), "\"999\"".to_owned()] {
        patch(tag, 3002).await.expect_code(412, "version");
    }
    assert_eq!(world.get("/v1/apps/hello").await.json()["port"], 3001);
    patch("*".to_owned(), 3003).await.expect(200);
    let third = world.get("/v1/apps/hello").await.header("etag").to_owned();
    patch(format!("{first}, {third}"), 3004).await.expect(200);
}

#[tokio::test]
async fn an_operation_on_a_version_that_is_gone_is_412_and_does_nothing() {
    let world = World::new().await;
    world.live("hello").await;
    let first = world.get("/v1/apps/hello").await.header("etag").to_owned();
    let patched = world.patch("/v1/apps/hello", json!({"env": {"A": "1"}})).await.expect(200);
    world.settled(&patched.json()["deployment"]).await;
    let before = world.get("/v1/apps/hello/deployments").await.json();
    let second = patched.header("etag").to_owned();
    let send = async |method: http::Method, path: &str, tag: &str| {
        let body = if path.ends_with("rollbacks") { json!({"release": 1}) } else { json!({}) };
        let headers = [("if-match", tag)];
        world.send(method, &format!("/v1/apps/hello{path}"), &headers, &body.to_string()).await
    };
    for path in ["/actions/restart", "/actions/stop", "/actions/start", "/deployments", "/rollbacks"] {
        send(http::Method::POST, path, &first).await.expect_code(412, "version");
        send(http::Method::POST, path, "\"x\"").await.expect_code(412, "version");
    }
    send(http::Method::DELETE, "", &first).await.expect_code(412, "version");
    assert_eq!(world.get("/v1/apps/hello/deployments").await.json(), before);
    let restarted = send(http::Method::POST, "/actions/restart", &second).await.expect(202).json();
    world.settled(&restarted).await;
    let deleted = send(http::Method::DELETE, "", &second).await.expect(202).json();
    assert_eq!(world.settled(&deleted).await["state"], "deleted");
}

#[tokio::test]
async fn restart_stop_and_start_are_accepted_or_conflict() {
    let world = World::new().await;
    world.live("hello").await;
    for (verb, state) in [("restart", "running"), ("stop", "stopped"), ("start", "running")] {
        let answer = world.post(&format!("/v1/apps/hello/actions/{verb}"), json!({})).await.expect(202);
        let deployment = answer.json();
        assert_eq!(deployment["kind"], verb);
        assert_eq!(
            answer.header("location"),
            format!("/v1/deployments/{}", deployment["id"].as_str().unwrap())
        );
        assert_eq!(world.settled(&deployment).await["state"], state);
        if verb == "stop" {
            for refused in ["restart", "stop"] {
                let path = format!("/v1/apps/hello/actions/{refused}");
                world.post(&path, json!({})).await.expect_code(409, "state");
            }
        }
    }
    world.post("/v1/apps/hello/actions/start", json!({})).await.expect_code(409, "state");
}

#[tokio::test]
async fn a_release_can_be_run_again_unless_its_image_is_gone() {
    let world = World::new().await;
    let created = world.live("hello").await;
    world.push("two", Script::default());
    let second = world.post("/v1/apps/hello/deployments", json!({})).await.expect(202).json();
    world.settled(&second).await;
    let releases = world.get("/v1/apps/hello/releases").await.expect(200).json();
    let numbers: Vec<_> =
        releases["items"].as_array().unwrap().iter().map(|item| item["number"].clone()).collect();
    assert_eq!(numbers, [2, 1]);
    assert_eq!(releases["items"][1]["deployment_id"], created["deployment"]["id"]);

    let rollback = world.post("/v1/apps/hello/rollbacks", json!({"release": 1})).await.expect(202).json();
    assert_eq!(world.settled(&rollback).await["release"], 3);
    world.post("/v1/apps/hello/rollbacks", json!({"release": 9})).await.expect_code(404, "not_found");

    world.host.forget_images();
    world.post("/v1/apps/hello/rollbacks", json!({"release": 2})).await.expect_code(410, "image_gone");
}

#[tokio::test]
async fn a_deleted_app_is_gone_and_its_name_free() {
    let world = World::new().await;
    world.live("hello").await;
    let answer = world.delete("/v1/apps/hello").await.expect(202);
    let deletion = answer.json();
    assert_eq!(deletion["kind"], "delete");
    assert_eq!(world.settled(&deletion).await["state"], "deleted");
    world.get("/v1/apps/hello").await.expect(404);
    world.delete("/v1/apps/hello").await.expect(404);
    assert!(world.host.instances().is_empty());
    assert_eq!(world.get("/v1/app-names/hello").await.json()["available"], true);
    world.live("hello").await;
}

#[tokio::test]
async fn what_breaks_a_rule_is_422_with_the_field_named() {
    let world = World::new().await;
    let long = "a".repeat(64);
    for name in ["a;id", "a/b", "..", "", &long, "Hello", "xn--abc", "api", "www", "admin"] {
        refused(&world, "name", json!({"name": name, "repository": REPOSITORY})).await;
    }
    for repository in [
        "https://h/r.git;id",
        "https://h/`id`",
        "https://h/$(id)",
        "--upload-pack=id",
        "ext::sh -c id",
        "file:///etc",
        "/srv/x",
        "../x",
        "ssh://-oProxyCommand=id/x",
        "https://h/r\r\n.git",
        "https://h\\r.git",
        "git://h/r.git",
        "https://user:canary@h/r",
    ] {
        let answer = refused(&world, "repository", json!({"name": "hello", "repository": repository})).await;
        assert!(!answer.contains("canary"));
    }
    let with = |field: &str, value: Value| {
        let mut new = new_app("hello");
        new[field] = value;
        new
    };
    for branch in ["-x", "a;b", "a..b", "@{", "a\u{0}b"] {
        refused(&world, "branch", with("branch", json!(branch))).await;
    }
    for root in ["../", "/", "a/../../b", "%2e%2e"] {
        refused(&world, "root_directory", with("root_directory", json!(root))).await;
    }
    refused(&world, "commit", with("commit", json!("main"))).await;
    for port in [0, 65_536] {
        refused(&world, "port", with("port", json!(port))).await;
    }
    refused(&world, "env.A", with("env", json!({"A=B": "x"}))).await;
    refused(&world, "env.A\n", with("env", json!({"A\n": "x"}))).await;
    refused(&world, "env.A\0B", with("env", json!({"A\0B": "x"}))).await;
    let endless = "A".repeat(10_000);
    let field = format!("env.{}", "A".repeat(64));
    let answer = refused(&world, &field, with("env", json!({&endless: "x"}))).await;
    assert!(answer.len() < 2_000, "{answer}");
    refused(&world, "env.A", with("env", json!({"A": "a\u{0}b"}))).await;
    refused(&world, "env.A", with("env", json!({"A": "x".repeat(32 * 1024 + 1)}))).await;
    refused(&world, "env.1A", with("env", json!({"1A": "x"}))).await;
    for count in [1_001, 10_000] {
        let many: serde_json::Map<_, _> =
            (0..count).map(|number| (format!("V{number}"), json!("x"))).collect();
        world.post("/v1/apps", with("env", many.into())).await.expect(422);
    }
    assert!(world.platform.apps().list(1, None).await.unwrap().items.is_empty());
    assert_eq!(world.host.builds_begun(), 0);
}

async fn refused(world: &World, field: &str, body: Value) -> String {
    let answer = world.post("/v1/apps", body.clone()).await;
    assert_eq!(answer.status, 422, "{body}: {answer:?}");
    let answer = answer.expect(422);
    assert_eq!(answer.json()["errors"][0]["field"], field, "{body}: {answer:?}");
    answer.text
}

#[tokio::test]
async fn limits_and_private_addresses_are_refused() {
    let world = World::new().await;
    for resources in [
        json!({"memory_bytes": 0}),
        json!({"memory_bytes": 9_223_372_036_854_775_808_u64}),
        json!({"memory_bytes": -1}),
        json!({"cpu_millis": "NaN"}),
        json!({"pids": 1}),
    ] {
        let mut new = new_app("hello");
        new["resources"] = resources;
        world.post("/v1/apps", new).await.expect(422);
    }
    for repository in [
        "https://169.254.169.254/x.git",
        "https://[::ffff:127.0.0.1]/x.git",
        "https://2130706433/x.git",
        "https://localhost./x.git",
        "https://127.0.0.1/x.git",
    ] {
        let body = json!({"name": "hello", "repository": repository});
        let code = world.post("/v1/apps", body).await.expect(422).json()["code"].clone();
        assert!(code == "egress_denied" || code == "invalid", "{repository}: {code}");
    }
    let plain = json!({"name": "hello", "repository": "http://git.example.com/x.git"});
    world.post("/v1/apps", plain).await.expect_code(422, "invalid");
}
