//! Several stores on one database: what they share, and how they take turns.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::panic)] // test code

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use paas_core::{
    Append, Batch, Change, Claim, Clock, Expect, Keys, Kind, Lease, LeaseChange, Position, Scope, StateStore,
    StreamId, SystemClock, UniqueReach, WorkClass, Write,
};
use support::Database;

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn append(stream: &str, expect: u64) -> Append {
    let (scope, at) = (Scope::System, SystemClock::new().now());
    Append { scope, stream: StreamId::new(stream), expect, at, events: vec![b"event".to_vec()] }
}

fn appends(appends: Vec<Append>) -> Batch {
    Batch { appends, ..Batch::default() }
}

fn schedule(key: &str, class: WorkClass) -> Batch {
    let (key, scope, after) = (key.to_owned(), Scope::System, Duration::ZERO);
    Batch { leases: vec![LeaseChange::Schedule { key, scope, class, after }], ..Batch::default() }
}

fn claim(class: WorkClass, limit: usize, slots: Option<usize>, duration: Duration) -> Claim {
    Claim {
        worker: "w".to_owned(),
        limit: [(class, limit)].into(),
        slots: slots.map(|slots| (class, slots)).into_iter().collect(),
        duration,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_servers_may_start_at_once() {
    let database = Database::new().await;
    let stores = join_all((0..8).map(|_| database.store(clock()))).await;
    for store in &stores {
        store.ping().await.unwrap();
    }
}

#[tokio::test]
async fn everything_is_there_for_another_server() {
    let database = Database::new().await;
    let (one, other) = (database.store(clock()).await, database.store(clock()).await);
    let keys = Keys { unique: vec![("name", "n".to_owned(), UniqueReach::Store)], ..Keys::default() };
    let put = |id: &str, expect| Write::Put {
        scope: Scope::System,
        kind: "thing",
        id: id.to_owned(),
        expect,
        keys: keys.clone(),
        body: b"body".to_vec(),
    };
    let batch = Batch { writes: vec![put("a", Expect::Absent)], ..appends(vec![append("s", 0)]) };
    let committed = one.commit(batch.clone()).await.unwrap();
    let record = other.find(&Scope::System, "thing", "name", "n").await.unwrap().unwrap();
    assert_eq!((record.id.as_str(), record.version), ("a", 1));
    assert_eq!(other.feed(&Scope::System, Position(0), 9).await.unwrap()[0].position, committed.positions[0]);
    assert_eq!(other.commit(batch).await.unwrap_err().kind(), Kind::Conflict);
    let taken = Batch { writes: vec![put("b", Expect::Any)], ..Batch::default() };
    assert_eq!(other.commit(taken).await.unwrap_err().reason(), Some("name"));
    one.close().await;
    other.ping().await.unwrap();
    for error in [one.ping().await, one.commit(Batch::default()).await.map(drop)].map(Result::unwrap_err) {
        assert_eq!((error.kind(), error.is_transient()), (Kind::Unavailable, false), "{error:?}");
    }
}

/// What the commit lock is for: a later number never becomes visible before an earlier one.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_reader_misses_nothing_of_several_servers() {
    const STREAMS: usize = 12;
    const EVENTS: u64 = 25;
    let database = Database::new().await;
    let stores: Vec<_> = join_all((0..3).map(|_| database.store(clock()))).await;
    let stores: Vec<_> = stores.into_iter().map(Arc::new).collect();
    let reader = {
        let store = Arc::new(database.store(clock()).await);
        tokio::spawn(async move {
            let (mut seen, mut after) = (Vec::new(), Position(0));
            while seen.len() < STREAMS * EVENTS as usize {
                let page = store.feed(&Scope::System, after, 20).await.unwrap();
                after = page.last().map_or(after, |last| last.position);
                seen.extend(page.into_iter().map(|event| (event.stream, event.version)));
            }
            seen
        })
    };
    let writers = (0..STREAMS).map(|number| {
        let store = Arc::clone(&stores[number % stores.len()]);
        tokio::spawn(async move {
            for version in 0..EVENTS {
                store.commit(appends(vec![append(&format!("s{number}"), version)])).await.unwrap();
            }
        })
    });
    join_all(writers).await.into_iter().for_each(|written| written.unwrap());
    let seen =
        tokio::time::timeout(Duration::from_secs(30), reader).await.expect("every event comes").unwrap();
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), STREAMS * EVENTS as usize);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_and_slots_are_shared_by_all_servers() {
    let database = Database::new().await;
    let stores: Vec<_> = join_all((0..3).map(|_| database.store(clock()))).await;
    for number in 0..30 {
        stores[0].commit(schedule(&format!("b{number}"), WorkClass::Build)).await.unwrap();
        stores[0].commit(schedule(&format!("l{number}"), WorkClass::Light)).await.unwrap();
    }
    let long = Duration::from_secs(60);
    let builds = claim(WorkClass::Build, 3, Some(4), long);
    let claims = stores.iter().map(|store| store.claim(&builds));
    let held: usize = join_all(claims).await.into_iter().map(|claimed| claimed.unwrap().leases.len()).sum();
    assert_eq!(held, 4);
    let lights = claim(WorkClass::Light, 30, None, long);
    let claimed = join_all(stores.iter().map(|store| store.claim(&lights))).await;
    let leases: Vec<_> = claimed.into_iter().flat_map(|claimed| claimed.unwrap().leases).collect();
    assert_eq!(leases.len(), 30);
    assert_eq!(leases.iter().map(|lease| &lease.key).collect::<BTreeSet<_>>().len(), 30);
}

