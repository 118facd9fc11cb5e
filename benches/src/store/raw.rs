//! What the storage engine itself can do: an event inserted and a record updated, durably, and nothing else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use paas_core::{Clock, SystemClock};
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

use crate::Result;
use crate::contest::Turn;
use crate::contestant::{CLIENTS, processor_seconds};

/// The most steps in one transaction: what the store's own writer takes.
pub(crate) const GROUP: usize = 256;
/// The sizes in bytes of an event's and a deployment's JSON, as the pipeline writes them on average.
const EVENT_BYTES: usize = 300;
const RECORD_BYTES: usize = 600;

struct Step {
    client: usize,
    version: u64,
    done: oneshot::Sender<()>,
}

/// Every client makes a step as soon as its last one is durable.
pub(crate) async fn measure(folder: &Path, time: Duration, group: usize) -> Result<Turn> {
    let connection = prepare(&folder.join("raw.db"))?;
    let (steps, waiting) = mpsc::channel(1024);
    let writer = std::thread::spawn(move || write(&connection, waiting, group));
    let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clock = SystemClock::new();
    let (begun, processor) = (clock.elapsed(), processor_seconds()?);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (steps, is_over, count) = (steps.clone(), is_over.clone(), count.clone());
            tokio::spawn(async move {
                let mut version = 1;
                while !is_over.load(Ordering::Relaxed) {
                    let (done, durable) = oneshot::channel();
                    if steps.send(Step { client, version, done }).await.is_err() || durable.await.is_err() {
                        return;
                    }
                    version += 1;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    clock.sleep(time).await;
    let (steps_done, seconds) = (count.load(Ordering::Relaxed), (clock.elapsed() - begun).as_secs_f64());
    let turn = Turn::of_rate(steps_done as f64, seconds, processor_seconds()? - processor);
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }
    drop(steps);
    writer.join().map_err(|_| "the writing thread panicked")??;
    Ok(turn)
}

/// The tables of the store that a step writes to, with the indexes on them.
fn prepare(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 8_000)?;
    connection.execute_batch(
        "CREATE TABLE records (record INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, scope TEXT NOT NULL,
            version INTEGER NOT NULL, expires_at INTEGER, body BLOB NOT NULL, UNIQUE (kind, id)) STRICT;
        CREATE TABLE events (position INTEGER PRIMARY KEY, stream TEXT NOT NULL, version INTEGER NOT NULL,
            scope TEXT NOT NULL, at INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (stream, version)) STRICT;
        CREATE INDEX events_by_scope ON events (scope);",
    )?;
    for client in 0..CLIENTS {
        connection.execute(
            "INSERT INTO records (kind, id, scope, version, body) VALUES ('deployment', ?1, 'org', 1, ?2)",
            params![stream(client), vec![b'r'; RECORD_BYTES]],
        )?;
    }
    Ok(connection)
}

/// As long as an operation's id.
fn stream(client: usize) -> String {
    format!("dep_{client:026}")
}

fn write(connection: &Connection, mut waiting: mpsc::Receiver<Step>, group: usize) -> rusqlite::Result<()> {
    let mut insert = connection
        .prepare("INSERT INTO events (stream, version, scope, at, body) VALUES (?1, ?2, 'org', ?3, ?4)")?;
    let mut update = connection.prepare(
        "UPDATE records SET version = version + 1, body = ?2 WHERE kind = 'deployment' AND id = ?1",
    )?;
    let (event, record) = (vec![b'e'; EVENT_BYTES], vec![b'r'; RECORD_BYTES]);
    let mut steps: Vec<Step> = Vec::with_capacity(group);
    while waiting.blocking_recv_many(&mut steps, group) > 0 {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for step in &steps {
            let stream = stream(step.client);
            insert.execute(params![stream, step.version as i64, step.version as i64, event])?;
            update.execute(params![stream, record])?;
        }
        connection.execute_batch("COMMIT")?;
        for step in steps.drain(..) {
            let _ = step.done.send(());
        }
    }
    Ok(())
}
