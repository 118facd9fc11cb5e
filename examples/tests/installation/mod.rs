//! A whole installation with real parts, on its own label, subnet and folder, and a client of it.

#![allow(dead_code, unreachable_pub)] // each test program uses a part of it
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

pub mod api;
pub mod engine;
mod leftovers;
pub mod own_engine;
pub mod registry;
pub mod root;
pub mod server;
pub mod visitor;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

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

use engine::EngineLine;
use leftovers::Leftovers;
use visitor::{client, get};

pub struct Installation {
    pub git: GitServer,
    pub platform: Platform,
    pub proxy: Arc<Proxy>,
    pub runtime: Arc<DockerRuntime>,
    pub builder: Arc<DockerBuilder>,
    pub folder: tempfile::TempDir,
    pub engine_line: EngineLine,
    leftovers: Leftovers,
    context: Context,
}

/// A pool that no other test uses at the same time: one org's subnet, told apart by the process and the test.
fn address_pool(number: u8) -> AddressPool {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    AddressPool::new(Ipv4Addr::new(10, 190 + (high & 0x1f), low, number << 5), 27, 27).unwrap()
}

pub fn base_images() -> BaseImages {
    BaseImages::new([
        ("python:3.11", "paas/python:3.11"),
        ("node:20", "paas/node:20"),
        ("static", "paas/static:1"),
    ])
    .unwrap()
}

/// How many installations this process made.
static INSTALLATIONS: AtomicU8 = AtomicU8::new(0);

impl Installation {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let number = INSTALLATIONS.fetch_add(1, Ordering::Relaxed);
        let git = GitServer::temporary().await.unwrap();
        let clock = Arc::new(SystemClock::new());
        let context = Context::new(clock.clone());
        let leftovers = Leftovers(format!("test-{}-{number}", std::process::id()));
        let socket = folder.path().join("engine.sock");
        let engine_line = EngineLine::lay(&socket);
        let host = format!("unix://{}", socket.display());
        let engine = DockerEngine::connect_to(&context, &host, &leftovers.0).await.expect(
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
            .settings(Settings { egress, address_pool: address_pool(number), ..Settings::default() })
            .start()
            .await
            .unwrap();
        Self { git, platform, proxy, runtime, builder, folder, context, leftovers, engine_line }
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

    /// What `docker` prints of this installation's containers, networks or images, one line each.
    pub fn docker(&self, arguments: &[&str]) -> Vec<String> {
        let label = format!("label=paas.installation={}", self.leftovers.0);
        docker(&[arguments, &["--filter", &label]].concat())
    }

    /// Removes every app, and proves that nothing of it is left.
    pub async fn finish(self) {
        let apps = self.platform.apps();
        let (mut images, mut names) = (0, Vec::new());
        for view in apps.list(100, None).await.unwrap().items {
            let app = view.app.id.clone();
            apps.delete(&view.app).await.unwrap().outcome().await.unwrap();
            images += self
                .builder
                .list(&self.context, &Selector::of_app(&OrgId::default_org(), &app))
                .await
                .unwrap()
                .len();
            names.push(view.app.name.to_string());
        }
        assert_eq!(images, 0, "images are left");
        assert_eq!(
            self.runtime.list(&self.context, &Selector::default()).await.unwrap(),
            [],
            "containers are left"
        );
        assert_eq!(self.docker(&["ps", "--all", "--quiet"]), [""; 0], "containers are left");
        assert_eq!(self.docker(&["network", "ls", "--quiet"]), [""; 0], "networks are left");
        for name in names {
            assert_eq!(self.get(&name, "/").await.0, 421, "the route of {name} is left");
        }
        self.platform.shutdown().await;
        self.proxy.stop().await;
        let left = |folder: &str| files_below(&self.folder.path().join(folder));
        assert_eq!(left("mirrors"), Vec::<PathBuf>::new(), "mirrors are left");
        assert_eq!(left("logs"), Vec::<PathBuf>::new(), "logs are left");
    }
}

/// What a `docker` command prints, one line each.
pub fn docker(arguments: &[&str]) -> Vec<String> {
    let output = std::process::Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).fold(
        Vec::new(),
        |mut files, path| {
            if path.is_dir() {
                files.extend(files_below(&path));
            } else {
                files.push(path);
            }
            files
        },
    )
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
