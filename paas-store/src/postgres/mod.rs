//! The state store on PostgreSQL.

mod batch;
mod connect;
mod failure;
mod hints;
#[cfg(feature = "sqlite")]
mod import;
mod leases;
mod pool;
mod reader;
mod schema;
mod tls;
mod writer;

use std::fmt;
#[cfg(feature = "sqlite")]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use paas_core::error::Result;
use paas_core::{
    Backlog, Batch, Change, Claim, Claimed, Clock, Committed, Lease, Metrics, Page, Position, Record, Scan,
    Scope, StateStore, StoredEvent, StreamId, WorkClass, WorkKey,
};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;

#[cfg(feature = "sqlite")]
pub use import::Imported;

use connect::Connector;
use failure::{Failure, closed};
use hints::Hints;
use pool::{Lost, Pool};
use writer::{Asked, Command, Writer};

use crate::convert::{bounded, nanoseconds};

const OPEN: &str = "postgres.open";
const COMMIT: &str = "postgres.commit";
/// How many batches may wait for their turn; further callers wait for a place.
const QUEUE: usize = 1024;
/// The connections on which leases are claimed and renewed.
const LEASE_CONNECTIONS: usize = 2;

/// Settings of a [`PostgresStore`].
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// How many connections read. Each carries several reads at once, one behind the other.
    pub readers: usize,
    /// Leases and records expire by the clock that the store is opened with, and not by the database's: for tests
    /// that let time pass. The clocks of several servers differ, so never with more than one.
    pub own_time: bool,
    /// Where transactions are counted: `paas_store_commits_per_transaction`.
    pub metrics: Arc<Metrics>,
}

impl Default for PostgresOptions {
    /// Four connections, the database's time, and nobody who reads the metrics.
    fn default() -> Self {
        Self { readers: 4, own_time: false, metrics: Arc::default() }
    }
}

/// A [`StateStore`] in a PostgreSQL database, which several servers share.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use paas_core::{StateStore, SystemClock};
/// use paas_store::PostgresStore;
///
/// # async fn example() -> paas_core::Result<()> {
/// let url = "postgresql://paas:secret@db.internal/paas?sslmode=require";
/// let store = PostgresStore::open(url, Arc::new(SystemClock::new())).await?;
/// store.ping().await
/// # }
/// ```
///
/// # Flow
/// One task commits: it gathers the batches that wait at that moment into one transaction, which it sends at once and
/// the server carries out by a function of its own. The commits of all servers take turns under one lock; so positions
/// become visible in their order, and no two batches wait for each other. Reads, claims and renewals go over
/// connections beside it: eight in all, with the one that hints come in on.
///
/// # Guarantees
/// - Leases and records expire by the database's clock, which all servers share. When it is set back by more than a
///   second, the next claim shortens every wait by as much.
/// - A fenced commit locks its lease: nobody claims the key between the check and the end of the commit.
/// - When a connection is lost during a commit, what became of it is found out, and what did not happen is done once
///   more: each batch leaves a note in its transaction, and asking for the note keeps a transaction that is still
///   under way from happening later. Only if the database stays away for five to ten seconds is the answer
///   `Unavailable`, saying that it is not known. A lost claim is not repeated: its leases end by themselves.
/// - Nothing is kept in memory: a read sees what any server committed before it.
/// - The password is in no error and no `Debug`.
///
/// # Assumptions
/// PostgreSQL 14 or newer, reached directly and not through a pooler that shares connections between transactions.
/// The user owns the schema `paas`, or may make it. `sslmode=require` encrypts, and verifies the server's certificate
/// and name by the system's authorities; any other mode does not encrypt.
pub struct PostgresStore {
    connector: Connector,
    commands: mpsc::Sender<Command>,
    readers: Arc<Pool>,
    leases: Pool,
    hints: Hints,
    listener: AbortHandle,
    /// The store's time, if that is not the database's.
    time: Option<Arc<dyn Clock>>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresStore").field("database", &self.connector).finish_non_exhaustive()
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl PostgresStore {
    /// Opens the database and makes its tables, or brings them up to date. `clock` is what the store waits by.
    ///
    /// # Errors
    /// `Unavailable`: permanently when the URL, the user or the password is wrong, or a newer version wrote the
    /// database.
    pub async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_with(url, PostgresOptions::default(), clock).await
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(url: &str, options: PostgresOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let connector = Connector::new(url, Arc::clone(&clock))?;
        let (hints, others) = Hints::new();
        let opening = async {
            let connection = connector.connect().await?;
            schema::migrate(&connection).await?;
            let number: i64 = schema::one(&connection, "SELECT nextval('paas.writers')").await?;
            let listening = hints::listening(&connector, number, hints.here().clone()).await?;
            Ok((number, listening))
        };
        let (number, listening) = opening.await.map_err(|failure: Failure| failure.into_error(OPEN))?;
        let readers = Arc::new(Pool::new(connector.clone(), options.readers));
        let leases = Pool::new(connector.clone(), LEASE_CONNECTIONS);
        let time = options.own_time.then(|| Arc::clone(&clock));
        let (commands, receiver) = mpsc::channel(QUEUE);
        let writer = Writer {
            connector: connector.clone(),
            clock: Arc::clone(&clock),
            time: time.clone(),
            hints: hints.clone(),
            metrics: options.metrics,
        };
        tokio::spawn(writer.run(receiver));
        tokio::spawn(hints::notify(Arc::clone(&readers), number, others));
        let here = hints.here().clone();
        let listener = tokio::spawn(hints::listen(connector.clone(), clock, number, here, listening));
        Ok(Self { connector, commands, readers, leases, hints, listener: listener.abort_handle(), time })
    }

    /// Copies everything that a SQLite file holds (but leases, which end with its program) into an empty database, with
    /// the same versions and positions, and compares what is there then with the file. All of it, or nothing: if the
    /// connection is lost at the very end, copying again says whether there is something already.
    ///
    /// # Errors
    /// As [`open`](Self::open) of both stores; `Unavailable`, permanently, when the database is not empty.
    #[cfg(feature = "sqlite")]
    pub async fn import_sqlite(&self, path: impl AsRef<Path>) -> Result<Imported> {
        import::import(&self.connector, path.as_ref()).await
    }

    /// Carries out what was asked before, then closes the connections. Every later call is `Unavailable`.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Close(reply)).await.is_ok() {
            // Closed already, if nobody answers.
            let _ = answer.await;
        }
        self.leases.close().await;
        self.readers.close().await;
        self.listener.abort();
    }

    fn now(&self) -> Option<i64> {
        self.time.as_ref().map(|clock| nanoseconds(clock.now()))
    }
}

