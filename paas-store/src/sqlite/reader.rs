//! Reading, on connections beside the writer's.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use paas_core::error::{self, Result};
use paas_core::{Cursor, Page, Position, Record, Scan, Scope, StoredEvent, StreamId};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::Semaphore;

use super::convert::{Owner, Stream, Time, bounded, nanoseconds};
use super::failure::{closed, unavailable};

/// A bounded number of reading connections, each used by one blocking task at a time.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
    count: u32,
}

impl Readers {
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        let count = u32::try_from(connections.len()).unwrap_or(u32::MAX);
        let permits = Arc::new(Semaphore::new(connections.len()));
        Self { idle: Arc::new(Mutex::new(connections)), permits, count }
    }

    /// Reads off the runtime's threads. A read whose future is dropped runs to its end and gives its connection back.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed(operation))?;
        let idle = Arc::clone(&self.idle);
        let task = tokio::task::spawn_blocking(move || {
            let locked = || idle.lock().unwrap_or_else(PoisonError::into_inner);
            // There are as many connections as permits.
            let connection = locked().pop().ok_or_else(|| closed(operation))?;
            let result = read(&connection);
            locked().push(connection);
            drop(permit);
            result.map_err(|cause| unavailable(operation, &cause))
        });
        task.await.map_err(error::map(operation))?
    }

    /// Lets the reads that are under way end, and closes the connections.
    pub(super) async fn close(&self) {
        if let Ok(_all) = self.permits.acquire_many(self.count).await {
            self.permits.close();
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A record of whatever scope, and whether it expires.
pub(super) fn get(
    connection: &Connection,
    kind: &'static str,
    id: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<(Record, bool)>> {
    const SQL: &str = "SELECT id, scope, version, body, expires_at IS NOT NULL FROM records
        WHERE kind = ?1 AND id = ?2 AND (expires_at IS NULL OR expires_at > ?3)";
    let mut statement = connection.prepare_cached(SQL)?;
    let read = |row: &Row<'_>| Ok((record(row, kind)?, row.get(4)?));
    statement.query_row(params![kind, id, nanoseconds(now)], read).optional()
}

pub(super) fn find(
    connection: &Connection,
    scope: &Scope,
    kind: &'static str,
    key: &'static str,
    value: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Record>> {
    const SQL: &str = "SELECT r.id, r.scope, r.version, r.body
        FROM unique_keys k JOIN records r ON r.record = k.record
        WHERE k.kind = ?1 AND k.name = ?2 AND k.value = ?3
            AND (r.expires_at IS NULL OR r.expires_at > ?4) AND (?5 = ?6 OR r.scope = ?5)
        ORDER BY k.reach LIMIT 1";
    let system = Scope::System;
    let parameters = params![kind, key, value, nanoseconds(now), scope.as_str(), system.as_str()];
    connection.prepare_cached(SQL)?.query_row(parameters, |row| record(row, kind)).optional()
}

fn record(row: &Row<'_>, kind: &'static str) -> rusqlite::Result<Record> {
    Ok(Record {
        id: row.get(0)?,
        scope: row.get::<_, Owner>(1)?.0,
        version: row.get(2)?,
        body: row.get(3)?,
        kind,
    })
}

/// The end of a range of texts.
enum End<'a> {
    Text(&'a str),
    /// Behind every text: SQLite orders blobs so.
    Unbounded,
}

impl ToSql for End<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Unbounded => ValueRef::Blob(&[]),
        }))
    }
}

/// The statement of a scan: between two pairs of value and id, both excluded. No id is empty, so that ('x', '') is
/// in front of all with the value x.
macro_rules! scan_sql {
    ($scope:literal, $order:literal) => {
        concat!(
            "SELECT r.id, r.scope, r.version, r.body, k.value
            FROM index_keys k JOIN records r ON r.record = k.record
            WHERE k.kind = ?1 AND k.name = ?2 AND ",
            $scope,
            " AND (k.value, k.id) > (?4, ?5) AND (k.value, k.id) < (?6, ?7)
            AND (r.expires_at IS NULL OR r.expires_at > ?8)
            ORDER BY k.value ",
            $order,
            ", k.id ",
            $order,
            " LIMIT ?9"
        )
    };
}

