//! A bounded number of connections for calls of one statement each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use paas_core::error::Result;
use tokio::sync::{Mutex, Semaphore};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connect::{Connection, Connector};
use super::failure::{self, Failure, closed};

/// How many calls may be under way on each connection; further callers wait.
const CALLS: usize = 16;
/// How often a call is tried that clashed with another or lost its connection.
const TRIES: u32 = 2;

/// What is to be done with a call whose answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Asking twice is asking once.
    Repeat,
    /// It may have had an effect.
    Report,
}

/// Connections that are made when they are first needed, and again after they were lost. Calls do not own one:
/// several go over it, one behind the other, without waiting for each other's answers.
#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    places: Vec<Mutex<Option<Arc<Connection>>>>,
    next: AtomicUsize,
    calls: Semaphore,
}

impl Pool {
    pub(super) fn new(connector: Connector, connections: usize) -> Self {
        let connections = connections.max(1);
        Self {
            connector,
            places: (0..connections).map(|_| Mutex::default()).collect(),
            next: AtomicUsize::new(0),
            calls: Semaphore::new(connections * CALLS),
        }
    }

    /// Carries out a statement, in a transaction of its own.
    pub(super) async fn query(
        &self,
        operation: &'static str,
        lost: Lost,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let _permit = self.calls.acquire().await.map_err(|_| closed(operation))?;
        let mut tries = TRIES;
        loop {
            let answer = self.ask(sql, parameters).await;
            tries -= 1;
            let may_repeat = match &answer {
                // The server was restarted, say, and this is the first who notices.
                Err(Failure::Lost(_)) => lost == Lost::Repeat,
                Err(failure) => failure.is_clash(),
                Ok(_) => false,
            };
            if !may_repeat || tries == 0 {
                return answer.map_err(|failure| failure.into_error(operation));
            }
        }
    }

    async fn ask(&self, sql: &'static str, parameters: &[&(dyn ToSql + Sync)]) -> failure::Result<Vec<Row>> {
        let (place, connection) = self.connection().await?;
        let answer = connection.query(sql, parameters).await;
        if let Err(Failure::Lost(_)) = &answer {
            let mut kept = place.lock().await;
            if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, &connection)) {
                *kept = None;
            }
        }
        answer
    }

    async fn connection(&self) -> failure::Result<(&Mutex<Option<Arc<Connection>>>, Arc<Connection>)> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let place = self.places.get(next % self.places.len()).ok_or(Failure::Unreachable(None))?;
        // Those who need the same connection wait until it is made.
        let mut kept = place.lock().await;
        let connection = match kept.as_ref().filter(|kept| !kept.is_closed()) {
            Some(connection) => Arc::clone(connection),
            None => Arc::clone(kept.insert(Arc::new(self.connector.connect().await?))),
        };
        Ok((place, connection))
    }

    /// Lets the calls that are under way end, and refuses every later one.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.places.len() * CALLS).unwrap_or(u32::MAX);
        if let Ok(_all) = self.calls.acquire_many(all).await {
            self.calls.close();
        }
        for place in &self.places {
            place.lock().await.take();
        }
    }
}
