//! The engine's own use of the store: many operations on few connections.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used)] // test code

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use paas_core::memory::{MemoryBuilder, MemoryFiles, MemoryGit, MemoryHost, MemoryRuntime, Script};
use paas_core::{
    Addressing, Append, Batch, Clock, DeploymentState, Keyring, NewApp, Platform, Scope, Settings,
    SourceTree, StateStore, StreamId, SystemClock,
};
use paas_store::{SqliteOptions, SqliteStore};

const REPOSITORY: &str = "https://git.example.com/team/hello.git";

#[tokio::test(flavor = "multi_thread")]
async fn many_operations_share_one_reading_connection() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock::new());
    let options = SqliteOptions { readers: 1, ..SqliteOptions::default() };
    let store = SqliteStore::open_with(folder.path().join("state.db"), options, clock.clone()).await.unwrap();
    let git = MemoryGit::new();
    let files = MemoryFiles::from([("index.html", "<h1>hello</h1>")]);
    git.commit(&REPOSITORY.parse().unwrap(), &"main".parse().unwrap(), files);
    let host = MemoryHost::new(clock.clone());
    let platform = Platform::builder()
        .clock(clock)
        .store(Arc::new(store))
        .keyring(Keyring::ephemeral().unwrap())
        .git(Arc::new(git))
        .image_builder(Arc::new(MemoryBuilder::new(host.clone())))
        .runtime(Arc::new(MemoryRuntime::new(host).with_addressing(Addressing::Runtime)))
        .settings(Settings { build_slots: 32, ..Settings::default() })
        .start()
        .await
        .unwrap();
    let deployments = (0..32).map(|number| {
        let platform = platform.clone();
        async move {
            let new = NewApp::new(&format!("app-{number}"), REPOSITORY).unwrap();
            let created = platform.apps().create(new).await.unwrap();
            created.first_deployment().unwrap().outcome().await.unwrap();
            for _ in 0..5 {
                platform.deploy(&created.app).await.unwrap().outcome().await.unwrap();
            }
        }
    });
    // None waits for a connection that another one was given and does not use.
    tokio::time::timeout(Duration::from_secs(60), join_all(deployments)).await.unwrap();
    platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stuck_is_told_after_a_restart_and_can_be_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("master.key");
    let clock = Arc::new(SystemClock::new());
    let (git, host) = (Arc::new(MemoryGit::new()), MemoryHost::new(clock.clone()));
    let push = |page: &str, script: Script| {
        let files = || MemoryFiles::from([("index.html", page.to_owned())]);
        git.commit(&REPOSITORY.parse().unwrap(), &"main".parse().unwrap(), files());
        host.script(paas_core::memory::MemoryTree::new(files()).unwrap().id(), script);
    };
    let start = async |store: &Arc<SqliteStore>| {
        Platform::builder()
            .clock(clock.clone())
            .store(store.clone())
            .keyring(Keyring::open(&key).unwrap())
            .git(git.clone())
            .image_builder(Arc::new(MemoryBuilder::new(host.clone())))
            .runtime(Arc::new(MemoryRuntime::new(host.clone()).with_addressing(Addressing::Runtime)))
            .start()
            .await
            .unwrap()
    };
    push("slow", Script { build_time: Duration::from_secs(600), ..Script::default() });
    let path = folder.path().join("state.db");
    let store = Arc::new(SqliteStore::open(path, clock.clone()).await.unwrap());
    let platform = start(&store).await;
    let created = platform.apps().create(NewApp::new("hello", REPOSITORY).unwrap()).await.unwrap();
    let handle = created.deployment.unwrap();
    until(&clock, async || host.builds_running() == 1).await;
    let append = Append {
        scope: Scope::Org(created.app.org.clone()),
        stream: StreamId::from(handle.id()),
        expect: handle.history(0).await.unwrap().len() as u64,
        at: clock.now(),
        events: vec![br#"{"type":"from_the_future"}"#.to_vec()],
    };
    store.commit(Batch { appends: vec![append], ..Batch::default() }).await.unwrap();
    assert_eq!(handle.settled().await.unwrap().state, DeploymentState::Stuck);
    platform.shutdown().await;

    let platform = start(&store).await;
    assert!(!platform.health().await.is_ready());
    let page = platform.apps().deployments("hello", 10, None).await.unwrap();
    let handle = platform.apps().deployment(&page.items[0].id).await.unwrap();
    assert_eq!(handle.get().await.unwrap().state, DeploymentState::Stuck);
    handle.abandon().await.unwrap();
    until(&clock, async || handle.get().await.unwrap().state == DeploymentState::Failed).await;
    push("two", Script::default());
    platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    assert!(platform.health().await.is_ready());
    platform.shutdown().await;
}

async fn until(clock: &SystemClock, mut is_so: impl AsyncFnMut() -> bool) {
    let began = clock.elapsed();
    while !is_so().await {
        assert!(clock.elapsed() - began < Duration::from_secs(30), "it should have come");
        clock.sleep(Duration::from_millis(5)).await;
    }
}
