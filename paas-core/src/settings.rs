//! What an operator can set. The defaults are the contract's.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::domain::{EgressPolicy, Host};
use crate::error::{Error, Result};
use crate::image::BuildLimits;
use crate::pipeline::RetryPolicy;
use crate::runtime::Subnet;

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Below which domain apps get their hosts: `{app}.{domain}`.
    pub domain: Host,
    /// Which private hosts repositories may be fetched from.
    pub egress: EgressPolicy,
    /// Where orgs' subnets are taken from.
    pub address_pool: AddressPool,
    /// How long a freed address rests before it is given again.
    pub address_rest: Duration,
    /// How many builds run at once.
    pub build_slots: usize,
    /// How many operations are under way at once, builds not counted.
    pub operation_slots: usize,
    /// How many operations of one app may wait.
    pub queue_limit: usize,
    /// What a build may use.
    pub build_limits: BuildLimits,
    /// How failures are retried.
    pub retry: RetryPolicy,
    /// How long a lease lasts unless it is renewed.
    pub lease: Duration,
    /// How often leases are renewed.
    pub lease_renewal: Duration,
    /// How many images of an app are kept: those of its newest releases.
    pub images_kept: usize,
    /// How many bytes builds may keep to be faster the next time.
    pub build_cache_bytes: u64,
    /// How often all DNS records are listed and compared with those that apps need: as often as the provider may be asked for
    /// every page of them. What somebody else changed there is put right so long after it, at the latest.
    pub dns_look: Duration,
    /// How long requests to a retired instance get to end.
    pub drain: Duration,
    /// How long a process gets to end after SIGTERM.
    pub stop_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // `localhost` is a host name.
        #[allow(clippy::expect_used)]
        let domain = "localhost".parse().expect("a valid host");
        Self {
            domain,
            egress: EgressPolicy::default(),
            address_pool: AddressPool::default(),
            address_rest: Duration::from_secs(60),
            build_slots: (cores / 2).max(1),
            operation_slots: 256,
            queue_limit: 32,
            build_limits: BuildLimits::default(),
            retry: RetryPolicy::default(),
            lease: Duration::from_secs(15),
            lease_renewal: Duration::from_secs(5),
            images_kept: 5,
            build_cache_bytes: 10 * 1024 * 1024 * 1024,
            dns_look: Duration::from_secs(20),
            drain: Duration::from_secs(30),
            stop_grace: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// The longest of any of the times.
    const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    /// Checks what can be set wrong: nothing may wait for ever or never.
    ///
    /// # Errors
    /// `Invalid`, naming the setting.
    pub fn validate(&self) -> Result<()> {
        let invalid = |setting: &str, rule: &str| {
            Err(Error::invalid("settings.validate", format!("the setting {setting} {rule}")))
        };
        let counts = [
            ("build_slots", self.build_slots),
            ("operation_slots", self.operation_slots),
            ("queue_limit", self.queue_limit),
            ("images_kept", self.images_kept),
            ("retry.attempts", self.retry.attempts as usize),
            ("retry.start_attempts", self.retry.start_attempts as usize),
        ];
        if let Some((setting, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return invalid(setting, "must be at least 1");
        }
        let times = [
            ("address_rest", self.address_rest),
            ("build_limits.total", self.build_limits.total),
            ("build_limits.silence", self.build_limits.silence),
            ("retry.deadline", self.retry.deadline),
            ("retry.backoff.max", self.retry.backoff.max),
            ("lease", self.lease),
            ("dns_look", self.dns_look),
            ("drain", self.drain),
            ("stop_grace", self.stop_grace),
        ];
        if let Some((setting, _)) = times.into_iter().find(|(_, time)| *time > Self::LONGEST) {
            return invalid(setting, "must be at most a week");
        }
        if self.dns_look < Duration::from_secs(1) {
            return invalid("dns_look", "must be at least a second");
        }
        // One renewal may fail or be late without the lease being lost.
        if self.lease_renewal.is_zero() || self.lease_renewal * 2 > self.lease {
            return invalid("lease_renewal", "must be more than nothing and at most half of the lease");
        }
        Ok(())
    }
}

/// A private IPv4 range, divided into one subnet an org.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// The first address.
    address: Ipv4Addr,
    /// How many leading bits are fixed.
    prefix: u8,
    /// How many leading bits an org's subnet fixes.
    subnet_prefix: u8,
}

impl Default for AddressPool {
    /// `10.181.0.0/16` in subnets of 254 addresses: outside the ranges that the Docker engine takes for itself.
    fn default() -> Self {
        Self { address: Ipv4Addr::new(10, 181, 0, 0), prefix: 16, subnet_prefix: 24 }
    }
}

impl AddressPool {
    /// A pool at `address` with `prefix` fixed bits, in subnets with `subnet_prefix` fixed bits.
    ///
    /// # Errors
    /// `Invalid` unless the subnets are smaller than the pool and hold at least 14 addresses, and the address is
    /// the range's first.
    pub fn new(address: Ipv4Addr, prefix: u8, subnet_prefix: u8) -> Result<Self> {
        let is_valid = (8..=subnet_prefix).contains(&prefix) && subnet_prefix <= 28;
        if !is_valid || u32::from(address) & (u32::MAX >> prefix) != 0 {
            return Err(Error::invalid("address_pool.new", "the address pool is not a range of subnets")
                .hint("give its first address, such as 10.181.0.0, a prefix such as 16, and a larger one for subnets"));
        }
        Ok(Self { address, prefix, subnet_prefix })
    }

    /// How many subnets it has.
    #[must_use]
    pub fn subnets(&self) -> u32 {
        1 << (self.subnet_prefix - self.prefix)
    }

    /// The subnet of this number; `None` behind the last.
    #[must_use]
    pub fn subnet(&self, number: u32) -> Option<Subnet> {
        (number < self.subnets()).then(|| Subnet {
            address: Ipv4Addr::from(u32::from(self.address) + (number << (32 - self.subnet_prefix))),
            prefix: self.subnet_prefix,
        })
    }
}

impl Subnet {
    /// The addresses for instances: all but the network's own, the gateway's (the first) and the broadcast address.
    pub fn hosts(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let first = u32::from(self.address);
        let size = 1_u32 << (32 - u32::from(self.prefix));
        (first + 2..first + size - 1).map(Ipv4Addr::from)
    }
}
