//! Many at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinHandle;

use super::leases::claim_of;
use super::{Harness, append, named, org, put, put_with, update};
use crate::error::Kind;
use crate::store::{
    Batch, Expect, LeaseChange, Position, Scope, StateStore, StreamId, UniqueReach, WorkClass,
};

const CLIENTS: u64 = 64;

async fn joined<T>(tasks: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    join_all(tasks).await.into_iter().map(|result| result.expect("no panic")).collect()
}

fn spawned<T, F>(harness: &Harness, client: impl Fn(u64, Arc<dyn StateStore>) -> F) -> Vec<JoinHandle<T>>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    (0..CLIENTS).map(|number| tokio::spawn(client(number, Arc::clone(&harness.store)))).collect()
}

/// Nothing is lost or done twice among many committers, some of whose batches are refused.
pub async fn concurrent_commits_all_take_effect(harness: &Harness) {
    const ROUNDS: u64 = 10;
    let at = harness.now();
    joined(spawned(harness, move |number, store| async move {
        let id = format!("c{number}");
        for round in 0..ROUNDS {
            let batch = |expect| Batch {
                writes: vec![put(&id, expect, &round.to_string())],
                appends: vec![append(&id, round, at, &["event"])],
                ..Batch::default()
            };
            let expect = if round == 0 { Expect::Absent } else { Expect::Version(round) };
            let committed = store.commit(batch(expect)).await.unwrap();
            assert_eq!(committed.versions, [round + 1]);
            let again = store.commit(batch(expect)).await.unwrap_err();
            assert_eq!(again.kind(), Kind::Conflict);
        }
    }))
    .await;
    let feed = harness.store.feed(&Scope::System, Position(0), 10_000).await.unwrap();
    assert_eq!(feed.len() as u64, CLIENTS * ROUNDS);
    assert!(feed.is_sorted_by(|one, next| one.position < next.position));
    for number in 0..CLIENTS {
        let id = format!("c{number}");
        assert_eq!(harness.get(&id).await.unwrap().version, ROUNDS);
        let events = harness.store.events(&org(1), &StreamId::new(id), 0, 100).await.unwrap();
        let versions: Vec<_> = events.iter().map(|event| event.version).collect();
        assert_eq!(versions, (1..=ROUNDS).collect::<Vec<_>>());
    }
}

/// Compare-and-set on one record: exactly one of all succeeds, every time.
pub async fn one_writer_wins_each_version(harness: &Harness) {
    harness.write(put("a", Expect::Absent, "")).await.unwrap();
    for version in 1..=10 {
        let results = joined(spawned(harness, move |number, store| async move {
            let writes = vec![update("a", Expect::Version(version), &number.to_string())];
            store.commit(Batch { writes, ..Batch::default() }).await
        }))
        .await;
        let winners: Vec<_> = (0..CLIENTS).zip(&results).filter(|(_, result)| result.is_ok()).collect();
        assert_eq!(winners.len(), 1);
        let record = harness.get("a").await.unwrap();
        assert_eq!((record.version, record.body), (version + 1, winners[0].0.to_string().into_bytes()));
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), Kind::Conflict, "{error:?}");
        }
    }
}

/// Two apps, same name, at the same moment: one is made.
pub async fn one_writer_wins_a_unique_key(harness: &Harness) {
    let results = joined(spawned(harness, |number, store| async move {
        let keys = named("n", UniqueReach::Store);
        let writes =
            vec![put_with(&org((number % 3) as u8), &format!("c{number}"), Expect::Absent, keys, "")];
        store.commit(Batch { writes, ..Batch::default() }).await
    }))
    .await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    for error in results.into_iter().filter_map(Result::err) {
        assert_eq!((error.kind(), error.reason()), (Kind::AlreadyExists, Some("name")));
    }
}

/// However many claim, no key has two holders, and none is left over.
pub async fn one_worker_wins_each_key(harness: &Harness) {
    let leases = (0..200).map(|number| LeaseChange::Schedule {
        key: format!("k{number}"),
        scope: org(number % 5),
        class: WorkClass::Light,
        after: Duration::ZERO,
    });
    harness.store.commit(Batch { leases: leases.collect(), ..Batch::default() }).await.unwrap();
    let results = joined(spawned(harness, |_, store| async move {
        let mut held = Vec::new();
        loop {
            let claimed = store.claim(&claim_of(WorkClass::Light, 3)).await.unwrap();
            if claimed.leases.is_empty() {
                return held;
            }
            held.extend(claimed.leases);
        }
    }))
    .await;
    let held: Vec<_> = results.into_iter().flatten().collect();
    assert_eq!(held.len(), 200);
    assert_eq!(held.iter().map(|lease| &lease.key).collect::<BTreeSet<_>>().len(), 200);
    assert_eq!(held.iter().map(|lease| lease.fence).collect::<BTreeSet<_>>().len(), 200);
}

/// A reader who follows the feed by position gets every event once, while others write.
pub async fn a_feed_reader_misses_nothing(harness: &Harness) {
    const EVENTS: u64 = 8;
    let store = Arc::clone(&harness.store);
    let reader = tokio::spawn(async move {
        let (mut seen, mut after) = (Vec::new(), Position(0));
        while (seen.len() as u64) < CLIENTS * EVENTS {
            let page = store.feed(&Scope::System, after, 50).await.unwrap();
            if let Some(last) = page.last() {
                after = last.position;
            } else {
                tokio::task::yield_now().await;
            }
            seen.extend(page.into_iter().map(|event| (event.stream, event.version)));
        }
        seen
    });
    let at = harness.now();
    joined(spawned(harness, move |number, store| async move {
        for round in 0..EVENTS {
            let appends = vec![append(&format!("s{number}"), round, at, &["x"])];
            store.commit(Batch { appends, ..Batch::default() }).await.unwrap();
        }
    }))
    .await;
    let limit = std::time::Duration::from_secs(60);
    let seen = tokio::time::timeout(limit, reader).await.expect("every event comes").unwrap();
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
}

/// Whoever got an answer reads its effect at once, by every way of reading.
pub async fn reads_see_what_was_answered(harness: &Harness) {
    let at = harness.now();
    joined(spawned(harness, move |number, store| async move {
        let id = format!("c{number}");
        for round in 0..5 {
            let keys = named(&format!("{id}-{round}"), UniqueReach::Store);
            let batch = Batch {
                writes: vec![put_with(&org(1), &id, Expect::Any, keys, &round.to_string())],
                appends: vec![append(&id, round, at, &["x"])],
                ..Batch::default()
            };
            let committed = store.commit(batch).await.unwrap();
            let record = store.get(&org(1), "thing", &id).await.unwrap().unwrap();
            assert_eq!(record.version, round + 1);
            let found = store.find(&org(1), "thing", "name", &format!("{id}-{round}")).await.unwrap();
            assert_eq!(found.unwrap().body, round.to_string().into_bytes());
            let events = store.events(&org(1), &StreamId::new(id.as_str()), round, 10).await.unwrap();
            assert_eq!(events.len(), 1);
            let before = Position(committed.positions[0].0 - 1);
            let feed = store.feed(&org(1), before, 1).await.unwrap();
            assert_eq!(feed[0].stream.as_str(), id);
        }
    }))
    .await;
}

/// A store that works says so.
pub async fn ping_answers(harness: &Harness) {
    harness.store.ping().await.unwrap();
}
