//! What this version does not know, at any point of a journal, holds up one operation, until it is given up.

use std::time::Duration;

use paas_core::{
    Append, Batch, Clock, DeployOptions, DeploymentId, DeploymentState, Event, Kind, OrgId, Platform, Scope,
    StateStore, StreamId,
};

use crate::golden::Golden;
use crate::resume::check_instances;
use crate::revive::{records, revive};
use crate::{FUTURE, FUTURE_NAME, all};

const LOOK: Duration = Duration::from_secs(30);

/// The operation that is under way after some commits, or comes next.
fn next_operation(golden: &Golden, commits: usize) -> Option<DeploymentId> {
    let statuses = records(golden, commits, "app_status");
    let status: paas_core::AppStatus = serde_json::from_value(statuses.into_values().next()?).unwrap();
    status.next_operation().cloned()
}

async fn is_listed(platform: &Platform, id: &DeploymentId) -> bool {
    let problems = platform.health().await.problems;
    problems.iter().any(|problem| problem.part == "operations" && problem.message.contains(id.as_str()))
}

async fn give_up(golden: &Golden, commits: usize, id: &DeploymentId, at: &str) {
    let world = revive(golden, commits).await;
    let stream = StreamId::from(id);
    let expect = world.store.events(&Scope::System, &stream, 0, usize::MAX).await.unwrap().len() as u64;
    let append = Append {
        scope: Scope::Org(OrgId::default_org()),
        stream,
        expect,
        at: world.clock.now(),
        events: vec![FUTURE.as_bytes().to_vec()],
    };
    world.store.commit(Batch { appends: vec![append], ..Batch::default() }).await.unwrap();

    let platform = world.platform().await;
    tokio::time::sleep(LOOK).await;
    assert!(is_listed(&platform, id).await, "{at}: {:?}", platform.health().await);
    let handle = platform.apps().deployment(id).await.unwrap();
    let stuck = handle.get().await.unwrap();
    let was_live = stuck.state == DeploymentState::Running;
    if !was_live {
        assert_eq!(stuck.state, DeploymentState::Stuck, "{at}");
        let failure = stuck.failure.unwrap();
        assert_eq!(failure.code.as_deref(), Some("stuck"), "{at}");
        assert!(failure.message.contains(FUTURE_NAME) && failure.hint.is_some(), "{at}: {failure:?}");
    }
    let last = handle.history(0).await.unwrap().pop().unwrap();
    assert_eq!(last.event, Event::Unknown { name: FUTURE_NAME.to_owned() }, "{at}");
    assert_eq!(handle.cancel().await.unwrap_err().kind(), Kind::Conflict, "{at}");
    // What is asked for meanwhile waits behind it, but behind a deletion nothing is.
    let is_deletion = stuck.kind == paas_core::OperationKind::Delete;
    let deploy = async || platform.apps().deploy("hello", DeployOptions::default()).await;
    let waiting = deploy().await;
    assert_eq!(waiting.is_err(), is_deletion, "{at}: {waiting:?}");

    handle.abandon().await.unwrap();
    let next = if is_deletion {
        handle.settled().await.unwrap();
        deploy().await.unwrap()
    } else {
        waiting.unwrap()
    };
    assert_eq!(next.settled().await.unwrap().state, DeploymentState::Running, "{at}");
    let ended = handle.get().await.unwrap();
    if was_live {
        assert_eq!((ended.state, ended.failure), (DeploymentState::Running, None), "{at}");
    } else {
        assert_eq!(ended.state, DeploymentState::Failed, "{at}");
        assert_eq!(ended.failure.unwrap().code.as_deref(), Some("abandoned"), "{at}");
    }
    assert!(matches!(handle.history(0).await.unwrap().pop().unwrap().event, Event::Ended { .. }), "{at}");
    handle.abandon().await.unwrap();
    tokio::time::sleep(LOOK).await;
    check_instances(&world, &platform, at).await;
    assert!(platform.health().await.is_ready(), "{at}: {:?}", platform.health().await);
    platform.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_event_behind_any_prefix_is_given_up_and_the_app_goes_on() {
    let mut prefixes = 0;
    for (name, golden) in all() {
        for commits in 1..=golden.commits.len() {
            let Some(id) = next_operation(&golden, commits) else { continue };
            give_up(&golden, commits, &id, &format!("{name} after {commits} commits, unknown in {id}")).await;
            prefixes += 1;
        }
    }
    assert!(prefixes > 80, "{prefixes}");
}
