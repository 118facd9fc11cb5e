//! Environment variables.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Secret;
use crate::error::{Error, Result};

/// The name of an environment variable: `[A-Za-z_][A-Za-z0-9_]*`, at most 256 characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvName(String);

impl EnvName {
    /// The longest name.
    pub const MAX_LENGTH: usize = 256;

    /// The text of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnvName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // Somebody may have typed `NAME=value`: the value is not repeated.
        let shown: String = text.chars().take_while(|c| *c != '=').take(64).collect();
        let first_is_digit = text.starts_with(|first: char| first.is_ascii_digit());
        if text.is_empty() || text.len() > Self::MAX_LENGTH {
            return Err(Error::invalid(
                "env_name.parse",
                "the name of an environment variable has 1 to 256 characters",
            ));
        }
        if first_is_digit || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Error::invalid(
                "env_name.parse",
                format!("{shown:?} is not the name of an environment variable"),
            )
            .hint("use letters, digits and '_', not starting with a digit"));
        }
        if text == "PORT" {
            return Err(Error::invalid("env_name.parse", "PORT is set by the platform")
                .hint("set the app's `port` instead"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for EnvName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<EnvName> for String {
    fn from(name: EnvName) -> Self {
        name.0
    }
}

impl fmt::Display for EnvName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for EnvName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The environment variables of an app. Every value counts as a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Env {
    variables: BTreeMap<EnvName, Secret>,
    /// All names and values together, as they are stored.
    bytes: usize,
}

impl Env {
    /// The most variables one app can have.
    pub const MAX_VARIABLES: usize = 1000;
    /// The longest value, in bytes.
    pub const MAX_VALUE_BYTES: usize = 32 * 1024;
    /// All names and values together, in bytes: sealed they must fit in a record, and a program can't be started
    /// with much more. Quotes, backslashes and control characters count as what they become in the record.
    pub const MAX_TOTAL_BYTES: usize = 256 * 1024;

    /// Sets one variable.
    ///
    /// # Errors
    /// `Invalid` when the value has a NUL or is too long, or when there are too many variables or bytes in all.
    pub fn set(&mut self, name: EnvName, value: Secret) -> Result<()> {
        let text = value.expose();
        if text.contains('\0') || text.len() > Self::MAX_VALUE_BYTES {
            return Err(Error::invalid(
                "env.set",
                format!("the value of {name} has a NUL character or is longer than 32 KiB"),
            ));
        }
        if self.variables.len() >= Self::MAX_VARIABLES && !self.variables.contains_key(&name) {
            return Err(Error::invalid("env.set", "an app has at most 1000 environment variables"));
        }
        let bytes = self.bytes - self.bytes_of(&name) + name.as_str().len() + stored_bytes(text);
        if bytes > Self::MAX_TOTAL_BYTES {
            return Err(Error::invalid(
                "env.set",
                "the environment variables have more than 256 KiB together",
            ));
        }
        self.bytes = bytes;
        self.variables.insert(name, value);
        Ok(())
    }

    /// Removes one variable, if it is there.
    pub fn remove(&mut self, name: &EnvName) {
        self.bytes -= self.bytes_of(name);
        self.variables.remove(name);
    }

    fn bytes_of(&self, name: &EnvName) -> usize {
        self.variables.get(name).map_or(0, |value| name.as_str().len() + stored_bytes(value.expose()))
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &EnvName> {
        self.variables.keys()
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&EnvName, &Secret)> {
        self.variables.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.variables.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }
}

/// The length of a value in JSON, in which it is sealed.
fn stored_bytes(value: &str) -> usize {
    let stored = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    value.bytes().map(stored).sum()
}
