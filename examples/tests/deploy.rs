//! From a real repository to a real URL, with every real part.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod installation;

use std::time::Duration;

use futures::TryStreamExt;
use installation::visitor::Hammer;
use installation::{Installation, docker, files_below, sample};
use paas_core::memory::MemoryFiles;
use paas_core::{AppChanges, AppState, DeploymentState, Event, Fault, Kind, LogQuery, ReleaseNumber, Step};
use paas_git::testing::GitFault;

fn page(text: &str) -> MemoryFiles {
    MemoryFiles::from([("index.html", format!("<h1>{text}</h1>"))])
}

/// A Dockerfile app whose program is a shell line.
fn program(line: &str) -> MemoryFiles {
    let dockerfile =
        format!("FROM paas/base:bookworm\nCMD [\"sh\", \"-c\", {}]\n", serde_json::to_string(line).unwrap());
    MemoryFiles::from([("Dockerfile", dockerfile)])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_app_answers() {
    let installation = Installation::start().await;
    for (name, expected) in
        [("static-site", "<html"), ("dockerfile", "<html"), ("node", "Node"), ("flask", "Flask")]
    {
        installation.push(name, sample(name)).await;
        installation.live(installation.new_app(name)).await;
        let (status, body) = installation.get(name, "/").await;
        assert_eq!(status, 200, "{name}: {body}");
        assert!(body.to_lowercase().contains(&expected.to_lowercase()), "{name}: {body}");
    }
    installation.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_commit_replaces_the_old_page_without_one_failed_request() {
    let installation = Installation::start().await;
    installation.push("site", page("one")).await;
    installation.live(installation.new_app("site")).await;
    assert_eq!(installation.get("site", "/").await, (200, "<h1>one</h1>".to_owned()));
    let port = installation.proxy.address().port();
    let hammer = Hammer::start(port, "site", 8);

    installation.push("site", page("two")).await;
    let deployment = installation.platform.deploy("site").await.unwrap().outcome().await.unwrap();
    assert_eq!((deployment.state, deployment.cached), (DeploymentState::Running, Some(false)));
    assert_eq!(installation.get("site", "/").await, (200, "<h1>two</h1>".to_owned()));

    let again = installation.platform.deploy("site").await.unwrap().outcome().await.unwrap();
    assert_eq!(again.cached, Some(true), "the same tree is not built again");

    let apps = installation.platform.apps();
    apps.restart("site").await.unwrap().outcome().await.unwrap();
    let env = [("GREETING".parse().unwrap(), Some("Hello".into()))].into();
    let changes = AppChanges { env, port: Some(Some(3000.try_into().unwrap())), ..AppChanges::default() };
    let updated = apps.update("site", changes, None).await.unwrap();
    updated.deployment.unwrap().outcome().await.unwrap();
    let rolled = apps.rollback("site", ReleaseNumber(1)).await.unwrap();
    rolled.outcome().await.unwrap();
    assert_eq!(installation.get("site", "/").await, (200, "<h1>one</h1>".to_owned()));
    let _: Vec<_> = rolled.events(0).try_collect().await.unwrap();

    let (answered, failures) = hammer.stop().await;
    assert!(
        failures.is_empty(),
        "{} of {} failed: {:?}",
        failures.len(),
        answered,
        &failures[..failures.len().min(3)]
    );
    assert!(answered > 100, "only {answered} requests were answered");
    installation.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_commit_fails_with_reasons_and_the_old_page_stays() {
    let installation = Installation::start().await;
    installation.push("site", page("one")).await;
    installation.live(installation.new_app("site")).await;

    installation
        .push(
            "site",
            MemoryFiles::from([("Dockerfile", "FROM paas/base:bookworm\nRUN echo preparing; exit 7\n")]),
        )
        .await;
    let failed = installation.platform.deploy("site").await.unwrap();
    let error = failed.outcome().await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::BuildFailed, Fault::User), "{error:?}");
    assert_eq!(failed.get().await.unwrap().step, Some(Step::Build));
    assert!(
        error.evidence_lines().iter().any(|line| line.contains("preparing")),
        "{error:?} {:?}",
        error.evidence_lines()
    );
    assert!(error.hinted().is_some());

    installation.push("site", program("echo no such module >&2; exit 3")).await;
    let failed = installation.platform.deploy("site").await.unwrap();
    let error = failed.outcome().await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::Unhealthy, Fault::User), "{error:?}");
    assert!(error.message().contains("code 3"), "{error}");
    assert_eq!(error.evidence_lines().last().map(String::as_str), Some("no such module"));

    assert_eq!(installation.get("site", "/").await, (200, "<h1>one</h1>".to_owned()));
    assert_eq!(installation.platform.apps().get("site").await.unwrap().state, AppState::Running);
    installation.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_start_and_cancel() {
    let installation = Installation::start().await;
    let apps = installation.platform.apps();
    installation.push("site", page("one")).await;
    installation.live(installation.new_app("site")).await;
    apps.stop("site").await.unwrap().outcome().await.unwrap();
    assert_eq!(installation.get("site", "/").await.0, 503);
    apps.start("site").await.unwrap().outcome().await.unwrap();
    assert_eq!(installation.get("site", "/").await.0, 200);

    // The number tells its process from those of others.
    let seconds = 1_000_000 + std::process::id();
    let slow = format!("FROM paas/base:bookworm\nRUN echo begun && sleep {seconds}\n");
    installation.push("site", MemoryFiles::from([("Dockerfile", slow)])).await;
    let handle = installation.platform.deploy("site").await.unwrap();
    let mut events = handle.events(0);
    while let Some(recorded) = events.try_next().await.unwrap() {
        if matches!(recorded.event, Event::Started { step: Step::Build, .. }) {
            break;
        }
    }
    while !is_sleeping(seconds) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cancelled = tokio::time::timeout(Duration::from_secs(5), async {
        handle.cancel().await.unwrap();
        handle.settled().await.unwrap()
    })
    .await
    .expect("cancelled within 5 s");
    assert_eq!(cancelled.state, DeploymentState::Cancelled);
    assert!(!is_sleeping(seconds), "its process is gone when it says so");
    assert_eq!(installation.get("site", "/").await, (200, "<h1>one</h1>".to_owned()));
    installation.finish().await;
}

