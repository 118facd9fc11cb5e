//! The log store on files keeps every promise of the trait.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use paas_core::TestClock;
use paas_core::testing::log_store::Harness;
use paas_store::FileLogStore;

async fn harness() -> Harness {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::new());
    let store = FileLogStore::open(folder.path().join("logs"), clock.clone()).await.unwrap();
    Harness::new(Arc::new(store), clock, folder)
}

paas_core::conformance!(log_store, harness);
