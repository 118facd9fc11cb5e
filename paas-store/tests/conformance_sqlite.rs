//! The state store on SQLite keeps every promise of the trait.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use paas_core::TestClock;
use paas_core::testing::state_store::Harness;
use paas_store::SqliteStore;

async fn harness() -> Harness {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::new());
    let store = SqliteStore::open(folder.path().join("paas.db"), clock.clone()).await.unwrap();
    Harness::new(Arc::new(store), clock, folder)
}

paas_core::conformance!(state_store, harness);
