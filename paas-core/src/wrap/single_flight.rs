//! A bounded cache in which the same thing is never made twice at the same time.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use moka::future::Cache;
use moka::policy::EvictionPolicy;

use crate::context::Context;
use crate::error::{self, Error, Failure, Kind, Result};

/// A digest of everything that makes two requests the same.
pub(super) type Key = [u8; 32];

/// One who misses makes the value; others who miss meanwhile wait for it, each within its own context.
///
/// A failure is not stored. Those who waited for it get it too, instead of asking an ailing server one after the
/// other, unless it is the maker's own (cancelled, out of time, or let go of): then the next one makes the value.
pub(super) struct SingleFlight<V> {
    stored: Cache<Key, V>,
    flights: Mutex<BTreeMap<Key, Flight>>,
}

/// What is being made, and for how many.
#[derive(Default)]
struct Flight {
    turn: Arc<Turn>,
    /// How many are aboard: the last one to leave removes the flight.
    riders: usize,
    /// The number of the next one who comes aboard.
    next: u64,
}

/// Held by the one who makes the value.
type Turn = tokio::sync::Mutex<Option<SharedFailure>>;

/// What those who were aboard when it happened fail with.
struct SharedFailure {
    failure: Failure,
    retry: error::Retry,
    /// The number of the first one who came after it.
    before: u64,
}

impl<V: Clone + Send + Sync + 'static> SingleFlight<V> {
    pub(super) fn new(capacity: u64) -> Self {
        let stored = Cache::builder().max_capacity(capacity).eviction_policy(EvictionPolicy::lru()).build();
        Self { stored, flights: Mutex::default() }
    }

    /// The stored value, or else what `make` answers, stored if `keep` says so.
    pub(super) async fn get(
        &self,
        key: Key,
        context: &Context,
        operation: &'static str,
        make: impl Future<Output = Result<V>> + Send,
        keep: impl Fn(&V) -> bool + Send,
    ) -> Result<V> {
        if let Some(value) = self.stored.get(&key).await {
            return Ok(value);
        }
        let rider = self.board(key);
        let mut shared = context.run(operation, async { Ok(rider.turn.lock().await) }).await?;
        if let Some(shared) = shared.as_ref().filter(|shared| rider.number < shared.before) {
            return Err(Error::from(&shared.failure).retry(shared.retry));
        }
        if let Some(value) = self.stored.get(&key).await {
            return Ok(value);
        }
        let result = make.await;
        match &result {
            Ok(value) if keep(value) => {
                self.stored.insert(key, value.clone()).await;
                // Otherwise it evicts by and by, following the machine's clock.
                self.stored.run_pending_tasks().await;
            }
            Ok(_) => {}
            Err(error) => {
                let is_own = error.kind() == Kind::Cancelled
                    || context.is_cancelled()
                    || context.remaining().is_some_and(|remaining| remaining.is_zero());
                if !is_own {
                    let before = lock(&self.flights).get(&key).map_or(0, |flight| flight.next);
                    *shared = Some(SharedFailure { failure: error.into(), retry: error.retryable(), before });
                }
            }
        }
        result
    }

    /// Lets go of everything stored.
    pub(super) fn clear(&self) {
        self.stored.invalidate_all();
    }

    /// Comes aboard the flight for `key`, or starts it.
    fn board(&self, key: Key) -> Rider<'_> {
        let mut flights = lock(&self.flights);
        let flight = flights.entry(key).or_default();
        flight.riders += 1;
        flight.next += 1;
        Rider { flights: &self.flights, key, number: flight.next - 1, turn: flight.turn.clone() }
    }
}

impl<V> fmt::Debug for SingleFlight<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SingleFlight")
    }
}

/// One who is aboard a flight.
struct Rider<'a> {
    flights: &'a Mutex<BTreeMap<Key, Flight>>,
    key: Key,
    number: u64,
    turn: Arc<Turn>,
}

impl Drop for Rider<'_> {
    fn drop(&mut self) {
        if let btree_map::Entry::Occupied(mut flight) = lock(self.flights).entry(self.key) {
            flight.get_mut().riders -= 1;
            if flight.get().riders == 0 {
                flight.remove();
            }
        }
    }
}

fn lock(flights: &Mutex<BTreeMap<Key, Flight>>) -> MutexGuard<'_, BTreeMap<Key, Flight>> {
    // Nothing that is done while it is held panics half-way.
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::clock::SystemClock;

    async fn get(cache: &SingleFlight<u8>, make: impl Future<Output = Result<u8>> + Send) -> Result<u8> {
        let context = Context::new(Arc::new(SystemClock::new()));
        cache.get([0; 32], &context, "test.get", make, |_| true).await
    }

    #[tokio::test]
    async fn nothing_of_a_flight_is_left() {
        let cache = SingleFlight::new(1);
        let failure = || async { Err(Error::new(Kind::Unavailable, "test.get", "down")) };
        let mut first = Box::pin(get(&cache, std::future::pending()));
        let mut second = Box::pin(get(&cache, failure()));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.await.is_err());
        assert!(lock(&cache.flights).is_empty());
        assert_eq!(get(&cache, async { Ok(7) }).await.unwrap(), 7);
        assert!(lock(&cache.flights).is_empty());
    }

    #[tokio::test]
    async fn who_comes_after_a_failure_makes_it_itself() {
        let cache = SingleFlight::new(1);
        let (fail, failed) = tokio::sync::oneshot::channel::<()>();
        let mut first = Box::pin(get(&cache, async {
            failed.await.ok();
            Err(Error::new(Kind::Unavailable, "test.get", "down"))
        }));
        // This one waits, and is not polled again until the end: the flight goes on.
        let mut waiting = Box::pin(get(&cache, async { Ok(1) }));
        assert!(first.as_mut().now_or_never().is_none() && waiting.as_mut().now_or_never().is_none());
        fail.send(()).unwrap();
        assert!(first.await.is_err());
        let mut late = Box::pin(get(&cache, async { Ok(2) }));
        assert!(late.as_mut().now_or_never().is_none(), "it is not its turn yet");
        assert!(waiting.await.is_err(), "it waited for what failed");
        assert_eq!(late.await.unwrap(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_is_left_when_many_threads_come_and_go() {
        let cache = Arc::new(SingleFlight::new(1));
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let cache = cache.clone();
                tokio::spawn(async move {
                    for _ in 0..100 {
                        let make = async {
                            tokio::task::yield_now().await;
                            Err(Error::new(Kind::Unavailable, "test.get", task.to_string()))
                        };
                        assert!(get(&cache, make).await.is_err());
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(lock(&cache.flights).is_empty());
    }
}
