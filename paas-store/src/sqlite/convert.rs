//! Values of the core as rows have them.

use jiff::Timestamp;
use paas_core::{Scope, StreamId, WorkClass};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

pub(super) use crate::convert::{bounded, nanoseconds};
use crate::convert::{class, owner};

/// A time of a row.
pub(super) struct Time(pub(super) Timestamp);

impl FromSql for Time {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let nanoseconds = value.as_i64()?;
        Timestamp::from_nanosecond(nanoseconds.into())
            .map(Self)
            .map_err(|_| FromSqlError::OutOfRange(nanoseconds))
    }
}

/// An owner of a row.
pub(super) struct Owner(pub(super) Scope);

impl FromSql for Owner {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        owner(value.as_str()?).map(Self).map_err(|error| FromSqlError::Other(Box::new(error)))
    }
}

/// A stream of a row.
pub(super) struct Stream(pub(super) StreamId);

impl FromSql for Stream {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(StreamId::new(value.as_str()?)))
    }
}

/// A class of a row.
pub(super) struct Class(pub(super) WorkClass);

impl FromSql for Class {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        class(value.as_str()?).map(Self).ok_or(FromSqlError::InvalidType)
    }
}
