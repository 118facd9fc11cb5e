//! Locking without poison.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The mutex, locked. Nothing in this crate panics while it holds one, and none is held across an await.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
