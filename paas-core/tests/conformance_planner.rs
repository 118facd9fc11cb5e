//! The in-memory planner keeps the promises of the trait.
#![cfg(feature = "testing")]

use std::sync::Arc;

use paas_core::memory::MemoryPlanner;
use paas_core::testing::planner::Harness;

paas_core::conformance!(planner, || async { Harness { planner: Arc::new(MemoryPlanner) } });
