//! Wrappers and shared handles keep every promise of what they wrap.

use std::sync::Arc;

use paas_core::memory::{MemoryPlanner, MemoryStore};
use paas_core::testing::chaos::{Chaos, ChaosPlan};
use paas_core::wrap::Observe;
use paas_core::{Metrics, StateStore, TestClock, testing};

mod store {
    use super::*;

    async fn harness() -> testing::state_store::Harness {
        let clock = Arc::new(TestClock::new());
        let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new(clock.clone()));
        let store = Observe::new(
            Chaos::new(store, clock.clone(), 1, ChaosPlan::calm()),
            clock.clone(),
            Arc::new(Metrics::default()),
        );
        testing::state_store::Harness::new(Arc::new(store), clock, ())
    }

    paas_core::conformance!(state_store, harness);
}

mod plan {
    use super::*;

    paas_core::conformance!(planner, || async {
        let planner =
            Observe::new(Arc::new(MemoryPlanner), Arc::new(TestClock::new()), Arc::new(Metrics::default()));
        testing::planner::Harness { planner: Arc::new(planner) }
    });
}
