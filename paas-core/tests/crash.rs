//! A server that stops for ever at any commit, just before or just after it: another one on the same store goes on,
//! with one container and one route, and a history without a gap.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use paas_core::memory::{MemoryAnswer, Program, ProgramExit, Script};
use paas_core::testing::front::{Front, StoreFront};
use paas_core::{
    Apps, Batch, Committed, DeployOptions, DeploymentId, DeploymentState, ReleaseNumber, Result, StateStore,
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
}

#[async_trait]
impl StoreFront for Dying {
    fn behind(&self) -> &dyn StateStore {
        &*self.store
    }

    async fn admit(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

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
}

/// What an operation is to come to, wherever the server dies in it.
struct Case<Ask> {
    /// What it does, for messages.
    name: &'static str,
    /// The app is live before.
    is_live: bool,
    /// What building and running the second page does.
    script: Script,
    /// Asks for the operation.
    ask: Ask,
    /// How it ends.
    ends: DeploymentState,
    /// How many instances and routes the app has then.
    serves: bool,
}

/// Prepares with a platform that lives, asks for an operation while one works that dies at its `commits`th commit, and
/// lets a third one finish it. Answers whether the second one died.
///
/// A worker that waits for a commit does nothing else: so that nothing of the dead one goes on.
async fn survive<Ask, Asked>(case: &Case<Ask>, commits: i64, commits_last: bool) -> (World, bool)
where
    Ask: Fn(Apps) -> Asked,
    Asked: Future<Output = Result<DeploymentId>> + Send + 'static,
{
    let at = format!("{} after {commits} commits (the last one {commits_last})", case.name);
    let world = World::new();
    world.push_page("one");
    let first = world.platform().await;
    if case.is_live {
        live(&first, "hello").await;
    }
    first.shutdown().await;
    world.push_scripted("two", case.script.clone());

    // What is asked for is committed by a platform that lives: only its workers die.
    let dying = Dying { store: world.store.clone(), left: AtomicI64::new(commits), commits_last };
    let dying = Arc::new(Front(dying));
    let second = world.builder().store(dying.clone()).start().await.unwrap();
    let asking = world.asking().await;
    let id = (case.ask)(asking.apps()).await.unwrap();
    asking.shutdown().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let has_died = dying.0.is_dead();
    drop(second);

    let third = world.platform().await;
    let handle = third.apps().deployment(&id).await.unwrap();
    let events = tokio::time::timeout(Duration::from_secs(120), history(&handle)).await;
    let events = events.unwrap_or_else(|_| panic!("{at}: it never ends"));
    for (number, recorded) in (1..).zip(&events) {
        assert_eq!(recorded.version, number, "{at}: a gap");
    }
    assert_eq!(handle.get().await.unwrap().state, case.ends, "{at}");
    let instances = world.host.instances();
    assert_eq!(instances.len(), usize::from(case.serves), "{at}: {instances:?}");
    let host = "hello.localhost".parse().unwrap();
    match world.ingress.request(&host) {
        MemoryAnswer::Instance(request) => {
            assert!(case.serves, "{at}: it is still routed");
            assert_eq!(request.target().instance, instances[0].name, "{at}");
            assert!(instances[0].is_running(), "{at}");
        }
        MemoryAnswer::Stopped | MemoryAnswer::Unknown => assert!(!case.serves, "{at}: it is not routed"),
    }
    third.shutdown().await;
    (world, has_died)
}

/// Lets the server die at every commit of an operation, until one more is never reached.
async fn survive_all<Ask, Asked>(case: Case<Ask>) -> Vec<World>
where
    Ask: Fn(Apps) -> Asked,
    Asked: Future<Output = Result<DeploymentId>> + Send + 'static,
{
    let mut worlds = Vec::new();
    for commits_last in [false, true] {
        let mut deaths = 0;
        loop {
            let (world, has_died) = survive(&case, deaths + 1, commits_last).await;
            worlds.push(world);
            if !has_died {
                break;
            }
            deaths += 1;
            assert!(deaths < MOST_COMMITS, "{}: it never ends without dying", case.name);
        }
        assert!(deaths >= FEWEST_COMMITS, "{}: it died only {deaths} times", case.name);
    }
    worlds
}

/// More than any of these operations takes.
const MOST_COMMITS: i64 = 60;
/// Fewer than any of them takes.
const FEWEST_COMMITS: i64 = 3;

/// Long enough that a death, or a request to cancel, comes in the middle of the build, too.
fn slow() -> Script {
    Script { build_time: Duration::from_secs(2), ..Script::default() }
}

async fn deploy(apps: Apps) -> Result<DeploymentId> {
    Ok(apps.deploy("hello", DeployOptions::default()).await?.id().clone())
}

#[tokio::test(start_paused = true)]
async fn a_first_deployment_survives_a_death_at_every_commit() {
    let create =
        async |apps: Apps| Ok(apps.create(world::new_app("hello")).await?.first_deployment()?.id().clone());
    let ends = DeploymentState::Running;
    let case = Case {
        name: "a first deployment",
        is_live: false,
        script: slow(),
        ask: move |apps| Box::pin(create(apps)),
        ends,
        serves: true,
    };
    survive_all(case).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_deployment_survives_a_death_at_every_commit() {
    let ends = DeploymentState::Running;
    let case = Case { name: "a deployment", is_live: true, script: slow(), ask: deploy, ends, serves: true };
    for world in survive_all(case).await {
        let platform = world.platform().await;
        let status = platform.apps().get("hello").await.unwrap().status;
        assert_eq!(status.live, Some(ReleaseNumber(2)));
        assert_eq!(status.instance.unwrap().name, world.host.instances()[0].name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_deployment_survives_a_death_at_every_commit() {
    let exit = ProgramExit { after: Duration::ZERO, code: 3, out_of_memory: false };
    let script = Script { program: Program { exit: Some(exit), ..Program::default() }, ..slow() };
    let ends = DeploymentState::Failed;
    let case = Case { name: "a failing deployment", is_live: true, script, ask: deploy, ends, serves: true };
    for world in survive_all(case).await {
        let platform = world.platform().await;
        assert_eq!(platform.apps().get("hello").await.unwrap().status.live, Some(ReleaseNumber(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_deployment_survives_a_death_at_every_commit() {
    async fn ask(apps: Apps) -> Result<DeploymentId> {
        let handle = apps.deploy("hello", DeployOptions::default()).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        handle.cancel().await?;
        Ok(handle.id().clone())
    }
    let ends = DeploymentState::Cancelled;
    let case =
        Case { name: "a cancelled deployment", is_live: true, script: slow(), ask, ends, serves: true };
    survive_all(case).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_survives_a_death_at_every_commit() {
    async fn ask(apps: Apps) -> Result<DeploymentId> {
        Ok(apps.restart("hello").await?.id().clone())
    }
    let ends = DeploymentState::Running;
    survive_all(Case { name: "a restart", is_live: true, script: slow(), ask, ends, serves: true }).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_survives_a_death_at_every_commit() {
    async fn ask(apps: Apps) -> Result<DeploymentId> {
        Ok(apps.rollback("hello", ReleaseNumber(1)).await?.id().clone())
    }
    let ends = DeploymentState::Running;
    survive_all(Case { name: "a rollback", is_live: true, script: slow(), ask, ends, serves: true }).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_survives_a_death_at_every_commit() {
    async fn ask(apps: Apps) -> Result<DeploymentId> {
        Ok(apps.stop("hello").await?.id().clone())
    }
    let ends = DeploymentState::Stopped;
    survive_all(Case { name: "a stop", is_live: true, script: slow(), ask, ends, serves: false }).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_survives_a_death_at_every_commit() {
    async fn ask(apps: Apps) -> Result<DeploymentId> {
        // Stopped by the one that may die, or by the one after it, before it is started: both are asked for at once.
        apps.stop("hello").await?;
        Ok(apps.start("hello").await?.id().clone())
    }
    let ends = DeploymentState::Running;
    survive_all(Case { name: "a start", is_live: true, script: slow(), ask, ends, serves: true }).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_survives_a_death_at_every_commit() {
    async fn ask(apps: Apps) -> Result<DeploymentId> {
        Ok(apps.delete("hello").await?.id().clone())
    }
    let ends = DeploymentState::Deleted;
    let case = Case { name: "a deletion", is_live: true, script: slow(), ask, ends, serves: false };
    for world in survive_all(case).await {
        assert!(world.host.images().is_empty());
        let platform = world.platform().await;
        assert!(platform.apps().check_name("hello").await.unwrap().is_available);
    }
}
