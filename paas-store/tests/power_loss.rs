//! What was acknowledged is there after a loss of power: the database, on a disk that loses what was not synced.
#![cfg(all(feature = "sqlite", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fallible_disk::Disk;
use paas_core::{
    Append, Batch, Claim, Clock, Expect, Keys, Lease, LeaseChange, Scope, StateStore, StreamId, TestClock,
    UniqueReach, WorkClass, Write,
};
use paas_store::SqliteStore;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const CLIENTS: u64 = 4;
const FOLDER: &str = "made/anew";
const FILE: &str = "paas.db";

#[test]
fn disk_process() {
    fallible_disk::process();
}

/// Something that was acknowledged and is not there, or is there in part.
type Loss = String;

/// Fails with a text unless something is as it must be.
macro_rules! must {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}

/// Somebody who commits one batch after the other, and remembers which were acknowledged.
#[derive(Debug)]
struct Client {
    number: u64,
    acknowledged: u64,
    /// The work that each batch gave back. One more than was acknowledged: of the last one nobody knows.
    released: Vec<Option<String>>,
}

impl Client {
    fn new(number: u64) -> Self {
        Self { number, acknowledged: 0, released: Vec::new() }
    }

    fn stream(&self) -> StreamId {
        StreamId::new(format!("stream-{}", self.number))
    }

    fn head(&self) -> String {
        format!("head-{}", self.number)
    }

    fn record(&self, batch: u64) -> String {
        format!("record-{}-{batch}", self.number)
    }

    fn work(&self, batch: u64) -> String {
        format!("work-{}-{batch}", self.number)
    }

    /// The document of a batch: no other has the same.
    fn body(&self, batch: u64, bytes: u64) -> Vec<u8> {
        let length = (batch * 7_919 + self.number * 131) % bytes;
        let mark = format!("{} {batch} ", self.number).into_bytes();
        mark.into_iter().cycle().take(usize::try_from(length).unwrap()).collect()
    }

    fn events(&self, batch: u64) -> Vec<Vec<u8>> {
        (0..=batch % 3).map(|event| format!("{} {batch} {event}", self.number).into_bytes()).collect()
    }

    fn all_events(&self, batches: u64) -> Vec<Vec<u8>> {
        (1..=batches).flat_map(|batch| self.events(batch)).collect()
    }

    fn batch(&self, batch: u64, bytes: u64, lease: Option<Lease>) -> Batch {
        let put = |kind, id: String, expect, body| Write::Put {
            scope: Scope::System,
            kind,
            keys: Keys {
                unique: vec![("name", id.clone(), UniqueReach::Store)],
                index: vec![("by", id.clone())],
                expires_at: None,
            },
            id,
            expect,
            body,
        };
        let before = if batch == 1 { Expect::Absent } else { Expect::Version(batch - 1) };
        let append = Append {
            scope: Scope::System,
            stream: self.stream(),
            expect: self.all_events(batch - 1).len() as u64,
            at: TestClock::new().now(),
            events: self.events(batch),
        };
        let schedule = LeaseChange::Schedule {
            key: self.work(batch),
            scope: Scope::System,
            class: WorkClass::Light,
            after: Duration::ZERO,
        };
        let release = lease.clone().map(|lease| LeaseChange::Release { lease, next: None });
        Batch {
            fence: lease,
            writes: vec![
                put("head", self.head(), before, batch.to_string().into_bytes()),
                put("record", self.record(batch), Expect::Absent, self.body(batch, bytes)),
            ],
            appends: vec![append],
            leases: [schedule].into_iter().chain(release).collect(),
        }
    }

    /// Commits until one batch fails; true if none did.
    async fn work_on(
        &mut self,
        store: &SqliteStore,
        leases: &Mutex<Vec<Lease>>,
        most: u64,
        bytes: u64,
    ) -> bool {
        for _ in 0..most {
            let lease = leases.lock().unwrap().pop();
            let batch = self.acknowledged + 1;
            self.released.truncate(self.acknowledged.try_into().unwrap());
            self.released.push(lease.as_ref().map(|lease| lease.key.clone()));
            if store.commit(self.batch(batch, bytes, lease)).await.is_err() {
                return false;
            }
            self.acknowledged = batch;
        }
        true
    }

