//! Moving from a SQLite file to PostgreSQL.
#![cfg(all(feature = "postgres", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::panic)] // test code

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use paas_core::{
    Append, Batch, Claim, Clock, Expect, IndexRange, Keys, Kind, LeaseChange, Position, Scan, Scope,
    StateStore, StreamId, SystemClock, UniqueReach, WorkClass, Write,
};
use paas_store::{Imported, PostgresStore, SqliteStore};
use support::Database;

fn org(number: u32) -> Scope {
    Scope::Org(format!("org_{number:0>26}").parse().unwrap())
}

fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock::new())
}

/// More rows than are copied at once, of every kind, with every oddity that a file can hold.
async fn fill(path: &Path) -> SqliteStore {
    let now = clock().now();
    let store = SqliteStore::open(path, clock()).await.unwrap();
    for page in 0..6 {
        let numbers = page * 200..(page + 1) * 200;
        let writes = numbers.clone().map(|number| Write::Put {
            scope: org(number % 7),
            kind: if number % 2 == 0 { "thing" } else { "other" },
            id: format!("odd\0'\u{1f600}{number}"),
            expect: Expect::Absent,
            keys: Keys {
                unique: vec![
                    ("name", format!("n\0{number}"), UniqueReach::Org),
                    ("host", format!("h{number}"), UniqueReach::Store),
                ],
                index: vec![("by", format!("{:?}", number % 13)), ("at", "\u{e9}z\0".to_owned())],
                expires_at: (number % 3 == 0).then(|| now + Duration::from_secs(3600)),
            },
            body: (0..=255).cycle().take(number as usize * 10).collect(),
        });
        let appends = numbers.map(|number| Append {
            scope: org(number % 50),
            stream: StreamId::new(format!("s\0{}", number % 50)),
            expect: u64::from(number / 50),
            at: now,
            events: vec![number.to_string().into_bytes()],
        });
        let leases = (0..30).map(|number| LeaseChange::Schedule {
            key: format!("k\0{page}-{number}"),
            scope: org(number % 3),
            class: WorkClass::ALL[number as usize % 2],
            after: Duration::ZERO,
        });
        let (writes, appends, leases) = (writes.collect(), appends.collect(), leases.collect());
        store.commit(Batch { fence: None, writes, appends, leases }).await.unwrap();
    }
    let update = |number: u32| Write::Update {
        scope: org(number % 7),
        kind: "thing",
        id: format!("odd\0'\u{1f600}{number}"),
        expect: Expect::Version(1),
        body: b"changed".to_vec(),
    };
    let writes = (0..50).map(|number| update(number * 2)).collect();
    store.commit(Batch { writes, ..Batch::default() }).await.unwrap();
    store
}

/// Everything that can be read of a store.
async fn all(store: &dyn StateStore) -> String {
    let mut all = String::new();
    for kind in ["thing", "other"] {
        for index in ["by", "at"] {
            let scan = Scan {
                scope: Scope::System,
                kind,
                index,
                range: IndexRange::all(),
                descending: false,
                limit: 10_000,
                cursor: None,
            };
            let records = store.scan(&scan).await.unwrap().items;
            all.extend(records.iter().map(|record| format!("{record:?}\n")));
        }
    }
    for number in 0..1200 {
        let kind = if number % 2 == 0 { "thing" } else { "other" };
        for (scope, key, value) in
            [(org(number % 7), "name", format!("n\0{number}")), (Scope::System, "host", format!("h{number}"))]
        {
            let found = store.find(&scope, kind, key, &value).await.unwrap();
            all.push_str(&format!("{}\n", found.unwrap().id));
        }
    }
    let feed = store.feed(&Scope::System, Position(0), 10_000).await.unwrap();
    all.extend(feed.iter().map(|event| format!("{event:?}\n")));
    all
}

fn everything() -> Claim {
    Claim {
        worker: "w".to_owned(),
        limit: [(WorkClass::Light, 1000), (WorkClass::Build, 1000)].into(),
        slots: Default::default(),
        duration: Duration::from_secs(60),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_over_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    let sqlite = fill(&path).await;
    // Its leases end with it; the work is due again.
    let held = sqlite.claim(&Claim { limit: [(WorkClass::Light, 5)].into(), ..everything() }).await.unwrap();
    assert_eq!(held.leases.len(), 5);
    let expected = all(&sqlite).await;
    let database = Database::new().await;
    let postgres = database.store(clock()).await;
    // Another program has the file open.
    let error = postgres.import_sqlite(&path).await.unwrap_err();
    assert!(error.message().contains("in use"), "{error:?}");
    sqlite.close().await;
    let imported = postgres.import_sqlite(&path).await.unwrap();
    assert_eq!(imported, Imported { records: 1200, events: 1200, work: 180 });
    assert_eq!(all(&postgres).await, expected);
    let claimed = postgres.claim(&everything()).await.unwrap();
    assert_eq!(claimed.leases.len(), 180);
    assert!(claimed.leases.iter().all(|lease| lease.fence > held.leases[4].fence));
    let append = Append {
        scope: org(0),
        stream: StreamId::new("s\0".to_owned() + "0"),
        expect: 24,
        at: clock().now(),
        events: vec![b"next".to_vec()],
    };
    let committed = postgres.commit(Batch { appends: vec![append], ..Batch::default() }).await.unwrap();
    assert!(committed.positions[0] > Position(1200));
}

#[tokio::test]
async fn a_database_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    fill(&path).await.close().await;
    let database = Database::new().await;
    let postgres = database.store(clock()).await;
    let keys = Keys::default();
    let (scope, id) = (Scope::System, "own".to_owned());
    let own = Write::Put { scope, kind: "thing", id, expect: Expect::Absent, keys, body: Vec::new() };
    postgres.commit(Batch { writes: vec![own], ..Batch::default() }).await.unwrap();
    let error = postgres.import_sqlite(&path).await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (Kind::Unavailable, false), "{error:?}");
    assert!(error.message().contains("already"), "{error:?}");
    assert!(postgres.feed(&Scope::System, Position(0), 10).await.unwrap().is_empty());
}

/// What is wrong half-way takes everything back: here a constraint that the last table breaks.
#[tokio::test]
async fn a_copy_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    fill(&path).await.close().await;
    let database = Database::new().await;
    let postgres = database.store(clock()).await;
    let server = database.connect().await;
    server.batch_execute("ALTER TABLE paas.work ADD CHECK (class <> 'build')").await.unwrap();
    postgres.import_sqlite(&path).await.unwrap_err();
    assert_eq!(server.query("SELECT FROM paas.records", &[]).await.unwrap().len(), 0);
    // Nor is a copy kept that differs from the file.
    let spoil = "ALTER TABLE paas.work DROP CONSTRAINT work_class_check;
        CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN NEW.body = ''spoilt''; RETURN NEW; END';
        CREATE TRIGGER spoil BEFORE INSERT ON paas.records FOR EACH ROW EXECUTE FUNCTION spoil()";
    server.batch_execute(spoil).await.unwrap();
    let error = postgres.import_sqlite(&path).await.unwrap_err();
    assert!(error.message().contains("records"), "{error:?}");
    assert_eq!(server.query("SELECT FROM paas.records", &[]).await.unwrap().len(), 0);
    server.batch_execute("DROP TRIGGER spoil ON paas.records").await.unwrap();
    postgres.import_sqlite(&path).await.unwrap();
}

#[tokio::test]
async fn a_missing_file_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing.db");
    let database = Database::new().await;
    let postgres: PostgresStore = database.store(clock()).await;
    let error = postgres.import_sqlite(&path).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    assert!(!path.exists());
}
