//! The in-memory log store keeps every promise of the trait.
#![cfg(feature = "testing")]

mod wrapped;

use std::sync::Arc;

use paas_core::TestClock;
use paas_core::memory::MemoryLogStore;
use paas_core::testing::log_store::Harness;
use wrapped::observed;

async fn harness() -> Harness {
    let clock = Arc::new(TestClock::new());
    Harness::new(Arc::new(MemoryLogStore::new(clock.clone())), clock, ())
}

paas_core::conformance!(log_store, harness);

mod observed_log_store {
    use super::*;

    async fn harness() -> Harness {
        let clock = Arc::new(TestClock::new());
        Harness::new(Arc::new(observed(MemoryLogStore::new(clock.clone()))), clock, ())
    }

    paas_core::conformance!(log_store, harness);
}
