//! The state store on SQLite.

mod batch;
mod convert;
mod failure;
mod open;
mod reader;
mod recent;
mod schema;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use paas_core::error::{self, Result};
use paas_core::{
    Backlog, Batch, Change, Claim, Claimed, Clock, Committed, Lease, Metrics, Page, Position, Record, Scan,
    Scope, StateStore, StoredEvent, StreamId, WorkClass, WorkKey,
};
use tokio::sync::{broadcast, mpsc, oneshot};

use failure::closed;
use open::Opened;
use reader::Readers;
use recent::Recent;
use writer::{Asked, Command, Write, Writer};

/// How many commands may wait for the writing thread; further callers wait for a place.
const QUEUE: usize = 1024;
/// How many hints a slow receiver may be behind before it loses some.
const HINTS: usize = 1024;

/// Settings of a [`SqliteStore`].
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// How many reads may go on at once, each on a connection of its own.
    pub readers: usize,
    /// The size in bytes that the database file may not exceed; what would, is answered like a full disk.
    pub max_bytes: Option<u64>,
    /// Where transactions are counted: `paas_store_commits_per_transaction`.
    pub metrics: Arc<Metrics>,
}

impl Default for SqliteOptions {
    /// Four readers, no bound but the disk, and nobody who reads the metrics.
    fn default() -> Self {
        Self { readers: 4, max_bytes: None, metrics: Arc::default() }
    }
}

/// A [`StateStore`] in one SQLite file that belongs to this process alone.
///
/// # Flow
/// One thread writes: it gathers the commits that wait at that moment into one transaction, each in a savepoint, and
/// answers them once the write-ahead log is synced. Reads go on beside it; what was written or read last, up to some MiB, is
/// answered from memory. Leases live in this process's memory;
/// the due work is in the file.
///
/// # Guarantees
/// - The file is locked (by `<file>.lock` beside it) against a second program, and readable by its owner only.
/// - The leases of a process that ended are void when the file is opened again, and their work is due.
/// - When a transaction is lost (the disk is full, say), every commit in it is answered `Unavailable`, and none of
///   them happened or claims to have.
///
/// # Assumptions
/// The file is on a local disk that honours a sync. Dropping the store closes the file soon after; where it must be
/// closed at a known moment, await [`close`](Self::close).
pub struct SqliteStore {
    path: PathBuf,
    commands: mpsc::Sender<Command>,
    readers: Readers,
    recent: Arc<Recent>,
    changes: broadcast::Sender<Change>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the database, or makes it. Leases and records expire by `clock`.
    ///
    /// # Errors
    /// `Unavailable`, permanently, when another program has it open, when it is damaged or no database of this
    /// program, or when a newer version wrote it.
    pub async fn open(path: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_with(path, SqliteOptions::default(), clock).await
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(
        path: impl AsRef<Path>,
        options: SqliteOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        const OPERATION: &str = "sqlite.open";
        let (path, now, metrics) = (path.as_ref().to_owned(), clock.now(), Arc::clone(&options.metrics));
        let opening = tokio::task::spawn_blocking(move || match open::open(&path, &options, now) {
            Ok(opened) => Ok((path, opened)),
            Err(failure) => Err(failure.into_error(&path)),
        });
        let (path, Opened { writer, readers, agenda, lock }) =
            opening.await.map_err(error::map(OPERATION))??;
        let (commands, receiver) = mpsc::channel(QUEUE);
        let changes = broadcast::channel(HINTS).0;
        let recent = Arc::new(Recent::new());
        let writer = Writer {
            connection: writer,
            agenda,
            clock: Arc::clone(&clock),
            recent: Arc::clone(&recent),
            changes: changes.clone(),
            metrics,
            lock,
        };
        std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(error::map(OPERATION))?;
        Ok(Self { path, commands, readers: Readers::new(readers), recent, changes, clock })
    }

    /// Carries out what was asked before, then closes the file and lets go of its lock. Every later call is
    /// `Unavailable`.
    pub async fn close(&self) {
        self.recent.close();
        self.readers.close().await;
        // Closed already, if nobody answers.
        let _ = self.ask("sqlite.close", Command::Close).await;
    }

    async fn ask<T>(
        &self,
        operation: &'static str,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| closed(operation))?;
        answer.await.map_err(|_| closed(operation))?
    }
}

/// A file for whoever copies it, and the lock that keeps everybody else out meanwhile.
#[cfg(feature = "postgres")]
pub(crate) fn open_to_copy(path: &Path) -> Result<(rusqlite::Connection, std::fs::File)> {
    let options = SqliteOptions { readers: 1, ..SqliteOptions::default() };
    // What is due by then matters to nobody: the agenda is not used.
    let opened = open::open(path, &options, jiff::Timestamp::UNIX_EPOCH);
    opened.map(|opened| (opened.writer, opened.lock)).map_err(|failure| failure.into_error(path))
}

#[async_trait]
impl StateStore for SqliteStore {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        batch.check("sqlite.commit")?;
        self.ask("sqlite.commit", |reply| Command::Write(Write::Commit(Asked::new(batch, reply)))).await
    }

