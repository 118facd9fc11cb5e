//! Moving from a SQLite file to PostgreSQL.

use std::borrow::Cow;
use std::path::Path;

use futures::{TryStreamExt, pin_mut};
use paas_core::{Error, Kind, Retry};
use rusqlite::types::ValueRef;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connect::{Connection, Connector};
use super::failure::{Failure, Result};
use super::schema;

const OPERATION: &str = "postgres.import";
/// How much is read before it is written: whichever is reached first.
const CHUNK_ROWS: usize = 500;
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// How many chunks may wait.
const CHUNKS: usize = 2;

/// What a copy brought over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Records of all kinds.
    pub records: u64,
    /// Events of all streams.
    pub events: u64,
    /// Keys with due work.
    pub work: u64,
}

/// One table of both databases: the same columns in the same order, sorted by what is unique in both.
struct Table {
    name: &'static str,
    columns: &'static [Column],
    /// From SQLite.
    source: &'static str,
    insert: &'static str,
    /// From PostgreSQL.
    target: &'static str,
}

#[derive(Clone, Copy)]
enum Column {
    Number,
    Text,
    /// Text of unknown origin is kept as bytes in PostgreSQL.
    Bytes,
}

use Column::{Bytes, Number, Text};

const TABLES: [Table; 5] = [
    Table {
        name: "records",
        columns: &[Text, Bytes, Text, Number, Number, Bytes],
        source: "SELECT kind, id, scope, version, expires_at, body FROM records ORDER BY kind, id",
        insert: "INSERT INTO paas.records (kind, id, scope, version, expires_at, body)
            SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bigint[], $5::bigint[], $6::bytea[])",
        target: "SELECT kind, id, scope, version, expires_at, body FROM paas.records ORDER BY kind, id",
    },
    Table {
        name: "unique_keys",
        columns: &[Text, Text, Bytes, Text, Bytes],
        source: "SELECT k.kind, k.name, k.value, k.reach, r.id FROM unique_keys k JOIN records r USING (record)
            ORDER BY k.kind, k.name, k.value, k.reach",
        insert: "INSERT INTO paas.unique_keys (kind, name, value, reach, id)
            SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bytea[])",
        target: "SELECT kind, name, value, reach, id FROM paas.unique_keys ORDER BY kind, name, value, reach",
    },
    Table {
        name: "index_keys",
        columns: &[Text, Text, Bytes, Bytes, Text],
        source: "SELECT kind, name, value, id, scope FROM index_keys ORDER BY kind, name, value, id",
        insert: "INSERT INTO paas.index_keys (kind, name, value, id, scope)
            SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::text[])",
        target: "SELECT kind, name, value, id, scope FROM paas.index_keys ORDER BY kind, name, value, id",
    },
    Table {
        name: "events",
        columns: &[Number, Bytes, Number, Text, Number, Bytes],
        source: "SELECT position, stream, version, scope, at, body FROM events ORDER BY position",
        insert: "INSERT INTO paas.events (position, stream, version, scope, at, body)
            SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::text[], $5::bigint[], $6::bytea[])",
        target: "SELECT position, stream, version, scope, at, body FROM paas.events ORDER BY position",
    },
    Table {
        name: "work",
        columns: &[Bytes, Text, Text, Number, Text, Number],
        source: "SELECT key, scope, class, due_at, again_class, again_at FROM work ORDER BY key",
        insert: "INSERT INTO paas.work (key, scope, class, due_at, again_class, again_at)
            SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[])",
        target: "SELECT key, scope, class, due_at, again_class, again_at FROM paas.work ORDER BY key",
    },
];

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Null,
    Number(i64),
    Bytes(Vec<u8>),
}

impl Value {
    fn number(&self) -> Option<i64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    fn bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    fn size(&self) -> usize {
        self.bytes().map_or(size_of::<i64>(), <[u8]>::len)
    }
}

/// Some rows of one table.
struct Chunk {
    table: &'static Table,
    rows: Vec<Vec<Value>>,
}

