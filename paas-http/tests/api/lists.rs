//! Paging.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::world::{World, new_app};

async fn pages(world: &World, path: &str, limit: usize) -> Vec<Value> {
    let mut items = Vec::new();
    let mut next = format!("?limit={limit}");
    loop {
        let answer = world.get(&format!("{path}{next}")).await.expect(200);
        let page = answer.json();
        let page_items = page["items"].as_array().unwrap();
        assert!(page_items.len() <= limit);
        items.extend(page_items.clone());
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert!(answer.header("link").is_empty());
            return items;
        };
        let link = answer.header("link");
        next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        assert!(next.contains(cursor));
    }
}

async fn with_apps(number: usize) -> World {
    let world = World::new().await;
    for number in 0..number {
        let mut new = new_app(&format!("app-{number}"));
        new["deploy"] = json!(false);
        world.post("/v1/apps", new).await.expect(201);
    }
    world
}

#[tokio::test]
async fn an_empty_list_is_200() {
    let world = World::new().await;
    let page = world.get("/v1/apps").await.expect(200).json();
    assert_eq!(page, json!({"items": [], "next_cursor": null}));
}

#[tokio::test]
async fn pages_put_together_are_the_list() {
    let world = with_apps(7).await;
    let names = |items: &[Value]| items.iter().map(|item| item["name"].clone()).collect::<Vec<_>>();
    let whole = pages(&world, "/v1/apps", 100).await;
    assert_eq!(names(&whole), (0..7).map(|number| json!(format!("app-{number}"))).collect::<Vec<_>>());
    for limit in 1..=7 {
        assert_eq!(names(&pages(&world, "/v1/apps", limit).await), names(&whole));
    }
    world.live("hello").await;
    for _ in 0..3 {
        let deployment = world.post("/v1/apps/hello/deployments", json!({})).await.expect(202).json();
        world.settled(&deployment).await;
    }
    for list in ["deployments", "releases"] {
        let path = format!("/v1/apps/hello/{list}");
        assert_eq!(pages(&world, &path, 1).await, pages(&world, &path, 100).await);
    }
}

#[tokio::test]
async fn a_limit_is_clamped_and_a_negative_one_refused() {
    let world = with_apps(2).await;
    for limit in ["1000000000", "99999999999999999999999999", "0", "200"] {
        let page = world.get(&format!("/v1/apps?limit={limit}")).await.expect(200).json();
        assert_eq!(page["items"].as_array().unwrap().len(), 2);
    }
    for limit in ["-1", "", "x", "1.5", "1e9", "%2B1"] {
        world.get(&format!("/v1/apps?limit={limit}")).await.expect_code(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn a_forged_or_foreign_cursor_is_400() {
    let world = with_apps(3).await;
    let first = world.live("hello").await;
    let second = world.post("/v1/apps/hello/deployments", json!({})).await.expect(202).json();
    world.settled(&second).await;
    let cursor_of = async |path: &str| {
        world.get(&format!("{path}?limit=1")).await.expect(200).json()["next_cursor"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let apps = cursor_of("/v1/apps").await;
    let deployments = cursor_of("/v1/apps/hello/deployments").await;
    let releases = cursor_of("/v1/apps/hello/releases").await;
    let forged = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let id = first["id"].as_str().unwrap();
    for (path, cursor) in [
        ("/v1/apps", "x".to_owned()),
        ("/v1/apps", String::new()),
        ("/v1/apps", "%00".to_owned()),
        ("/v1/apps", format!("{apps}A")),
        ("/v1/apps", forged(json!({}))),
        ("/v1/apps", forged(json!({"value": "", "id": ""}))),
        ("/v1/apps", forged(json!({"value": "app_x", "id": "app_x"}))),
        ("/v1/apps", forged(json!({"value": id, "id": "other"}))),
        ("/v1/apps", deployments.clone()),
        ("/v1/apps", releases),
        ("/v1/apps/hello/deployments", apps),
        ("/v1/apps/app-0/deployments", deployments),
        ("/v1/apps/hello/releases", forged(json!({"value": format!("{id}x"), "id": "x"}))),
    ] {
        world.get(&format!("{path}?cursor={cursor}")).await.expect_code(400, "cursor");
    }
}
