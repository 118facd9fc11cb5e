//! The tables, and how older files get them.

use rusqlite::Connection;

use super::failure::{OpenFailure, Result};

/// Marks a file as ours ("paas"), so that nobody else's database is ever changed.
const APPLICATION_ID: i64 = 0x7061_6173;

/// Each step brings a file from the version of its index to the next. A step that was released never changes.
///
/// Times are nanoseconds since 1970. A unique key's reach is the owner within which it is unique, or empty.
/// Leases are not here: they end with the process that holds the file.
const MIGRATIONS: &[&str] = &["
CREATE TABLE records (
    record INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    scope TEXT NOT NULL,
    version INTEGER NOT NULL,
    expires_at INTEGER,
    body BLOB NOT NULL,
    UNIQUE (kind, id)
) STRICT;
CREATE INDEX records_by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE unique_keys (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    reach TEXT NOT NULL,
    record INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    PRIMARY KEY (kind, name, value, reach)
) STRICT, WITHOUT ROWID;
CREATE INDEX unique_keys_by_record ON unique_keys (record);

CREATE TABLE index_keys (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    id TEXT NOT NULL,
    scope TEXT NOT NULL,
    record INTEGER NOT NULL REFERENCES records ON DELETE CASCADE,
    PRIMARY KEY (kind, name, value, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX index_keys_by_scope ON index_keys (kind, name, scope, value, id, record);
CREATE INDEX index_keys_by_record ON index_keys (record);

CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    scope TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (stream, version)
) STRICT;
CREATE INDEX events_by_scope ON events (scope);

CREATE TABLE work (
    key TEXT PRIMARY KEY,
    scope TEXT NOT NULL,
    class TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    again_class TEXT,
    again_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counters VALUES ('opened', 0), ('pinged', 0);
"];

const NEWEST: i64 = MIGRATIONS.len() as i64;

/// The version of a file that this program may use; 0 of an empty one.
pub(super) fn version_of(connection: &Connection) -> Result<i64> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = number("user_version")?;
    let is_new: bool =
        connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
    if !is_new && number("application_id")? != APPLICATION_ID {
        return Err(OpenFailure::Foreign);
    }
    if version > NEWEST {
        return Err(OpenFailure::Newer { found: version, known: NEWEST });
    }
    Ok(version)
}

/// Brings the file to this program's version.
pub(super) fn migrate(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version = version_of(&transaction)?;
    for step in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or_default()) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", NEWEST)?;
    transaction.commit()?;
    Ok(())
}
