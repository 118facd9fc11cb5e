//! Reading: one statement each.

use jiff::Timestamp;
use paas_core::error::Result;
use paas_core::{Cursor, Error, Page, Position, Record, Scan, Scope, StoredEvent, StreamId};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use super::failure::Failure;
use super::pool::{Lost, Pool};
use crate::convert::{bounded, owner};

/// Behind every text: none has this byte.
const LAST: &[u8] = &[0xff];

/// The store's time, as a condition of expiry: a test's, or else the database's.
macro_rules! is_alive {
    ($now:literal) => {
        concat!(
            " (r.expires_at IS NULL OR r.expires_at > coalesce(",
            $now,
            "::bigint, (extract(epoch FROM statement_timestamp()) * 1000000000)::bigint)) "
        )
    };
}

pub(super) async fn get(
    pool: &Pool,
    scope: &Scope,
    kind: &'static str,
    id: &str,
    now: Option<i64>,
) -> Result<Option<Record>> {
    const OPERATION: &str = "postgres.get";
    const SQL: &str = concat!(
        "SELECT r.id, r.scope, r.version, r.body FROM paas.records r
        WHERE r.kind = $1 AND r.id = $2 AND ($3 = 'system' OR r.scope = $3) AND",
        is_alive!("$4")
    );
    let rows = query(pool, OPERATION, SQL, &[&kind, &id.as_bytes(), &scope.as_str(), &now]).await?;
    rows.first().map(|row| record(row, OPERATION, kind)).transpose()
}

