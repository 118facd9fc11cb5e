//! What somebody breaks at the engine is put right by itself; what is not the platform's is left alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod installation;

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use hyper::Method;
use installation::server::{Machine, Server};
use installation::visitor::{client, get};
use installation::{Installation, docker};
use paas_core::memory::MemoryFiles;
use paas_core::pipeline::Drift;
use paas_core::{
    AppState, Context, Event, Generation, Host, Ingress, Position, Recorded, Route, SystemClock,
};
use paas_proxy::{ProxyClient, ProxyConfig};

/// The contract's: what has drifted is put right within 30 s of the engine answering.
const WITHIN: Duration = Duration::from_secs(30);

fn page(text: &str) -> MemoryFiles {
    MemoryFiles::from([("index.html", format!("<h1>{text}</h1>"))])
}

/// Waits until each app answers with its own page.
async fn all_answer(installation: &Installation, names: &[&str]) {
    for name in names {
        let answers = async {
            while installation.get(name, "/").await != (200, format!("<h1>{name}</h1>")) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(WITHIN, answers).await.unwrap_or_else(|_| panic!("{name} does not come back"));
    }
}

/// The name of an app's live container.
async fn container(installation: &Installation, name: &str) -> String {
    installation.platform.apps().get(name).await.unwrap().status.instance.unwrap().name.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drifts_is_put_right_and_nothing_foreign_is_touched() {
    let installation = Installation::start().await;
    let names = ["removed", "stopped", "killed", "renamed"];
    for name in names {
        installation.push(name, page(name)).await;
        installation.live(installation.new_app(name)).await;
    }
    let addresses = installation.docker(&["ps", "--format", "{{.Label \"paas.address\"}}"]);
    let foreign = format!("foreign-{}", std::process::id());
    docker(&["run", "--detach", "--name", &foreign, "paas/base:bookworm", "sleep", "1000000"]);

    docker(&["rm", "--force", &container(&installation, "removed").await]);
    docker(&["stop", "--time", "0", &container(&installation, "stopped").await]);
    docker(&["kill", &container(&installation, "killed").await]);
    let renamed = container(&installation, "renamed").await;
    docker(&["rename", &renamed, &format!("{foreign}-too")]);
    all_answer(&installation, &names).await;
    let restored = async {
        while !installation.docker(&["ps", "--format", "{{.Names}}"]).contains(&renamed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WITHIN, restored).await.expect("the renamed container has its name again");
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    let now = installation.docker(&["ps", "--format", "{{.Label \"paas.address\"}}"]);
    assert_eq!(sorted(now), sorted(addresses), "each has its address again, and there is no other");
    assert_eq!(docker(&["ps", "--quiet", "--filter", &format!("name={foreign}")]).len(), 1);
    docker(&["rm", "--force", &foreign]);
    installation.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_nobody_needs_is_removed() {
    let installation = Installation::start().await;
    installation.push("site", page("site")).await;
    installation.live(installation.new_app("site")).await;
    let live = container(&installation, "site").await;
    let image = docker(&["inspect", "--format", "{{.Image}}", &live]).remove(0);
    let mut copy: Vec<String> = ["run", "--detach", "--name", "paas-somecopy"].map(str::to_owned).into();
    for label in docker(&[
        "inspect",
        "--format",
        "{{range $k, $v := .Config.Labels}}{{println $k \"=\" $v}}{{end}}",
        &live,
    ]) {
        if let Some((name, value)) = label.split_once(" = ") {
            copy.extend(["--label".to_owned(), format!("{name}={value}")]);
        }
    }
    copy.extend([image, "sleep".to_owned(), "1000000".to_owned()]);
    docker(&copy.iter().map(String::as_str).collect::<Vec<_>>());
    let removed = async {
        while installation.docker(&["ps", "--all", "--quiet"]).len() > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WITHIN + Duration::from_secs(30), removed).await.expect("the copy is removed");
    all_answer(&installation, &["site"]).await;
    installation.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_keeps_ending_is_started_again_and_said_so() {
    let installation = Installation::start().await;
    let line = "busybox httpd -f -p $PORT -h /srv & busybox sleep 8; exit 7";
    let command = serde_json::to_string(line).unwrap();
    let dockerfile =
        format!("FROM paas/static:1\nCOPY . /srv\nCMD [\"busybox\", \"sh\", \"-c\", {command}]\n");
    installation
        .push("shaky", MemoryFiles::from([("Dockerfile", dockerfile), ("index.html", "up".to_owned())]))
        .await;
    installation.live(installation.new_app("shaky")).await;
    let mut feed = installation.platform.events(Position(0));
    let (mut ended, mut restored) = (0, 0);
    let watch = async {
        while ended < 2 || restored < 2 {
            let Recorded { event, .. } = feed.try_next().await.unwrap().unwrap();
            match event {
                Event::DriftFound { drift: Drift::Ended { code: 7, .. }, .. } => ended += 1,
                Event::InstanceRestored { .. } => restored += 1,
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), watch).await.expect("it is started again, twice");
    let status = installation.platform.apps().get("shaky").await.unwrap().status;
    assert_eq!(status.state, AppState::Running, "twice is no loop yet");
    assert!(status.crashes.unwrap().count >= 2);
    installation.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_whose_container_and_image_are_removed_is_deployed_anew() {
    let installation = Installation::start().await;
    installation.push("site", page("site")).await;
    let first = installation.live(installation.new_app("site")).await;
    let commit = first.get().await.unwrap().commit;
    let image = docker(&["inspect", "--format", "{{.Image}}", &container(&installation, "site").await]);
    let is_removed = || {
        let removal = std::process::Command::new("docker").args(["rmi", "--force", &image[0]]).output();
        removal.unwrap().status.success()
    };
    // A container that was made again meanwhile holds the image.
    loop {
        docker(&["rm", "--force", &container(&installation, "site").await]);
        if is_removed() {
            break;
        }
    }
    all_answer(&installation, &["site"]).await;
    let deployments = installation.platform.apps().deployments("site", 10, None).await.unwrap().items;
    let [newest, oldest] = &deployments[..] else { panic!("{deployments:?}") };
    assert_eq!((&oldest.id, &newest.commit), (first.id(), &commit));
    installation.finish().await;
}

/// Waits until a host of the machine's proxy answers with this status.
async fn answers(machine: &Machine, name: &str, status: u16) {
    let answers = async {
        while get(&client(), machine.proxy_port, name, "/").await.unwrap().0 != status {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WITHIN, answers).await.unwrap_or_else(|_| panic!("{name} does not answer {status}"));
}

/// What the server has counted of a kind of drift that it put right.
async fn repaired(server: &Server, drift: &str) -> f64 {
    let line = format!("paas_drift_repaired_total{{drift=\"{drift}\"}} ");
    let metrics = server.text("/metrics").await;
    metrics.lines().find_map(|text| text.strip_prefix(&line)).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changes_at_the_proxy_process_is_put_right() {
    let machine = Machine::new().await;
    machine.git.commit("site", "main", page("site")).await.unwrap();
    let server = machine.start().await;
    let (app, first) = server.create("site", &machine.git.url("site")).await;
    assert_eq!(server.settle(&first).await["state"], "running");
    let directory = Some(machine.folder.path().join("server/proxy"));
    let listen = ([127, 0, 0, 1], machine.proxy_port).into();
    let proxy =
        ProxyClient::connect(ProxyConfig { directory, listen, ..ProxyConfig::default() }).await.unwrap();
    let context = Context::new(Arc::new(SystemClock::new()));
    let host: Host = "site.localhost".parse().unwrap();
    let generation = async || proxy.serving(&context, &host).await.unwrap().unwrap().generation;

    let newer = Generation(generation().await.0 + 1);
    proxy.withdraw(&context, &host, newer).await.unwrap();
    answers(&machine, "site", 421).await;
    answers(&machine, "site", 200).await;
    assert!(generation().await > newer);

    let newer = Generation(generation().await.0 + 1);
    let nowhere = Route { host: host.clone(), app: app.parse().unwrap(), targets: Vec::new() };
    proxy.publish(&context, &nowhere, newer).await.unwrap();
    // Newer than anything in the store, it is left alone until the store has come so far.
    server.act(Method::POST, "/v1/apps/site/deployments").await;
    answers(&machine, "site", 200).await;

    let deletion = server.act(Method::DELETE, "/v1/apps/site").await;
    assert_eq!(server.settle(&deletion).await["state"], "deleted");
    let again = Generation(generation().await.0 + 1);
    proxy.publish(&context, &nowhere, again).await.unwrap();
    answers(&machine, "site", 503).await;
    answers(&machine, "site", 421).await;
    for drift in ["route_missing", "route_unneeded"] {
        assert_eq!(repaired(&server, drift).await, 1.0, "{drift}");
    }
    server.kill().await;
}
