//! The in-memory state store keeps every promise of the trait.
#![cfg(feature = "testing")]

use std::sync::Arc;

use paas_core::TestClock;
use paas_core::memory::MemoryStore;
use paas_core::testing::state_store::Harness;

async fn harness() -> Harness {
    let clock = Arc::new(TestClock::new());
    Harness::new(Arc::new(MemoryStore::new(clock.clone())), clock, ())
}

paas_core::conformance!(state_store, harness);
