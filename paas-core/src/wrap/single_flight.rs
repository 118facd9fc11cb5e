//! A bounded cache in which the same thing is never made twice at the same time.

use std::collections::BTreeMap;
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
    flights: Mutex<BTreeMap<Key, Arc<Flight>>>,
}

/// Held by the one who makes the value; holds what those who wait will fail with.
type Flight = tokio::sync::Mutex<Option<(Failure, error::Retry)>>;

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
        let boarding = self.board(key);
        let mut failure = context.run(operation, async { Ok(boarding.flight.lock().await) }).await?;
        if let Some((failure, retry)) = &*failure {
            return Err(Error::from(failure).retry(*retry));
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
                    *failure = Some((Failure::from(error), error.retryable()));
                }
            }
        }
        result
    }

    /// Joins the flight for `key`, or starts it.
    fn board(&self, key: Key) -> Boarding<'_, V> {
        let flight = self.locked().entry(key).or_default().clone();
        Boarding { cache: self, key, flight }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Flight>>> {
        // Nothing that is done while it is held panics half-way.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> fmt::Debug for SingleFlight<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SingleFlight")
    }
}

/// A place in a flight; the last one to leave ends it.
struct Boarding<'a, V: Clone + Send + Sync + 'static> {
    cache: &'a SingleFlight<V>,
    key: Key,
    flight: Arc<Flight>,
}

impl<V: Clone + Send + Sync + 'static> Drop for Boarding<'_, V> {
    fn drop(&mut self) {
        let mut flights = self.cache.locked();
        // The map's and this one; nobody boards while the map is locked.
        if Arc::strong_count(&self.flight) == 2 {
            flights.remove(&self.key);
        }
    }
}
