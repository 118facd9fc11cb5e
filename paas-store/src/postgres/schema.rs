//! The tables, and how older databases get them.

use super::connect::Connection;
use super::failure::{Failure, Result};

/// Each step brings a database from the version of its index to the next. A step that was released never changes.
const MIGRATIONS: &[&[&str]] = &[&[
    include_str!("schema/tables.sql"),
    include_str!("schema/work.sql"),
    include_str!("schema/commit.sql"),
]];

/// The oldest version of the server, as it gives it itself: 14.
const OLDEST_SERVER: i32 = 140_000;

/// Several servers may start at once: the first one migrates, the others wait for it.
const LOCK: &str = "SELECT pg_advisory_xact_lock(8097860751537995779)";

/// Brings the database to this program's version.
pub(super) async fn migrate(connection: &Connection) -> Result<()> {
    check_server(connection).await?;
    connection.batch("BEGIN").await?;
    connection.batch(LOCK).await?;
    // Asked first, so that a user who may make no schema can use one that is there.
    let is_new = one::<bool>(connection, "SELECT to_regclass('paas.schema_version') IS NULL").await?;
    if is_new {
        let make = "CREATE SCHEMA IF NOT EXISTS paas;
            CREATE TABLE paas.schema_version (version integer NOT NULL);
            INSERT INTO paas.schema_version VALUES (0)";
        connection.batch(make).await?;
    }
    let found = one::<i32>(connection, "SELECT version FROM paas.schema_version").await?;
    let steps = usize::try_from(found).ok().and_then(|found| MIGRATIONS.get(found..));
    let Some(steps) = steps else {
        let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
        let versions = format!("its schema has version {found}, this program knows up to {known}");
        return Err(Failure::Unfit {
            message: format!("the database was written by a newer version: {versions}"),
            hint: "start the newer version, or restore a backup from before the upgrade",
        });
    };
    for part in steps.iter().flat_map(|step| *step) {
        connection.batch(part).await?;
    }
    if !steps.is_empty() {
        connection.batch(&format!("UPDATE paas.schema_version SET version = {}", MIGRATIONS.len())).await?;
    }
    connection.batch("COMMIT").await
}

async fn check_server(connection: &Connection) -> Result<()> {
    let number: i32 = one(connection, "SELECT current_setting('server_version_num')::integer").await?;
    if number < OLDEST_SERVER {
        let version: String = one(connection, "SELECT current_setting('server_version')").await?;
        let message = format!("PostgreSQL {version} is too old");
        return Err(Failure::Unfit { message, hint: "use PostgreSQL 14 or newer" });
    }
    if one::<String>(connection, "SELECT current_setting('fsync')").await? == "off" {
        tracing::warn!(
            "the database server does not sync what it writes: a loss of power loses or damages it"
        );
    }
    Ok(())
}

/// The only value of the only row.
pub(super) async fn one<T>(connection: &Connection, sql: &'static str) -> Result<T>
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    let rows = connection.query(sql, &[]).await?;
    let row = rows.first().ok_or_else(|| Failure::Damaged("there is no row".into()))?;
    row.try_get(0).map_err(|error| Failure::Damaged(Box::new(error)))
}
