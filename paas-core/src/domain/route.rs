//! Routes: which instances answer for a host.

use std::borrow::Borrow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AppId, AppName, InstanceName};
use crate::error::{Error, Result};

/// A host name in lower case, without a port and without a trailing dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(Arc<str>);

impl Host {
    /// The host of an app under the installation's domain.
    ///
    /// # Errors
    /// `Invalid` when both together are longer than a host name may be.
    pub fn of_app(name: &AppName, domain: &Self) -> Result<Self> {
        format!("{name}.{domain}").parse()
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A map of hosts can be asked with text, without making a `Host` of it first.
impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        // One dot at the end marks the root.
        let text = text.strip_suffix('.').unwrap_or(text);
        // The last label of a name is not a number, decimal or hexadecimal: `1.2.3.4` and `0x7f000001` are addresses.
        let is_number = |label: &str| {
            let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
            label.bytes().all(|byte| byte.is_ascii_digit())
                || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        let is_address = text.rsplit('.').next().is_some_and(is_number);
        if text.len() > 253 || is_address || !text.split('.').all(is_label) {
            return Err(Error::invalid("host.parse", "this is not a host name"));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

impl TryFrom<String> for Host {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0.to_string()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Orders all changes of routes: the position, in the store's feed, of the journal event that decided the change.
///
/// Positions only grow, so a later decision always has a later generation, also across crashes and servers,
/// and a repeated step publishes with the generation that it had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// One instance behind a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTarget {
    /// The instance.
    pub instance: InstanceName,
    /// Where it answers.
    pub address: SocketAddr,
}

/// Which instances answer for a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The host.
    pub host: Host,
    /// The app behind it.
    pub app: AppId,
    /// The instances of the live release; with none the proxy answers that the app is stopped.
    pub targets: Vec<RouteTarget>,
}
