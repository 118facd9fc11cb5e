//! The trait of DNS services.

use std::collections::BTreeSet;
use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::domain::Host;
use crate::error::{Error, Kind, Result};

/// The type of a DNS record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordType {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Another name.
    Cname,
    /// Text.
    Txt,
}

/// All records of one name and type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSet {
    /// The name.
    pub host: Host,
    /// The type.
    pub record_type: RecordType,
    /// The values, in the notation of zone files.
    pub values: BTreeSet<String>,
    /// How long resolvers may keep it, in seconds.
    pub ttl_seconds: u32,
}

/// Where a page of records begins, in the service's own words; the default is the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordCursor(pub String);

/// Some of the records in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordPage {
    /// The sets, in no order, each whole.
    pub records: Vec<RecordSet>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<RecordCursor>,
}

/// Says where a name points. Which instances answer there is the ingress's business.
///
/// # Flow
/// A deployment asks what is `desired`, sets it and reads it back. Every [`dns_look`](crate::Settings::dns_look) all
/// records are listed; only those of hosts where something is wrong are then read and set one by one.
///
/// # Guarantees
/// `set` makes the whole set exactly this; repeating it changes nothing. `remove` of what is absent succeeds.
/// `get` answers what is in force: what was set is read back.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait DnsService: Debug + Send + Sync + 'static {
    /// The records that an app's host needs so that it reaches the ingress; none where every name already does.
    async fn desired(&self, context: &Context, host: &Host) -> Result<Vec<RecordSet>>;

    /// The set in force.
    async fn get(&self, context: &Context, host: &Host, record_type: RecordType)
    -> Result<Option<RecordSet>>;

    /// Every set in force, also those that are not the platform's, a page at a time: one call of the provider each, of as
    /// many records as it gives at once. A set that is in force all the while is in one of the pages.
    ///
    /// # Errors
    /// `Unsupported` where records can't be listed: then nobody sees to those that somebody else changes.
    async fn list(&self, context: &Context, from: &RecordCursor) -> Result<RecordPage>;

    /// Makes the set in force exactly this.
    async fn set(&self, context: &Context, records: &RecordSet) -> Result<()>;

    /// Removes the set.
    async fn remove(&self, context: &Context, host: &Host, record_type: RecordType) -> Result<()>;
}

/// The default service: it has no zone, because every name already reaches the ingress (`*.localhost`, or a wildcard
/// record that the operator set once).
///
/// It desires no records and has none; `list` and `set` are `Unsupported`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TransparentDns;

#[async_trait]
impl DnsService for TransparentDns {
    async fn desired(&self, _context: &Context, _host: &Host) -> Result<Vec<RecordSet>> {
        Ok(Vec::new())
    }

    async fn get(
        &self,
        _context: &Context,
        _host: &Host,
        _record_type: RecordType,
    ) -> Result<Option<RecordSet>> {
        Ok(None)
    }

    async fn list(&self, _context: &Context, _from: &RecordCursor) -> Result<RecordPage> {
        Err(no_zone("dns.list"))
    }

    async fn set(&self, _context: &Context, _records: &RecordSet) -> Result<()> {
        Err(no_zone("dns.set"))
    }

    async fn remove(&self, _context: &Context, _host: &Host, _record_type: RecordType) -> Result<()> {
        Ok(())
    }
}

fn no_zone(operation: &'static str) -> Error {
    Error::new(Kind::Unsupported, operation, "this installation manages no DNS zone")
        .hint("set a wildcard record for the domain, or configure a DNS provider")
}
