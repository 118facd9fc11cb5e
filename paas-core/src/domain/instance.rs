//! Instances: containers of a release.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AppId, DeploymentId, OrgId};
use crate::error::{Error, Result};

/// The name of an instance, derived from the operation that makes it: whoever repeats the step after a crash
/// finds what the first try made.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceName(Arc<str>);

impl InstanceName {
    /// The name that the operation wants, or its `fallback`th substitute when something foreign has that name.
    #[must_use]
    pub fn of(deployment: &DeploymentId, fallback: u32) -> Self {
        if fallback == 0 {
            Self(format!("paas-{}", deployment.suffix()).into())
        } else {
            Self(format!("paas-{}-{fallback}", deployment.suffix()).into())
        }
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Only what [`of`](InstanceName::of) makes.
impl TryFrom<String> for InstanceName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let rest = text.strip_prefix("paas-").unwrap_or_default();
        let is_part = |part: &str| {
            !part.is_empty()
                && part.len() <= 32
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let (suffix, fallback) =
            rest.split_once('-').map_or((rest, None), |(suffix, fallback)| (suffix, Some(fallback)));
        if is_part(suffix) && fallback.is_none_or(|fallback| fallback.parse::<u32>().is_ok()) {
            return Ok(Self(text.into()));
        }
        Err(Error::invalid("instance_name.parse", "this is not the name of an instance"))
    }
}

impl From<InstanceName> for String {
    fn from(name: InstanceName) -> Self {
        name.0.to_string()
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for InstanceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What an instance was seen doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InstanceState {
    /// Its process runs.
    Running,
    /// Its process ended, or is being restarted by the engine after it ended.
    Exited {
        /// The exit code of the last run.
        code: i64,
        /// True if the kernel ended it for using more memory than it may.
        out_of_memory: bool,
    },
    /// Its process runs, but not on its org's network: nothing reaches it.
    CutOff,
}

/// An instance as it was observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name.
    pub name: InstanceName,
    /// Whose it is.
    pub org: OrgId,
    /// Which app it runs.
    pub app: AppId,
    /// Which operation made it.
    pub deployment: DeploymentId,
    /// Where it answers: the address and the app's port.
    pub address: SocketAddr,
    /// What it was seen doing.
    pub state: InstanceState,
    /// When its process last started.
    pub started_at: Option<Timestamp>,
    /// How often its process was restarted after it ended.
    pub restarts: u32,
}

impl Instance {
    /// True if its process runs and can be reached.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == InstanceState::Running
    }
}