/// How many rows a table has, and what is in them.
#[derive(Clone, Default)]
struct Sum {
    rows: u64,
    hash: Sha256,
}

impl Sum {
    fn add(&mut self, row: &[Value]) {
        self.rows += 1;
        for value in row {
            match value {
                Value::Null => self.hash.update([0]),
                Value::Number(number) => {
                    self.hash.update([1]);
                    self.hash.update(number.to_be_bytes());
                }
                Value::Bytes(bytes) => {
                    self.hash.update([2]);
                    self.hash.update((bytes.len() as u64).to_be_bytes());
                    self.hash.update(bytes);
                }
            }
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.rows == other.rows && self.hash.clone().finalize() == other.hash.clone().finalize()
    }
}

/// What was read of a file.
struct Source {
    sums: Vec<Sum>,
    /// Above every fence that was given.
    fence: i64,
}

pub(super) async fn import(connector: &Connector, path: &Path) -> paas_core::Result<Imported> {
    let told = |failure: Failure| failure.into_error(OPERATION);
    // Looked at first: the file is not touched in vain.
    let connection = connector.connect().await.map_err(told)?;
    begin(&connection).await.map_err(told)?;
    let (chunks, mut receiver) = mpsc::channel(CHUNKS);
    let file = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || read(&file, &chunks));
    while let Some(chunk) = receiver.recv().await {
        insert(&connection, &chunk).await.map_err(told)?;
    }
    let source = reading.await.map_err(paas_core::error::map(OPERATION))??;
    finish(&connection, &source).await.map_err(told)?;
    let [records, _, _, events, work] = source.sums.as_slice() else {
        return Err(Error::internal(OPERATION, "a table was not read"));
    };
    Ok(Imported { records: records.rows, events: events.rows, work: work.rows })
}

/// Begins a transaction that keeps every server's commits and claims out.
async fn begin(connection: &Connection) -> Result<()> {
    let begin = "BEGIN;
        SET LOCAL statement_timeout = 0;
        SET LOCAL idle_in_transaction_session_timeout = '60s';
        SELECT pg_advisory_xact_lock(8097860751537995777), pg_advisory_xact_lock(8097860751537995778)";
    connection.batch(begin).await?;
    let is_used = "SELECT EXISTS (SELECT FROM paas.records) OR EXISTS (SELECT FROM paas.events)
        OR EXISTS (SELECT FROM paas.work)";
    if schema::one(connection, is_used).await? {
        let message = "the database holds a platform's state already".to_owned();
        return Err(Failure::Unfit { message, hint: "nothing was changed: copy into a new database" });
    }
    Ok(())
}

/// Reads the whole file, which nobody else has open meanwhile.
fn read(path: &Path, chunks: &mpsc::Sender<Chunk>) -> paas_core::Result<Source> {
    if !path.exists() {
        let message = format!("there is no file {}", path.display());
        return Err(Error::new(Kind::NotFound, OPERATION, message).retry(Retry::Permanent));
    }
    let (database, _lock) = crate::sqlite::open_to_copy(path)?;
    let sums = TABLES.iter().map(|table| read_table(&database, table, chunks));
    let opened = "SELECT value FROM counters WHERE name = 'opened'";
    sums.collect::<rusqlite::Result<Vec<_>>>()
        .and_then(|sums| {
            let opened: i64 = database.query_row(opened, [], |row| row.get(0))?;
            Ok(Source { sums, fence: (opened + 1) << 32 })
        })
        .map_err(|cause| {
            Error::new(Kind::Unavailable, OPERATION, format!("{} can't be read", path.display()))
                .source(cause)
        })
}

