//! What happens to the database's file: who may open it, what survives, and what is refused.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use paas_core::{
    Append, Batch, Claim, Clock, Error, Expect, IndexRange, Keys, Kind, Lease, LeaseChange, Position, Scan,
    Scope, StateStore, StreamId, TestClock, UniqueReach, WorkClass, Write,
};
use paas_store::{SqliteOptions, SqliteStore};

async fn open(path: &Path) -> Result<SqliteStore, Error> {
    SqliteStore::open(path, Arc::new(TestClock::new())).await
}

async fn refused(path: &Path) -> Error {
    let error = open(path).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(!error.is_transient() && error.hinted().is_some(), "{error:?}");
    assert!(error.message().contains(path.to_str().unwrap()), "{error:?}");
    error
}

fn put(id: &str, body: Vec<u8>) -> Write {
    let keys = Keys {
        unique: vec![("name", id.to_owned(), UniqueReach::Store)],
        index: vec![("by", id.to_owned())],
        expires_at: None,
    };
    Write::Put { scope: Scope::System, kind: "thing", id: id.to_owned(), expect: Expect::Absent, keys, body }
}

fn writes(writes: Vec<Write>) -> Batch {
    Batch { writes, ..Batch::default() }
}

fn schedule(key: &str) -> LeaseChange {
    let (key, class, after) = (key.to_owned(), WorkClass::Light, Duration::ZERO);
    LeaseChange::Schedule { key, scope: Scope::System, class, after }
}

async fn claim(store: &SqliteStore) -> Option<Lease> {
    let claim = Claim {
        worker: "w".to_owned(),
        limit: [(WorkClass::Light, 1)].into(),
        slots: Default::default(),
        duration: Duration::from_secs(15),
    };
    store.claim(&claim).await.unwrap().leases.pop()
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    let store = open(&path).await.unwrap();
    let at = TestClock::new().now();
    let append = Append {
        scope: Scope::System,
        stream: StreamId::new("s"),
        expect: 0,
        at,
        events: vec![b"1".to_vec(), b"2".to_vec()],
    };
    let batch = Batch { appends: vec![append.clone()], ..writes(vec![put("a", b"body".to_vec())]) };
    store.commit(batch).await.unwrap();
    let feed = store.feed(&Scope::System, Position(0), 10).await.unwrap();
    let record = store.get(&Scope::System, "thing", "a").await.unwrap();
    store.close().await;
    let store = open(&path).await.unwrap();
    assert_eq!(store.get(&Scope::System, "thing", "a").await.unwrap(), record);
    assert_eq!(store.find(&Scope::System, "thing", "name", "a").await.unwrap(), record);
    let scan = Scan {
        scope: Scope::System,
        kind: "thing",
        index: "by",
        range: IndexRange::all(),
        descending: false,
        limit: 10,
        cursor: None,
    };
    assert_eq!(store.scan(&scan).await.unwrap().items, [record.unwrap()]);
    assert_eq!(store.feed(&Scope::System, Position(0), 10).await.unwrap(), feed);
    let committed = store
        .commit(Batch { appends: vec![Append { expect: 2, ..append }], ..Batch::default() })
        .await
        .unwrap();
    assert!(committed.positions[0] > feed[1].position);
}

#[tokio::test]
async fn work_is_due_again_after_reopening_and_old_leases_are_void() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    let store = open(&path).await.unwrap();
    store.commit(Batch { leases: vec![schedule("k")], ..Batch::default() }).await.unwrap();
    let old = claim(&store).await.unwrap();
    // Wanted once more while it is held: due again after the next release, whoever makes it.
    store.commit(Batch { leases: vec![schedule("k")], ..Batch::default() }).await.unwrap();
    store.close().await;

    let store = open(&path).await.unwrap();
    let fenced = Batch { fence: Some(old.clone()), ..writes(vec![put("a", Vec::new())]) };
    assert_eq!(store.commit(fenced.clone()).await.unwrap_err().reason(), Some("fenced"));
    let new = claim(&store).await.unwrap();
    assert!(new.fence > old.fence);
    assert_eq!(store.commit(fenced).await.unwrap_err().reason(), Some("fenced"));
    let release = |lease| LeaseChange::Release { lease, next: None };
    store.commit(Batch { leases: vec![release(new)], ..Batch::default() }).await.unwrap();
    let last = claim(&store).await.unwrap();
    store.commit(Batch { leases: vec![release(last)], ..Batch::default() }).await.unwrap();
    store.close().await;
    assert_eq!(claim(&open(&path).await.unwrap()).await, None);
}

