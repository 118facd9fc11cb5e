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

/// Says where a name points. Which instances answer there is the ingress's business.
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

    /// Makes the set in force exactly this.
    async fn set(&self, context: &Context, records: &RecordSet) -> Result<()>;

    /// Removes the set.
    async fn remove(&self, context: &Context, host: &Host, record_type: RecordType) -> Result<()>;
}

/// The default service: it has no zone, because every name already reaches the ingress (`*.localhost`, or a wildcard
/// record that the operator set once).
///
/// It desires no records and has none; `set` is `Unsupported`.
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

    async fn set(&self, _context: &Context, _records: &RecordSet) -> Result<()> {
        Err(Error::new(Kind::Unsupported, "dns.set", "this installation manages no DNS zone")
            .hint("set a wildcard record for the domain, or configure a DNS provider"))
    }

    async fn remove(&self, _context: &Context, _host: &Host, _record_type: RecordType) -> Result<()> {
        Ok(())
    }
}
