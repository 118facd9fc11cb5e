//! Leases: who works on what, for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Scope, is_key};

/// What a lease is on: an app's id. Two workers never hold the same key.
pub type WorkKey = String;

/// Classes of work, each with its own number of slots; the cheaper first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkClass {
    /// Everything that mostly waits.
    Light,
    /// Building an image: heavy on processor, memory and disk.
    Build,
}

impl WorkClass {
    /// Every class.
    pub const ALL: [Self; 2] = [Self::Light, Self::Build];

    /// The text that stands for it in a database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Build => "build",
        }
    }
}

/// A worker's hold on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is on.
    pub key: WorkKey,
    /// The org that the work is for.
    pub scope: Scope,
    /// The class whose slot it takes.
    pub class: WorkClass,
    /// Grows with every claim in the store: an older number can write nothing more.
    pub fence: u64,
    /// When it ends, by the store's clock.
    pub expires_at: Timestamp,
}

/// A change of due work, as part of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// Makes `key` due so long after the commit, or earlier if it is due earlier already. Whoever holds it keeps it;
    /// the work is due again when they release it. The earlier of two due times brings its class along; what is due by
    /// now as both is [`Light`](WorkClass::Light), so that nothing waits for a slot that it may have no use for.
    ///
    /// A duration and not a time: the clocks of the store and of those who ask need not agree.
    Schedule {
        /// The key.
        key: WorkKey,
        /// The org that the work is for.
        scope: Scope,
        /// The class.
        class: WorkClass,
        /// How long after the commit, by the store's clock.
        after: Duration,
    },
    /// Gives a held key back. A lost lease makes the commit a `Conflict`.
    Release {
        /// The lease.
        lease: Lease,
        /// As what and how long after the commit it is due again; with `None`, only if it was scheduled meanwhile.
        /// If both, as with [`Schedule`](Self::Schedule).
        next: Option<(WorkClass, Duration)>,
    },
}

impl LeaseChange {
    pub(super) fn is_bounded(&self) -> bool {
        match self {
            Self::Schedule { key, .. } => is_key(key),
            Self::Release { lease, .. } => is_key(&lease.key),
        }
    }
}

/// What a worker asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The worker, for people who look into the store.
    pub worker: String,
    /// The most leases to take now, by class.
    pub limit: BTreeMap<WorkClass, usize>,
    /// The most leases of a class that all workers on this store may hold together; a missing class has no bound.
    pub slots: BTreeMap<WorkClass, usize>,
    /// How long each lease is held unless it is renewed.
    pub duration: Duration,
}

/// How much work of a class there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How much is due and held by nobody.
    pub waiting: u64,
    /// How much is held.
    pub held: u64,
    /// How long what has waited longest has been due; zero if nothing waits.
    pub oldest: Duration,
}

/// What a worker got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// The leases.
    pub leases: Vec<Lease>,
    /// How long until the next work becomes due (its time comes, or a lease on it ends), if nothing changes before.
    /// Work that is due already, but beyond the limits, comes with the next claim.
    pub next_due: Option<Duration>,
}
