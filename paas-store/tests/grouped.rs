//! How well commits are grouped is counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests, and what they share

mod support;

use std::sync::Arc;

use futures::future::join_all;
use paas_core::metrics::Value;
use paas_core::{Batch, Expect, Keys, Kind, Metrics, Scope, StateStore, SystemClock, Write};
use paas_store::{PostgresOptions, PostgresStore, SqliteOptions, SqliteStore};

const COMMITS: usize = 100;

fn put(id: usize) -> Batch {
    let write = Write::Put {
        scope: Scope::System,
        kind: "thing",
        id: id.to_string(),
        expect: Expect::Absent,
        keys: Keys::default(),
        body: b"body".to_vec(),
    };
    Batch { writes: vec![write], ..Batch::default() }
}

/// Commits much at once, once more what is refused, and asks whether the store is there.
async fn commits_are_counted_with_their_transactions(store: &dyn StateStore, metrics: &Metrics, name: &str) {
    for committed in join_all((0..COMMITS).map(|id| store.commit(put(id)))).await {
        committed.unwrap();
    }
    assert_eq!(store.commit(put(0)).await.unwrap_err().kind(), Kind::Conflict);
    store.ping().await.unwrap();
    let families = metrics.families();
    let [family] = families.as_slice() else { panic!("{families:?}") };
    assert_eq!(family.name, "paas_store_commits_per_transaction");
    let Some(Value::Distribution { sum, count, .. }) = family.value(&[name]) else { panic!("{family:?}") };
    assert_eq!(*sum, COMMITS as f64);
    assert!((1..COMMITS as u64 / 2).contains(count), "{count} transactions");
}

#[tokio::test]
async fn in_sqlite() {
    let (folder, metrics) = (tempfile::tempdir().unwrap(), Arc::new(Metrics::default()));
    let options = SqliteOptions { metrics: metrics.clone(), ..SqliteOptions::default() };
    let path = folder.path().join("paas.db");
    let store = SqliteStore::open_with(path, options, Arc::new(SystemClock::new())).await.unwrap();
    commits_are_counted_with_their_transactions(&store, &metrics, "sqlite").await;
}

#[tokio::test]
async fn in_postgres() {
    let (database, metrics) = (support::Database::new().await, Arc::new(Metrics::default()));
    let options = PostgresOptions { metrics: metrics.clone(), ..PostgresOptions::default() };
    let store =
        PostgresStore::open_with(&database.url(), options, Arc::new(SystemClock::new())).await.unwrap();
    commits_are_counted_with_their_transactions(&store, &metrics, "postgres").await;
}
