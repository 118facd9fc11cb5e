//! The state store: the narrow waist between the platform and a database.

mod agenda;
mod lease;
mod record;
mod stream;

pub use agenda::{Agenda, Work};
pub use lease::{Backlog, Claim, Claimed, Lease, LeaseChange, WorkClass, WorkKey};
pub use record::{Cursor, Expect, IndexRange, Keys, Page, Record, Scan, Scope, UniqueReach, Write};
pub use stream::{Append, Change, Position, StoredEvent, StreamId};

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use crate::error::{Error, Kind, Result};

/// Changes that take effect together, or not at all: writes, then appends, then lease changes, each in their order.
///
/// Conditions are part of the changes: a [`Write`] and an [`Append`] say which version they expect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Only if this lease is still held.
    pub fence: Option<Lease>,
    /// Records to write.
    pub writes: Vec<Write>,
    /// Events to append.
    pub appends: Vec<Append>,
    /// Work to schedule or release.
    pub leases: Vec<LeaseChange>,
}

impl Batch {
    /// The most writes, events and lease changes together.
    pub const MAX_PARTS: usize = 1_000;
    /// The longest document or event, in bytes.
    pub const MAX_BODY_BYTES: usize = 1024 * 1024;
    /// The longest id, key value or stream name, in bytes.
    pub const MAX_KEY_BYTES: usize = 512;

    /// Checks the bounds, for those who implement a store.
    ///
    /// # Errors
    /// `Invalid` when a part is too large, or an id is empty.
    pub fn check(&self, operation: &'static str) -> Result<()> {
        let events = self.appends.iter().map(|append| append.events.len()).sum::<usize>();
        let is_bounded = self.writes.len() + events + self.leases.len() <= Self::MAX_PARTS
            && self.writes.iter().all(Write::is_bounded)
            && self.appends.iter().all(Append::is_bounded)
            && self.leases.iter().all(LeaseChange::is_bounded);
        if is_bounded {
            Ok(())
        } else {
            Err(Error::new(Kind::Invalid, operation, "the change is too large")
                .hint("at most 1,000 parts, 1 MiB a document, 512 bytes a key"))
        }
    }
}

/// True for an id, stream or work key that a store can keep.
fn is_key(text: &str) -> bool {
    !text.is_empty() && text.len() <= Batch::MAX_KEY_BYTES
}

/// What a commit assigned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The new version of each written record, in the order of the batch; 0 for a removal.
    pub versions: Vec<u64>,
    /// The position of the first event of each append, in the order of the batch; those behind it follow it. 0 for
    /// an append without events, which only checks the version.
    pub positions: Vec<Position>,
}

/// Keeps everything the platform must not forget.
///
/// A small kernel that can be implemented well on any transactional database: versioned **records**, append-only
/// **event streams** with one feed over all of them, **leases** on due work, and one atomic [`commit`](Self::commit).
///
/// # Flow
/// The platform commits what was accepted; a worker claims due work, appends what it is about to do, does it, and
/// appends the outcome, each in one commit fenced by its lease.
///
/// # Guarantees
/// - When `commit` answers `Ok`, the whole batch is on stable storage. When it answers `Conflict`,
///   `AlreadyExists` or `NotFound`, none of it happened. After `Unavailable` it may or may not have.
/// - Positions grow in the order in which commits become visible: a reader of [`feed`](Self::feed) who has seen
///   position n never finds a new event at or below n later.
/// - At most one holder per lease at any time by the store's clock; a commit fenced by a lost lease is a `Conflict`.
/// - A `Schedule` during a claim is not lost: the work is due again after its release.
/// - Reads see every commit that was answered before they began.
/// - A read within one org's scope never sees another org's record or event.
///
/// # Assumptions
/// Bodies are at most 1 MiB each; a batch has at most 1,000 parts; keys are at most 512 bytes.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait StateStore: Debug + Send + Sync + 'static {
    /// Applies a batch atomically and durably.
    ///
    /// # Errors
    /// `Conflict` when an expected version or the fence does not hold (the error's code is `fenced` for the fence),
    /// `AlreadyExists` when a unique key is taken (the code is the key's name), `NotFound` when there is nothing to
    /// update, `Invalid` when a bound is exceeded, `Unavailable` when the database is.
    async fn commit(&self, batch: Batch) -> Result<Committed>;

    /// The record of this kind and id, if it exists, has not expired, and is within the scope.
    async fn get(&self, scope: &Scope, kind: &'static str, id: &str) -> Result<Option<Record>>;

    /// The record that holds a unique key; for the system, of a key that several orgs hold, the first org's.
    async fn find(
        &self,
        scope: &Scope,
        kind: &'static str,
        key: &'static str,
        value: &str,
    ) -> Result<Option<Record>>;

    /// The records of a kind within a range of one of its index keys, in the order of (value, id).
    async fn scan(&self, scan: &Scan) -> Result<Page<Record>>;

    /// The events of a stream with versions after `after`, in order, at most `limit`.
    async fn events(
        &self,
        scope: &Scope,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>>;

    /// The events of all streams with positions after `after`, in order, at most `limit`.
    async fn feed(&self, scope: &Scope, after: Position, limit: usize) -> Result<Vec<StoredEvent>>;

    /// Takes leases on due work: fair between orgs, the longest waiting first within one, within the claim's slots.
    async fn claim(&self, claim: &Claim) -> Result<Claimed>;

    /// Holds a lease for `duration` from now.
    ///
    /// # Errors
    /// `Conflict` with the code `fenced` when it is no longer held.
    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease>;

    /// How much work of a class is held, or due and to be claimed before `key`: 0 if `key` does not wait in that
    /// class. With `None`, how much is due or held in all.
    async fn count(&self, class: WorkClass, key: Option<WorkKey>) -> Result<u64>;

    /// How much work of a class waits and is held, in all orgs.
    async fn backlog(&self, class: WorkClass) -> Result<Backlog>;

    /// Wakes whoever waits for new events or new work. Only a hint: it may be late, doubled or, when the receiver
    /// lags, lost.
    fn changes(&self) -> broadcast::Receiver<Change>;

    /// Removes expired records, at most `limit`, and answers how many.
    async fn sweep(&self, limit: usize) -> Result<usize>;

    /// Answers once a synced write went through: for readiness.
    async fn ping(&self) -> Result<()>;
}
