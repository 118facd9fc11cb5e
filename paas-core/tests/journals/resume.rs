//! A server that starts on what another version left, at any point, goes on.

use std::time::Duration;

use paas_core::memory::MemoryAnswer;
use paas_core::pipeline::State;
use paas_core::{DeploymentState, Event, Kind, Platform, WaitFor};

use crate::all;
use crate::golden::Golden;
use crate::revive::{operations, revive};
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// Long enough for the warden to look.
const LOOK: Duration = Duration::from_secs(30);

/// At most the instance runs that should, and requests reach it.
pub(crate) async fn check_instances(world: &World, platform: &Platform, at: &str) {
    let live = match platform.apps().get("hello").await {
        Ok(view) => view.status.instance,
        Err(error) => {
            assert_eq!(error.kind(), Kind::NotFound, "{at}");
            None
        }
    };
    let instances = world.host.instances();
    let names: Vec<_> = instances.iter().map(|instance| &instance.name).collect();
    assert!(names.iter().copied().eq(live.iter().map(|live| &live.name)), "{at}: {names:?} for {live:?}");
    match world.ingress.request(&"hello.localhost".parse().unwrap()) {
        MemoryAnswer::Instance(request) => {
            assert_eq!(Some(&request.target().instance), names.first().copied(), "{at}");
        }
        MemoryAnswer::Stopped | MemoryAnswer::Unknown => assert_eq!(live, None, "{at}: it is not routed"),
    }
}

/// Goes on behind some commits, to the end of every operation.
async fn go_on(golden: &Golden, commits: usize, at: &str) {
    let world = revive(golden, commits).await;
    let platform = world.platform().await;
    for id in operations(golden, commits) {
        let handle = match platform.apps().deployment(&id).await {
            Err(error) if error.kind() == Kind::NotFound => continue,
            handle => handle.unwrap(),
        };
        let mut settled = handle.wait(WaitFor::Settled, PATIENCE).await.unwrap().deployment;
        assert!(settled.state.is_settled(), "{at}: {id} is {:?}", settled.state);
        if settled.state == DeploymentState::Stuck {
            handle.abandon().await.unwrap();
            settled = handle.settled().await.unwrap();
        }
        let mut journal = handle.history(0).await.unwrap();
        while !matches!(journal.last().unwrap().event, Event::Ended { .. }) {
            // It is live; what was live before it is being retired.
            tokio::time::sleep(Duration::from_secs(1)).await;
            journal = handle.history(0).await.unwrap();
        }
        assert!(journal.iter().map(|recorded| recorded.version).eq(1..=journal.len() as u64), "{at}: a gap");
        if !journal.iter().any(|recorded| matches!(recorded.event, Event::Unknown { .. })) {
            journal
                .iter()
                .try_fold(State::default(), State::apply)
                .unwrap_or_else(|error| panic!("{at}: {error}"));
        }
        let phase = &golden.ends[id.as_str()]["phase"];
        if phase["outcome"]["type"] == "succeeded" {
            assert!(settled.state.is_success(), "{at}: {id} is {:?}: {:?}", settled.state, settled.failure);
        }
    }
    tokio::time::sleep(LOOK).await;
    check_instances(&world, &platform, at).await;
    let health = platform.health().await;
    assert!(health.is_ready(), "{at}: {health:?}");
    platform.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn every_prefix_of_every_golden_journal_is_gone_on_with() {
    let mut prefixes = 0;
    for (name, golden) in all() {
        for commits in 1..=golden.commits.len() {
            go_on(&golden, commits, &format!("{name} after {commits} commits")).await;
            prefixes += 1;
        }
    }
    assert!(prefixes > 100, "{prefixes}");
}
