//! The real server, killed with SIGKILL in the middle of every step: the next start finishes the deployment, with one
//! container and one route, and running apps answer every request meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod installation;

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use installation::{Hammer, client, get};
use paas_core::memory::MemoryFiles;
use paas_git::testing::{GitFault, GitServer};
use paas_proxy::{ProxyClient, ProxyConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(90);

struct Server {
    process: Child,
    address: String,
    token: String,
}

struct Machine {
    folder: tempfile::TempDir,
    git: GitServer,
    installation: String,
    proxy_port: u16,
}

impl Machine {
    async fn new() -> Self {
        let proxy_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self {
            folder: tempfile::tempdir().unwrap(),
            git: GitServer::temporary().await.unwrap(),
            installation: format!("survive-{}", std::process::id()),
            proxy_port,
        }
    }

    async fn start(&self) -> Server {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let pool = format!("10.{}.{low}.0/24", 223 + (high & 0x0f));
        let mut process = Command::new(env!("CARGO_BIN_EXE_http_server"))
            .env("PAAS_DATA_DIRECTORY", self.folder.path().join("server"))
            .env("PAAS_LISTEN", "127.0.0.1:0")
            .env("PAAS_PROXY_LISTEN", format!("127.0.0.1:{}", self.proxy_port))
            .env("PAAS_INSTALLATION", &self.installation)
            .env("PAAS_ADDRESS_POOL", pool)
            .env("PAAS_ALLOWED_HOSTS", format!("[\"{}\"]", self.git.address()))
            .env("PAAS_BASE_IMAGES", "{ static = \"paas/static:1\" }")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut next = async || lines.next_line().await.unwrap().expect("the server starts");
        let address = next().await.split_once("API:").unwrap().1.trim().to_owned();
        let token = next().await.split_once("Token:").unwrap().1.trim().to_owned();
        Server { process, address, token }
    }

    /// The containers of an app, running or not.
    fn containers(&self, app: &str) -> Vec<String> {
        let output = std::process::Command::new("docker")
            .args(["ps", "--all", "--format", "{{.Names}}"])
            .args(["--filter", &format!("label=paas.installation={}", self.installation)])
            .args(["--filter", &format!("label=paas.app={app}")])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Server {
    async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::<Bytes>::from(if body.is_null() { String::new() } else { body.to_string() }))
            .unwrap();
        let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn create(&self, name: &str, repository: &str) -> (String, String) {
        let (status, app) =
            self.call(Method::POST, "/v1/apps", json!({ "name": name, "repository": repository })).await;
        assert_eq!(status, 201, "{app}");
        (app["id"].as_str().unwrap().to_owned(), app["deployment"]["id"].as_str().unwrap().to_owned())
    }

    async fn deployment(&self, id: &str) -> Value {
        self.call(Method::GET, &format!("/v1/deployments/{id}"), Value::Null).await.1
    }

    /// Waits until the deployment is at a step, or past it.
    async fn reach(&self, id: &str, steps: &[&str]) {
        let until = Instant::now() + PATIENCE;
        loop {
            let deployment = self.deployment(id).await;
            if deployment["step"].as_str().is_some_and(|step| steps.contains(&step)) {
                return;
            }
            assert!(Instant::now() < until, "it never came to {steps:?}: {deployment}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn settle(&self, id: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, waited) = self
                .call(Method::GET, &format!("/v1/deployments/{id}/wait?for=settled&timeout=30"), Value::Null)
                .await;
            if waited["reached"] == json!(true) {
                return self.deployment(id).await;
            }
            assert!(Instant::now() < until, "it never ends: {waited}");
        }
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

/// A page from a program that takes a moment to listen, built by a step that takes a moment.
fn slow_app(text: &str) -> MemoryFiles {
    let dockerfile = concat!(
        "FROM paas/static:1\nRUN [\"/bin/busybox\", \"sleep\", \"2\"]\nCOPY index.html /site/index.html\n",
        "CMD [\"/bin/busybox\", \"sh\", \"-c\", \"sleep 1; exec /bin/busybox httpd -f -p $PORT -h /site\"]\n"
    );
    MemoryFiles::from([("Dockerfile", dockerfile.to_owned()), ("index.html", text.to_owned())])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_goes_on_where_it_was() {
    let machine = Machine::new().await;
    machine.git.commit("steady", "main", [("index.html", "steady")]).await.unwrap();
    let mut server = machine.start().await;
    let (steady, first) = server.create("steady", machine.git.url("steady").as_str()).await;
    assert_eq!(server.settle(&first).await["state"], "running");
    let hammer = Hammer::start(machine.proxy_port, "steady", 4);

    for (number, steps) in
        [&["fetch"][..], &["build"], &["start", "verify"], &["route", "retire"]].into_iter().enumerate()
    {
        let name = format!("work-{number}");
        machine.git.commit(&name, "main", slow_app(&name)).await.unwrap();
        if steps == ["fetch"] {
            let slow = GitFault::Slow { bytes: 64, pause: Duration::from_millis(50) };
            machine.git.fault(&name, slow);
        }
        let (app, id) = server.create(&name, machine.git.url(&name).as_str()).await;
        server.reach(&id, steps).await;
        if steps == ["build"] {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        server.kill().await;
        machine.git.fault(&name, None);
        server = machine.start().await;
        let deployment = server.settle(&id).await;
        assert_eq!(deployment["state"], "running", "killed in {steps:?}: {deployment}");
        assert_eq!(machine.containers(&app).len(), 1, "killed in {steps:?}");
        let (status, body) = get(&client(), machine.proxy_port, &name, "/").await.unwrap();
        assert_eq!((status, body.as_str()), (200, name.as_str()), "killed in {steps:?}");
    }

    let (answered, failures) = hammer.stop().await;
    assert!(
        failures.is_empty(),
        "{} of {answered} failed: {:?}",
        failures.len(),
        &failures[..failures.len().min(3)]
    );
    assert!(answered > 100, "only {answered} requests were answered");
    assert_eq!(machine.containers(&steady).len(), 1);

    for name in ["steady", "work-0", "work-1", "work-2", "work-3"] {
        let (status, deletion) = server.call(Method::DELETE, &format!("/v1/apps/{name}"), Value::Null).await;
        assert_eq!(status, 202, "{deletion}");
        let id = deletion["id"].as_str().unwrap().to_owned();
        assert_eq!(server.settle(&id).await["state"], "deleted");
    }
    server.kill().await;
    end_proxy(machine.folder.path(), machine.proxy_port).await;
}

/// Ends the proxy that the servers left behind.
async fn end_proxy(folder: &Path, port: u16) {
    let config = ProxyConfig {
        listen: ([127, 0, 0, 1], port).into(),
        directory: Some(folder.join("server/proxy")),
        ..ProxyConfig::default()
    };
    ProxyClient::connect(config).await.unwrap().stop().await.unwrap();
}
