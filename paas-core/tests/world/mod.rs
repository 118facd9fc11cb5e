//! A platform in memory with everything in reach of a test.

#![allow(dead_code, unreachable_pub)] // each test program uses a part of it
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod store;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use paas_core::memory::{
    MemoryDns, MemoryFiles, MemoryGit, MemoryHost, MemoryIngress, MemoryLogStore, MemoryRuntime, MemoryStore,
    MemoryTree, Script,
};
use paas_core::testing::front::Front;
use paas_core::{
    App, CommitId, Created, DeploymentHandle, GitRef, GitUrl, Ids, Keyring, NewApp, Platform,
    PlatformBuilder, RandomIds, Recorded, Settings, SourceTree, TestClock,
};

#[allow(unused_imports)] // each test program uses a part of it
pub use store::{Fenced, Idle};

pub const REPOSITORY: &str = "https://git.example.com/team/hello.git";

/// The parts of a platform; several platforms can be started on them, one after the other or at once.
pub struct World {
    pub clock: Arc<TestClock>,
    pub store: Arc<MemoryStore>,
    pub git: Arc<MemoryGit>,
    pub host: MemoryHost,
    pub runtime: Arc<MemoryRuntime>,
    pub ingress: Arc<MemoryIngress>,
    pub dns: Arc<MemoryDns>,
    pub logs: Arc<MemoryLogStore>,
    pub ids: Arc<dyn Ids>,
    pub settings: Settings,
    pub key: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let clock = Arc::new(TestClock::new());
        let host = MemoryHost::new(clock.clone());
        Self {
            store: Arc::new(MemoryStore::new(clock.clone())),
            git: Arc::new(MemoryGit::new()),
            runtime: Arc::new(MemoryRuntime::new(host.clone())),
            host,
            ingress: Arc::new(MemoryIngress::new()),
            dns: Arc::new(MemoryDns::new([192, 0, 2, 10].into())),
            logs: Arc::new(MemoryLogStore::new(clock.clone())),
            ids: Arc::new(RandomIds::seeded(clock.clone(), 1)),
            settings: Settings::default(),
            key: key(),
            clock,
        }
    }

    pub fn builder(&self) -> PlatformBuilder {
        let builder: Arc<dyn paas_core::ImageBuilder> =
            Arc::new(paas_core::memory::MemoryBuilder::new(self.host.clone()));
        Platform::builder()
            .clock(self.clock.clone())
            .store(self.store.clone())
            .git(self.git.clone())
            .image_builder(builder)
            .runtime(self.runtime.clone())
            .ingress(self.ingress.clone())
            .dns(self.dns.clone())
            .logs(self.logs.clone())
            .ids(self.ids.clone())
            .keyring(Keyring::open(&self.key.path().join("master.key")).unwrap())
            .settings(self.settings.clone())
    }

    pub async fn platform(&self) -> Platform {
        self.builder().start().await.unwrap()
    }

    /// A platform that accepts operations and works on none.
    pub async fn asking(&self) -> Platform {
        self.builder().store(Arc::new(Front(Idle(self.store.clone())))).start().await.unwrap()
    }

    /// Commits files to the main branch of the repository.
    pub fn push(&self, files: impl Into<MemoryFiles>) -> CommitId {
        self.git.commit(&url(), &branch("main"), files)
    }

    /// Commits a page, and says what building and running its tree does.
    pub fn push_scripted(&self, page: &str, script: Script) -> CommitId {
        let files = || MemoryFiles::from([("index.html", page.to_owned())]);
        let commit = self.push(files());
        let tree = MemoryTree::new(files()).unwrap();
        self.host.script(tree.id(), script);
        commit
    }

    pub fn push_page(&self, page: &str) -> CommitId {
        self.push(MemoryFiles::from([("index.html", page.to_owned())]))
    }
}

/// A directory with the master key that sealed what is in the golden journals.
fn key() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(directory.path().join("master.key"));
    file.unwrap().write_all("07".repeat(32).as_bytes()).unwrap();
    directory
}

pub fn url() -> GitUrl {
    REPOSITORY.parse().unwrap()
}

pub fn branch(name: &str) -> GitRef {
    name.parse().unwrap()
}

pub fn new_app(name: &str) -> NewApp {
    NewApp::new(name, REPOSITORY).unwrap()
}

/// Creates an app and waits until its first deployment is live.
pub async fn live(platform: &Platform, name: &str) -> App {
    let Created { app, deployment, .. } = platform.apps().create(new_app(name)).await.unwrap();
    deployment.unwrap().outcome().await.unwrap();
    app
}

/// Every event of an operation, to its end.
pub async fn history(handle: &DeploymentHandle) -> Vec<Recorded> {
    use futures::TryStreamExt;
    handle.events(0).try_collect().await.unwrap()
}