/// Nobody knows how the clock was set while nothing ran.
#[tokio::test]
async fn what_waited_is_looked_at_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    let clock = Arc::new(TestClock::new());
    let store = SqliteStore::open(&path, clock.clone()).await.unwrap();
    let (key, after) = ("k".to_owned(), Duration::from_secs(60));
    let sleeping = LeaseChange::Schedule { key, scope: Scope::System, class: WorkClass::Light, after };
    store.commit(Batch { leases: vec![sleeping], ..Batch::default() }).await.unwrap();
    assert_eq!(claim(&store).await, None);
    store.close().await;
    clock.jump(-24 * 60 * 60);
    let store = SqliteStore::open(&path, clock).await.unwrap();
    assert!(claim(&store).await.is_some());
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    let first = open(&path).await.unwrap();
    assert!(refused(&path).await.message().contains("in use by another program"));
    first.ping().await.unwrap();
    first.close().await;
    let second = open(&path).await.unwrap();
    second.ping().await.unwrap();
    for result in [first.ping().await, first.commit(Batch::default()).await.map(drop)] {
        assert_eq!(result.unwrap_err().kind(), Kind::Unavailable);
    }
    let read = first.get(&Scope::System, "thing", "a").await;
    assert_eq!(read.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let store = open(&path).await.unwrap();
    store.ping().await.unwrap();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["paas.db", "paas.db-shm", "paas.db-wal", "paas.db.lock"]);
}

#[tokio::test]
async fn what_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    let garbage = b"certainly not a database, but something dear to somebody".repeat(100);
    fs::write(&path, &garbage).unwrap();
    assert!(refused(&path).await.message().contains("not a database"));
    assert_eq!(fs::read(&path).unwrap(), garbage);
    refused(&folder.path().join("missing/paas.db")).await;
}

#[tokio::test]
async fn a_foreign_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    let foreign = rusqlite::Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE records (a); INSERT INTO records VALUES (1)").unwrap();
    drop(foreign);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(refused(&path).await.message().contains("another application"));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    assert!(!folder.path().join("paas.db-wal").exists());
}

#[tokio::test]
async fn a_file_is_locked_under_each_of_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    let first = open(&path).await.unwrap();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink("paas.db", &link).unwrap();
    assert!(refused(&link).await.message().contains("in use by another program"));
    first.close().await;
    let second = open(&link).await.unwrap();
    refused(&path).await;
    second.ping().await.unwrap();
}

/// The statement that stores a change of the agenda is itself what finds the disk full.
#[tokio::test]
async fn work_that_could_not_be_stored_is_not_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { max_bytes: Some(512 * 1024), ..SqliteOptions::default() };
    let store = SqliteStore::open_with(folder.path().join("paas.db"), options, Arc::new(TestClock::new()))
        .await
        .unwrap();
    let mut stored = Vec::new();
    loop {
        let keys: Vec<_> = (0..50).map(|at| format!("{:05}{}", stored.len() + at, "k".repeat(500))).collect();
        let leases = keys.iter().map(|key| schedule(key)).collect();
        match store.commit(Batch { leases, ..Batch::default() }).await {
            Ok(_) => stored.extend(keys),
            Err(error) => {
                assert!(error.message().contains("full"), "{error:?}");
                break;
            }
        }
    }
    assert!(stored.len() > 100);
    let mut claimed = Vec::new();
    while let Some(lease) = claim(&store).await {
        claimed.push(lease.key);
    }
    claimed.sort();
    assert_eq!(claimed, stored);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    open(&path).await.unwrap().close().await;
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(refused(&path).await.message().contains("newer version"));
}

