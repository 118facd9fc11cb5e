//! A platform within a program: SQLite, git, Docker and the proxy as libraries.
//!
//! ```text
//! cargo run -p paas-examples --bin embed -- https://github.com/you/your-app.git
//! ```
//! Without an address it deploys the static site of this repository from a git server of its own.

#![allow(clippy::print_stdout)] // it talks to people

use std::fs::DirBuilder;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use paas_core::{
    AddressPool, Context, EgressPolicy, Keyring, NewApp, Platform, Result, Settings, SystemClock,
};
use paas_docker::{DockerBuilder, DockerEngine, DockerRuntime};
use paas_git::testing::GitServer;
use paas_git::{GitOptions, GixProvider};
use paas_plan::{BaseImages, SourcePlanner};
use paas_proxy::{Proxy, ProxyConfig};
use paas_store::{FileLogStore, SqliteStore};

#[tokio::main]
async fn main() -> Result<()> {
    let (_server, repository) = repository().await?;
    let folder = folder()?;

    let clock = Arc::new(SystemClock::new());
    let engine = DockerEngine::connect(&Context::new(clock.clone()), "embed").await?;
    let egress = EgressPolicy::default().allowing("127.0.0.1");
    let git = GitOptions { egress: egress.clone(), ..GitOptions::default() };
    // What `make run` brings; `BaseImages::default()` are public ones, with more versions.
    let bases = BaseImages::new([
        ("python:3.11", "paas/python:3.11"),
        ("node:20", "paas/node:20"),
        ("static", "paas/static:1"),
    ])?;
    let builder = DockerBuilder::new(engine.clone()).with_ca_bundle(authorities());
    // Any free port, and networks that the bundled server does not use: both may run on one machine.
    let proxy = ProxyConfig { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..ProxyConfig::default() };
    let address_pool = AddressPool::new(Ipv4Addr::new(10, 182, 0, 0), 16, 24)?;
    let platform = Platform::builder()
        .clock(clock.clone())
        .store(Arc::new(SqliteStore::open(folder.join("state.db"), clock.clone()).await?))
        .logs(Arc::new(FileLogStore::open(folder.join("logs"), clock.clone()).await?))
        .keyring(Keyring::open(&folder.join("master.key"))?)
        .git(Arc::new(GixProvider::open(folder.join("mirrors"), git)?))
        .planner(Arc::new(SourcePlanner::new(bases)))
        .image_builder(Arc::new(builder))
        .runtime(Arc::new(DockerRuntime::new(engine)))
        .ingress(Arc::new(Proxy::start(proxy, clock.clone()).await?))
        .settings(Settings { egress, address_pool, ..Settings::default() })
        .start()
        .await?;

    // An earlier run that was cut off may have left its app.
    if platform.apps().get("embedded").await.is_ok() {
        platform.apps().delete("embedded").await?.outcome().await?;
    }
    let created = platform.apps().create(NewApp::new("embedded", &repository)?).await?;
    let deployment = created.first_deployment()?;
    let mut events = deployment.events(0);
    while let Some(recorded) = events.try_next().await? {
        println!("{:>3} {:?}", recorded.version, recorded.event);
    }
    deployment.outcome().await?;
    let status = platform.apps().get("embedded").await?.status;
    println!("live at {}; Enter removes it", status.url.unwrap_or_default());

    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
    platform.apps().delete("embedded").await?.outcome().await?;
    platform.shutdown().await;
    Ok(())
}

/// Where everything is kept, for its owner alone: it holds the key that seals secrets.
fn folder() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_DATA_HOME"), std::env::home_dir()) {
        (Some(data), _) => PathBuf::from(data),
        (None, home) => home.unwrap_or_default().join(".local/share"),
    };
    let folder = base.join("paas-embed");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(paas_core::error::map("embed.folder"))?;
    Ok(folder)
}

/// The machine's certificate authorities, for package managers within builds.
fn authorities() -> Option<PathBuf> {
    Some(PathBuf::from("/etc/ssl/certs/ca-certificates.crt")).filter(|path| path.exists())
}

/// The repository to deploy: the program's first argument, or the sample site on a git server of our own.
async fn repository() -> Result<(Option<GitServer>, String)> {
    if let Some(address) = std::env::args().nth(1) {
        return Ok((None, address));
    }
    let server = GitServer::temporary().await?;
    let page = include_str!("apps/static-site/index.html");
    let style = include_str!("apps/static-site/style.css");
    server.commit("site", "main", [("index.html", page), ("style.css", style)]).await?;
    let address = server.url("site").to_string();
    Ok((Some(server), address))
}
