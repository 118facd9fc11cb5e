//! The testing kit: conformance suites that every adapter passes.
//!
//! ```text
//! paas_core::conformance!(state_store, || async { MyHarness::new() });
//! ```
//! expands to one named test for each promise of the trait.

pub mod chaos;
pub mod container_runtime;
pub mod dns_service;
pub mod fail_point;
pub mod front;
pub mod git_provider;
pub mod image_builder;
pub mod ingress;
pub mod log_store;
pub mod planner;
pub mod process;
pub mod state_store;

/// Expands to one test for each promise of a trait, against what the harness makes.
///
/// The harness is an expression of a closure or function that is called once a test and answers a future of
/// the suite's harness type; see the module of the same name in [`testing`](crate::testing).
#[macro_export]
macro_rules! conformance {
    (state_store, $harness:expr) => {
        $crate::conformance_state_store!($harness);
    };
    (log_store, $harness:expr) => {
        $crate::conformance_log_store!($harness);
    };
    (git_provider, $harness:expr) => {
        $crate::conformance_git_provider!($harness);
    };
    (planner, $harness:expr) => {
        $crate::conformance_planner!($harness);
    };
    (image_builder, $harness:expr) => {
        $crate::conformance_image_builder!($harness);
    };
    (container_runtime, $harness:expr) => {
        $crate::conformance_container_runtime!($harness);
    };
    (dns_service, $harness:expr) => {
        $crate::conformance_dns_service!($harness);
    };
    (ingress, $harness:expr) => {
        $crate::conformance_ingress!($harness);
    };
}

/// The part that all suites share: a module of tests, each of which makes a harness and calls one function.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($suite:ident, $harness:expr, [$($test:ident),+ $(,)?]) => {
        mod $suite {
            #[allow(unused_imports)]
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let harness = ($harness)().await;
                    $crate::testing::$suite::$test(&harness).await;
                }
            )+
        }
    };
}
