//! The task that commits: it gathers what waits into one transaction, sent at once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, maybe_done};
use futures::poll;
use paas_core::{Batch, Clock, Committed, Metrics};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Row;

use super::batch::{self, Place};
use super::connect::{Connection, Connector};
use super::failure::{Failure, Result};
use super::hints::Hints;
use crate::convert::nanoseconds;
use crate::grouped::grouped;

/// The most batches in one transaction: enough to make the cost of a turn small, few enough that nobody waits long.
const GROUP: usize = 64;
/// How often a transaction is tried that clashed, or was cut off before it happened.
const TRIES: usize = 3;
/// How long, and first after what wait, the server is asked what became of a transaction that was cut off: long
/// enough for a server that is restarted.
const RECALL: Duration = Duration::from_secs(5);
const RECALL_WAIT: Duration = Duration::from_millis(50);

type Answer = paas_core::Result<Committed>;

/// What the task is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Commit(Asked),
    Close(oneshot::Sender<()>),
}

/// A batch and whom to answer.
#[derive(Debug)]
pub(super) struct Asked {
    batch: Batch,
    reply: oneshot::Sender<Answer>,
}

impl Asked {
    pub(super) fn new(batch: Batch, reply: oneshot::Sender<Answer>) -> Self {
        Self { batch, reply }
    }

    /// Who asked may be gone: what they asked for happened all the same.
    fn answer(self, answer: Answer) {
        let _ = self.reply.send(answer);
    }
}

/// A connection to write on.
struct Session {
    connection: Connection,
    /// Its number: no other connection has or had it.
    writer: i64,
    /// How many transactions it was given.
    number: i64,
}

/// What the task owns.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connector: Connector,
    pub(super) clock: Arc<dyn Clock>,
    /// The clock that is the store's time, if that is not the database's.
    pub(super) time: Option<Arc<dyn Clock>>,
    pub(super) hints: Hints,
    pub(super) metrics: Arc<Metrics>,
}

impl Writer {
    /// Works until every sender is gone or one asks to close.
    pub(super) async fn run(self, mut commands: mpsc::Receiver<Command>) {
        let mut session = None;
        let mut gathered = Vec::with_capacity(GROUP);
        let mut closing = None;
        while closing.is_none() && commands.recv_many(&mut gathered, GROUP).await > 0 {
            let mut group = Vec::with_capacity(gathered.len());
            for command in gathered.drain(..) {
                match command {
                    Command::Commit(asked) => group.push(asked),
                    Command::Close(reply) => closing = Some(reply),
                }
            }
            self.transact(&mut session, group).await;
        }
        // Whoever still waits is told that it is closed.
        drop(commands);
        drop(session);
        if let Some(reply) = closing {
            let _ = reply.send(());
        }
    }

    /// Carries out what was gathered in one transaction, and answers.
    async fn transact(&self, session: &mut Option<Session>, mut group: Vec<Asked>) {
        let mut failure = Failure::Unreachable(None);
        for _ in 0..TRIES {
            if group.is_empty() {
                return;
            }
            let Session { connection, writer, number } = match self.session(session).await {
                Ok(session) => session,
                Err(cause) => {
                    failure = cause;
                    break;
                }
            };
            *number += 1;
            let place = Place { writer: *writer, number: *number, place: 0 };
            failure = match self.attempt(connection, &group, place).await {
                Ok(answers) => {
                    let commits = answers.iter().filter(|answer| answer.is_ok()).count();
                    grouped(&self.metrics, "postgres", commits);
                    self.hints.committed(
                        group
                            .iter()
                            .zip(&answers)
                            .filter_map(|(asked, answer)| answer.is_ok().then_some(&asked.batch)),
                    );
                    return group.into_iter().zip(answers).for_each(|(asked, answer)| asked.answer(answer));
                }
                Err(clash) if clash.is_clash() => clash,
                Err(lost @ Failure::Lost(_)) => {
                    tracing::warn!(cause = ?lost, batches = group.len(), "the connection to the database was lost");
                    *session = None;
                    group = match self.recall(session, group, place).await {
                        Ok(rest) => rest,
                        Err((group, failure)) => return fail(group, failure),
                    };
                    Failure::Unreachable(None)
                }
                Err(failure) => {
                    // Whatever it was: the next transaction begins on a clean connection.
                    *session = None;
                    return fail(group, failure);
                }
            };
        }
        fail(group, failure);
    }

