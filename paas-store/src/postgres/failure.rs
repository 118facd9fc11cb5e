//! What goes wrong with a database server, and how it is told.

use std::sync::Arc;

use paas_core::{Error, Kind, Retry};
use tokio_postgres::error::{DbError, Severity, SqlState};

pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a call did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There is no connection: nothing was asked.
    #[error("the server can't be reached")]
    Unreachable(#[source] Option<tokio_postgres::Error>),
    /// The server answered that it failed: its transaction had no effect.
    #[error("the server refused")]
    Refused(#[source] tokio_postgres::Error),
    /// The connection ended, or no answer came in time: what was asked may have happened, or may yet happen.
    #[error("the connection was lost")]
    Lost(#[source] Option<tokio_postgres::Error>),
    /// The connection was lost, and then nobody could be asked.
    #[error("nobody knows whether it happened")]
    Unknown(#[source] Box<Failure>),
    /// A row can't be read.
    #[error("a row can't be read")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database can't be used for this.
    #[error("{message}")]
    Unfit { message: String, hint: &'static str },
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(answer) if !ends_the_connection(answer) => Self::Refused(error),
            _ => Self::Lost(Some(error)),
        }
    }
}

/// True for what the server says before it hangs up: it may have done what was asked before.
fn ends_the_connection(answer: &DbError) -> bool {
    !matches!(answer.parsed_severity(), Some(Severity::Error)) || answer.code().code().starts_with("57P")
}

impl Failure {
    /// True if the same transaction may go through when it is tried again at once.
    pub(super) fn is_clash(&self) -> bool {
        let code = match self {
            Self::Refused(error) => error.code(),
            _ => None,
        };
        code == Some(&SqlState::T_R_SERIALIZATION_FAILURE) || code == Some(&SqlState::T_R_DEADLOCK_DETECTED)
    }

    pub(super) fn into_error(self, operation: &'static str) -> Error {
        Arc::new(self).to_error(operation)
    }

    /// The error for one of several that share a failure.
    pub(super) fn to_error(self: &Arc<Self>, operation: &'static str) -> Error {
        let cause = match &**self {
            Self::Unreachable(Some(cause)) | Self::Refused(cause) | Self::Lost(Some(cause)) => Some(cause),
            _ => None,
        };
        let code = cause.and_then(tokio_postgres::Error::code);
        let (retry, message, hint) = match (&**self, code) {
            (Self::Unfit { message, hint }, _) => (Retry::Permanent, message.clone(), *hint),
            (Self::Damaged(_), _) => damaged(),
            (_, Some(code)) => refused(code),
            (Self::Unreachable(_), None) => (
                TRANSIENT,
                "the database server can't be reached".to_owned(),
                "check that it runs, and its address in the URL",
            ),
            (Self::Unknown(_), _) => (
                TRANSIENT,
                "the connection to the database was lost, and it is not known whether the change was kept"
                    .to_owned(),
                "look before you repeat it",
            ),
            (Self::Lost(_) | Self::Refused(_), None) => (
                TRANSIENT,
                "the connection to the database was lost".to_owned(),
                "check that its server runs, and the network to it",
            ),
        };
        let error = Error::new(Kind::Unavailable, operation, message).retry(retry).hint(hint);
        let error = match cause {
            Some(cause) => error.context("postgres", cause),
            None => error,
        };
        let error = if code == Some(&SqlState::DISK_FULL) { error.code("storage_full") } else { error };
        error.source(Arc::clone(self))
    }
}

const TRANSIENT: Retry = Retry::Transient { after: None };

fn damaged() -> (Retry, String, &'static str) {
    (Retry::Permanent, "the database is damaged".to_owned(), "restore it from a backup")
}

fn refused(code: &SqlState) -> (Retry, String, &'static str) {
    let (retry, message, hint) = match code.code() {
        "53100" => (
            TRANSIENT,
            "the database's disk is full",
            "make room: nothing of this change was kept, everything before it was",
        ),
        "53300" => (
            TRANSIENT,
            "the database takes no more connections",
            "raise its max_connections, or run fewer servers",
        ),
        "25006" => (TRANSIENT, "the database takes no writes now", "use the address of its primary server"),
        "28000" | "28P01" => (
            Retry::Permanent,
            "the database server refuses the user or the password",
            "check both in the URL, and the server's pg_hba.conf",
        ),
        "3D000" => (
            Retry::Permanent,
            "there is no such database on the server",
            "create it first: the tables are made by themselves",
        ),
        "42501" => (
            Retry::Permanent,
            "the database's user is not allowed to do this",
            "let it create a schema in the database, or own the schema `paas`",
        ),
        "42P01" | "42703" | "42883" | "3F000" | "42P07" | "42723" => (
            Retry::Permanent,
            "the database's tables are not as this program made them",
            "restore it from a backup, or use an empty database",
        ),
        "XX001" | "XX002" => return damaged(),
        _ => (TRANSIENT, "the database does not answer", "see the database server's log"),
    };
    (retry, message.to_owned(), hint)
}

/// The error for an operation on a store that was closed.
pub(super) fn closed(operation: &'static str) -> Error {
    Error::new(Kind::Unavailable, operation, "the database was closed").retry(Retry::Permanent)
}
