//! The real server on a disk that loses what was not synced: what it answered for is there when the power is back, and
//! what was accepted goes on.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod installation;

use std::time::{Duration, Instant};

use fallible_disk::Disk;
use hyper::Method;
use installation::server::{Machine, Server};
use installation::visitor::{client, get};
use paas_core::memory::MemoryFiles;
use rustix::process::Signal;
use serde_json::{Value, json};

/// How long what goes on by itself may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn disk_process() {
    fallible_disk::process();
}

/// A page from a program that takes a moment to listen, built by a step that takes a moment.
fn page(text: &str) -> MemoryFiles {
    let dockerfile = concat!(
        "FROM paas/static:1\nRUN [\"/bin/busybox\", \"sleep\", \"1\"]\nCOPY index.html /site/index.html\n",
        "CMD [\"/bin/busybox\", \"sh\", \"-c\", \"sleep 1; exec /bin/busybox httpd -f -p $PORT -h /site\"]\n"
    );
    MemoryFiles::from([("Dockerfile", dockerfile.to_owned()), ("index.html", text.to_owned())])
}

/// The power goes, and with it the server and the proxy. It comes back, and somebody starts the server.
async fn lose_power(machine: &Machine, disk: &Disk, server: Server, seed: u64) -> Server {
    disk.cut(seed);
    server.kill().await;
    machine.signal_proxy(Signal::KILL);
    disk.restore();
    machine.start().await
}

async fn visit(machine: &Machine) -> (u16, String) {
    get(&client(), machine.proxy_port, "site", "/").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_there_when_the_power_is_back() {
    let machine = Machine::new().await;
    let directory = machine.folder.path().join("server");
    std::fs::create_dir(&directory).unwrap();
    let disk = Disk::mount_at(&directory).unwrap();
    machine.git.commit("site", "main", page("0")).await.unwrap();
    let mut server = machine.start().await;

    // Right after the answer.
    let (app, deployment) = server.create("site", &machine.git.url("site")).await;
    server = lose_power(&machine, &disk, server, 0).await;
    let (status, found) = server.call(Method::GET, "/v1/apps/site", Value::Null).await;
    assert_eq!((status, &found["id"]), (200, &json!(app)), "{found}");
    assert_eq!(server.settle(&deployment).await["state"], "running");
    assert_eq!(visit(&machine).await, (200, "0".to_owned()));

    // With a secret, which needs the key that sealed it, and in the middle of what follows.
    for (seed, steps) in [(1, &["fetch", "plan", "build"][..]), (2, &["build"]), (3, &["start", "verify"])] {
        machine.git.commit("site", "main", page(&seed.to_string())).await.unwrap();
        let wanted = json!({ "env": { "SEED": seed.to_string() } });
        let (status, patched) = server.call(Method::PATCH, "/v1/apps/site", wanted).await;
        assert!((200..300).contains(&status), "{patched}");
        let deployment = server.act(Method::POST, "/v1/apps/site/deployments").await;
        server.reach(&deployment, steps).await;
        server = lose_power(&machine, &disk, server, seed).await;
        let settled = server.settle(&deployment).await;
        assert_eq!(settled["state"], "running", "{settled}");
        assert_eq!(visit(&machine).await, (200, seed.to_string()));
        // It is live before the old one is drained and removed.
        let until = Instant::now() + PATIENCE;
        while machine.containers(&app).len() != 1 {
            assert!(Instant::now() < until, "{:?}", machine.containers(&app));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    let deletion = server.act(Method::DELETE, "/v1/apps/site").await;
    server = lose_power(&machine, &disk, server, 4).await;
    assert_eq!(server.settle(&deletion).await["state"], "deleted");
    assert_eq!(machine.containers(&app), [""; 0]);
    assert!(server.stop().await.0.success());
}