    /// Sends a transaction as a whole, without waiting in between: it is never open while this process does
    /// something else. A single batch is a transaction of its own.
    async fn attempt(&self, connection: &Connection, group: &[Asked], first: Place) -> Result<Vec<Answer>> {
        let statement = &connection.prepared(batch::COMMIT).await?;
        let client = connection.client();
        let now = self.time.as_ref().map(|clock| nanoseconds(clock.now()));
        let control =
            |sql| -> Call<'_> { Box::pin(async move { client.batch_execute(sql).await.map(|()| None) }) };
        let commits = (0..).zip(group).map(|(place, Asked { batch, .. })| -> Call<'_> {
            let place = Place { place, ..first };
            Box::pin(async move { batch::send(client, statement, batch, place, now).await.map(Some) })
        });
        let calls = match group.len() {
            1 => commits.collect(),
            _ => [control("BEGIN")].into_iter().chain(commits).chain([control("COMMIT")]).collect(),
        };
        let rows = connection.answered(in_order(calls)).await?;
        rows.iter().zip(group).map(|(row, asked)| batch::answer(row, &asked.batch)).collect()
    }

    /// Answers those of a group that happened before the connection was lost, and gives back the others, which did
    /// not and never will.
    async fn recall(
        &self,
        session: &mut Option<Session>,
        group: Vec<Asked>,
        first: Place,
    ) -> Result<Vec<Asked>, (Vec<Asked>, Failure)> {
        let until = self.clock.elapsed() + RECALL;
        let mut wait = RECALL_WAIT;
        loop {
            match self.outcomes(session, group.len(), first).await {
                Ok(outcomes) => {
                    let mut rest = Vec::new();
                    for (asked, outcome) in group.into_iter().zip(outcomes) {
                        match outcome {
                            Some(committed) => {
                                self.hints.committed([&asked.batch]);
                                asked.answer(Ok(committed));
                            }
                            None => rest.push(asked),
                        }
                    }
                    return Ok(rest);
                }
                Err(failure @ (Failure::Unreachable(_) | Failure::Lost(_)))
                    if self.clock.elapsed() < until =>
                {
                    tracing::debug!(cause = ?failure, "the database does not say yet what happened");
                    *session = None;
                    self.clock.sleep(wait).await;
                    wait *= 2;
                }
                Err(failure) => {
                    *session = None;
                    return Err((group, Failure::Unknown(Box::new(failure))));
                }
            }
        }
    }

    async fn outcomes(
        &self,
        session: &mut Option<Session>,
        batches: usize,
        first: Place,
    ) -> Result<Vec<Option<Committed>>> {
        let connection = &self.session(session).await?.connection;
        let mut outcomes = Vec::with_capacity(batches);
        for place in (0..).take(batches) {
            let rows = connection.query(batch::RECALL, &[&first.writer, &place, &first.number]).await?;
            outcomes.push(rows.first().map(batch::recalled).transpose()?.flatten());
        }
        Ok(outcomes)
    }

    async fn session<'a>(&self, session: &'a mut Option<Session>) -> Result<&'a mut Session> {
        if session.as_ref().is_some_and(|session| session.connection.is_closed()) {
            *session = None;
        }
        Ok(match session {
            Some(session) => session,
            None => {
                let connection = self.connector.connect().await?;
                let rows = connection.query("SELECT nextval('paas.writers')", &[]).await?;
                let writer = rows.first().and_then(|row| row.try_get(0).ok());
                let writer = writer.ok_or(Failure::Unreachable(None))?;
                session.insert(Session { connection, writer, number: 0 })
            }
        })
    }
}

type Call<'a> = BoxFuture<'a, Result<Option<Row>, tokio_postgres::Error>>;

/// Sends all calls in their order before it waits for any, and answers their rows, or the first error: after that the
/// server refuses the others, and rolls back.
async fn in_order(calls: Vec<Call<'_>>) -> Result<Vec<Row>, tokio_postgres::Error> {
    let mut calls: Vec<_> = calls.into_iter().map(maybe_done).collect();
    for call in &mut calls {
        // The first poll sends.
        let _ = poll!(call);
    }
    for call in &mut calls {
        call.await;
    }
    let answers = calls.iter_mut().filter_map(|call| Pin::new(call).take_output());
    answers.filter_map(Result::transpose).collect()
}

fn fail(group: Vec<Asked>, failure: Failure) {
    let failure = Arc::new(failure);
    for asked in group {
        asked.answer(Err(failure.to_error(super::COMMIT)));
    }
}