/// Waits until somebody waits for a lock, unless `call` ends before.
async fn waits<T>(server: &tokio_postgres::Client, call: &tokio::task::JoinHandle<T>) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while server.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        assert!(!call.is_finished(), "it did not wait for its turn");
        SystemClock::new().sleep(Duration::from_millis(5)).await;
    }
}

/// Another server has its position, but is not done: nobody gets a later one, or a reader would never see the first.
#[tokio::test(flavor = "multi_thread")]
async fn commits_take_turns() {
    let database = Database::new().await;
    let store = Arc::new(database.store(clock()).await);
    let (mut other, server) = (database.connect().await, database.connect().await);
    let transaction = other.transaction().await.unwrap();
    let commit =
        "SELECT paas.commit_batch(NULL, 0, 0, 1, NULL, NULL, '{}', '{}', '{}', '{}', '{}', '{}', '{}',
        '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{other}', '{system}', '{0}', '{0}', '{1}', '{event}',
        '{}', '{}', '{}', '{}', '{}', '{}')";
    transaction.batch_execute(commit).await.unwrap();
    let own = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.commit(appends(vec![append("own", 0)])).await }
    });
    waits(&server, &own).await;
    assert!(store.feed(&Scope::System, Position(0), 10).await.unwrap().is_empty());
    transaction.commit().await.unwrap();
    own.await.unwrap().unwrap();
    let feed = store.feed(&Scope::System, Position(0), 10).await.unwrap();
    assert_eq!(feed.iter().map(|event| event.stream.as_str()).collect::<Vec<_>>(), ["other", "own"]);
}

/// Another server has taken all slots, but is not done: nobody counts them as free.
#[tokio::test(flavor = "multi_thread")]
async fn claims_take_turns() {
    let database = Database::new().await;
    let store = Arc::new(database.store(clock()).await);
    for number in 0..4 {
        store.commit(schedule(&format!("b{number}"), WorkClass::Build)).await.unwrap();
    }
    let (mut other, server) = (database.connect().await, database.connect().await);
    let transaction = other.transaction().await.unwrap();
    let claim_all = "SELECT FROM paas.claim_work(NULL, 'other', '{build}', '{9}', '{2}', 60000000000)";
    assert_eq!(
        transaction.query(claim_all, &[]).await.unwrap().len(),
        3,
        "two leases, and when to come back"
    );
    let own = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.claim(&claim(WorkClass::Build, 9, Some(2), Duration::from_secs(60))).await }
    });
    waits(&server, &own).await;
    transaction.commit().await.unwrap();
    assert!(own.await.unwrap().unwrap().leases.is_empty());
}

/// Another server is just claiming the key: it keeps it, and the work is due again when it lets go.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_waits_for_a_claim_under_way() {
    let database = Database::new().await;
    let store = Arc::new(database.store(clock()).await);
    store.commit(schedule("k", WorkClass::Light)).await.unwrap();
    let (mut other, server) = (database.connect().await, database.connect().await);
    let transaction = other.transaction().await.unwrap();
    let claim_it = "SELECT fence FROM paas.claim_work(NULL, 'other', '{light}', '{1}', '{NULL}', 60000000000)
        WHERE key IS NOT NULL";
    let fence: i64 = transaction.query_one(claim_it, &[]).await.unwrap().get(0);
    let own = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.commit(schedule("k", WorkClass::Light)).await }
    });
    waits(&server, &own).await;
    transaction.commit().await.unwrap();
    own.await.unwrap().unwrap();
    let all = claim(WorkClass::Light, 9, None, Duration::from_secs(60));
    assert!(store.claim(&all).await.unwrap().leases.is_empty());
    let (key, fence, expires_at) = ("k".to_owned(), fence.unsigned_abs(), SystemClock::new().now());
    let lease = Lease { key, scope: Scope::System, class: WorkClass::Light, fence, expires_at };
    let release = LeaseChange::Release { lease, next: None };
    store.commit(Batch { leases: vec![release], ..Batch::default() }).await.unwrap();
    assert_eq!(store.claim(&all).await.unwrap().leases.len(), 1);
}

