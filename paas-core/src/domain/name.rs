//! App names.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Names that would shadow the platform's own hosts, or that people trust.
const RESERVED: &[&str] = &[
    "admin",
    "api",
    "app",
    "apps",
    "auth",
    "console",
    "dashboard",
    "docs",
    "health",
    "localhost",
    "login",
    "mail",
    "metrics",
    "ns",
    "ns1",
    "ns2",
    "paas",
    "proxy",
    "root",
    "smtp",
    "status",
    "support",
    "system",
    "www",
];

/// The name of an app: a DNS label, unique in the whole installation, since it becomes a host name.
///
/// 1 to 63 of `a-z`, `0-9` and `-`, starting with a letter and not ending with `-` (RFC 1035), without
/// `--` in the third and fourth place (RFC 5891 keeps those for encoded names), and not a reserved word.
///
/// ```
/// use paas_core::AppName;
/// assert!("hello-world".parse::<AppName>().is_ok());
/// assert!("Hello".parse::<AppName>().is_err());
/// assert!("admin".parse::<AppName>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppName(Arc<str>);

impl AppName {
    /// The longest name: a DNS label's limit.
    pub const MAX_LENGTH: usize = 63;

    /// The text of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |message: &str| {
            Error::invalid("app_name.parse", message)
                .hint("use 1 to 63 of a-z, 0-9 and '-', starting with a letter and not ending with '-'")
        };
        if text.is_empty() {
            return Err(invalid("the name is empty"));
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(invalid("the name is longer than 63 characters"));
        }
        let bytes = text.as_bytes();
        if !bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-') {
            return Err(invalid("the name has a character that a host name may not have"));
        }
        if !bytes[0].is_ascii_lowercase() || text.ends_with('-') {
            return Err(invalid("the name must start with a letter and may not end with '-'"));
        }
        if text.get(2..4) == Some("--") {
            return Err(invalid("names with '--' in the third place are kept for encoded names"));
        }
        if RESERVED.contains(&text) {
            return Err(Error::invalid("app_name.parse", "the name is reserved").hint("choose another name"));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for AppName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<AppName> for String {
    fn from(name: AppName) -> Self {
        name.0.to_string()
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for AppName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
