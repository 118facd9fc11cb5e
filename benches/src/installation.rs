//! A whole installation with real parts on this machine's engine, for the suites that measure from end to end.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use paas_core::memory::MemoryFiles;
use paas_core::{AddressPool, Context, EgressPolicy, Keyring, NewApp, Platform, Settings, SystemClock};
use paas_docker::{DockerBuilder, DockerEngine, DockerRuntime};
use paas_git::testing::GitServer;
use paas_git::{GitOptions, GixProvider};
use paas_plan::{BaseImages, SourcePlanner};
use paas_proxy::{Proxy, ProxyConfig};
use paas_store::{FileLogStore, SqliteStore};

use crate::Result;

/// The image that everything that is measured is built on: a static server, no package manager.
pub(crate) const BASE: &str = "paas/static:1";
/// Serves the folder that the image holds.
pub(crate) const DOCKERFILE: &str = "FROM paas/static:1\nCOPY . /srv\nUSER 1000:1000\nCMD [\"busybox\", \"httpd\", \"-f\", \"-p\", \"3000\", \"-h\", \"/srv\"]\n";
pub(crate) const PORT: u32 = 3000;

/// Real parts, with a git server beside them.
pub(crate) struct Installation {
    pub(crate) git: GitServer,
    pub(crate) platform: Platform,
    pub(crate) proxy: Arc<Proxy>,
    folder: tempfile::TempDir,
}

/// A context that nobody cancels.
pub(crate) fn context() -> Context {
    Context::new(Arc::new(SystemClock::new()))
}

/// The engine, for an installation that no other program has.
pub(crate) async fn engine() -> Result<DockerEngine> {
    let engine = DockerEngine::connect(&context(), &format!("bench-{}", std::process::id())).await;
    Ok(engine.map_err(|error| format!("no engine answers ({error}): run examples/setup/engine.sh"))?)
}

/// Reads repositories of this machine.
pub(crate) fn provider(folder: &Path) -> Result<GixProvider> {
    let egress = EgressPolicy::default().allowing("127.0.0.1");
    Ok(GixProvider::open(folder, GitOptions { egress, ..GitOptions::default() })?)
}

/// `count` small files and a Dockerfile; the page tells one `version` from another.
pub(crate) fn site(count: usize, version: usize) -> MemoryFiles {
    let files = MemoryFiles::default()
        .file("Dockerfile", DOCKERFILE)
        .file("index.html", format!("<h1>version {version}</h1>\n"));
    (2..count).fold(files, |files, number| {
        let text = format!("file {number}\n").repeat(40);
        files.file(format!("part-{}/file-{number}.txt", number / 100), text)
    })
}

impl Installation {
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let clock = Arc::new(SystemClock::new());
        let engine = engine().await?;
        let config = ProxyConfig { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..ProxyConfig::default() };
        let proxy = Arc::new(Proxy::start(config, clock.clone()).await?);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let address_pool = AddressPool::new(Ipv4Addr::new(10, 190 + (high & 0x1f), low, 0), 24, 24)?;
        let egress = EgressPolicy::default().allowing("127.0.0.1");
        let path = |name: &str| folder.path().join(name);
        let platform = Platform::builder()
            .clock(clock.clone())
            .store(Arc::new(SqliteStore::open(path("state.db"), clock.clone()).await?))
            .logs(Arc::new(FileLogStore::open(path("logs"), clock.clone()).await?))
            .keyring(Keyring::open(&path("master.key"))?)
            .git(Arc::new(provider(&path("mirrors"))?))
            .planner(Arc::new(SourcePlanner::new(BaseImages::new([("static", BASE)])?)))
            .image_builder(Arc::new(DockerBuilder::new(engine.clone())))
            .runtime(Arc::new(DockerRuntime::new(engine)))
            .ingress(proxy.clone())
            .settings(Settings { egress, address_pool, ..Settings::default() })
            .start()
            .await?;
        Ok(Self { git: GitServer::temporary().await?, platform, proxy, folder })
    }

    /// Creates an app from the repository of the same name and waits until it is live.
    pub(crate) async fn live(&self, name: &str) -> Result<()> {
        let mut new = NewApp::new(name, self.git.url(name).as_str())?;
        new.port = Some(PORT.try_into()?);
        self.platform.apps().create(new).await?.first_deployment()?.outcome().await?;
        Ok(())
    }

    /// Removes every app.
    pub(crate) async fn finish(self) -> Result<()> {
        let apps = self.platform.apps();
        for view in apps.list(100, None).await?.items {
            apps.delete(&view.app).await?.outcome().await?;
        }
        self.platform.shutdown().await;
        self.proxy.stop().await;
        drop(self.folder);
        Ok(())
    }
}

pub(crate) type HttpClient = Client<HttpConnector, Empty<Bytes>>;

pub(crate) fn client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build(HttpConnector::new())
}

/// Asks for a page of a host at an address.
pub(crate) async fn get(client: &HttpClient, address: &str, host: &str) -> Result<(u16, String)> {
    let request = Request::get(format!("http://{address}/")).header("host", host).body(Empty::new())?;
    let answer = client.request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