fn read_table(
    database: &rusqlite::Connection,
    table: &'static Table,
    chunks: &mpsc::Sender<Chunk>,
) -> rusqlite::Result<Sum> {
    let mut statement = database.prepare(table.source)?;
    let mut rows = statement.query([])?;
    let mut sum = Sum::default();
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let value = |at| {
            Ok(match row.get_ref(at)? {
                ValueRef::Integer(number) => Value::Number(number),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Value::Bytes(bytes.to_owned()),
                ValueRef::Null | ValueRef::Real(_) => Value::Null,
            })
        };
        let values = (0..table.columns.len()).map(value).collect::<rusqlite::Result<Vec<_>>>()?;
        sum.add(&values);
        bytes += values.iter().map(Value::size).sum::<usize>();
        chunk.push(values);
        if chunk.len() >= CHUNK_ROWS || bytes >= CHUNK_BYTES {
            // Without a receiver the copy has failed already.
            let _ = chunks.blocking_send(Chunk { table, rows: std::mem::take(&mut chunk) });
            bytes = 0;
        }
    }
    let _ = chunks.blocking_send(Chunk { table, rows: chunk });
    Ok(sum)
}

async fn insert(connection: &Connection, Chunk { table, rows }: &Chunk) -> Result<()> {
    type Parameter<'a> = Box<dyn ToSql + Sync + Send + 'a>;
    let mut parameters: Vec<Parameter<'_>> = Vec::with_capacity(table.columns.len());
    for (at, column) in table.columns.iter().enumerate() {
        let values = rows.iter().filter_map(|row| row.get(at));
        parameters.push(match column {
            Number => Box::new(values.map(Value::number).collect::<Vec<_>>()),
            Bytes => Box::new(values.map(Value::bytes).collect::<Vec<_>>()),
            Text => {
                let text = |value| Value::bytes(value).map(String::from_utf8_lossy);
                Box::new(values.map(text).map(|text| text.map(Cow::into_owned)).collect::<Vec<_>>())
            }
        });
    }
    let parameters: Vec<&(dyn ToSql + Sync)> =
        parameters.iter().map(|parameter| parameter.as_ref() as &(dyn ToSql + Sync)).collect();
    connection.query(table.insert, &parameters).await.map(drop)
}

/// Compares what is there with what was read, has numbers go on behind it, and keeps it.
async fn finish(connection: &Connection, source: &Source) -> Result<()> {
    for (table, expected) in TABLES.iter().zip(&source.sums) {
        if !expected.is_same(&sum(connection, table).await?) {
            let message = format!("the copy failed: what was written to {} is not what is there", table.name);
            return Err(Failure::Unfit { message, hint: "nothing was kept: copy again" });
        }
    }
    let numbers = "SELECT setval('paas.fences', $1), setval('paas.positions', greatest(max(position), 1))
        FROM paas.events";
    connection.query(numbers, &[&source.fence]).await?;
    connection.batch("COMMIT").await?;
    if let Err(failure) = connection.batch("ANALYZE").await {
        tracing::debug!(cause = ?failure, "the server gathers statistics later by itself");
    }
    Ok(())
}

async fn sum(connection: &Connection, table: &Table) -> Result<Sum> {
    let statement = connection.prepared(table.target).await?;
    let rows = connection.client().query_raw(&statement, Vec::<&str>::new());
    let rows = connection.answered(rows).await?;
    pin_mut!(rows);
    let mut sum = Sum::default();
    while let Some(row) = connection.answered(rows.try_next()).await? {
        let values = table.columns.iter().enumerate().map(|(at, column)| value(&row, at, *column));
        sum.add(&values.collect::<Result<Vec<_>, _>>().map_err(|error| Failure::Damaged(Box::new(error)))?);
    }
    Ok(sum)
}

fn value(row: &Row, at: usize, column: Column) -> Result<Value, tokio_postgres::Error> {
    Ok(match column {
        Number => row.try_get::<_, Option<i64>>(at)?.map_or(Value::Null, Value::Number),
        Bytes => row.try_get::<_, Option<Vec<u8>>>(at)?.map_or(Value::Null, Value::Bytes),
        Text => {
            row.try_get::<_, Option<String>>(at)?.map_or(Value::Null, |text| Value::Bytes(text.into_bytes()))
        }
    })
}
