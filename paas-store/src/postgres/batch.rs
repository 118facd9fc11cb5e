//! One batch, as the arguments of the function that commits it, and what that answers.

use std::time::Duration;

use jiff::Timestamp;
use paas_core::{
    Batch, Committed, Error, Expect, Kind, LeaseChange, Position, Scope, UniqueReach, WorkClass, Write,
};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::failure::{Failure, Result};
use super::leases::wait;
use crate::convert::{bounded, nanoseconds};

/// Applies a batch within the transaction, all of it or nothing; see the function for the parameters.
pub(super) const COMMIT: &str = "SELECT _versions, _positions, refusal, detail FROM paas.commit_batch(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
    $25, $26, $27, $28, $29, $30, $31, $32)";

/// What became of a batch whose answer was lost.
pub(super) const RECALL: &str = "SELECT happened, _versions, _positions FROM paas.recall_batch($1, $2, $3)";

/// Where a batch is in the order of what one connection writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The connection, by its number.
    pub(super) writer: i64,
    /// Which of its transactions.
    pub(super) number: i64,
    /// Which batch of that.
    pub(super) place: i32,
}

/// The records to write, by column.
#[derive(Default)]
struct Writes<'a> {
    operations: Vec<&'static str>,
    kinds: Vec<&'a str>,
    ids: Vec<&'a [u8]>,
    scopes: Vec<&'a str>,
    expects: Vec<i64>,
    expiries: Vec<Option<i64>>,
    bodies: Vec<&'a [u8]>,
    unique_of: Vec<i64>,
    unique_names: Vec<&'a str>,
    unique_values: Vec<&'a [u8]>,
    unique_reaches: Vec<&'a str>,
    index_of: Vec<i64>,
    index_names: Vec<&'a str>,
    index_values: Vec<&'a [u8]>,
}

impl<'a> Writes<'a> {
    fn of(writes: &'a [Write]) -> Self {
        let mut columns = Self::default();
        for (number, write) in (1..).zip(writes) {
            match write {
                Write::Put { scope, kind, id, expect, keys, body } => {
                    columns.push("put", (kind, id, scope), *expect, keys.expires_at, body);
                    for (name, value, reach) in &keys.unique {
                        columns.unique_of.push(number);
                        columns.unique_names.push(name);
                        columns.unique_values.push(value.as_bytes());
                        columns.unique_reaches.push(match reach {
                            UniqueReach::Org => scope.as_str(),
                            UniqueReach::Store => "",
                        });
                    }
                    for (name, value) in &keys.index {
                        columns.index_of.push(number);
                        columns.index_names.push(name);
                        columns.index_values.push(value.as_bytes());
                    }
                }
                Write::Update { scope, kind, id, expect, body } => {
                    columns.push("update", (kind, id, scope), *expect, None, body);
                }
                Write::Remove { scope, kind, id, expect } => {
                    columns.push("remove", (kind, id, scope), *expect, None, &[]);
                }
            }
        }
        columns
    }

    fn push(
        &mut self,
        operation: &'static str,
        (kind, id, scope): (&'a str, &'a str, &'a Scope),
        expect: Expect,
        expires_at: Option<Timestamp>,
        body: &'a [u8],
    ) {
        self.operations.push(operation);
        self.kinds.push(kind);
        self.ids.push(id.as_bytes());
        self.scopes.push(scope.as_str());
        self.expects.push(match expect {
            Expect::Any => -1,
            Expect::Absent => -2,
            Expect::Version(version) => bounded(version),
        });
        self.expiries.push(expires_at.map(nanoseconds));
        self.bodies.push(body);
    }
}

/// The lease changes, by column.
#[derive(Default)]
struct Changes<'a> {
    changes: Vec<&'static str>,
    keys: Vec<&'a [u8]>,
    scopes: Vec<Option<&'a str>>,
    fences: Vec<Option<i64>>,
    classes: Vec<Option<&'static str>>,
    /// In nanoseconds from the commit.
    waits: Vec<Option<i64>>,
}

impl<'a> Changes<'a> {
    fn of(leases: &'a [LeaseChange]) -> Self {
        let mut columns = Self::default();
        for change in leases {
            match change {
                LeaseChange::Schedule { key, scope, class, after } => {
                    columns.push("schedule", key, Some((*class, *after)));
                    columns.scopes.push(Some(scope.as_str()));
                    columns.fences.push(None);
                }
                LeaseChange::Release { lease, next } => {
                    columns.push("release", &lease.key, *next);
                    columns.scopes.push(None);
                    columns.fences.push(Some(bounded(lease.fence)));
                }
            }
        }
        columns
    }

