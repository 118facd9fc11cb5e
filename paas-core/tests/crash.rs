//! A server that stops for ever at any commit, just before or just after it: another one on the same store goes on,
//! with one container and one route, and a history without a gap.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use paas_core::memory::Script;
use paas_core::{
    Apps, Batch, Change, Claim, Claimed, Committed, DeploymentId, Lease, Page, Position, Record,
    ReleaseNumber, Result, Scan, Scope, StateStore, StoredEvent, StreamId, WorkClass, WorkKey,
};
use world::{World, history, live};

/// Lets some commits through, and never answers again after that.
#[derive(Debug)]
struct Dying {
    store: Arc<dyn StateStore>,
    left: AtomicI64,
    /// Whether the commit at which it stops still takes effect.
    commits_last: bool,
}

impl Dying {
    fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) <= 0
    }

    async fn answer<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if self.is_dead() {
            return std::future::pending().await;
        }
        work.await
    }
}

#[async_trait]
impl StateStore for Dying {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left <= 0 {
            return std::future::pending().await;
        }
        if left == 1 {
            if self.commits_last {
                let _ = self.store.commit(batch).await;
            }
            return std::future::pending().await;
        }
        self.store.commit(batch).await
    }

    async fn get(&self, scope: &Scope, kind: &'static str, id: &str) -> Result<Option<Record>> {
        self.answer(self.store.get(scope, kind, id)).await
    }

    async fn find(
        &self,
        scope: &Scope,
        kind: &'static str,
        key: &'static str,
        value: &str,
    ) -> Result<Option<Record>> {
        self.answer(self.store.find(scope, kind, key, value)).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<Record>> {
        self.answer(self.store.scan(scan)).await
    }

    async fn events(
        &self,
        scope: &Scope,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        self.answer(self.store.events(scope, stream, after, limit)).await
    }

    async fn feed(&self, scope: &Scope, after: Position, limit: usize) -> Result<Vec<StoredEvent>> {
        self.answer(self.store.feed(scope, after, limit)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        self.answer(self.store.claim(claim)).await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease> {
        self.answer(self.store.renew(lease, duration)).await
    }

    async fn count(&self, class: WorkClass, key: Option<WorkKey>) -> Result<u64> {
        self.answer(self.store.count(class, key)).await
    }

    fn changes(&self) -> tokio::sync::broadcast::Receiver<Change> {
        self.store.changes()
    }

    async fn sweep(&self, limit: usize) -> Result<usize> {
        self.answer(self.store.sweep(limit)).await
    }

    async fn ping(&self) -> Result<()> {
        self.store.ping().await
    }
}

/// Prepares with a platform that lives, asks one that dies at its `commits`th commit for an operation, and lets a third
/// one finish it. Answers the operation, and whether the second one died.
async fn survive<Ask, Asked>(
    commits: i64,
    commits_last: bool,
    prepared: bool,
    ask: Ask,
) -> (World, DeploymentId, bool)
where
    Ask: FnOnce(Apps) -> Asked,
    Asked: Future<Output = Result<DeploymentId>> + Send + 'static,
{
    let world = World::new();
    world.push_page("one");
    let first = world.platform().await;
    if prepared {
        live(&first, "hello").await;
    }
    first.shutdown().await;
    // Long enough that the death comes in the middle of the build, too.
    world.push_scripted("two", Script { build_time: Duration::from_secs(2), ..Script::default() });

    // What is asked for is committed by a platform that lives: only its workers die.
    let dying = Arc::new(Dying { store: world.store.clone(), left: AtomicI64::new(commits), commits_last });
    let second = world.builder().store(dying.clone()).start().await.unwrap();
    let id = {
        let asking = world.asking().await;
        let id = ask(asking.apps()).await.unwrap();
        asking.shutdown().await;
        id
    };
    tokio::time::sleep(Duration::from_secs(30)).await;
    let has_died = dying.is_dead();
    drop(second);

    let third = world.platform().await;
    let handle = third.apps().deployment(&id).await.unwrap();
    let settled =
        tokio::time::timeout(Duration::from_secs(120), handle.settled()).await.expect("it ends").unwrap();
    assert!(settled.state.is_success(), "after {commits} commits: {settled:?}");
    let events =
        tokio::time::timeout(Duration::from_secs(120), history(&handle)).await.expect("its journal ends");
    for (number, recorded) in (1..).zip(&events) {
        assert_eq!(recorded.version, number, "a gap after {commits} commits");
    }
    third.shutdown().await;
    (world, id, has_died)
}

/// Every commit of the operation, until one more is never reached.
const MOST_COMMITS: i64 = 60;

#[tokio::test(start_paused = true)]
async fn a_first_deployment_survives_a_death_at_every_commit() {
    for commits_last in [false, true] {
        for commits in 1..MOST_COMMITS {
            let (world, _, has_died) = survive(commits, commits_last, false, |apps| async move {
                let created = apps.create(world::new_app("hello")).await?;
                Ok(created.first_deployment()?.id().clone())
            })
            .await;
            assert_eq!(world.host.instances().len(), 1, "after {commits} commits");
            assert!(world.host.instances()[0].is_running());
            if !has_died {
                assert!(commits > 7, "it died at every commit before {commits}");
                break;
            }
            assert!(commits < MOST_COMMITS - 1, "the operation never ends without dying");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_deployment_survives_a_death_at_every_commit() {
    for commits_last in [false, true] {
        for commits in 1..MOST_COMMITS {
            let (world, _, has_died) = survive(commits, commits_last, true, |apps| async move {
                Ok(apps.deploy("hello", paas_core::DeployOptions::default()).await?.id().clone())
            })
            .await;
            let platform = world.platform().await;
            let status = platform.apps().get("hello").await.unwrap().status;
            assert_eq!(status.live, Some(ReleaseNumber(2)), "after {commits} commits");
            let names: Vec<_> = world.host.instances().into_iter().map(|instance| instance.name).collect();
            assert_eq!(names, [status.instance.unwrap().name], "after {commits} commits");
            if !has_died {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_survives_a_death_at_every_commit() {
    for commits_last in [false, true] {
        for commits in 1..MOST_COMMITS {
            let (world, _, has_died) = survive(commits, commits_last, true, |apps| async move {
                Ok(apps.delete("hello").await?.id().clone())
            })
            .await;
            assert!(world.host.instances().is_empty(), "after {commits} commits");
            assert!(world.host.images().is_empty(), "after {commits} commits");
            let platform = world.platform().await;
            assert!(
                platform.apps().check_name("hello").await.unwrap().is_available,
                "after {commits} commits"
            );
            if !has_died {
                break;
            }
        }
    }
}
