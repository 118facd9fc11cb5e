//! Record sets in a map.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::context::Context;
use crate::dns::{DnsService, RecordCursor, RecordPage, RecordSet, RecordType};
use crate::domain::Host;
use crate::error::{Error, Kind, Result};

/// The most sets of a page.
const PAGE: usize = 100;

/// A zone in memory whose names are to point at one address: the ingress's.
#[derive(Debug)]
pub struct MemoryDns {
    ingress: IpAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<(Host, RecordType), RecordSet>,
    failures_left: u32,
}

impl MemoryDns {
    /// An empty zone; apps' hosts should point at `ingress`.
    #[must_use]
    pub fn new(ingress: IpAddr) -> Self {
        Self { ingress, state: Mutex::default() }
    }

    /// Puts this set in force, as somebody at the provider would.
    pub fn put(&self, records: &RecordSet) {
        self.locked().records.insert((records.host.clone(), records.record_type), records.clone());
    }

    /// Removes a set, as somebody at the provider would.
    pub fn take(&self, host: &Host, record_type: RecordType) {
        self.locked().records.remove(&(host.clone(), record_type));
    }

    /// Every set in force.
    #[must_use]
    pub fn records(&self) -> Vec<RecordSet> {
        self.locked().records.values().cloned().collect()
    }

    /// Makes the next `calls` calls of the trait fail with `Unavailable`, without an effect.
    pub fn fail_next(&self, calls: u32) {
        self.locked().failures_left = calls;
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answering(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.locked();
        if state.failures_left > 0 {
            state.failures_left -= 1;
            return Err(Error::new(Kind::Unavailable, operation, "the DNS service does not answer"));
        }
        Ok(state)
    }
}

#[async_trait]
impl DnsService for MemoryDns {
    async fn desired(&self, _context: &Context, host: &Host) -> Result<Vec<RecordSet>> {
        drop(self.answering("dns.desired")?);
        let record_type = if self.ingress.is_ipv4() { RecordType::A } else { RecordType::Aaaa };
        let values = BTreeSet::from([self.ingress.to_string()]);
        Ok(vec![RecordSet { host: host.clone(), record_type, values, ttl_seconds: 60 }])
    }

    async fn get(
        &self,
        _context: &Context,
        host: &Host,
        record_type: RecordType,
    ) -> Result<Option<RecordSet>> {
        Ok(self.answering("dns.get")?.records.get(&(host.clone(), record_type)).cloned())
    }

    async fn list(&self, _context: &Context, from: &RecordCursor) -> Result<RecordPage> {
        let state = self.answering("dns.list")?;
        let place = |records: &RecordSet| format!("{} {:?}", records.host, records.record_type);
        let mut records: Vec<_> = state.records.values().filter(|records| place(records) > from.0).collect();
        records.sort_by_key(|records| place(records));
        let is_last = records.len() <= PAGE;
        records.truncate(PAGE);
        let next = records.last().filter(|_| !is_last).map(|last| RecordCursor(place(last)));
        Ok(RecordPage { records: records.into_iter().cloned().collect(), next })
    }

    async fn set(&self, _context: &Context, records: &RecordSet) -> Result<()> {
        let key = (records.host.clone(), records.record_type);
        self.answering("dns.set")?.records.insert(key, records.clone());
        Ok(())
    }

    async fn remove(&self, _context: &Context, host: &Host, record_type: RecordType) -> Result<()> {
        self.answering("dns.remove")?.records.remove(&(host.clone(), record_type));
        Ok(())
    }
}
