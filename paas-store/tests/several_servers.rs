//! Several servers on one PostgreSQL: one dies, one sleeps past its leases and wakes up.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code

mod support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use futures::future::{join_all, pending, try_join_all};
use paas_core::memory::{MemoryBuilder, MemoryFiles, MemoryGit, MemoryHost, MemoryIngress, MemoryRuntime};
use paas_core::testing::front::{Front, StoreFront};
use paas_core::{
    Addressing, Batch, Clock, Committed, Event, Keyring, NewApp, Platform, Result, Settings, StateStore,
    SystemClock,
};
use paas_store::PostgresStore;
use support::Database;

const REPOSITORY: &str = "https://git.example.com/team/hello.git";
const APPS: usize = 30;
/// Which of its workers' commits a server is stopped before: it holds leases by then.
const STOPPED_AT: usize = 12;
const LONG: Duration = Duration::from_secs(60);

/// Stops the thread that it runs on, and with it a whole server, before a certain commit of a worker.
#[derive(Debug)]
struct Stop {
    has_come: mpsc::Sender<()>,
    /// Goes on when something comes.
    goes_on: Mutex<mpsc::Receiver<()>>,
}

/// The store of one server.
#[derive(Debug)]
struct Watched {
    store: PostgresStore,
    stop: Option<Stop>,
    fenced_commits: AtomicUsize,
    refused: Arc<AtomicUsize>,
}

#[async_trait]
impl StoreFront for Watched {
    fn behind(&self) -> &dyn StateStore {
        &self.store
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        if batch.fence.is_some()
            && self.fenced_commits.fetch_add(1, Ordering::SeqCst) == STOPPED_AT
            && let Some(stop) = &self.stop
        {
            stop.has_come.send(()).unwrap();
            // Without a sender the test is over.
            let _ = stop.goes_on.lock().unwrap().recv();
        }
        let committed = self.store.commit(batch).await;
        if committed.as_ref().is_err_and(|error| error.reason() == Some("fenced")) {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        committed
    }
}

/// What all servers share besides the database: one engine, one ingress, one git server, one key.
#[derive(Clone)]
struct World {
    url: String,
    clock: Arc<SystemClock>,
    host: MemoryHost,
    git: Arc<MemoryGit>,
    ingress: Arc<MemoryIngress>,
    key: PathBuf,
}

impl World {
    async fn platform(&self, stop: Option<Stop>, refused: Arc<AtomicUsize>) -> Platform {
        let store = PostgresStore::open(&self.url, self.clock.clone()).await.unwrap();
        let store = Front(Watched { store, stop, fenced_commits: AtomicUsize::new(0), refused });
        Platform::builder()
            .clock(self.clock.clone())
            .store(Arc::new(store))
            .keyring(Keyring::open(&self.key).unwrap())
            .git(self.git.clone())
            .ingress(self.ingress.clone())
            .image_builder(Arc::new(MemoryBuilder::new(self.host.clone())))
            .runtime(Arc::new(MemoryRuntime::new(self.host.clone()).with_addressing(Addressing::Runtime)))
            .settings(Settings {
                build_slots: 12,
                operation_slots: 3,
                lease: Duration::from_secs(1),
                lease_renewal: Duration::from_millis(250),
                ..Settings::default()
            })
            .start()
            .await
            .unwrap()
    }

    /// A server on a thread of its own, which is all that it runs on: where that stops, everything of it does.
    fn server(&self) -> Server {
        let (has_come, reached) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let stop = Stop { has_come, goes_on: Mutex::new(goes_on) };
        let refused = Arc::new(AtomicUsize::new(0));
        let (started, is_started) = mpsc::channel();
        let (world, counter) = (self.clone(), Arc::clone(&refused));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let _platform = world.platform(Some(stop), counter).await;
                started.send(()).unwrap();
                pending::<()>().await;
            });
        });
        is_started.recv_timeout(LONG).expect("it starts");
        Server { reached, go_on, refused }
    }
}

struct Server {
    reached: mpsc::Receiver<()>,
    go_on: mpsc::Sender<()>,
    refused: Arc<AtomicUsize>,
}

impl Server {
    async fn is_stopped(&mut self) {
        let reached = std::mem::replace(&mut self.reached, mpsc::channel().1);
        let waiting = tokio::task::spawn_blocking(move || reached.recv_timeout(LONG));
        waiting.await.unwrap().expect("it gets work, and is stopped in the middle of it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dies_and_one_wakes_up_late_and_every_deployment_ends_once() {
    let (database, folder) = (Database::new().await, tempfile::tempdir().unwrap());
    let clock = Arc::new(SystemClock::new());
    let world = World {
        url: database.url(),
        clock: clock.clone(),
        host: MemoryHost::new(clock.clone()),
        git: Arc::new(MemoryGit::new()),
        ingress: Arc::new(MemoryIngress::new()),
        key: folder.path().join("key"),
    };
    let files = MemoryFiles::from([("index.html", "<h1>hello</h1>")]);
    world.git.commit(&REPOSITORY.parse().unwrap(), &"main".parse().unwrap(), files);
    // The first is never woken up; the second is.
    let (mut dead, mut late) = (world.server(), world.server());
    let platform = world.platform(None, Arc::default()).await;
    let mut handles = Vec::new();
    for number in 0..APPS {
        let new = NewApp::new(&format!("app-{number}"), REPOSITORY).unwrap();
        let created = platform.apps().create(new).await.unwrap();
        handles.push((created.app.clone(), created.first_deployment().unwrap().clone()));
    }
    dead.is_stopped().await;
    late.is_stopped().await;
    let outcomes = join_all(handles.iter().map(|(_, handle)| handle.outcome()));
    for outcome in tokio::time::timeout(LONG, outcomes).await.expect("all end") {
        outcome.unwrap();
    }
    // A deployment is settled when it is live, and ends once the old release is gone.
    let journals = try_join_all(handles.iter().map(|(_, handle)| handle.events(0).try_collect::<Vec<_>>()));
    let journals = tokio::time::timeout(LONG, journals).await.expect("all end").unwrap();
    let before = world.host.instances();
    // It believes that it still holds what it held, and writes it.
    late.go_on.send(()).unwrap();
    let refused = async {
        while late.refused.load(Ordering::SeqCst) == 0 {
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, refused).await.expect("its write is refused");
    // It goes on with newer work, like everybody.
    let again = join_all(handles.iter().take(10).map(|(app, _)| platform.deploy(app)));
    for deployed in again.await {
        tokio::time::timeout(LONG, deployed.unwrap().outcome()).await.expect("it ends").unwrap();
    }
    for ((app, handle), journal) in handles.iter().zip(journals) {
        assert!(journal.iter().map(|event| event.version).eq(1..=journal.len() as u64));
        let ends = journal.iter().filter(|event| matches!(event.event, Event::Ended { .. })).count();
        assert_eq!(ends, 1, "{journal:?}");
        assert_eq!(handle.history(0).await.unwrap(), journal, "nothing was written late");
        assert!(!platform.apps().releases(app, 10, None).await.unwrap().items.is_empty());
    }
    assert_eq!(before.len(), APPS);
    assert_eq!(before.iter().map(|instance| &instance.app).collect::<BTreeSet<_>>().len(), APPS);
    // None was made twice, and each deployment since made one.
    assert_eq!(world.host.containers_begun(), (APPS + 10) as u64);
    platform.shutdown().await;
}
