//! What goes wrong with a database file, and how it is told.

use std::io;
use std::path::Path;

use paas_core::{Error, Kind, Retry};
use rusqlite::ErrorCode;

pub(super) type Result<T, E = OpenFailure> = std::result::Result<T, E>;

/// Why a file can't be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenFailure {
    #[error("another program has it open")]
    Locked,
    #[error("it is another application's database")]
    Foreign,
    #[error("its schema has version {found}, this program knows up to {known}")]
    Newer { found: i64, known: i64 },
    #[error("it has work that this program does not understand")]
    UnknownWork,
    #[error("SQLite {0} can corrupt a database; 3.51.3 or newer is needed")]
    OldLibrary(&'static str),
    #[error("SQLite keeps it with journal mode {mode} and synchronous={synchronous}")]
    NotDurable { mode: String, synchronous: i64 },
    #[error("the file can't be used")]
    File(#[from] io::Error),
    #[error("SQLite failed")]
    Sqlite(#[from] rusqlite::Error),
}

impl OpenFailure {
    pub(super) fn into_error(self, path: &Path) -> Error {
        let path = path.display();
        let (message, hint) = match &self {
            Self::Locked => (
                format!("the database {path} is in use by another program"),
                "stop the other program, or use another file",
            ),
            Self::Foreign => (
                format!("{path} is another application's database"),
                "nothing in it was changed: use another path",
            ),
            Self::Newer { .. } | Self::UnknownWork => (
                format!("the database {path} was written by a newer version: {self}"),
                "start the newer version, or restore a backup from before the upgrade",
            ),
            Self::OldLibrary(_) => (self.to_string(), "build with the bundled SQLite"),
            Self::NotDurable { .. } => (
                format!("the database {path} can't be kept safely where it is"),
                "put it on a local disk: a write-ahead log needs shared memory",
            ),
            Self::Sqlite(error) if is_damage(error) => (
                format!("{path} is not a database, or it is damaged"),
                "restore it from a backup, or use another path",
            ),
            Self::Sqlite(_) | Self::File(_) => (
                format!("the database {path} can't be opened"),
                "check that the folder exists, can be written to, and is not full",
            ),
        };
        let error = Error::new(Kind::Unavailable, "sqlite.open", message).retry(Retry::Permanent);
        error.hint(hint).source(self)
    }
}

/// The error for an operation that the database did not carry out.
pub(super) fn unavailable(operation: &'static str, cause: &rusqlite::Error) -> Error {
    let error = match cause.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            Error::new(Kind::Unavailable, operation, "the disk is full, or the database has its largest size")
                .code("storage_full")
                .hint("make room: nothing of this change was kept, everything before it was")
        }
        _ if is_damage(cause) => Error::new(Kind::Unavailable, operation, "the database is damaged")
            .retry(Retry::Permanent)
            .hint("restore it from a backup"),
        _ => Error::new(Kind::Unavailable, operation, "the database does not answer"),
    };
    error.context("sqlite", cause)
}

/// The error for an operation on a store that was closed.
pub(super) fn closed(operation: &'static str) -> Error {
    Error::new(Kind::Unavailable, operation, "the database was closed").retry(Retry::Permanent)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
        || matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::Utf8Error(..)
                | rusqlite::Error::InvalidColumnType(..)
        )
}
