//! What is asked of the server while it is killed.

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    Create,
    Deploy,
    /// A deployment whose program ends at once.
    Break,
    Configure,
    Rollback,
    Restart,
    /// A deployment, and its end while it builds.
    Cancel,
    Stop,
    Start,
    Delete,
}

impl Act {
    pub(crate) const ALL: [Self; 10] = [
        Self::Create,
        Self::Deploy,
        Self::Break,
        Self::Configure,
        Self::Rollback,
        Self::Restart,
        Self::Cancel,
        Self::Stop,
        Self::Start,
        Self::Delete,
    ];
}