/// By the database's clock: how the servers' own are set does not matter.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_servers_work_is_taken_over_when_its_lease_ends() {
    let database = Database::new().await;
    let wrong = Arc::new(paas_core::TestClock::new());
    wrong.jump(-24 * 60 * 60);
    let (dead, other) = (database.store(wrong).await, database.store(clock()).await);
    dead.commit(schedule("k", WorkClass::Light)).await.unwrap();
    let lost = dead.claim(&claim(WorkClass::Light, 1, None, Duration::from_millis(300))).await.unwrap();
    let lost = lost.leases[0].clone();
    let all = claim(WorkClass::Light, 1, None, Duration::from_secs(60));
    let first = other.claim(&all).await.unwrap();
    assert!(first.leases.is_empty());
    assert!(first.next_due.unwrap() <= Duration::from_millis(300));
    let taken_over = async {
        loop {
            if let Some(lease) = other.claim(&all).await.unwrap().leases.pop() {
                return lease;
            }
            SystemClock::new().sleep(Duration::from_millis(20)).await;
        }
    };
    let held = tokio::time::timeout(Duration::from_secs(30), taken_over).await.unwrap();
    assert!(held.fence > lost.fence);
    // The dead one was only asleep.
    let late = Batch { fence: Some(lost.clone()), ..appends(vec![append("s", 0)]) };
    assert_eq!(dead.commit(late).await.unwrap_err().reason(), Some("fenced"));
    assert_eq!(dead.renew(&lost, Duration::from_secs(1)).await.unwrap_err().reason(), Some("fenced"));
    let own = Batch { fence: Some(held), ..appends(vec![append("s", 0)]) };
    other.commit(own).await.unwrap();
}

/// A fenced commit holds its lease to its end: nobody claims the key between the check and the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_passes_over_what_a_commit_has_locked() {
    let database = Database::new().await;
    let store = database.store(clock()).await;
    store.commit(schedule("k", WorkClass::Light)).await.unwrap();
    store.commit(schedule("l", WorkClass::Light)).await.unwrap();
    let mut server = database.connect().await;
    let transaction = server.transaction().await.unwrap();
    transaction.execute("SELECT FROM paas.work WHERE key = 'k' FOR UPDATE", &[]).await.unwrap();
    let all = claim(WorkClass::Light, 10, None, Duration::from_secs(60));
    let claimed = store.claim(&all).await.unwrap().leases;
    assert_eq!(claimed.iter().map(|lease| lease.key.as_str()).collect::<Vec<_>>(), ["l"]);
    transaction.rollback().await.unwrap();
    assert_eq!(store.claim(&all).await.unwrap().leases[0].key, "k");
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_reach_the_other_servers() {
    let database = Database::new().await;
    let (one, other) = (database.store(clock()).await, database.store(clock()).await);
    let mut changes = other.changes();
    let mut own = one.changes();
    let streams: Vec<_> =
        (0..100).map(|number| append(&format!("{number}-{}", "s".repeat(400)), 0)).collect();
    let names: BTreeSet<_> = streams.iter().map(|append| append.stream.clone()).collect();
    let batch = Batch { leases: schedule("k", WorkClass::Light).leases, ..appends(streams) };
    one.commit(batch).await.unwrap();
    let mut told = BTreeSet::new();
    let mut is_work = false;
    let all = async {
        while told.len() < names.len() || !is_work {
            match changes.recv().await.unwrap() {
                Change::Stream { stream, version } => {
                    assert_eq!(version, 1);
                    told.insert(stream);
                }
                Change::Work => is_work = true,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("hints come");
    assert_eq!(told, names);
    // What comes back by the database is not told twice here.
    let mut count = 0;
    while own.try_recv().is_ok() {
        count += 1;
    }
    assert_eq!(count, names.len() + 1);
}
