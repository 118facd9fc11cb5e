//! What a container may use.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A TCP port other than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Port(u16);

impl Port {
    /// What `$PORT` says when neither the app, the plan nor the image names a port.
    pub const DEFAULT: Self = Self(8080);

    /// The number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u32> for Port {
    type Error = Error;

    fn try_from(number: u32) -> Result<Self> {
        match u16::try_from(number) {
            Ok(number) if number > 0 => Ok(Self(number)),
            _ => Err(Error::invalid("port.parse", "a port is a number between 1 and 65535")),
        }
    }
}

impl From<Port> for u32 {
    fn from(port: Port) -> Self {
        port.0.into()
    }
}

/// What a container may use of the machine. The defaults are the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Memory in bytes; swap is not added to it.
    pub memory_bytes: u64,
    /// CPU time in thousandths of a core.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
}

impl Default for Resources {
    fn default() -> Self {
        Self { memory_bytes: 512 * 1024 * 1024, cpu_millis: 1000, pids: 256 }
    }
}

impl Resources {
    /// Checks the values that came from outside.
    ///
    /// # Errors
    /// `Invalid`, naming the value.
    pub fn validate(&self) -> Result<()> {
        let invalid = |message: &str| Err(Error::invalid("resources.validate", message));
        // The engine itself refuses less than 6 MiB; more than 1 TiB is a mistake in the unit.
        if !(16 * 1024 * 1024..=1024 * 1024 * 1024 * 1024).contains(&self.memory_bytes) {
            return invalid("memory must be between 16 MiB and 1 TiB");
        }
        if !(10..=256_000).contains(&self.cpu_millis) {
            return invalid("CPU must be between 10 and 256000 thousandths of a core");
        }
        if !(8..=65_536).contains(&self.pids) {
            return invalid("the number of processes must be between 8 and 65536");
        }
        Ok(())
    }
}
