//! File descriptors: a request takes two, one for the client and one for the instance.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many are left for files, control connections and idle connections to instances.
const OTHERS: u64 = 64;

/// Raises this process's limit as far as it may (the usual soft limit is 1024), and says how many client connections
/// fit, `wanted` at most.
pub(crate) fn max_connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let Some(current) = current else { return wanted };
    let possible = usize::try_from(current.saturating_sub(OTHERS) / 2).unwrap_or(usize::MAX).max(1);
    if possible < wanted {
        tracing::warn!(
            wanted,
            possible,
            descriptors = current,
            "fewer client connections than configured: raise the limit of open files (`ulimit -Hn`)"
        );
    }
    wanted.min(possible)
}
