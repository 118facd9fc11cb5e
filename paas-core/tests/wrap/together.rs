//! All wrappers around one adapter, in their order.

use std::sync::Arc;

use async_trait::async_trait;
use paas_core::metrics::Value;
use paas_core::testing::chaos::{Chaos, ChaosPlan, Mischief};
use paas_core::wrap::{Cache, Observe, Retry, RetryPolicy, Timeout, TimeoutPolicy};
use paas_core::{
    Branches, CommitId, Context, GitProvider, GitUrl, Metrics, OrgId, RandomIds, Reference, Repository,
    Result, Revision, RootDirectory, SourceTree, TestClock,
};

use super::{commit, context, repository, root, tree};

/// The least provider that brings a tree.
#[derive(Debug)]
struct Provider;

#[async_trait]
impl GitProvider for Provider {
    async fn branches(&self, _: &Context, _: &Repository) -> Result<Branches> {
        Ok(Branches::default())
    }

    async fn resolve(&self, _: &Context, _: &Repository, _: &Reference) -> Result<Revision> {
        Ok(Revision { commit: commit('a'), branch: None })
    }

    async fn fetch(
        &self,
        _: &Context,
        _: &Repository,
        _: &CommitId,
        _: &RootDirectory,
    ) -> Result<Arc<dyn SourceTree>> {
        Ok(tree('a'))
    }

    async fn forget(&self, _: &OrgId, _: &GitUrl) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_stack_of_all_wrappers_over_a_failing_adapter_answers() {
    let clock = Arc::new(TestClock::new());
    let inner_metrics = Arc::new(Metrics::default());
    let metrics = Arc::new(Metrics::default());
    // The first fetch never answers, the reply of the second is lost, the third fails; the fourth works.
    let plan = ChaosPlan::calm()
        .nth("git.fetch", 1, Mischief::Hang)
        .nth("git.fetch", 2, Mischief::LoseReply)
        .nth("git.fetch", 3, Mischief::FailBefore);
    let adapter: Arc<dyn GitProvider> = Arc::new(Provider);
    let adapter =
        Chaos::new(Observe::new(adapter, clock.clone(), inner_metrics.clone()), clock.clone(), 1, plan);
    let adapter = Timeout::new(adapter, TimeoutPolicy::default());
    let policy = RetryPolicy { total: std::time::Duration::from_secs(3600), ..RetryPolicy::default() };
    let adapter = Retry::new(adapter, policy, Arc::new(RandomIds::seeded(clock.clone(), 1)));
    let adapter: Arc<dyn GitProvider> =
        Arc::new(Observe::new(Cache::trees(adapter, 8), clock, metrics.clone()));

    let context = context();
    for _ in 0..3 {
        adapter.fetch(&context, &repository(None), &commit('a'), &root("")).await.unwrap();
    }
    let counts = |metrics: &Metrics| {
        let families = metrics.families();
        let [family] = families.as_slice() else { panic!("{families:?}") };
        match family.value(&["git.fetch", "ok"]) {
            Some(Value::Distribution { count, .. }) if family.series.len() == 1 => *count,
            _ => panic!("{family:?}"),
        }
    };
    assert_eq!(counts(&metrics), 3, "what callers saw");
    assert_eq!(counts(&inner_metrics), 2, "what reached the adapter");
}
