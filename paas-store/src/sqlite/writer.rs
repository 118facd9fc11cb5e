//! The thread that writes: it gathers what waits into one durable transaction.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use paas_core::error::Result;
use paas_core::{
    Agenda, Backlog, Batch, Change, Claim, Claimed, Clock, Committed, Lease, Metrics, WorkClass, WorkKey,
};
use rusqlite::Connection;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::batch::{Failure, Session, fenced};
use super::failure::unavailable;
use super::recent::Recent;
use crate::grouped::grouped;

/// The most batches in one transaction: enough to make the cost of a synced write small, few enough that nobody
/// waits long.
const GROUP: usize = 256;

type Reply<T> = oneshot::Sender<Result<T>>;

/// What the thread is asked to do.
pub(super) enum Command {
    /// Needs a durable transaction.
    Write(Write),
    Claim(Claim, Reply<Claimed>),
    Renew(Lease, Duration, Reply<Lease>),
    Count(WorkClass, Option<WorkKey>, Reply<u64>),
    Backlog(WorkClass, Reply<Backlog>),
    Close(Reply<()>),
}

/// What is carried out together with others.
pub(super) enum Write {
    Commit(Asked<Batch, Committed>),
    Sweep(Asked<usize, usize>),
    Ping(Asked<(), ()>),
}

/// A question, and its answer from when it is known until the transaction is durable.
pub(super) struct Asked<Q, A> {
    question: Q,
    answer: Option<Result<A>>,
    reply: Reply<A>,
}

impl<Q, A> Asked<Q, A> {
    pub(super) fn new(question: Q, reply: Reply<A>) -> Self {
        Self { question, answer: None, reply }
    }

    /// Takes note of the answer, unless the transaction is lost.
    fn note(&mut self, result: Result<A, Failure>) -> rusqlite::Result<()> {
        self.answer = Some(match result {
            Ok(answer) => Ok(answer),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Lost(cause)) => return Err(cause),
        });
        Ok(())
    }

    /// Who asked may be gone: what they asked for happened all the same.
    fn send(self) {
        if let Some(answer) = self.answer {
            let _ = self.reply.send(answer);
        }
    }

    fn fail(self, operation: &'static str, cause: &rusqlite::Error) {
        let _ = self.reply.send(Err(unavailable(operation, cause)));
    }
}

impl Write {
    fn apply(&mut self, session: &mut Session<'_>, now: Timestamp) -> rusqlite::Result<()> {
        match self {
            Self::Commit(asked) => asked.note(session.apply(&asked.question, now)),
            Self::Sweep(asked) => asked.note(session.sweep(asked.question, now)),
            Self::Ping(asked) => asked.note(session.ping()),
        }
    }

    /// What it commits, if it does.
    fn committed(&self) -> Option<(&Batch, &Committed)> {
        match self {
            Self::Commit(Asked { question, answer: Some(Ok(committed)), .. }) => Some((question, committed)),
            _ => None,
        }
    }

    fn send(self, changes: &broadcast::Sender<Change>) {
        if let Some((batch, _)) = self.committed().filter(|_| changes.receiver_count() > 0) {
            hint(batch, changes);
        }
        match self {
            Self::Commit(asked) => {
                asked.send();
            }
            Self::Sweep(asked) => asked.send(),
            Self::Ping(asked) => asked.send(),
        }
    }

    fn fail(self, cause: &rusqlite::Error) {
        match self {
            Self::Commit(asked) => asked.fail("sqlite.commit", cause),
            Self::Sweep(asked) => asked.fail("sqlite.sweep", cause),
            Self::Ping(asked) => asked.fail("sqlite.ping", cause),
        }
    }
}

/// Nobody may be listening any more: it is only a hint.
fn hint(batch: &Batch, changes: &broadcast::Sender<Change>) {
    for append in &batch.appends {
        let version = append.expect + append.events.len() as u64;
        let _ = changes.send(Change::Stream { stream: append.stream.clone(), version });
    }
    if !batch.leases.is_empty() {
        let _ = changes.send(Change::Work);
    }
}