/// Whether a process of this machine, in whatever container, runs `sleep` for so long.
fn is_sleeping(seconds: u32) -> bool {
    let command = format!("sleep\0{seconds}\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|process| {
        std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line == command.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_repository_leaves_its_token_nowhere() {
    const TOKEN: &str = "canary-4f1d-token";
    let installation = Installation::start().await;
    installation.push("site", page("private")).await;
    installation.git.require_token("site", TOKEN);
    let open = installation.platform.apps().create(installation.new_app("site")).await.unwrap();
    let refused = open.first_deployment().unwrap().outcome().await.unwrap_err();
    assert_eq!((refused.kind(), refused.whose()), (Kind::NotFound, Fault::User));
    installation.platform.apps().delete("site").await.unwrap().outcome().await.unwrap();

    let handle = installation
        .live(installation.new_app("site").token(TOKEN).env("KEY", "canary-value").unwrap())
        .await;
    assert_eq!(installation.get("site", "/").await.0, 200);
    let events: Vec<_> = handle.events(0).try_collect().await.unwrap();
    assert!(!serde_json::to_string(&events).unwrap().contains("canary"));
    let app = installation.platform.apps().get("site").await.unwrap().app;
    let lines = installation.platform.apps().logs("site", LogQuery::of(app.id)).await.unwrap().lines;
    assert!(lines.iter().all(|line| !line.text.contains("canary")));
    let with_canary = |file: &std::path::PathBuf| {
        // `canary` and its base64, as an `Authorization` header has it, whatever stands before it.
        let needles = ["canary", "Y2FuYXJ5", "NhbmFye", "jYW5hcn"];
        let bytes = std::fs::read(file).unwrap_or_default();
        needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle.as_bytes()))
    };
    let files: Vec<_> = files_below(installation.folder.path()).into_iter().filter(with_canary).collect();
    assert_eq!(files, Vec::<std::path::PathBuf>::new());
    let container = installation.docker(&["ps", "--quiet"]).remove(0);
    let inspected = docker(&["inspect", &container]).join("\n");
    assert!(!inspected.contains(TOKEN) && inspected.contains("canary-value"), "its own env, and no token");
    let image = docker(&["inspect", "--format", "{{.Image}}", &container]).remove(0);
    let of_image = [docker(&["history", "--no-trunc", &image]), docker(&["image", "inspect", &image])];
    assert!(!of_image.concat().join("\n").contains("canary"), "{of_image:?}");
    installation.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_apps_at_once_all_run() {
    let installation = Installation::start().await;
    installation.push("site", page("many")).await;
    let apps = installation.platform.apps();
    let address = installation.git.url("site");
    let created = (0..20).map(|number| {
        let new = paas_core::NewApp::new(&format!("site-{number}"), address.as_str()).unwrap();
        apps.create(new)
    });
    for created in futures::future::join_all(created).await {
        created.unwrap().first_deployment().unwrap().outcome().await.unwrap();
    }
    for number in 0..20 {
        assert_eq!(installation.get(&format!("site-{number}"), "/").await.0, 200);
    }
    installation.finish().await;
}

/// The failures of a deployment: whose fault, and whether it was tried again.
fn failures(events: &[paas_core::Recorded]) -> Vec<(Step, Fault, bool)> {
    let failed = events.iter().filter_map(|recorded| match &recorded.event {
        Event::Failed { step, failure, retry, .. } => Some((*step, failure.fault, retry.is_some())),
        _ => None,
    });
    failed.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_server_that_fails_is_upstream_and_tried_again() {
    let installation = Installation::start().await;
    installation.push("site", page("one")).await;
    let outage = GitFault::Status { status: 503, times: 2, retry_after_seconds: None };
    installation.git.fault("site", outage);
    let handle = installation.live(installation.new_app("site")).await;
    let events: Vec<_> = handle.events(0).try_collect().await.unwrap();
    let failures = failures(&events);
    assert!(!failures.is_empty());
    assert!(failures.iter().all(|failure| *failure == (Step::Fetch, Fault::Upstream, true)), "{failures:?}");
    installation.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_is_upstream_and_tried_again() {
    let installation = Installation::start().await;
    // Nothing listens at that port of this machine.
    installation.push("site", MemoryFiles::from([("Dockerfile", "FROM 127.0.0.1:9/absent:1\n")])).await;
    let handle = installation
        .platform
        .apps()
        .create(installation.new_app("site"))
        .await
        .unwrap()
        .first_deployment()
        .unwrap();
    let mut events = handle.events(0);
    let failure = loop {
        if let Event::Failed { step, failure, retry, .. } = events.try_next().await.unwrap().unwrap().event {
            break (step, failure.fault, retry.is_some());
        }
    };
    assert_eq!(failure, (Step::Build, Fault::Upstream, true));
    handle.cancel().await.unwrap();
    assert_eq!(handle.settled().await.unwrap().state, DeploymentState::Cancelled);
    installation.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_down_is_waited_for() {
    let installation = Installation::start().await;
    installation.push("site", page("one")).await;
    installation.live(installation.new_app("site")).await;
    installation.push("site", page("two")).await;
    installation.engine_line.cut();
    let handle = installation.platform.deploy("site").await.unwrap();
    let mut events = handle.events(0);
    while let Some(recorded) = events.try_next().await.unwrap() {
        if let Event::Failed { failure, retry, .. } = &recorded.event {
            assert_eq!((failure.fault, retry.is_some()), (Fault::Platform, true), "{failure:?}");
            break;
        }
    }
    assert_eq!(installation.get("site", "/").await, (200, "<h1>one</h1>".to_owned()), "the app goes on");
    installation.engine_line.mend();
    handle.outcome().await.unwrap();
    assert_eq!(installation.get("site", "/").await, (200, "<h1>two</h1>".to_owned()));
    installation.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_in_any_order_each_host_reaches_its_own_app() {
    let installation = Installation::start().await;
    let names = ["one", "two", "three"];
    for name in names {
        installation.push(name, page(name)).await;
        installation.live(installation.new_app(name)).await;
    }
    let mut containers = Vec::new();
    for name in names {
        let status = installation.platform.apps().get(name).await.unwrap().status;
        containers.push(status.instance.unwrap().name.to_string());
    }
    let all: Vec<_> = containers.iter().map(String::as_str).collect();
    let mut orders = [all.clone(), all.clone(), all];
    orders[1].rotate_left(1);
    orders[2].reverse();
    for order in orders {
        docker(&[&["restart", "--time", "1"], &order[..]].concat());
        for name in names {
            let mut answer = (0, String::new());
            for _ in 0..100 {
                answer = installation.get(name, "/").await;
                if answer.0 == 200 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(answer, (200, format!("<h1>{name}</h1>")));
        }
    }
    installation.finish().await;
}