#[async_trait]
impl StateStore for PostgresStore {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        batch.check(COMMIT)?;
        let (reply, answer) = oneshot::channel();
        let asked = Command::Commit(Asked::new(batch, reply));
        self.commands.send(asked).await.map_err(|_| closed(COMMIT))?;
        answer.await.map_err(|_| closed(COMMIT))?
    }

    async fn get(&self, scope: &Scope, kind: &'static str, id: &str) -> Result<Option<Record>> {
        reader::get(&self.readers, scope, kind, id, self.now()).await
    }

    async fn find(
        &self,
        scope: &Scope,
        kind: &'static str,
        key: &'static str,
        value: &str,
    ) -> Result<Option<Record>> {
        reader::find(&self.readers, scope, kind, (key, value), self.now()).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<Record>> {
        reader::scan(&self.readers, scan, self.now()).await
    }

    async fn events(
        &self,
        scope: &Scope,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        reader::events(&self.readers, scope, stream, after, limit).await
    }

    async fn feed(&self, scope: &Scope, after: Position, limit: usize) -> Result<Vec<StoredEvent>> {
        reader::feed(&self.readers, scope, after, limit).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        leases::claim(&self.leases, claim, self.now()).await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease> {
        leases::renew(&self.leases, lease, duration, self.now()).await
    }

    async fn count(&self, class: WorkClass, key: Option<WorkKey>) -> Result<u64> {
        leases::count(&self.readers, class, key, self.now()).await
    }

    async fn backlog(&self, class: WorkClass) -> Result<Backlog> {
        leases::backlog(&self.readers, class, self.now()).await
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.hints.here().subscribe()
    }

    async fn sweep(&self, limit: usize) -> Result<usize> {
        const SQL: &str = "SELECT paas.sweep($1, $2)";
        let limit = bounded(limit as u64);
        let rows = self.leases.query("postgres.sweep", Lost::Repeat, SQL, &[&self.now(), &limit]).await?;
        let swept = rows.first().map_or(Ok(0), |row| reader::number(row, "postgres.sweep", 0))?;
        Ok(usize::try_from(swept).unwrap_or(usize::MAX))
    }

    async fn ping(&self) -> Result<()> {
        const SQL: &str = "UPDATE paas.pings SET count = count + 1";
        self.leases.query("postgres.ping", Lost::Repeat, SQL, &[]).await.map(drop)
    }
}
