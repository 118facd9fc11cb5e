//! A whole installation with real parts, on its own label, subnet and folder, and a client of it.

#![allow(dead_code, unreachable_pub)] // each test program uses a part of it
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use paas_core::memory::MemoryFiles;
use paas_core::{
    AddressPool, CommitId, Context, DeploymentHandle, EgressPolicy, Keyring, NewApp, Platform, Selector,
    Settings, SystemClock,
};
use paas_core::{ContainerRuntime, ImageBuilder, OrgId};
use paas_docker::{DockerBuilder, DockerEngine, DockerRuntime};
use paas_git::testing::GitServer;
use paas_git::{GitOptions, GixProvider};
use paas_plan::{BaseImages, SourcePlanner};
use paas_proxy::{Proxy, ProxyConfig};
use paas_store::{FileLogStore, SqliteStore};

pub struct Installation {
    pub git: GitServer,
    pub platform: Platform,
    pub proxy: Arc<Proxy>,
    pub runtime: Arc<DockerRuntime>,
    pub builder: Arc<DockerBuilder>,
    pub folder: tempfile::TempDir,
    context: Context,
}

/// A pool that no other test uses at the same time: one org's subnet, told apart by the process.
pub fn address_pool() -> AddressPool {
    let process = std::process::id();
    let [_, _, high, low] = process.to_be_bytes();
    AddressPool::new(Ipv4Addr::new(10, 190 + (high & 0x1f), low, 0), 24, 24).unwrap()
}

pub fn base_images() -> BaseImages {
    BaseImages::new([
        ("python:3.11", "paas/python:3.11"),
        ("node:20", "paas/node:20"),
        ("static", "paas/static:1"),
    ])
    .unwrap()
}

impl Installation {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let git = GitServer::temporary().await.unwrap();
        let clock = Arc::new(SystemClock::new());
        let context = Context::new(clock.clone());
        let label = format!("test-{}", std::process::id());
        let engine = DockerEngine::connect(&context, &label).await.expect(
            "a Docker engine must answer: run examples/setup/engine.sh and examples/setup/base-images.sh",
        );
        let egress = EgressPolicy::default().allowing("127.0.0.1");
        let options = GitOptions { egress: egress.clone(), ..GitOptions::default() };
        let config = ProxyConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ProxyConfig::default() };
        let proxy = Arc::new(Proxy::start(config, clock.clone()).await.unwrap());
        let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
        let builder = DockerBuilder::new(engine.clone())
            .with_ca_bundle(authorities.exists().then(|| authorities.into()));
        let (builder, runtime) = (Arc::new(builder), Arc::new(DockerRuntime::new(engine)));
        let path = |name: &str| -> PathBuf { folder.path().join(name) };
        let platform = Platform::builder()
            .clock(clock.clone())
            .store(Arc::new(SqliteStore::open(path("state.db"), clock.clone()).await.unwrap()))
            .logs(Arc::new(FileLogStore::open(path("logs"), clock.clone()).await.unwrap()))
            .keyring(Keyring::open(&path("master.key")).unwrap())
            .git(Arc::new(GixProvider::open(path("mirrors"), options).unwrap()))
            .planner(Arc::new(SourcePlanner::new(base_images())))
            .image_builder(builder.clone())
            .runtime(runtime.clone())
            .ingress(proxy.clone())
            .settings(Settings { egress, address_pool: address_pool(), ..Settings::default() })
            .start()
            .await
            .unwrap();
        Self { git, platform, proxy, runtime, builder, folder, context }
    }

    /// Commits files to the main branch of the repository that the app comes from.
    pub async fn push(&self, name: &str, files: impl Into<MemoryFiles>) -> CommitId {
        self.git.commit(name, "main", files).await.unwrap()
    }

    pub fn new_app(&self, name: &str) -> NewApp {
        NewApp::new(name, self.git.url(name).as_str()).unwrap()
    }

    /// Creates an app from its repository and waits until it is live.
    pub async fn live(&self, new: NewApp) -> DeploymentHandle {
        let handle = self.platform.apps().create(new).await.unwrap().first_deployment().unwrap();
        handle.outcome().await.unwrap();
        handle
    }

    pub async fn get(&self, name: &str, path: &str) -> (u16, String) {
        get(&client(), self.proxy.address().port(), name, path).await.unwrap()
    }

    /// Removes every app, and proves that nothing of it is left on the engine.
    pub async fn finish(self) {
        let apps = self.platform.apps();
        let mut images = 0;
        for view in apps.list(100, None).await.unwrap().items {
            let app = view.app.id.clone();
            apps.delete(&view.app).await.unwrap().outcome().await.unwrap();
            images += self.builder.list(&self.context, &OrgId::default_org(), &app).await.unwrap().len();
        }
        assert_eq!(images, 0, "images are left");
        assert_eq!(
            self.runtime.list(&self.context, &Selector::default()).await.unwrap(),
            [],
            "containers are left"
        );
        self.platform.shutdown().await;
        self.proxy.stop().await;
    }
}

pub type HttpClient = Client<HttpConnector, Empty<Bytes>>;

pub fn client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build(HttpConnector::new())
}

/// One request to an app through the proxy.
pub async fn get(client: &HttpClient, port: u16, name: &str, path: &str) -> Result<(u16, String), String> {
    let request = Request::get(format!("http://127.0.0.1:{port}{path}"))
        .header("host", format!("{name}.localhost:{port}"))
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let answer = client.request(request).await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Clients that ask an app without a pause until they are told to stop, and count what fails.
pub struct Hammer {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failures: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Hammer {
    pub fn start(port: u16, name: &'static str, clients: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let failures = (0..clients)
            .map(|_| {
                let (stop, answered) = (stop.clone(), answered.clone());
                tokio::spawn(async move {
                    let (client, mut failures) = (client(), Vec::new());
                    while !stop.load(Ordering::Relaxed) {
                        match get(&client, port, name, "/").await {
                            Ok((200, _)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            Ok((status, body)) => failures.push(format!("{status} {body}")),
                            Err(error) => failures.push(error),
                        }
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                    failures
                })
            })
            .collect();
        Self { stop, answered, failures }
    }

    /// Stops, and answers how many requests were answered and every failure.
    pub async fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.failures {
            failures.extend(client.await.unwrap());
        }
        (self.answered.load(Ordering::Relaxed), failures)
    }
}

/// The files of a bundled sample app.
pub fn sample(name: &str) -> MemoryFiles {
    fn add(files: MemoryFiles, root: &Path, folder: &Path) -> MemoryFiles {
        let mut entries: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.into_iter().fold(files, |files, path| {
            if path.is_dir() {
                return add(files, root, &path);
            }
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.file(name, std::fs::read(&path).unwrap())
        })
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("apps").join(name);
    add(MemoryFiles::default(), &root, &root)
}
