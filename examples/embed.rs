//! A platform within a program: SQLite, git, Docker and the proxy as libraries.
//!
//! ```text
//! cargo run -p paas-examples --bin embed -- https://github.com/you/your-app.git
//! ```
//! Without an address it deploys the static site of this repository from a git server of its own.

#![allow(clippy::print_stdout)] // it talks to people

use std::sync::Arc;

use futures::TryStreamExt;
use paas_core::{Context, EgressPolicy, Keyring, NewApp, Platform, Result, Settings, SystemClock};
use paas_docker::{DockerBuilder, DockerEngine, DockerRuntime};
use paas_git::testing::GitServer;
use paas_git::{GitOptions, GixProvider};
use paas_plan::{BaseImages, SourcePlanner};
use paas_proxy::{Proxy, ProxyConfig};
use paas_store::{FileLogStore, SqliteStore};

#[tokio::main]
async fn main() -> Result<()> {
    let (_server, repository) = repository().await?;
    let folder = std::env::temp_dir().join("paas-embed");
    std::fs::create_dir_all(&folder).map_err(paas_core::error::map("embed.folder"))?;

    let clock = Arc::new(SystemClock::new());
    let engine = DockerEngine::connect(&Context::new(clock.clone()), "embed").await?;
    let egress = EgressPolicy::default().allowing("127.0.0.1");
    let git = GitOptions { egress: egress.clone(), ..GitOptions::default() };
    let bases = BaseImages::new([
        ("python:3.11", "paas/python:3.11"),
        ("node:20", "paas/node:20"),
        ("static", "paas/static:1"),
    ])?;
    let platform = Platform::builder()
        .clock(clock.clone())
        .store(Arc::new(SqliteStore::open(folder.join("state.db"), clock.clone()).await?))
        .logs(Arc::new(FileLogStore::open(folder.join("logs"), clock.clone()).await?))
        .keyring(Keyring::open(&folder.join("master.key"))?)
        .git(Arc::new(GixProvider::open(folder.join("mirrors"), git)?))
        .planner(Arc::new(SourcePlanner::new(bases)))
        .image_builder(Arc::new(DockerBuilder::new(engine.clone())))
        .runtime(Arc::new(DockerRuntime::new(engine)))
        .ingress(Arc::new(Proxy::start(ProxyConfig::default(), clock.clone()).await?))
        .settings(Settings { egress, ..Settings::default() })
        .start()
        .await?;

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