/// What the thread owns.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) agenda: Agenda,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) recent: Arc<Recent>,
    pub(super) changes: broadcast::Sender<Change>,
    pub(super) metrics: Arc<Metrics>,
    /// Held as long as the file is open.
    pub(super) lock: File,
}

impl Writer {
    /// Works until every sender is gone or one asks to close.
    pub(super) fn run(self, mut commands: mpsc::Receiver<Command>) {
        let Self { connection, agenda, clock, recent, changes, metrics, lock } = self;
        let closing = match Session::new(&connection, agenda) {
            Ok(session) => {
                let told = Told { recent: &recent, changes: &changes, metrics: &metrics };
                work(session, &mut commands, &*clock, told)
            }
            Err(cause) => {
                tracing::error!(%cause, "the statements of the database can't be prepared");
                None
            }
        };
        // Whoever still waits is told that it is closed.
        drop(commands);
        if let Err((_, cause)) = connection.close() {
            tracing::warn!(%cause, "the database was not closed cleanly; nothing is lost");
        }
        drop(lock);
        if let Some(reply) = closing {
            let _ = reply.send(Ok(()));
        }
    }
}

/// Who is told of what was committed.
#[derive(Clone, Copy)]
struct Told<'a> {
    recent: &'a Recent,
    changes: &'a broadcast::Sender<Change>,
    metrics: &'a Metrics,
}

fn work(
    mut session: Session<'_>,
    commands: &mut mpsc::Receiver<Command>,
    clock: &dyn Clock,
    told: Told<'_>,
) -> Option<Reply<()>> {
    let mut group = Vec::with_capacity(GROUP);
    let mut writes = Vec::with_capacity(GROUP);
    let mut rest = Vec::new();
    let mut closing = None;
    while closing.is_none() && commands.blocking_recv_many(&mut group, GROUP) > 0 {
        let now = clock.now();
        for command in group.drain(..) {
            match command {
                Command::Write(write) => writes.push(write),
                command => rest.push(command),
            }
        }
        if !writes.is_empty() {
            transact(&mut session, &mut writes, now, told);
        }
        // Behind the writes: nobody claims work before it is durable.
        for command in rest.drain(..) {
            match command {
                Command::Write(_) => {}
                Command::Claim(claim, reply) => drop(reply.send(Ok(session.agenda.claim(&claim, now)))),
                Command::Renew(lease, duration, reply) => {
                    let renewed = session.agenda.renew(&lease, duration, now);
                    let _ = reply.send(renewed.ok_or_else(|| fenced("sqlite.renew")));
                }
                Command::Count(class, key, reply) => {
                    let _ = reply.send(Ok(session.agenda.count(class, key.as_ref(), now) as u64));
                }
                Command::Backlog(class, reply) => drop(reply.send(Ok(session.agenda.backlog(class, now)))),
                Command::Close(reply) => closing = Some(reply),
            }
        }
    }
    closing
}

/// Carries out what was gathered in one durable transaction, and answers.
fn transact(session: &mut Session<'_>, writes: &mut Vec<Write>, now: Timestamp, told: Told<'_>) {
    let Told { recent, changes, metrics } = told;
    let mut all = || {
        session.begin()?;
        writes.iter_mut().try_for_each(|write| write.apply(session, now))?;
        let pending = recent.begin(writes.iter().filter_map(Write::committed));
        let committed = session.commit();
        recent.end(pending, committed.is_ok());
        committed
    };
    match all() {
        Ok(()) => {
            grouped(metrics, "sqlite", writes.iter().filter_map(Write::committed).count());
            writes.drain(..).for_each(|write| write.send(changes));
        }
        Err(cause) => {
            tracing::error!(%cause, batches = writes.len(), "a transaction was lost");
            if let Err(cause) = session.roll_back() {
                tracing::error!(%cause, "and can't be rolled back");
            }
            writes.drain(..).for_each(|write| write.fail(&cause));
        }
    }
}
