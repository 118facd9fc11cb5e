//! A connection that is lost at any point of a commit: what is answered is true, and nothing happens twice.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::panic)] // test code

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use paas_core::{
    Append, Batch, Claim, Clock, Expect, Keys, Kind, LeaseChange, Position, Scope, StateStore, StreamId,
    SystemClock, TestClock, WorkClass, Write,
};
use paas_store::PostgresStore;
use support::Database;
use support::proxy::{Cut, Proxy};

/// What a test's cut is for: no other statement has these bytes.
const MARK: &[u8] = b"the batch that is cut off";
/// The lock under which commits take turns.
const TURN: &str = "8097860751537995777";

/// A batch that happens twice if it is done twice: whatever version there is, it makes the next one.
fn batch(id: &str, body: &[u8]) -> Batch {
    Batch {
        writes: vec![Write::Put {
            scope: Scope::System,
            kind: "thing",
            id: id.to_owned(),
            expect: Expect::Any,
            keys: Keys::default(),
            body: body.to_vec(),
        }],
        appends: vec![Append {
            scope: Scope::System,
            stream: StreamId::new(id),
            expect: 0,
            at: TestClock::new().now(),
            events: vec![b"event".to_vec()],
        }],
        ..Batch::default()
    }
}

struct Setup {
    database: Database,
    proxy: Proxy,
    store: Arc<PostgresStore>,
}

impl Setup {
    async fn new() -> Self {
        let database = Database::new().await;
        let proxy = Proxy::start().await;
        let url = proxy.url(&database);
        let store = PostgresStore::open(&url, Arc::new(SystemClock::new())).await.unwrap();
        // So that the connection and its statements are there before anything is cut.
        store.commit(Batch::default()).await.unwrap();
        Self { database, proxy, store: Arc::new(store) }
    }

    /// Asserts that a batch happened exactly once.
    async fn assert_once(&self, id: &str) {
        let record = self.store.get(&Scope::System, "thing", id).await.unwrap().unwrap();
        assert_eq!(record.version, 1, "{id}");
        let events = self.store.events(&Scope::System, &StreamId::new(id), 0, 10).await.unwrap();
        assert_eq!(events.len(), 1, "{id}");
    }
}

