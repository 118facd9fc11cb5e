//! The planner keeps the promises of the trait.

use std::sync::Arc;

use paas_core::testing::planner::Harness;
use paas_plan::SourcePlanner;

paas_core::conformance!(planner, || async { Harness { planner: Arc::new(SourcePlanner::default()) } });
