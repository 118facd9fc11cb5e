//! Which hosts the platform may call on behalf of a user.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::GitUrl;
use crate::error::{Error, Kind, Result};

/// Which hosts the platform may call on behalf of a user: public addresses over `https`, and what the operator adds.
///
/// Guards against requests into the operator's own network: loopback, private, link-local (the cloud's metadata
/// address among them), shared, multicast and reserved ranges, in IPv4, IPv6 and IPv4 inside IPv6.
///
/// ```
/// use paas_core::{EgressPolicy, GitUrl};
/// let policy = EgressPolicy::default();
/// let url: GitUrl = "https://127.0.0.1/team/app.git".parse().unwrap();
/// assert!(policy.check_url(&url).is_err());
/// assert!(policy.allowing("127.0.0.1").check_url(&url).is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressPolicy {
    /// Hosts (`git.lan`) or hosts with a port (`127.0.0.1:3000`) that may be private and may use plain `http`.
    #[serde(default)]
    pub allowed_hosts: BTreeSet<String>,
}

impl EgressPolicy {
    /// Also allows a host, or a host with a port.
    #[must_use]
    pub fn allowing(mut self, host: impl Into<String>) -> Self {
        self.allowed_hosts.insert(host.into());
        self
    }

    /// True if the operator listed the URL's host, with its port or without one.
    pub fn is_listed(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        let host_and_port = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
        // A parsed URL has its host in lower case; the operator may have written it otherwise.
        let is_it = |listed: &String| {
            listed.eq_ignore_ascii_case(host) || listed.eq_ignore_ascii_case(&host_and_port)
        };
        !host.is_empty() && self.allowed_hosts.iter().any(is_it)
    }

    /// Checks a URL as it stands, before any name is looked up.
    ///
    /// # Errors
    /// `PermissionDenied` with the code `egress_denied`, or `Invalid` for plain `http`.
    pub fn check_url(&self, url: &GitUrl) -> Result<()> {
        self.check(&url.to_url())
    }

    /// The same for any URL, such as the target of a redirect.
    ///
    /// # Errors
    /// As [`check_url`](Self::check_url).
    pub fn check(&self, url: &Url) -> Result<()> {
        if self.is_listed(url) {
            return Ok(());
        }
        if url.scheme() != "https" {
            return Err(Error::invalid("egress.check", "only https:// addresses are allowed")
                .hint("the operator can allow a host for plain http"));
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.check_address(address.into()),
            Some(Host::Ipv6(address)) => self.check_address(address.into()),
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                if name == "localhost" || name.ends_with(".localhost") || name.ends_with(".internal") {
                    return Err(denied());
                }
                Ok(())
            }
            None => Err(denied()),
        }
    }

    /// Checks an address that a name resolved to. Hosts that the operator listed are not asked about.
    ///
    /// # Errors
    /// `PermissionDenied` with the code `egress_denied`.
    pub fn check_address(&self, address: IpAddr) -> Result<()> {
        if is_public(address) { Ok(()) } else { Err(denied()) }
    }
}

fn denied() -> Error {
    Error::new(Kind::PermissionDenied, "egress.check", "this address is not reachable from the platform")
        .code("egress_denied")
        .hint("private and local addresses are refused unless the operator allows the host")
}

/// True for globally reachable unicast addresses (the IANA special-purpose registries, RFC 6890 and successors).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            !(a == 0
                || a == 10
                || a == 127
                || (a == 100 && (64..128).contains(&b))
                || (a == 169 && b == 254)
                || (a == 172 && (16..32).contains(&b))
                || (a == 192 && b == 0 && (c == 0 || c == 2))
                || (a == 192 && b == 88 && c == 99)
                || (a == 192 && b == 168)
                || (a == 198 && (b == 18 || b == 19))
                || (a == 198 && b == 51 && c == 100)
                || (a == 203 && b == 0 && c == 113)
                || a >= 224)
        }
        IpAddr::V6(address) => {
            let segments = address.segments();
            if let Some(mapped) = address.to_ipv4_mapped() {
                return is_public(mapped.into());
            }
            let embedded = |high: u16, low: u16| {
                let [a, b] = high.to_be_bytes();
                let [c, d] = low.to_be_bytes();
                IpAddr::V4([a, b, c, d].into())
            };
            match segments {
                // NAT64 and 6to4 carry an IPv4 address, which decides.
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public(embedded(high, low)),
                [0x2002, high, low, ..] => is_public(embedded(high, low)),
                // Protocol assignments (Teredo, benchmarking and ORCHID among them) and documentation.
                [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
                [0x3fff, second, ..] if second < 0x1000 => false,
                // Global unicast is 2000::/3; everything else is local, reserved or multicast.
                [first, ..] => first & 0xe000 == 0x2000,
            }
        }
    }
}
