//! The state store on PostgreSQL keeps every promise of the trait.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use paas_core::TestClock;
use paas_core::testing::state_store::Harness;
use support::Database;

async fn harness() -> Harness {
    let database = Database::new().await;
    let clock = Arc::new(TestClock::new());
    let store = database.store_with_own_time(clock.clone()).await;
    Harness::new(Arc::new(store), clock, database)
}

paas_core::conformance!(state_store, harness);
