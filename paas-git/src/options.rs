//! What an operator can set.

use std::path::PathBuf;
use std::time::Duration;

use paas_core::EgressPolicy;

/// What the git provider may reach, and how much it takes.
#[derive(Clone, Debug, Default)]
pub struct GitOptions {
    /// Which hosts may be called.
    pub egress: EgressPolicy,
    /// Bounds of one repository.
    pub limits: GitLimits,
    /// A PEM file of certificate authorities that are trusted beside the system's.
    pub extra_certificates: Option<PathBuf>,
}

/// Bounds that hold whatever a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitLimits {
    /// The time that one call takes at most.
    pub time: Duration,
    /// Over each stretch of this length spent waiting for the server, it has to send [`stall_bytes`](Self::stall_bytes).
    pub stall_window: Duration,
    /// How little in a [`stall_window`](Self::stall_window) counts as stalled, in bytes.
    pub stall_bytes: u64,
    /// The largest pack that is received, in bytes.
    pub pack_bytes: u64,
    /// The most objects in a pack.
    pub pack_objects: u32,
    /// The most bytes that a mirror holds, and that a tree's files have together.
    pub disk_bytes: u64,
    /// The largest file, in bytes: objects are decoded in memory.
    pub object_bytes: usize,
    /// The most entries of a tree: files, directories, links.
    pub entries: usize,
    /// The deepest directory.
    pub depth: usize,
    /// The most packs of a mirror; it is made anew when it has this many.
    pub mirror_packs: usize,
    /// The most threads that read mirrors at one time.
    pub readers: usize,
    /// The most calls to servers at one time. Each waits on a thread of its own, and slow servers hold none of the
    /// [`readers`](Self::readers).
    pub calls: usize,
}

impl Default for GitLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(5 * 60),
            stall_window: Duration::from_secs(60),
            stall_bytes: 256,
            pack_bytes: 1 << 30,
            pack_objects: 500_000,
            disk_bytes: 2 << 30,
            object_bytes: 256 << 20,
            entries: 250_000,
            depth: 128,
            mirror_packs: 64,
            readers: 8,
            calls: 64,
        }
    }
}
