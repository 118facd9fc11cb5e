//! Hints of what changed: directly within the process, by `NOTIFY` to the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use paas_core::{Batch, Change, Clock, StreamId};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};

use super::connect::{Connection, Connector};
use super::failure::Result;
use super::pool::{Lost, Pool};

/// How many hints a slow receiver may be behind before it loses some.
const HINTS: usize = 1024;
/// A payload may have 8,000 bytes.
const PAYLOAD: usize = 7_000;
/// The waits between attempts to listen again.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What one server tells the others.
#[derive(Debug, Serialize, Deserialize)]
struct News {
    /// The sender, who knows it already.
    from: i64,
    work: bool,
    streams: Vec<(StreamId, u64)>,
}

/// Where hints go.
#[derive(Clone, Debug)]
pub(super) struct Hints {
    here: broadcast::Sender<Change>,
    others: mpsc::Sender<Change>,
}

impl Hints {
    /// Hints for this process and, to be given to [`notify`], for the others.
    pub(super) fn new() -> (Self, mpsc::Receiver<Change>) {
        let (others, receiver) = mpsc::channel(HINTS);
        (Self { here: broadcast::channel(HINTS).0, others }, receiver)
    }

    pub(super) fn here(&self) -> &broadcast::Sender<Change> {
        &self.here
    }

    /// Tells everybody of batches that happened.
    pub(super) fn committed<'a>(&self, batches: impl IntoIterator<Item = &'a Batch>) {
        for batch in batches {
            for append in batch.appends.iter().filter(|append| !append.events.is_empty()) {
                let version = append.expect + append.events.len() as u64;
                self.send(Change::Stream { stream: append.stream.clone(), version });
            }
            if !batch.leases.is_empty() {
                self.send(Change::Work);
            }
        }
    }

    /// Nobody may be listening, and what does not fit is left out: it is only a hint.
    fn send(&self, change: Change) {
        let _ = self.others.try_send(change.clone());
        let _ = self.here.send(change);
    }
}

/// Passes hints on to the other servers until every sender is gone. What comes while a notification is under way goes
/// with the next one, and none is part of a commit: notifying transactions exclude each other.
pub(super) async fn notify(pool: Arc<Pool>, from: i64, mut changes: mpsc::Receiver<Change>) {
    const SQL: &str = "SELECT pg_notify('paas', payload) FROM unnest($1::text[]) AS payload";
    let mut gathered = Vec::with_capacity(HINTS);
    while changes.recv_many(&mut gathered, HINTS).await > 0 {
        let payloads = payloads(from, gathered.drain(..));
        if let Err(error) = pool.query("postgres.notify", Lost::Report, SQL, &[&payloads]).await {
            tracing::debug!(?error, "the other servers were not told: they look by themselves");
        }
    }
}

/// Each stream once, with its latest version.
fn payloads(from: i64, changes: impl Iterator<Item = Change>) -> Vec<String> {
    let mut streams = BTreeMap::new();
    let mut work = false;
    for change in changes {
        match change {
            Change::Work => work = true,
            Change::Stream { stream, version } => {
                let latest = streams.entry(stream).or_insert(version);
                *latest = version.max(*latest);
            }
        }
    }
    let mut all = vec![News { from, work, streams: Vec::new() }];
    let mut bytes = 0;
    for (stream, version) in streams {
        // A byte takes six at most, as `\u0000`; the number and what is around it, less than forty.
        let needed = 6 * stream.as_str().len() + 40;
        if bytes + needed > PAYLOAD {
            bytes = 0;
            all.push(News { from, work: false, streams: Vec::new() });
        }
        bytes += needed;
        if let Some(news) = all.last_mut() {
            news.streams.push((stream, version));
        }
    }
    all.iter().filter_map(|news| serde_json::to_string(news).ok()).collect()
}

/// Listens for hints of other servers until it is dropped, from now on with `connection`.
pub(super) async fn listen(
    connector: Connector,
    clock: Arc<dyn Clock>,
    from: i64,
    here: broadcast::Sender<Change>,
    mut connection: Connection,
) {
    let mut wait = FIRST_WAIT;
    loop {
        connection.ended().await;
        connection = loop {
            clock.sleep(wait).await;
            wait = LONGEST_WAIT.min(wait * 2);
            match listening(&connector, from, here.clone()).await {
                Ok(connection) => break connection,
                Err(failure) => tracing::debug!(cause = ?failure, "no hints come from other servers"),
            }
        };
        wait = FIRST_WAIT;
        // Nobody knows what was missed meanwhile.
        let _ = here.send(Change::Work);
    }
}

/// A connection on which hints come.
pub(super) async fn listening(
    connector: &Connector,
    from: i64,
    here: broadcast::Sender<Change>,
) -> Result<Connection> {
    let pass_on = move |payload: &str| match serde_json::from_str::<News>(payload) {
        Ok(news) if news.from == from => {}
        Ok(news) => {
            for (stream, version) in news.streams {
                let _ = here.send(Change::Stream { stream, version });
            }
            if news.work {
                let _ = here.send(Change::Work);
            }
        }
        Err(error) => tracing::debug!(%error, "a hint of another server is not understood"),
    };
    let connection = connector.connect_and_listen(Box::new(pass_on)).await?;
    connection.batch("LISTEN paas").await?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_stay_within_what_postgres_takes_and_lose_nothing() {
        let stream = |number: u64| StreamId::new(format!("{number}{}", "\u{1}".repeat(500)));
        let changes = (0..20)
            .flat_map(|number| [2, 3, 1].map(|version| Change::Stream { stream: stream(number), version }));
        let payloads = payloads(7, changes.chain([Change::Work]));
        assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.len() < 8_000));
        let news: Vec<News> = payloads.iter().map(|payload| serde_json::from_str(payload).unwrap()).collect();
        assert_eq!(news.iter().filter(|news| news.work).count(), 1);
        assert!(news.iter().all(|news| news.from == 7));
        let told: BTreeMap<_, _> = news.into_iter().flat_map(|news| news.streams).collect();
        assert_eq!(told, (0..20).map(|number| (stream(number), 3)).collect());
    }
}
