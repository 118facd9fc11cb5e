//! What a test can make a server do wrong.

use std::time::Duration;

/// What a repository's requests run into, until it is cleared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GitFault {
    /// The next `times` requests are answered with this status.
    Status {
        /// The status, such as 503.
        status: u16,
        /// How many requests.
        times: u64,
        /// What the `Retry-After` header says, in seconds.
        retry_after_seconds: Option<u64>,
    },
    /// The server knows only the first version of git's protocol.
    OldProtocol,
    /// Requests are taken and never answered.
    Stall,
    /// Bodies come in pieces of this many bytes with this pause between them.
    Slow {
        /// How many bytes at a time.
        bytes: usize,
        /// The pause after each.
        pause: Duration,
    },
    /// The first request is redirected to this address, to which git's own part of the path is added.
    Redirect(String),
    /// Packs are answered with these bytes instead.
    Pack(bytes::Bytes),
    /// Bodies of packs are cut off after this many bytes.
    Cut {
        /// How many bytes still come.
        after_bytes: usize,
    },
}
