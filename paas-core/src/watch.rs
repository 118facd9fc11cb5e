//! A value that changes, and waiting for it.
//!
//! Like tokio's, with one difference: tokio's wakes those who wait in an order that it draws by lot, and no seed
//! reaches that lot. This one wakes them in the order in which they began to wait, so that a simulation repeats.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The side that changes the value. Clones change the same one.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// The side that waits.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The change that was seen last.
    seen: u64,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    changes: u64,
    receivers: usize,
}

impl<T> Shared<T> {
    fn locked(&self) -> MutexGuard<'_, State<T>> {
        // What runs under this lock does not panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Sender<T> {
    pub(crate) fn new(value: T) -> Self {
        let state = Mutex::new(State { value, changes: 0, receivers: 0 });
        Self(Arc::new(Shared { state, changed: Notify::new() }))
    }

    /// Sets the value and wakes everybody, also if it was that before.
    pub(crate) fn send(&self, value: T) {
        self.modify(|present| *present = value);
    }

    /// Changes the value and wakes everybody.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut T)) {
        let mut state = self.0.locked();
        change(&mut state.value);
        state.changes += 1;
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Waits for changes from now on.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        let mut state = self.0.locked();
        state.receivers += 1;
        Receiver { shared: self.0.clone(), seen: state.changes }
    }

    pub(crate) fn receivers(&self) -> usize {
        self.0.locked().receivers
    }
}

#[cfg(feature = "testing")]
impl<T: Clone> Sender<T> {
    pub(crate) fn value(&self) -> T {
        self.0.locked().value.clone()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.locked().receivers -= 1;
    }
}

impl<T> Receiver<T> {
    /// Returns when the value changed since it was seen last.
    pub(crate) async fn changed(&mut self) {
        loop {
            let notified = self.shared.changed.notified();
            let changes = self.shared.locked().changes;
            if changes != self.seen {
                self.seen = changes;
                return;
            }
            // A change since `notified` was made is not missed: it counts from there, not from the first poll.
            notified.await;
        }
    }

    /// Takes the present value as seen.
    pub(crate) fn mark_seen(&mut self) {
        self.seen = self.shared.locked().changes;
    }

    /// Returns when the value is as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&T) -> bool) {
        loop {
            let (is_wanted, changes) = {
                let state = self.shared.locked();
                (wanted(&state.value), state.changes)
            };
            self.seen = changes;
            if is_wanted {
                return;
            }
            self.changed().await;
        }
    }
}

impl<T: Clone> Receiver<T> {
    pub(crate) fn value(&self) -> T {
        self.shared.locked().value.clone()
    }
}
