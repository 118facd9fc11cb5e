//! Log lines: exact pages, and streams that lose nothing.

use std::sync::Arc;

use http::Method;
use paas_core::memory::MemoryLogStore;
use paas_core::{AppId, InstanceName, LogSource, LogStore, LogStream, NewLogLine};
use serde_json::{Value, json};

use crate::world::{World, new_app};

fn line(text: impl Into<String>) -> NewLogLine {
    NewLogLine {
        at: None,
        source: LogSource::App,
        stream: LogStream::Stdout,
        instance: None,
        deployment: None,
        text: text.into(),
    }
}

/// An app that nothing writes to but the test.
async fn quiet(world: &World) -> AppId {
    let mut new = new_app("hello");
    new["deploy"] = json!(false);
    world.post("/v1/apps", new).await.expect(201).json()["id"].as_str().unwrap().parse().unwrap()
}

fn texts(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn lines_have_everything_that_is_known_of_them() {
    let world = World::new().await;
    let app = quiet(&world).await;
    let at = "2026-01-01T00:00:00.000000001Z".parse().unwrap();
    world
        .logs
        .append(&app, vec![NewLogLine { at: Some(at), stream: LogStream::Stderr, ..line("a") }])
        .await
        .unwrap();
    let page = world.get("/v1/apps/hello/logs?from=2026-01-01T00:00:00Z").await.expect(200).json();
    assert_eq!(
        page,
        json!({
            "items": [{
                "ts": "2026-01-01T00:00:00.000000001Z",
                "seq": 1,
                "stream": "stderr",
                "source": "app",
                "instance": null,
                "deployment_id": null,
                "text": "a",
            }],
            "last_timestamp": "1767225600000000001",
            "next_cursor": null,
            "has_more": false,
        })
    );
}

#[tokio::test]
async fn from_is_inclusive_and_the_last_timestamp_exclusive() {
    let world = World::new().await;
    let app = quiet(&world).await;
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    // All at the same moment: they are told apart by a nanosecond each.
    let lines = (0..4).map(|number| NewLogLine { at: Some(at), ..line(number.to_string()) }).collect();
    world.logs.append(&app, lines).await.unwrap();
    let page = world.get("/v1/apps/hello/logs?from=2026-01-01T00:00:00.000000001Z&limit=2").await.json();
    assert_eq!((texts(&page), &page["has_more"]), (numbered(1..3), &json!(true)));
    let last = page["last_timestamp"].as_str().unwrap();
    let headers = [("x-last-log-nano", last)];
    let after = world.send(Method::GET, "/v1/apps/hello/logs", &headers, "").await.expect(200);
    assert_eq!(texts(&after.json()), numbered(3..4));
    assert_eq!(after.json()["last_timestamp"], after.header("x-last-log-nano"));
    let headers = [("x-last-log-nano", after.header("x-last-log-nano"))];
    let none = world.send(Method::GET, "/v1/apps/hello/logs", &headers, "").await.expect(200).json();
    assert!(texts(&none).is_empty());
    assert_eq!(none["last_timestamp"], headers[0].1, "the caller still has it");
    let to = world
        .get("/v1/apps/hello/logs?from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00.000000002Z")
        .await
        .json();
    assert_eq!(texts(&to), numbered(0..3));
}

#[tokio::test]
async fn an_hour_is_shown_unless_asked_otherwise() {
    let world = World::new().await;
    let app = quiet(&world).await;
    let now = world.platform.apps().now();
    let ago = |minutes| Some(now - jiff::SignedDuration::from_mins(minutes));
    let lines = vec![
        NewLogLine { at: ago(120), ..line("old") },
        NewLogLine { at: ago(30), ..line("recent") },
        line("new"),
    ];
    world.logs.append(&app, lines).await.unwrap();
    assert_eq!(texts(&world.get("/v1/apps/hello/logs").await.json()), ["recent", "new"]);
    assert_eq!(texts(&world.get("/v1/apps/hello/logs?from=now-3h").await.json()), ["old", "recent", "new"]);
    assert_eq!(texts(&world.get("/v1/apps/hello/logs?from=now-10m").await.json()), ["new"]);
    assert_eq!(texts(&world.get("/v1/apps/hello/logs?from=now-3h&to=now-1h").await.json()), ["old"]);
}

#[tokio::test]
async fn pages_in_both_directions_are_the_log() {
    let world = World::new().await;
    let app = quiet(&world).await;
    world.logs.append(&app, numbered(0..10).into_iter().map(line).collect()).await.unwrap();
    for direction in ["forward", "backward"] {
        for limit in [1, 3, 10, 100] {
            let mut read = Vec::new();
            let mut next = format!("?direction={direction}&limit={limit}");
            loop {
                let answer = world.get(&format!("/v1/apps/hello/logs{next}")).await.expect(200);
                let page = answer.json();
                read.extend(texts(&page));
                assert_eq!(page["has_more"], page["next_cursor"].is_string());
                let Some(link) = answer.header("link").strip_prefix('<') else { break };
                next = link.strip_suffix(">; rel=\"next\"").unwrap().to_owned();
            }
            if direction == "backward" {
                read.reverse();
            }
            assert_eq!(read, numbered(0..10), "{direction} {limit}");
        }
    }
}

#[tokio::test]
async fn further_pages_keep_the_bounds_of_the_first() {
    let world = World::new().await;
    let app = quiet(&world).await;
    let now = world.platform.apps().now();
    let ago = |minutes| Some(now - jiff::SignedDuration::from_mins(minutes));
    let old = (0..5).map(|number| NewLogLine { at: ago(120), ..line(format!("old {number}")) });
    let recent = (0..5).map(|number| NewLogLine { at: ago(10 - number), ..line(number.to_string()) });
    world.logs.append(&app, old.chain(recent).collect()).await.unwrap();
    let rest = async |first: &str, others: &str| {
        let page = world.get(&format!("/v1/apps/hello/logs?limit=2&{first}")).await.expect(200).json();
        let cursor = page["next_cursor"].as_str().unwrap();
        // What `now` is by then does not matter: a slow reader comes late.
        let path = format!("/v1/apps/hello/logs?limit=100&{others}&cursor={cursor}");
        texts(&world.get(&path).await.expect(200).json())
    };
    assert_eq!(rest("from=now-1h", "from=now").await, numbered(2..5));
    let to = format!("from=now-1h&to={}", ago(7).unwrap());
    assert_eq!(rest(&to, "from=now&to=now").await, numbered(2..4));
    assert_eq!(rest(&to, "source=app").await, numbered(2..4));
    for others in ["direction=backward", "direction=backward&from=now", "direction=backward&to=now"] {
        assert_eq!(rest("direction=backward", others).await, ["2", "1", "0"]);
    }
    let whole = rest("direction=backward&from=now-3h", "direction=backward").await;
    assert_eq!(whole.last().unwrap(), "old 0");
    let seen = page_behind(&world, ago(9).unwrap()).await;
    assert_eq!(seen, ["4", "3", "2"]);
}

/// Every line behind `seen`, newest first, by `Link`; only the first request says what was seen.
async fn page_behind(world: &World, seen: jiff::Timestamp) -> Vec<String> {
    let seen = seen.as_nanosecond().to_string();
    let mut headers = vec![("x-last-log-nano", seen.as_str())];
    let mut next = "?direction=backward&limit=1".to_owned();
    let mut read = Vec::new();
    loop {
        let answer =
            world.send(Method::GET, &format!("/v1/apps/hello/logs{next}"), &headers, "").await.expect(200);
        read.extend(texts(&answer.json()));
        headers.clear();
        let Some(link) = answer.header("link").strip_prefix('<') else { return read };
        next = link.strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        assert!(read.len() < 20, "the pages do not end: {read:?}");
    }
}

#[tokio::test]
async fn who_comes_back_loses_no_line_to_a_relative_from() {
    let world = World::new().await;
    let app = quiet(&world).await;
    let ago = world.platform.apps().now() - jiff::SignedDuration::from_mins(30);
    let lines = (0..4).map(|number| NewLogLine { at: Some(ago), ..line(number.to_string()) });
    world.logs.append(&app, lines.collect()).await.unwrap();
    let first = ago.as_nanosecond().to_string();
    let headers = [("x-last-log-nano", first.as_str())];
    let page = world.send(Method::GET, "/v1/apps/hello/logs?from=now-1m", &headers, "").await.expect(200);
    assert_eq!(texts(&page.json()), numbered(1..4));
    let page = world.get("/v1/apps/hello/logs?from=now-1h&limit=1").await.expect(200).json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let path = "/v1/apps/hello/logs/stream?from=now-1m";
    let by_id = world.stream(path, &[("last-event-id", &first)]).await;
    let by_page = world.stream(&format!("{path}&cursor={cursor}"), &[]).await;
    for mut frames in [by_id, by_page] {
        for expected in numbered(1..4) {
            assert_eq!(frames.next().await.unwrap().data["text"], expected);
        }
    }
    world.get("/v1/apps/hello/logs/stream?direction=backward").await.expect_code(400, "invalid_parameter");
    world.closing.cancel();
}

#[tokio::test]
async fn a_stream_ends_with_its_deployment_with_its_app_and_behind_to() {
    let world = World::new().await;
    let script =
        paas_core::memory::Script { build_output: numbered(0..50), ..paas_core::memory::Script::default() };
    world.push("chatty", script);
    let created = world.post("/v1/apps", new_app("hello")).await.expect(201).json();
    let id = created["deployment"]["id"].as_str().unwrap();
    let frames = world.stream(&format!("/v1/deployments/{id}/logs/stream?source=build"), &[]).await;
    let mut frames = frames.all().await;
    let end = frames.pop().unwrap();
    assert_eq!((end.event.as_deref(), &end.data["reason"]), (Some("end"), &json!("complete")));
    let built: Vec<_> = frames.iter().map(|frame| frame.data["text"].clone()).collect();
    assert_eq!(built, numbered(0..50));

    let app: AppId = created["id"].as_str().unwrap().parse().unwrap();
    let to = world.platform.apps().now();
    world.platform.clock().sleep(std::time::Duration::from_millis(1)).await;
    world.logs.append(&app, vec![line("behind it")]).await.unwrap();
    let frames = world.stream(&format!("/v1/apps/hello/logs/stream?to={to}"), &[]).await.all().await;
    assert_eq!(frames.last().unwrap().data["reason"], "complete");
    assert!(frames.iter().all(|frame| frame.data["text"] != "behind it"));

    let frames = world.stream("/v1/apps/hello/logs/stream", &[]).await;
    let deletion = world.delete("/v1/apps/hello").await.expect(202).json();
    let (frames, deleted) = tokio::join!(frames.all(), world.settled(&deletion));
    assert_eq!(deleted["state"], "deleted");
    assert_eq!(frames.last().unwrap().data["reason"], "complete");
}

#[tokio::test]
async fn a_reader_that_retention_overtook_is_told_of_the_gap() {
    let world = World::new().await;
    let app = quiet(&world).await;
    world.logs.append(&app, vec![line("first"), line("second")]).await.unwrap();
    let first = world.get("/v1/apps/hello/logs?limit=1").await.json()["last_timestamp"].clone();
    let lines = numbered(0..MemoryLogStore::MAX_LINES).into_iter().map(line).collect();
    world.logs.append(&app, lines).await.unwrap();
    let headers = [("last-event-id", first.as_str().unwrap())];
    let mut frames = world.stream("/v1/apps/hello/logs/stream?limit=10", &headers).await;
    let gap = frames.next().await.unwrap();
    let oldest = frames.next().await.unwrap();
    assert_eq!((gap.event.as_deref(), gap.id), (Some("gap"), None));
    assert_eq!((&oldest.data["text"], &oldest.data["ts"]), (&json!("0"), &gap.data["until"]));
    assert_eq!(frames.next().await.unwrap().data["text"], "1");
    world.closing.cancel();
}

/// Reads page after page while a writer appends, once by timestamp and once by cursor.
#[tokio::test]
async fn no_line_is_lost_or_repeated_while_lines_are_appended() {
    const LINES: usize = 2000;
    let world = World::new().await;
    let app = quiet(&world).await;
    let logs = Arc::clone(&world.logs);
    let writer = tokio::spawn(async move {
        for number in 0..LINES {
            logs.append(&app, vec![line(number.to_string())]).await.unwrap();
            if number % 10 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let by_timestamp = async {
        let mut read = Vec::new();
        let mut last = "0".to_owned();
        while read.len() < LINES {
            let headers = [("x-last-log-nano", last.as_str())];
            let page =
                world.send(Method::GET, "/v1/apps/hello/logs?limit=7", &headers, "").await.expect(200).json();
            read.extend(texts(&page));
            last = page["last_timestamp"].as_str().unwrap().to_owned();
        }
        read
    };
    let by_stream = async {
        let mut frames = world.stream("/v1/apps/hello/logs/stream?from=now-1h", &[]).await;
        let mut read = Vec::new();
        while read.len() < LINES {
            read.push(frames.next().await.unwrap().data["text"].as_str().unwrap().to_owned());
        }
        read
    };
    let (by_timestamp, by_stream) = tokio::join!(by_timestamp, by_stream);
    writer.await.unwrap();
    assert_eq!(by_timestamp, numbered(0..LINES));
    assert_eq!(by_stream, numbered(0..LINES));
}

#[tokio::test]
async fn a_stream_is_taken_up_where_it_was_left() {
    let world = World::new().await;
    let app = quiet(&world).await;
    world.logs.append(&app, numbered(0..3).into_iter().map(line).collect()).await.unwrap();
    let mut frames = world.stream("/v1/apps/hello/logs/stream", &[]).await;
    frames.next().await.unwrap();
    let second = frames.next().await.unwrap();
    assert_eq!(second.data["text"], "1");
    drop(frames);
    let id = second.id.unwrap();
    world.logs.append(&app, numbered(3..5).into_iter().map(line).collect()).await.unwrap();
    let by_header = world.stream("/v1/apps/hello/logs/stream", &[("last-event-id", &id)]).await;
    let by_cursor = world.stream(&format!("/v1/apps/hello/logs/stream?cursor={id}"), &[]).await;
    for mut frames in [by_header, by_cursor] {
        for expected in numbered(2..5) {
            assert_eq!(frames.next().await.unwrap().data["text"], expected);
        }
    }
    world.closing.cancel();
}

#[tokio::test]
async fn lines_are_filtered_and_searched() {
    let world = World::new().await;
    let created = world.live("hello").await;
    let app: AppId = created["id"].as_str().unwrap().parse().unwrap();
    let deployment = created["deployment"]["id"].as_str().unwrap();
    let of_deployment = NewLogLine { deployment: Some(deployment.parse().unwrap()), ..line("needle of it") };
    let of_build = NewLogLine { source: LogSource::Build, ..line("needle <script>") };
    world.logs.append(&app, vec![of_deployment, of_build, line("hay")]).await.unwrap();
    let search = async |query: &str| {
        texts(&world.get(&format!("/v1/apps/hello/logs?{query}")).await.expect(200).json())
    };
    assert_eq!(search("q=needle").await, ["needle of it", "needle <script>"]);
    assert_eq!(search("q=needle&source=build").await, ["needle <script>"]);
    assert_eq!(search(&format!("q=needle&deployment={deployment}")).await, ["needle of it"]);
    let nobody = InstanceName::of(&"dpl_00000000000000000000000001".parse().unwrap(), 0);
    assert!(search(&format!("instance={nobody}")).await.is_empty());
    let path = format!("/v1/deployments/{deployment}/logs?q=needle");
    assert_eq!(texts(&world.get(&path).await.expect(200).json()), ["needle of it"]);
    let mut frames = world.stream(&format!("/v1/deployments/{deployment}/logs/stream?q=needle"), &[]).await;
    assert_eq!(frames.next().await.unwrap().data["text"], "needle of it");
}

#[tokio::test]
async fn lines_come_as_text_and_as_json_lines_too() {
    let world = World::new().await;
    let app = quiet(&world).await;
    world.logs.append(&app, vec![line("\u{1b}[31mred\tand <b>"), line("two")]).await.unwrap();
    let accept = async |form: &str| {
        world.send(Method::GET, "/v1/apps/hello/logs?limit=1", &[("accept", form)], "").await.expect(200)
    };
    let text = accept("text/plain").await;
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(text.header("x-content-type-options"), "nosniff");
    let (_, escaped) = text.text.split_once(' ').unwrap();
    assert_eq!(escaped, "\\u{1b}[31mred\tand <b>\n");
    assert!(text.header("link").contains("cursor=") && !text.header("x-last-log-nano").is_empty());
    let lines = accept("application/x-ndjson").await;
    let parsed: Vec<Value> = lines.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(parsed[0]["text"], "\u{1b}[31mred\tand <b>");
    assert_eq!(accept("text/html, */*;q=0.1").await.header("content-type"), "application/json");
}

#[tokio::test]
async fn logs_are_read_whatever_state_the_app_is_in() {
    let world = World::new().await;
    let failure =
        paas_core::Failure::from(&paas_core::Error::new(paas_core::Kind::BuildFailed, "docker.build", "no"));
    let script = paas_core::memory::Script {
        build_output: vec!["step 1".to_owned()],
        build_failure: Some(failure),
        ..paas_core::memory::Script::default()
    };
    world.push("broken", script);
    let created = world.post("/v1/apps", new_app("hello")).await.expect(201).json();
    let path = format!("/v1/deployments/{}/wait", created["deployment"]["id"].as_str().unwrap());
    world.get(&path).await.expect(200);
    assert_eq!(world.get("/v1/apps/hello").await.json()["state"], "failed");
    let page = world.get("/v1/apps/hello/logs?source=build").await.expect(200).json();
    assert!(texts(&page).contains(&"step 1".to_owned()));
}

#[tokio::test]
async fn bad_parameters_are_400() {
    let world = World::new().await;
    quiet(&world).await;
    let long = format!("q={}", "x".repeat(1025));
    for query in [
        "from=yesterday",
        "from=now-1w",
        "from=now%2B1h",
        "to=x",
        "limit=-1",
        "direction=up",
        "source=them",
        "deployment=x",
        "instance=x",
        "cursor=x",
        "cursor=e30",
        &long,
    ] {
        let answer = world.get(&format!("/v1/apps/hello/logs?{query}")).await.expect(400);
        assert!(
            ["invalid_parameter", "cursor"].contains(&answer.json()["code"].as_str().unwrap()),
            "{query}"
        );
    }
    for nanoseconds in ["x", "", "1.5", "99999999999999999999999999999"] {
        let headers = [("x-last-log-nano", nanoseconds)];
        world
            .send(Method::GET, "/v1/apps/hello/logs", &headers, "")
            .await
            .expect_code(400, "invalid_parameter");
    }
    world.get("/v1/apps/hello/logs?limit=1000000000").await.expect(200);
    world.get("/v1/apps/hello/logs/stream?cursor=x").await.expect_code(400, "cursor");
}

#[tokio::test]
async fn a_cursor_of_the_other_direction_is_400() {
    let world = World::new().await;
    let app = quiet(&world).await;
    world.logs.append(&app, numbered(0..2).into_iter().map(line).collect()).await.unwrap();
    let page = world.get("/v1/apps/hello/logs?limit=1").await.expect(200).json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let path = format!("/v1/apps/hello/logs?direction=backward&cursor={cursor}");
    world.get(&path).await.expect_code(400, "cursor");
    world.get(&format!("/v1/apps?cursor={cursor}")).await.expect_code(400, "cursor");
}
