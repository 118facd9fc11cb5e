//! Every sample app, through the HTTP API and through the embedding example.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod installation;

use std::process::Stdio;

use hyper::Method;
use installation::sample;
use installation::server::Machine;
use installation::visitor::{client, get};
use paas_git::testing::GitServer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// Each sample, and what its page says.
const SAMPLES: [(&str, &str); 4] = [
    ("static-site", "it is live"),
    ("dockerfile", "Hello from a Dockerfile"),
    ("node", "Hello from Node"),
    ("flask", "Hello from Flask"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_app_answers_through_the_api() {
    let machine = Machine::new().await;
    let server = machine.start().await;
    for (name, expected) in SAMPLES {
        machine.git.commit(name, "main", sample(name)).await.unwrap();
        let (_, deployment) = server.create(name, &machine.git.url(name)).await;
        let deployment = server.settle(&deployment).await;
        assert_eq!(deployment["state"], "running", "{name}: {deployment}");
        let (status, body) = get(&client(), machine.proxy_port, name, "/").await.unwrap();
        assert!(status == 200 && body.contains(expected), "{name}: {status} {body}");
        let deletion = server.act(Method::DELETE, &format!("/v1/apps/{name}")).await;
        assert_eq!(server.settle(&deletion).await["state"], "deleted");
    }
    server.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_app_answers_through_the_embedding_example() {
    let git = GitServer::temporary().await.unwrap();
    let home = tempfile::tempdir().unwrap();
    for (name, expected) in SAMPLES {
        git.commit(name, "main", sample(name)).await.unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_embed"))
            .arg(git.url(name).as_str())
            .env("XDG_DATA_HOME", home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let port: u16 = loop {
            let line = lines.next_line().await.unwrap().expect("it comes to say that the app is live");
            if let Some((_, rest)) = line.split_once("live at http://embedded.localhost:") {
                break rest.split_once(';').unwrap().0.parse().unwrap();
            }
        };
        let (status, body) = get(&client(), port, "embedded", "/").await.unwrap();
        assert!(status == 200 && body.contains(expected), "{name}: {status} {body}");
        program.stdin.take().unwrap().write_all(b"\n").await.unwrap();
        assert!(program.wait().await.unwrap().success(), "{name}");
    }
}