async fn assert_a_single_batch_happens_once(cut: Cut) {
    let setup = Setup::new().await;
    setup.proxy.cut(cut);
    let committed = setup.store.commit(batch("a", MARK)).await.unwrap();
    assert!(setup.proxy.has_cut());
    setup.assert_once("a").await;
    assert_eq!(committed.versions, [1]);
    let feed = setup.store.feed(&Scope::System, Position(0), 10).await.unwrap();
    assert_eq!(committed.positions, [feed[0].position]);
    // And the store goes on.
    setup.store.commit(batch("b", b"")).await.unwrap();
    setup.assert_once("b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_never_reached_the_server_is_sent_again() {
    assert_a_single_batch_happens_once(Cut::Before(MARK)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_was_lost_is_answered_as_it_happened() {
    assert_a_single_batch_happens_once(Cut::Answer(MARK)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_cut_off_under_way_happens_once() {
    for _ in 0..10 {
        assert_a_single_batch_happens_once(Cut::After(MARK)).await;
    }
}

/// The refused among a group stay refused, and the others happen, wherever its COMMIT is cut off.
async fn assert_a_group_happens_once(cut: Cut) {
    let setup = Setup::new().await;
    let server = setup.database.connect().await;
    // Whoever holds the turn makes all the others gather behind the first.
    server.batch_execute(&format!("SELECT pg_advisory_lock({TURN})")).await.unwrap();
    let commits: Vec<_> = (0..20)
        .map(|number| {
            let store = Arc::clone(&setup.store);
            let mut batch = batch(&format!("r{number}"), b"");
            if number % 5 == 4 {
                batch.appends[0].expect = 7;
            }
            tokio::spawn(async move { store.commit(batch).await })
        })
        .collect();
    wait_for_waiting_commit(&server).await;
    setup.proxy.cut(cut);
    server.batch_execute(&format!("SELECT pg_advisory_unlock({TURN})")).await.unwrap();
    for (number, result) in join_all(commits).await.into_iter().enumerate() {
        let id = format!("r{number}");
        if number % 5 == 4 {
            assert_eq!(result.unwrap().unwrap_err().kind(), Kind::Conflict, "{id}");
            assert_eq!(setup.store.get(&Scope::System, "thing", &id).await.unwrap(), None);
        } else {
            result.unwrap().unwrap();
            setup.assert_once(&id).await;
        }
    }
    assert!(setup.proxy.has_cut(), "there was no group");
}

async fn wait_for_waiting_commit(server: &tokio_postgres::Client) {
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while server.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        SystemClock::new().sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_its_commit_is_sent_again() {
    assert_a_group_happens_once(Cut::Before(b"COMMIT\0")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_commit_was_not_answered_is_answered_as_it_happened() {
    assert_a_group_happens_once(Cut::Answer(b"COMMIT\0")).await;
    assert_a_group_happens_once(Cut::After(b"COMMIT\0")).await;
}

/// The server may carry out what a lost connection asked for long after its client was told that it did not happen:
/// here, once it gets its turn.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_never_happens_later() {
    let setup = Setup::new().await;
    let server = setup.database.connect().await;
    server.batch_execute(&format!("SELECT pg_advisory_lock({TURN})")).await.unwrap();
    setup.proxy.cut(Cut::After(MARK));
    let store = Arc::clone(&setup.store);
    let commit = tokio::spawn(async move { store.commit(batch("a", MARK)).await });
    // The one that is cut off, and the one that is sent in its place.
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while server.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) < 2 {
        assert!(!commit.is_finished());
        SystemClock::new().sleep(Duration::from_millis(5)).await;
    }
    server.batch_execute(&format!("SELECT pg_advisory_unlock({TURN})")).await.unwrap();
    assert_eq!(commit.await.unwrap().unwrap().versions, [1]);
    setup.assert_once("a").await;
}

/// Nobody knows: the answer says so, and what happened happened at most once.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_is_told_as_it_is() {
    let setup = Setup::new().await;
    let started = SystemClock::new();
    setup.proxy.cut_all(true);
    let error = setup.store.commit(batch("a", b"")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(error.is_transient() && error.hinted().is_some(), "{error:?}");
    for error in [
        setup.store.ping().await.unwrap_err(),
        setup.store.get(&Scope::System, "thing", "a").await.map(drop).unwrap_err(),
        setup.store.commit(batch("b", b"")).await.map(drop).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.is_transient()), (Kind::Unavailable, true), "{error:?}");
        assert!(
            error.message().contains("can't be reached") || error.message().contains("lost"),
            "{error:?}"
        );
    }
    assert!(started.elapsed() < Duration::from_secs(30), "calls do not hang");
    setup.proxy.cut_all(false);
    setup.store.ping().await.unwrap();
    if setup.store.get(&Scope::System, "thing", "a").await.unwrap().is_none() {
        setup.store.commit(batch("a", b"")).await.unwrap();
    }
    setup.assert_once("a").await;
}

/// Every call survives that the connections under it were cut, as when the server is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_after_a_restart() {
    let setup = Setup::new().await;
    let mut changes = setup.store.changes();
    for round in 0..3 {
        let id = format!("r{round}");
        setup.store.commit(batch(&id, b"")).await.unwrap();
        setup.proxy.cut_all(false);
        setup.assert_once(&id).await;
        setup.proxy.cut_all(false);
        let lease = LeaseChange::Schedule {
            key: "k".to_owned(),
            scope: Scope::System,
            class: WorkClass::Light,
            after: Duration::ZERO,
        };
        setup.store.commit(Batch { leases: vec![lease], ..Batch::default() }).await.unwrap();
        setup.proxy.cut_all(false);
        let claim = Claim {
            worker: "w".to_owned(),
            limit: [(WorkClass::Light, 1)].into(),
            slots: Default::default(),
            duration: Duration::from_secs(60),
        };
        // Its answer may be lost, once: then its lease ends by itself. Here it was not even asked.
        let claimed = match setup.store.claim(&claim).await {
            Err(_) => setup.store.claim(&claim).await,
            claimed => claimed,
        };
        let lease = claimed.unwrap().leases.pop().unwrap();
        setup.proxy.cut_all(false);
        let lease = setup.store.renew(&lease, Duration::from_secs(60)).await.unwrap();
        setup.proxy.cut_all(false);
        let release = LeaseChange::Release { lease, next: None };
        setup.store.commit(Batch { leases: vec![release], ..Batch::default() }).await.unwrap();
    }
    assert!(changes.try_recv().is_ok());
}