    async fn get(&self, scope: &Scope, kind: &'static str, id: &str) -> Result<Option<Record>> {
        let ticket = match self.recent.record(scope, kind, id) {
            Ok(found) => return Ok(found),
            Err(ticket) => ticket,
        };
        let (id, now, recent) = (id.to_owned(), self.clock.now(), Arc::clone(&self.recent));
        let get = move |database: &_| {
            let found = reader::get(database, kind, &id, now)?;
            if let (Some((record, false)), Some(ticket)) = (&found, ticket) {
                recent.remember(ticket, record);
            }
            Ok(found)
        };
        let found = self.readers.read("sqlite.get", get).await?;
        Ok(found.map(|(record, _)| record).filter(|record| scope.sees(&record.scope)))
    }

    async fn find(
        &self,
        scope: &Scope,
        kind: &'static str,
        key: &'static str,
        value: &str,
    ) -> Result<Option<Record>> {
        let (scope, value, now) = (scope.clone(), value.to_owned(), self.clock.now());
        let find = move |database: &_| reader::find(database, &scope, kind, key, &value, now);
        self.readers.read("sqlite.find", find).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<Record>> {
        let (scan, now) = (scan.clone(), self.clock.now());
        self.readers.read("sqlite.scan", move |database| reader::scan(database, &scan, now)).await
    }

    async fn events(
        &self,
        scope: &Scope,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        if let Some(events) = self.recent.events(scope, stream, after, limit) {
            return Ok(events);
        }
        let (scope, stream) = (scope.clone(), stream.clone());
        let events = move |database: &_| reader::events(database, &scope, &stream, after, limit);
        self.readers.read("sqlite.events", events).await
    }

    async fn feed(&self, scope: &Scope, after: Position, limit: usize) -> Result<Vec<StoredEvent>> {
        let scope = scope.clone();
        self.readers.read("sqlite.feed", move |database| reader::feed(database, &scope, after, limit)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        self.ask("sqlite.claim", |reply| Command::Claim(claim.clone(), reply)).await
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease> {
        self.ask("sqlite.renew", |reply| Command::Renew(lease.clone(), duration, reply)).await
    }

    async fn count(&self, class: WorkClass, key: Option<WorkKey>) -> Result<u64> {
        self.ask("sqlite.count", |reply| Command::Count(class, key, reply)).await
    }

    async fn backlog(&self, class: WorkClass) -> Result<Backlog> {
        self.ask("sqlite.backlog", |reply| Command::Backlog(class, reply)).await
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    async fn sweep(&self, limit: usize) -> Result<usize> {
        self.ask("sqlite.sweep", |reply| Command::Write(Write::Sweep(Asked::new(limit, reply)))).await
    }

    async fn ping(&self) -> Result<()> {
        self.ask("sqlite.ping", |reply| Command::Write(Write::Ping(Asked::new((), reply)))).await
    }
}