    /// Finds every acknowledged batch whole, the one of which nobody knows whole or not at all, and nothing else.
    async fn check(&mut self, store: &SqliteStore, bytes: u64) -> Result<(), Loss> {
        let told = |error| format!("it can't be read: {error:?}");
        let head = store.get(&Scope::System, "head", &self.head()).await.map_err(told)?;
        let found = head.as_ref().map_or(0, |head| head.version);
        let known = self.acknowledged..=self.released.len() as u64;
        must!(known.contains(&found), "{}: {found} batches, expected {known:?}", self.head());
        must!(
            head.is_none_or(|head| head.body == found.to_string().into_bytes()),
            "{} is of another batch",
            self.head()
        );
        for batch in 1..=self.released.len() as u64 {
            let record = store.get(&Scope::System, "record", &self.record(batch)).await.map_err(told)?;
            let expected = (batch <= found).then(|| self.body(batch, bytes));
            must!(record.map(|record| record.body) == expected, "{} is not whole", self.record(batch));
        }
        let events = store.events(&Scope::System, &self.stream(), 0, usize::MAX).await.map_err(told)?;
        let versions: Vec<_> = events.iter().map(|event| event.version).collect();
        must!(versions == (1..=versions.len() as u64).collect::<Vec<_>>(), "gaps: {versions:?}");
        let events: Vec<_> = events.into_iter().map(|event| event.body).collect();
        must!(events == self.all_events(found), "the events of {} are not whole", self.head());
        self.acknowledged = found;
        self.released.truncate(found.try_into().unwrap());
        Ok(())
    }
}

/// A database on a disk, and those who use it.
struct Story {
    disk: Disk,
    random: StdRng,
    clients: Vec<Client>,
    /// The longest document.
    bytes: u64,
    /// How often the power was cut while the database was opened, used and closed.
    cuts: [u32; 3],
}

impl Story {
    fn new(seed: u64, bytes: u64) -> Self {
        Self {
            disk: Disk::mount().unwrap(),
            random: StdRng::seed_from_u64(seed),
            clients: (0..CLIENTS).map(Client::new).collect(),
            bytes,
            cuts: [0; 3],
        }
    }

    /// Opens the database and checks everything in it; `None` if the power failed.
    async fn open(&mut self) -> Result<Option<(SqliteStore, Vec<Lease>)>, Loss> {
        let folder = self.disk.path().join(FOLDER);
        // As the server makes it, which leaves the rest to the store.
        let _ = std::fs::create_dir_all(&folder);
        let opened = SqliteStore::open(folder.join(FILE), Arc::new(TestClock::new())).await;
        let store = match opened {
            Ok(store) => store,
            Err(_) if self.disk.is_cut() => return Ok(None),
            Err(error) => return Err(format!("it can't be opened: {error:?}")),
        };
        match self.check(&store).await {
            Ok(leases) => Ok(Some((store, leases))),
            Err(_) if self.disk.is_cut() => {
                store.close().await;
                Ok(None)
            }
            Err(loss) => Err(loss),
        }
    }

    /// Answers all the work that is due, held by a lease.
    async fn check(&mut self, store: &SqliteStore) -> Result<Vec<Lease>, Loss> {
        for client in &mut self.clients {
            client.check(store, self.bytes).await?;
        }
        let claim = Claim {
            worker: "worker".to_owned(),
            limit: [(WorkClass::Light, usize::MAX)].into(),
            slots: Default::default(),
            duration: Duration::from_secs(3_600),
        };
        let leases = store.claim(&claim).await.map_err(|error| format!("{error:?}"))?.leases;
        let due: BTreeSet<_> = leases.iter().map(|lease| lease.key.clone()).collect();
        let released: BTreeSet<_> =
            self.clients.iter().flat_map(|client| client.released.iter().flatten().cloned()).collect();
        let scheduled: BTreeSet<_> = self
            .clients
            .iter()
            .flat_map(|client| (1..=client.acknowledged).map(|batch| client.work(batch)))
            .collect();
        let expected: BTreeSet<_> = scheduled.difference(&released).cloned().collect();
        must!(due == expected, "due: {due:?}, expected: {expected:?}");
        Ok(leases)
    }

    /// All clients at once, each until a commit fails or it has made so many; true if none failed.
    async fn use_it(&mut self, store: &Arc<SqliteStore>, leases: &Arc<Mutex<Vec<Lease>>>, most: u64) -> bool {
        let tasks: Vec<_> = std::mem::take(&mut self.clients)
            .into_iter()
            .map(|mut client| {
                let (store, leases, bytes) = (store.clone(), leases.clone(), self.bytes);
                tokio::spawn(async move {
                    let is_done = client.work_on(&store, &leases, most, bytes).await;
                    (client, is_done)
                })
            })
            .collect();
        let mut are_done = true;
        for task in tasks {
            let (client, is_done) = task.await.unwrap();
            self.clients.push(client);
            are_done &= is_done;
        }
        are_done
    }

