//! The server as an operator meets it: its files, its errors, its stops.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests, and what they share

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use paas_core::Kind;
use paas_http::{Server, ServerConfig};
use paas_proxy::{Launcher, ProxyClient, ProxyConfig};
use serde_json::Value;

/// The server's program, which is the proxy too.
const PROGRAM: &str = env!("CARGO_BIN_EXE_paas-server");

/// A server on free ports, on an engine that is not there.
fn config(directory: &Path) -> ServerConfig {
    let text = format!(
        "data_directory = {directory:?}\nlisten = \"127.0.0.1:0\"\nproxy_listen = \"127.0.0.1:0\"\n\
         docker_host = \"unix://{}\"\n",
        directory.join("no-engine.sock").display()
    );
    ServerConfig::parse(&text).unwrap()
}

async fn start(config: ServerConfig) -> paas_core::Result<Server> {
    Server::start(config, Launcher::Program(PROGRAM.into())).await
}

/// Ends the proxy that a server leaves behind.
async fn end_proxy(directory: &Path) {
    let proxy = ProxyConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        directory: Some(directory.join("proxy")),
        ..ProxyConfig::default()
    };
    ProxyClient::connect(proxy).await.unwrap().stop().await.unwrap();
}

async fn open(address: SocketAddr, path: &str, token: &str) -> http::Response<hyper::body::Incoming> {
    let request =
        Request::get(format!("http://{address}{path}")).header("authorization", format!("Bearer {token}"));
    let client = Client::builder(TokioExecutor::new()).build_http();
    client.request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
}

async fn get(address: SocketAddr, path: &str, token: &str) -> (StatusCode, Value) {
    let response = open(address, path, token).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn a_server_starts_without_an_engine_and_says_so_and_keeps_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(config(folder.path())).await.unwrap();
    let (address, token) = (server.address(), server.token().expose().to_owned());
    assert_eq!(get(address, "/v1/apps", &token).await.0, 200);
    assert_eq!(get(address, "/v1/apps", "another").await.0, 401);
    let (status, ready) = get(address, "/readyz", &token).await;
    assert_eq!((status.as_u16(), &ready["problems"][0]["part"]), (503, &"engine".into()), "{ready}");
    let response = open(address, "/metrics", &token).await;
    let metrics = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&metrics).contains("operation=\"runtime.ping\""));
    server.stop().await;

    let server = start(config(folder.path())).await.unwrap();
    assert_eq!(server.token().expose(), token);
    server.stop().await;
    end_proxy(folder.path()).await;
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(config(folder.path())).await.unwrap();

    let second = start(config(folder.path())).await.unwrap_err();
    assert_eq!(second.kind(), Kind::Unavailable);
    assert!(second.message().contains("paas.db"), "{second}");

    let other = tempfile::tempdir().unwrap();
    let mut taken = config(other.path());
    taken.listen = server.address();
    let error = start(taken).await.unwrap_err();
    assert!(error.message().contains(&server.address().to_string()) && error.hinted().is_some(), "{error}");

    // The one that failed has let go of the directory.
    let mut bad_name = config(other.path());
    bad_name.installation = "Not a name".to_owned();
    assert_eq!(start(bad_name).await.unwrap_err().kind(), Kind::Invalid);

    server.stop().await;
    end_proxy(folder.path()).await;
}

#[tokio::test]
async fn a_stop_ends_streams_and_waits_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(config(folder.path())).await.unwrap();
    let new = paas_core::NewApp::new("hello", "https://git.example.com/team/hello.git").unwrap();
    server.platform().apps().create(new.without_deploying()).await.unwrap();
    let stream = open(server.address(), "/v1/apps/hello/logs/stream", server.token().expose()).await;
    assert_eq!(stream.status(), 200);
    server.stop().await;
    let text = stream.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("event: end\ndata: {\"reason\":\"closing\""));
    end_proxy(folder.path()).await;
}

/// Ends the program when the test fails before it did.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_prints_where_it_is_and_stops_on_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("paas.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\nproxy_listen = \"127.0.0.1:0\"\n").unwrap();
    let child = Command::new(PROGRAM)
        .arg("--config")
        .arg(&file)
        .env("PAAS_DATA_DIRECTORY", folder.path().join("data"))
        .env("PAAS_DOCKER_HOST", "unix:///nonexistent.sock")
        .env("PAAS_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let api = lines.next().unwrap();
    let address = api.strip_prefix("API:   http://").unwrap();
    let token_file = lines.next().unwrap().strip_prefix("Token file: ").unwrap().to_owned();
    let token = lines.next().unwrap().strip_prefix("Token: ").unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(&token_file).unwrap().trim(), token);
    // Its log is read meanwhile: a full pipe would stop it.
    let mut errors = running.0.stderr.take().unwrap();
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        errors.read_to_string(&mut log).map(|_| log)
    });
    let address: SocketAddr = address.parse().unwrap();
    assert_eq!(get(address, "/v1/version", &token).await.0, 200);
    assert_eq!(get(address, &format!("/v1/version?token={token}"), "x").await.0, 401);
    let process = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert!(running.0.wait().unwrap().success());
    let log = log.join().unwrap().unwrap();
    assert!(log.contains("stopping"), "{log}");
    assert!(!log.contains(&token), "the token is in the log");
    assert!(lines.next().is_none());

    // A token that was shown once is not shown again where no person looks.
    let child = Command::new(PROGRAM)
        .arg("--config")
        .arg(&file)
        .env("PAAS_DATA_DIRECTORY", folder.path().join("data"))
        .env("PAAS_DOCKER_HOST", "unix:///nonexistent.sock")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut again = Running(child);
    let mut printed = BufReader::new(again.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = [printed.next().unwrap(), printed.next().unwrap()];
    assert_eq!(first[1], format!("Token file: {token_file}"));
    let address = first[0].strip_prefix("API:   http://").unwrap().parse().unwrap();
    assert_eq!(get(address, "/v1/version", &token).await.0, 200);
    let process = rustix::process::Pid::from_child(&again.0);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert!(again.0.wait().unwrap().success());
    assert!(printed.next().is_none());
    end_proxy(&folder.path().join("data")).await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_said_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let mut away = config(folder.path());
    away.database_url = Some("postgresql://paas:hunter2@127.0.0.1:1/paas".into());
    let error = start(away.clone()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(!format!("{error:?} {away:?}").contains("hunter2"));
    let error = Server::import(&config(folder.path()), &folder.path().join("paas.db")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.hinted().unwrap().contains("DATABASE_URL"));
}
