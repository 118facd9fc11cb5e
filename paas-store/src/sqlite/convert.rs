//! Values of the core as the tables keep them.

use jiff::Timestamp;
use paas_core::{Scope, StreamId, WorkClass};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};

/// Nanoseconds since 1970; what lies beyond the year 2262 is kept as that.
pub(super) fn nanoseconds(time: Timestamp) -> i64 {
    let bounded = time.as_nanosecond().clamp(i64::MIN.into(), i64::MAX.into());
    i64::try_from(bounded).unwrap_or(i64::MAX)
}

/// A number that may come from outside: beyond what a database holds it matches nothing.
pub(super) fn bounded(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

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
        let text = value.as_str()?;
        if text == Scope::System.as_str() {
            return Ok(Self(Scope::System));
        }
        text.parse().map(|org| Self(Scope::Org(org))).map_err(|error| FromSqlError::Other(Box::new(error)))
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
        let text = value.as_str()?;
        let class = WorkClass::ALL.into_iter().find(|class| class.as_str() == text);
        class.map(Self).ok_or(FromSqlError::InvalidType)
    }
}
