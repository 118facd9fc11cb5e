//! Records: versioned documents.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Batch, is_key};
use crate::domain::OrgId;

/// Who owns a record or event; on a read, who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The platform itself. A read with this scope sees every org's.
    System,
    /// One org. A read with this scope sees that org's only.
    Org(OrgId),
}

impl Scope {
    /// The text that stands for it in a database.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "system",
            Self::Org(org) => org.as_str(),
        }
    }

    /// True if a read with this scope may see what `owner` owns.
    #[must_use]
    pub fn sees(&self, owner: &Self) -> bool {
        *self == Self::System || self == owner
    }
}

/// A versioned document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its owner.
    pub scope: Scope,
    /// What it is: `app`, `release`.
    pub kind: &'static str,
    /// Unique within the kind, in the whole store.
    pub id: String,
    /// 1 when it is made, one more at each change.
    pub version: u64,
    /// The document; the store does not look into it.
    pub body: Vec<u8>,
}

/// How far a unique key's value must be unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniqueReach {
    /// Within the record's org.
    Org,
    /// In the whole store.
    Store,
}

/// By what a record can be found besides its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Name, value and reach of its unique keys.
    pub unique: Vec<(&'static str, String, UniqueReach)>,
    /// Name and value of its ordered keys, for [`Scan`]: values order as text, byte by byte.
    pub index: Vec<(&'static str, String)>,
    /// When it disappears by itself.
    pub expires_at: Option<Timestamp>,
}

/// Which version a write expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is none: the write makes it.
    Absent,
    /// Exactly this one: there is none other, and it is not made when it is missing.
    Version(u64),
    /// Whatever there is, or nothing.
    Any,
}

/// One change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Makes or replaces a record, with all its keys.
    Put {
        /// Its owner. A record never changes its owner: another one is a `Conflict`.
        scope: Scope,
        /// What it is.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The version it must have.
        expect: Expect,
        /// By what it is found from now on.
        keys: Keys,
        /// The document.
        body: Vec<u8>,
    },
    /// Replaces the document of an existing record and leaves its keys as they are. Without one of this owner it
    /// is a `NotFound`, or a `Conflict` if a version is expected.
    Update {
        /// Its owner.
        scope: Scope,
        /// What it is.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The version it must have; [`Expect::Absent`] can't be met.
        expect: Expect,
        /// The document.
        body: Vec<u8>,
    },
    /// Removes a record and its keys; removing what is absent (or another owner's) changes nothing and succeeds,
    /// unless a version is expected.
    Remove {
        /// Its owner.
        scope: Scope,
        /// What it is.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The version it must have.
        expect: Expect,
    },
}

impl Write {
    pub(super) fn is_bounded(&self) -> bool {
        let (id, keys, body) = match self {
            Self::Put { id, keys, body, .. } => (id, Some(keys), body.len()),
            Self::Update { id, body, .. } => (id, None, body.len()),
            Self::Remove { id, .. } => (id, None, 0),
        };
        let are_keys_bounded = keys.is_none_or(|keys| {
            keys.unique.len() + keys.index.len() <= Batch::MAX_PARTS
                && keys.unique.iter().all(|(_, value, _)| value.len() <= Batch::MAX_KEY_BYTES)
                && keys.index.iter().all(|(_, value)| value.len() <= Batch::MAX_KEY_BYTES)
        });
        is_key(id) && are_keys_bounded && body <= Batch::MAX_BODY_BYTES
    }
}

/// A range of an index key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexRange {
    /// The lowest value, itself included.
    pub from: Option<String>,
    /// The highest value, itself excluded.
    pub to: Option<String>,
}

impl IndexRange {
    /// All values.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Every value that starts with `prefix`, which must not be empty or end with the highest character.
    #[must_use]
    pub fn starting_with(prefix: impl Into<String>) -> Self {
        let from = prefix.into();
        let to = format!("{from}\u{10ffff}");
        Self { from: Some(from), to: Some(to) }
    }

    /// True if `value` is in the range.
    #[must_use]
    pub fn contains(&self, value: &str) -> bool {
        self.from.as_deref().is_none_or(|from| value >= from)
            && self.to.as_deref().is_none_or(|to| value < to)
    }
}

/// Where a page ended: the value and the id of its last record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The index value.
    pub value: String,
    /// The record's id.
    pub id: String,
}

/// What to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Who asks.
    pub scope: Scope,
    /// Which kind.
    pub kind: &'static str,
    /// By which index key.
    pub index: &'static str,
    /// Within which values.
    pub range: IndexRange,
    /// Highest first.
    pub descending: bool,
    /// The most records to answer.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

/// Some records, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The records.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}