    fn push(&mut self, change: &'static str, key: &'a str, next: Option<(WorkClass, Duration)>) {
        self.changes.push(change);
        self.keys.push(key.as_bytes());
        self.classes.push(next.map(|(class, _)| class.as_str()));
        self.waits.push(next.map(|(_, after)| wait(after)));
    }
}

/// Sends a batch with the prepared [`COMMIT`], and waits for what became of it.
pub(super) async fn send(
    client: &Client,
    statement: &Statement,
    batch: &Batch,
    place: Place,
    now: Option<i64>,
) -> Result<Row, tokio_postgres::Error> {
    let writes = Writes::of(&batch.writes);
    let fence_key = batch.fence.as_ref().map(|lease| lease.key.as_bytes());
    let fence_number = batch.fence.as_ref().map(|lease| bounded(lease.fence));
    let appends = &batch.appends;
    let streams: Vec<&[u8]> = appends.iter().map(|append| append.stream.as_str().as_bytes()).collect();
    let owners: Vec<&str> = appends.iter().map(|append| append.scope.as_str()).collect();
    let lengths: Vec<i64> = appends.iter().map(|append| bounded(append.expect)).collect();
    let times: Vec<i64> = appends.iter().map(|append| nanoseconds(append.at)).collect();
    let counts: Vec<i64> = appends.iter().map(|append| bounded(append.events.len() as u64)).collect();
    let events: Vec<&[u8]> = appends.iter().flat_map(|append| &append.events).map(Vec::as_slice).collect();
    let changes = Changes::of(&batch.leases);
    let parameters: [&(dyn ToSql + Sync); 32] = [
        &now,
        &place.writer,
        &place.place,
        &place.number,
        &fence_key,
        &fence_number,
        &writes.operations,
        &writes.kinds,
        &writes.ids,
        &writes.scopes,
        &writes.expects,
        &writes.expiries,
        &writes.bodies,
        &writes.unique_of,
        &writes.unique_names,
        &writes.unique_values,
        &writes.unique_reaches,
        &writes.index_of,
        &writes.index_names,
        &writes.index_values,
        &streams,
        &owners,
        &lengths,
        &times,
        &counts,
        &events,
        &changes.changes,
        &changes.keys,
        &changes.scopes,
        &changes.fences,
        &changes.classes,
        &changes.waits,
    ];
    client.query_one(statement, &parameters).await
}

/// What the function answered: what was assigned, or why the batch was taken back.
pub(super) fn answer(row: &Row, batch: &Batch) -> Result<paas_core::Result<Committed>> {
    let refusal: Option<&str> = column(row, 2)?;
    let Some(why) = refusal else { return Ok(Ok(committed(row)?)) };
    let operation = super::COMMIT;
    Ok(Err(match why {
        "fenced" => fenced(operation),
        "missing" => Error::not_found(operation, "there is nothing to update"),
        "taken" => {
            let detail: &str = column(row, 3)?;
            taken(batch, detail)
        }
        _ => Error::new(Kind::Conflict, operation, "it was changed by somebody else in the meantime")
            .hint("read it again and repeat the change"),
    }))
}

/// The versions and positions in the first two columns that are numbers.
fn committed(row: &Row) -> Result<Committed> {
    let numbers = |name| -> Result<Vec<u64>> {
        let numbers: Vec<i64> = row.try_get(name).map_err(|error| Failure::Damaged(Box::new(error)))?;
        Ok(numbers.into_iter().map(i64::unsigned_abs).collect())
    };
    let positions = numbers("_positions")?.into_iter().map(Position).collect();
    Ok(Committed { versions: numbers("_versions")?, positions })
}

/// What [`RECALL`] answered: what was assigned, if the batch happened.
pub(super) fn recalled(row: &Row) -> Result<Option<Committed>> {
    if column(row, 0)? { committed(row).map(Some) } else { Ok(None) }
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T> {
    row.try_get(at).map_err(|error| Failure::Damaged(Box::new(error)))
}

/// The error for the unique key of this number, over all writes.
fn taken(batch: &Batch, number: &str) -> Error {
    let keys = batch.writes.iter().flat_map(|write| match write {
        Write::Put { keys, .. } => keys.unique.as_slice(),
        _ => &[],
    });
    let at = number.parse::<usize>().unwrap_or_default().saturating_sub(1);
    let (name, value) = keys.map(|(name, value, _)| (*name, value.as_str())).nth(at).unwrap_or_default();
    Error::new(Kind::AlreadyExists, super::COMMIT, format!("`{value}` is taken")).code(name)
}

/// The error for a lease that is no longer held.
pub(super) fn fenced(operation: &'static str) -> Error {
    Error::new(Kind::Conflict, operation, "the lease is no longer held").code("fenced")
}