pub(super) fn scan(connection: &Connection, scan: &Scan, now: Timestamp) -> rusqlite::Result<Page<Record>> {
    let sql = match (&scan.scope, scan.descending) {
        (Scope::Org(_), false) => scan_sql!("k.scope = ?3", "ASC"),
        (Scope::Org(_), true) => scan_sql!("k.scope = ?3", "DESC"),
        (Scope::System, false) => scan_sql!("?3 = 'system'", "ASC"),
        (Scope::System, true) => scan_sql!("?3 = 'system'", "DESC"),
    };
    let mut from = (scan.range.from.as_deref().unwrap_or_default(), "");
    let mut to = scan.range.to.as_deref().map(|to| (to, ""));
    if let Some(Cursor { value, id }) = &scan.cursor {
        let cursor = (value.as_str(), id.as_str());
        // A made-up cursor must not reach beyond the range.
        if scan.descending {
            to = Some(to.map_or(cursor, |to| to.min(cursor)));
        } else {
            from = from.max(cursor);
        }
    }
    let (to_value, to_id) = to.map_or((End::Unbounded, ""), |(value, id)| (End::Text(value), id));
    // One more than asked for tells whether there is a next page.
    let limit = bounded(scan.limit as u64).saturating_add(1);
    let mut statement = connection.prepare_cached(sql)?;
    let parameters = params![
        scan.kind,
        scan.index,
        scan.scope.as_str(),
        from.0,
        from.1,
        to_value,
        to_id,
        nanoseconds(now),
        limit,
    ];
    let rows = statement.query_map(parameters, |row| Ok((record(row, scan.kind)?, row.get(4)?)))?;
    let mut found = rows.collect::<rusqlite::Result<Vec<(Record, String)>>>()?;
    let has_more = found.len() > scan.limit;
    found.truncate(scan.limit);
    let next = found.last().filter(|_| has_more);
    let next = next.map(|(record, value)| Cursor { value: value.clone(), id: record.id.clone() });
    Ok(Page { items: found.into_iter().map(|(record, _)| record).collect(), next })
}

pub(super) fn events(
    connection: &Connection,
    scope: &Scope,
    stream: &StreamId,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    const SQL: &str = "SELECT stream, version, position, at, body FROM events
        WHERE stream = ?1 AND version > ?2 AND (?3 = 'system' OR scope = ?3) ORDER BY version LIMIT ?4";
    let parameters = params![stream.as_str(), bounded(after), scope.as_str(), bounded(limit as u64)];
    connection.prepare_cached(SQL)?.query_map(parameters, event)?.collect()
}

pub(super) fn feed(
    connection: &Connection,
    scope: &Scope,
    after: Position,
    limit: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    const ALL: &str = "SELECT stream, version, position, at, body FROM events
        WHERE position > ?1 AND ?2 = 'system' ORDER BY position LIMIT ?3";
    const OF_ORG: &str = "SELECT stream, version, position, at, body FROM events
        WHERE position > ?1 AND scope = ?2 ORDER BY position LIMIT ?3";
    let sql = if *scope == Scope::System { ALL } else { OF_ORG };
    let parameters = params![bounded(after.0), scope.as_str(), bounded(limit as u64)];
    connection.prepare_cached(sql)?.query_map(parameters, event)?.collect()
}

fn event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    Ok(StoredEvent {
        stream: row.get::<_, Stream>(0)?.0,
        version: row.get(1)?,
        position: Position(row.get(2)?),
        at: row.get::<_, Time>(3)?.0,
        body: row.get(4)?,
    })
}