    /// One run of the program, in the middle of which the power is cut, after some of that many changes on disk.
    async fn round(&mut self, changes: Range<u64>) -> Result<(), Loss> {
        let is_early = self.random.random_bool(0.3);
        if is_early {
            self.disk.cut_after(self.random.random_range(0..40), self.random.random());
        }
        match self.open().await? {
            None => self.cuts[0] += 1,
            Some((store, leases)) => {
                let (store, leases) = (Arc::new(store), Arc::new(Mutex::new(leases)));
                if self.random.random_bool(0.7) {
                    self.disk.cut_after(self.random.random_range(changes), self.random.random());
                    self.use_it(&store, &leases, u64::MAX).await;
                    must!(self.disk.is_cut(), "a commit failed, and the disk did not");
                    self.cuts[1] += 1;
                } else {
                    self.use_it(&store, &leases, 10).await;
                    if !self.disk.is_cut() {
                        self.disk.cut_after(self.random.random_range(0..300), self.random.random());
                    }
                }
                store.close().await;
                self.cuts[2] += u32::from(!self.disk.is_cut());
            }
        }
        self.disk.cut(self.random.random());
        self.disk.restore();
        self.check_integrity()
    }

    /// Looks at a copy: looking changes the files.
    fn check_integrity(&self) -> Result<(), Loss> {
        let copies = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.disk.path().join(FOLDER)).into_iter().flatten() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copies.path().join(entry.file_name())).unwrap();
        }
        let path = copies.path().join(FILE);
        if !path.exists() {
            return Ok(());
        }
        let findings = |path: &Path| {
            let database = rusqlite::Connection::open(path)?;
            database.pragma_query_value(None, "integrity_check", |row| row.get::<_, String>(0))
        };
        match findings(&path) {
            Ok(findings) if findings == "ok" => Ok(()),
            findings => Err(format!("the database is damaged: {findings:?}")),
        }
    }

    /// Everything is there in the end, and answers.
    async fn end(mut self) -> Result<Self, Loss> {
        let Some((store, leases)) = self.open().await? else { return Err("the power failed".to_owned()) };
        let (store, leases) = (Arc::new(store), Arc::new(Mutex::new(leases)));
        must!(self.use_it(&store, &leases, 5).await, "it takes no more commits");
        store.close().await;
        Ok(self)
    }
}

async fn story(seed: u64, rounds: u32, bytes: u64, changes: Range<u64>, keeps: bool) -> Result<Story, Loss> {
    let mut story = Story::new(seed, bytes);
    if !keeps {
        // From when there is a database to lose something of.
        story.round(0..1_000).await?;
        story.disk.ignore_syncs();
    }
    for round in 0..rounds {
        let at = |loss| format!("seed {seed}, round {round}: {loss}");
        story.round(changes.clone()).await.map_err(at)?;
    }
    story.end().await.map_err(|loss| format!("seed {seed}, in the end: {loss}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_every_loss_of_power() {
    let (mut cuts, mut acknowledged) = ([0; 3], 0);
    for seed in 0..6 {
        let story = story(seed, 12, 5_000, 1..400, true).await.unwrap();
        for (sum, count) in cuts.iter_mut().zip(story.cuts) {
            *sum += count;
        }
        acknowledged += story.clients.iter().map(|client| client.acknowledged).sum::<u64>();
    }
    println!("{acknowledged} batches; cuts while opening, in use, after closing: {cuts:?}");
    assert!(cuts.into_iter().all(|count| count > 0) && acknowledged > 500, "{cuts:?}, {acknowledged}");
}

/// Large documents fill the write-ahead log within one run: it goes into the file, and is begun anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_while_the_log_goes_into_the_file() {
    story(100, 4, 400_000, 10_000..40_000, true).await.unwrap();
}

/// The test of the tests above: on a disk that only says that it syncs, they find what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_sync_is_found_out() {
    for seed in 0..4 {
        let loss = story(seed, 12, 5_000, 1..400, false).await.map(drop).unwrap_err();
        println!("{loss}");
    }
}

/// No later commit may pretend that what failed is there, nor build on it.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_what_is_acknowledged_is_there_all_the_same() {
    let mut failures = 0;
    for seed in 0..5 {
        let mut story = Story::new(seed, 5_000);
        for _ in 0..4 {
            let (store, leases) = story.open().await.unwrap().unwrap();
            let (store, leases) = (Arc::new(store), Arc::new(Mutex::new(leases)));
            for _ in 0..3 {
                story.disk.fail_sync_after(story.random.random_range(0..6), story.random.random());
                if !story.use_it(&store, &leases, 5).await {
                    failures += 1;
                    // None of those that failed happened.
                    for client in &mut story.clients {
                        let acknowledged = client.acknowledged;
                        client.check(&store, story.bytes).await.unwrap();
                        assert_eq!(client.acknowledged, acknowledged);
                    }
                    assert!(story.use_it(&store, &leases, 5).await, "it goes on");
                }
            }
            if story.random.random() {
                // It may be the sync of what goes from the log into the file that fails.
                story.disk.fail_sync_after(story.random.random_range(0..3), story.random.random());
                store.close().await;
            }
            story.disk.cut(story.random.random());
            store.close().await;
            story.disk.restore();
            story.check_integrity().unwrap();
        }
        story.end().await.unwrap();
    }
    assert!(failures > 5, "{failures}");
}
