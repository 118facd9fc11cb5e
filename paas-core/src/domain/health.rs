//! How the platform decides that a program is up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What is asked of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum HealthCheckKind {
    /// `GET path` on the app's port.
    Http {
        /// The path, starting with `/`.
        path: String,
        /// The one status that counts; any below 500 when it is not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
    },
    /// The port accepts a connection.
    Tcp,
}

/// When an instance counts as healthy.
///
/// The first probe comes at once, the next after 10 ms, doubling up to a second: a program that is ready in
/// a millisecond is found in a millisecond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked.
    #[serde(default)]
    pub check: HealthCheckKind,
    /// How long one probe may take.
    #[serde(default = "HealthCheck::default_timeout_seconds")]
    pub timeout_seconds: u32,
    /// How long an instance may take to become healthy.
    #[serde(default = "HealthCheck::default_grace_seconds")]
    pub grace_seconds: u32,
}

impl Default for HealthCheckKind {
    fn default() -> Self {
        Self::Http { path: "/".to_owned(), status: None }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            check: HealthCheckKind::default(),
            timeout_seconds: Self::default_timeout_seconds(),
            grace_seconds: Self::default_grace_seconds(),
        }
    }
}

impl HealthCheck {
    const fn default_timeout_seconds() -> u32 {
        5
    }

    const fn default_grace_seconds() -> u32 {
        60
    }

    /// How long one probe may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.into())
    }

    /// How long an instance may take to become healthy.
    #[must_use]
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds.into())
    }

    /// Checks the values that came from outside.
    ///
    /// # Errors
    /// `Invalid`, naming the value.
    pub fn validate(&self) -> Result<()> {
        let invalid = |message: &str| Err(Error::invalid("health_check.validate", message));
        if let HealthCheckKind::Http { path, status } = &self.check {
            if !path.starts_with('/')
                || path.len() > 1024
                || !path.bytes().all(|byte| byte.is_ascii_graphic())
            {
                return invalid("the health check's path must start with '/' and hold visible ASCII only");
            }
            if status.is_some_and(|status| !(100..600).contains(&status)) {
                return invalid("the health check's status must be between 100 and 599");
            }
        }
        if !(1..=60).contains(&self.timeout_seconds) {
            return invalid("the health check's timeout must be between 1 and 60 seconds");
        }
        if !(1..=900).contains(&self.grace_seconds) {
            return invalid("the health check's grace must be between 1 and 900 seconds");
        }
        Ok(())
    }
}
