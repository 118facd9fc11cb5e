//! The platform's own engine on a durable store; code, builds, containers and routes are in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use paas_core::memory::{
    MemoryBuilder, MemoryFiles, MemoryGit, MemoryHost, MemoryIngress, MemoryLogStore, MemoryRuntime,
};
use paas_core::{
    Addressing, Clock, DeploymentHandle, Event, GitProvider, Keyring, NewApp, Platform, Settings, StateStore,
    SystemClock,
};
use paas_store::SqliteStore;

use crate::Result;
use crate::contest::Turn;
use crate::contestant::{CLIENTS, processor_seconds};

const REPOSITORY: &str = "https://git.example.com/team/hello.git";
const MISSING_REPOSITORY: &str = "https://git.example.com/team/missing.git";

/// A repository in memory with one page.
pub(crate) fn repository() -> Result<Arc<dyn GitProvider>> {
    let git = MemoryGit::new();
    git.commit(&REPOSITORY.parse()?, &"main".parse()?, MemoryFiles::from([("index.html", "<h1>hello</h1>")]));
    Ok(Arc::new(git))
}

/// A SQLite store in the folder.
pub(crate) async fn sqlite(folder: &Path) -> Result<Arc<dyn StateStore>> {
    Ok(Arc::new(SqliteStore::open(folder.join("state.db"), Arc::new(SystemClock::new())).await?))
}

/// A platform on a SQLite store whose effects take no time.
pub(crate) async fn platform(folder: &Path, git: Arc<dyn GitProvider>, host: MemoryHost) -> Result<Platform> {
    platform_on(sqlite(folder).await?, folder, git, host).await
}

async fn platform_on(
    store: Arc<dyn StateStore>,
    folder: &Path,
    git: Arc<dyn GitProvider>,
    host: MemoryHost,
) -> Result<Platform> {
    let clock = Arc::new(SystemClock::new());
    let settings = Settings { build_slots: CLIENTS, operation_slots: 2 * CLIENTS, ..Settings::default() };
    Ok(Platform::builder()
        .clock(clock.clone())
        .store(store)
        .keyring(Keyring::open(&folder.join("master.key"))?)
        .git(git)
        .image_builder(Arc::new(MemoryBuilder::new(host.clone())))
        .runtime(Arc::new(MemoryRuntime::new(host).with_addressing(Addressing::Runtime)))
        .ingress(Arc::new(MemoryIngress::new()))
        .logs(Arc::new(MemoryLogStore::new(clock)))
        .settings(settings)
        .start()
        .await?)
}

/// An app from the repository in memory.
pub(crate) fn new_app(name: &str) -> Result<NewApp> {
    Ok(NewApp::new(name, REPOSITORY)?)
}

/// How many steps an operation has finished.
async fn steps(handle: &DeploymentHandle) -> Result<u64> {
    let events: Vec<_> = handle.events(0).try_collect().await?;
    Ok(events.iter().filter(|recorded| matches!(recorded.event, Event::Finished { .. })).count() as u64)
}

/// Makes apps of a repository, and waits for their first deployments.
async fn create(platform: &Platform, names: &[String], repository: &str) -> Result<Vec<DeploymentHandle>> {
    let apps = platform.apps();
    let creating = names.iter().map(|name| {
        let (apps, new) = (apps.clone(), NewApp::new(name, repository));
        async move {
            let handle = apps.create(new?).await?.first_deployment()?;
            handle.outcome().await?;
            Ok::<_, crate::Error>(handle)
        }
    });
    stream::iter(creating).buffer_unordered(CLIENTS).try_collect().await
}

/// Every client deploys its app again as soon as it is live, and the steps that end are counted; so many `others` only
/// are there. Those are down, because there is no such repository: a machine in memory that runs them all would be slow itself.
pub(crate) async fn measure(
    store: Arc<dyn StateStore>,
    folder: &Path,
    time: Duration,
    others: usize,
) -> Result<Turn> {
    let host = MemoryHost::new(Arc::new(SystemClock::new()));
    let platform = platform_on(store, folder, repository()?, host).await?;
    let other_names: Vec<String> = (0..others).map(|number| format!("other-{number}")).collect();
    create(&platform, &other_names, MISSING_REPOSITORY).await?;
    let names: Vec<String> = (0..CLIENTS).map(|client| format!("app-{client}")).collect();
    let first = create(&platform, &names, REPOSITORY).await?;
    let steps_each = steps(first.first().ok_or("there are no apps")?).await?;

    let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clock = SystemClock::new();
    let (begun, processor) = (clock.elapsed(), processor_seconds()?);
    let clients: Vec<_> = names
        .into_iter()
        .map(|name| {
            let (platform, is_over, count) = (platform.clone(), is_over.clone(), count.clone());
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    platform.deploy(name.as_str()).await?.outcome().await?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, paas_core::Error>(())
            })
        })
        .collect();
    clock.sleep(time).await;
    let (deployments, seconds) = (count.load(Ordering::Relaxed), (clock.elapsed() - begun).as_secs_f64());
    let turn = Turn::of_rate((deployments * steps_each) as f64, seconds, processor_seconds()? - processor);
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    platform.shutdown().await;
    Ok(turn)
}