#[tokio::test]
async fn damage_is_told_and_not_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    let store = open(&path).await.unwrap();
    for number in 0..100 {
        store.commit(writes(vec![put(&format!("id{number:03}"), vec![b'x'; 2000])])).await.unwrap();
    }
    store.close().await;
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    file.seek(SeekFrom::Start(4096)).unwrap();
    file.write_all(&vec![0xa5; usize::try_from(length - 4096).unwrap()]).unwrap();
    drop(file);
    match open(&path).await {
        Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error:?}"),
        Ok(store) => {
            let error = store.get(&Scope::System, "thing", "id050").await.unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable);
            assert!(error.message().contains("damaged"), "{error:?}");
            assert!(!error.is_transient());
        }
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    let options = SqliteOptions { max_bytes: Some(512 * 1024), ..SqliteOptions::default() };
    let clock = Arc::new(TestClock::new());
    let store = SqliteStore::open_with(&path, options, clock.clone()).await.unwrap();
    store.commit(Batch { leases: vec![schedule("k")], ..Batch::default() }).await.unwrap();
    let lease = claim(&store).await.unwrap();
    let mut kept = 0;
    let error = loop {
        match store.commit(writes(vec![put(&format!("id{kept}"), vec![b'x'; 20_000])])).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(error.is_transient() && error.message().contains("full"), "{error:?}");
    assert!(kept > 10);
    // A batch of which one part finds no room changes nothing: the lease is still held.
    let release = LeaseChange::Release { lease: lease.clone(), next: None };
    let batch = Batch {
        leases: vec![schedule("other"), release.clone()],
        ..writes(vec![put("large", vec![b'x'; 100_000])])
    };
    assert_eq!(store.commit(batch).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(claim(&store).await, None);
    store.renew(&lease, Duration::from_secs(15)).await.unwrap();
    // With room made, it goes on.
    for id in ["id0", "id1", "id2"] {
        let (kind, id) = ("thing", id.to_owned());
        let remove = Write::Remove { scope: Scope::System, kind, id, expect: Expect::Version(1) };
        store.commit(writes(vec![remove])).await.unwrap();
    }
    store.commit(Batch { leases: vec![release], ..writes(vec![put("small", Vec::new())]) }).await.unwrap();
    store.close().await;
    let store = SqliteStore::open(&path, clock).await.unwrap();
    for number in 3..kept {
        let record = store.get(&Scope::System, "thing", &format!("id{number}")).await.unwrap();
        assert_eq!(record.unwrap().body.len(), 20_000);
    }
    assert_eq!(store.get(&Scope::System, "thing", "large").await.unwrap(), None);
    assert_eq!(claim(&store).await, None);
}

/// Set for the process that is to be killed: where its database is.
const VICTIM: &str = "PAAS_STORE_VICTIM";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_writer_loses_nothing_that_was_answered() {
    if let Some(path) = std::env::var_os(VICTIM) {
        return commit_until_killed(Path::new(&path)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("paas.db");
    let mut total = 0;
    for round in 1..=3 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_writer_loses_nothing_that_was_answered", "--nocapture"])
            .env(VICTIM, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut answered = Vec::new();
        while answered.len() < 300 * round {
            let line = lines.next().expect("it goes on until it is killed").unwrap();
            answered.extend(line.strip_prefix("answered ").map(str::to_owned));
        }
        victim.kill().unwrap();
        // What it still printed before it died counts too; its last line may be torn.
        answered.extend(lines.map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("answered ").and_then(|id| id.strip_suffix('.')).map(|id| format!("{id}."))
        }));
        victim.wait().unwrap();
        total += answered.len();
        let store = open(&path).await.unwrap();
        for id in &answered {
            assert!(store.get(&Scope::System, "thing", id).await.unwrap().is_some(), "{id} is lost");
            let events = store.events(&Scope::System, &StreamId::new(id.as_str()), 0, 10).await.unwrap();
            assert_eq!(events.len(), 1, "{id} is lost in part");
        }
        let feed = store.feed(&Scope::System, Position(0), 1_000_000).await.unwrap();
        assert!(feed.len() >= total);
        for event in &feed {
            let record = store.get(&Scope::System, "thing", event.stream.as_str()).await.unwrap();
            assert!(record.is_some(), "{} happened in part", event.stream);
        }
        store.close().await;
    }
}

async fn commit_until_killed(path: &Path) {
    let store = Arc::new(open(path).await.unwrap());
    let process = std::process::id();
    let clients = (0..16).map(|client| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0..u64::MAX {
                let id = format!("{process}-{client}-{number}.");
                let append = Append {
                    scope: Scope::System,
                    stream: StreamId::new(id.as_str()),
                    expect: 0,
                    at: TestClock::new().now(),
                    events: vec![b"event".to_vec()],
                };
                let batch = Batch { appends: vec![append], ..writes(vec![put(&id, vec![b'x'; 200])]) };
                store.commit(batch).await.unwrap();
                println!("answered {id}");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
}
