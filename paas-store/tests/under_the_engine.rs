//! The engine's own use of the store: many operations on few connections.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used)] // test code

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use paas_core::memory::{MemoryBuilder, MemoryFiles, MemoryGit, MemoryHost, MemoryRuntime};
use paas_core::{Addressing, Keyring, NewApp, Platform, Settings, SystemClock};
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