pub(super) async fn find(
    pool: &Pool,
    scope: &Scope,
    kind: &'static str,
    (key, value): (&'static str, &str),
    now: Option<i64>,
) -> Result<Option<Record>> {
    const OPERATION: &str = "postgres.find";
    const SQL: &str = concat!(
        "SELECT r.id, r.scope, r.version, r.body
        FROM paas.unique_keys k JOIN paas.records r ON r.kind = k.kind AND r.id = k.id
        WHERE k.kind = $1 AND k.name = $2 AND k.value = $3 AND ($4 = 'system' OR r.scope = $4) AND",
        is_alive!("$5"),
        "ORDER BY k.reach LIMIT 1"
    );
    let parameters: [&(dyn ToSql + Sync); 5] = [&kind, &key, &value.as_bytes(), &scope.as_str(), &now];
    let rows = query(pool, OPERATION, SQL, &parameters).await?;
    rows.first().map(|row| record(row, OPERATION, kind)).transpose()
}

/// The statement of a scan: between two pairs of value and id, both excluded. No id is empty, so that ('x', '') is
/// in front of all with the value x.
macro_rules! scan_sql {
    ($scope:literal, $order:literal) => {
        concat!(
            "SELECT r.id, r.scope, r.version, r.body, k.value
            FROM paas.index_keys k JOIN paas.records r ON r.kind = k.kind AND r.id = k.id
            WHERE k.kind = $1 AND k.name = $2 AND ",
            $scope,
            " AND (k.value, k.id) > ($4, $5) AND (k.value, k.id) < ($6, $7) AND",
            is_alive!("$8"),
            "ORDER BY k.value ",
            $order,
            ", k.id ",
            $order,
            " LIMIT $9"
        )
    };
}

pub(super) async fn scan(pool: &Pool, scan: &Scan, now: Option<i64>) -> Result<Page<Record>> {
    const OPERATION: &str = "postgres.scan";
    let sql = match (&scan.scope, scan.descending) {
        (Scope::Org(_), false) => scan_sql!("k.scope = $3", "ASC"),
        (Scope::Org(_), true) => scan_sql!("k.scope = $3", "DESC"),
        (Scope::System, false) => scan_sql!("$3::text = 'system'", "ASC"),
        (Scope::System, true) => scan_sql!("$3::text = 'system'", "DESC"),
    };
    let mut from = (scan.range.from.as_deref().unwrap_or_default().as_bytes(), "".as_bytes());
    let mut to = (scan.range.to.as_deref().map_or(LAST, str::as_bytes), "".as_bytes());
    if let Some(Cursor { value, id }) = &scan.cursor {
        let cursor = (value.as_bytes(), id.as_bytes());
        // A made-up cursor must not reach beyond the range.
        if scan.descending {
            to = to.min(cursor);
        } else {
            from = from.max(cursor);
        }
    }
    // One more than asked for tells whether there is a next page.
    let limit = bounded(scan.limit as u64).saturating_add(1);
    let scope = scan.scope.as_str();
    let parameters: [&(dyn ToSql + Sync); 9] =
        [&scan.kind, &scan.index, &scope, &from.0, &from.1, &to.0, &to.1, &now, &limit];
    let rows = query(pool, OPERATION, sql, &parameters).await?;
    let has_more = rows.len() > scan.limit;
    let rows = rows.get(..scan.limit).unwrap_or(&rows);
    let items = rows.iter().map(|row| record(row, OPERATION, scan.kind)).collect::<Result<Vec<_>>>()?;
    let next = match (rows.last(), items.last()) {
        (Some(row), Some(record)) if has_more => {
            Some(Cursor { value: text(row, OPERATION, 4)?, id: record.id.clone() })
        }
        _ => None,
    };
    Ok(Page { items, next })
}

pub(super) async fn events(
    pool: &Pool,
    scope: &Scope,
    stream: &StreamId,
    after: u64,
    limit: usize,
) -> Result<Vec<StoredEvent>> {
    const OPERATION: &str = "postgres.events";
    const SQL: &str = "SELECT stream, version, position, at, body FROM paas.events
        WHERE stream = $1 AND version > $2 AND ($3 = 'system' OR scope = $3) ORDER BY version LIMIT $4";
    let (after, limit) = (bounded(after), bounded(limit as u64));
    let parameters: [&(dyn ToSql + Sync); 4] = [&stream.as_str().as_bytes(), &after, &scope.as_str(), &limit];
    let rows = query(pool, OPERATION, SQL, &parameters).await?;
    rows.iter().map(|row| event(row, OPERATION)).collect()
}

pub(super) async fn feed(
    pool: &Pool,
    scope: &Scope,
    after: Position,
    limit: usize,
) -> Result<Vec<StoredEvent>> {
    const OPERATION: &str = "postgres.feed";
    const ALL: &str = "SELECT stream, version, position, at, body FROM paas.events
        WHERE position > $1 AND $2::text = 'system' ORDER BY position LIMIT $3";
    const OF_ORG: &str = "SELECT stream, version, position, at, body FROM paas.events
        WHERE position > $1 AND scope = $2 ORDER BY position LIMIT $3";
    let sql = if *scope == Scope::System { ALL } else { OF_ORG };
    let (after, limit) = (bounded(after.0), bounded(limit as u64));
    let rows = query(pool, OPERATION, sql, &[&after, &scope.as_str(), &limit]).await?;
    rows.iter().map(|row| event(row, OPERATION)).collect()
}

async fn query(
    pool: &Pool,
    operation: &'static str,
    sql: &'static str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>> {
    pool.query(operation, Lost::Repeat, sql, parameters).await
}

fn record(row: &Row, operation: &'static str, kind: &'static str) -> Result<Record> {
    Ok(Record {
        scope: owner(column(row, operation, 1)?).map_err(|error| damaged(operation, error))?,
        kind,
        id: text(row, operation, 0)?,
        version: number(row, operation, 2)?,
        body: column(row, operation, 3)?,
    })
}

fn event(row: &Row, operation: &'static str) -> Result<StoredEvent> {
    Ok(StoredEvent {
        stream: StreamId::new(text(row, operation, 0)?),
        version: number(row, operation, 1)?,
        position: Position(number(row, operation, 2)?),
        at: time(row, operation, 3)?,
        body: column(row, operation, 4)?,
    })
}

/// A column of a row.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, operation: &'static str, at: usize) -> Result<T> {
    row.try_get(at).map_err(|error| damaged(operation, error))
}

/// Bytes that are text.
pub(super) fn text(row: &Row, operation: &'static str, at: usize) -> Result<String> {
    String::from_utf8(column(row, operation, at)?).map_err(|error| damaged(operation, error))
}

pub(super) fn number(row: &Row, operation: &'static str, at: usize) -> Result<u64> {
    column::<i64>(row, operation, at).map(i64::unsigned_abs)
}

pub(super) fn time(row: &Row, operation: &'static str, at: usize) -> Result<Timestamp> {
    let nanoseconds: i64 = column(row, operation, at)?;
    Timestamp::from_nanosecond(nanoseconds.into()).map_err(|error| damaged(operation, error))
}

pub(super) fn damaged(
    operation: &'static str,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Failure::Damaged(cause.into()).into_error(operation)
}
