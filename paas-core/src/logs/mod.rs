//! Log lines: where they go while something runs, and how they are read afterwards.

mod sink;
mod store;

pub use sink::{LogSink, LogWriter};
#[cfg(feature = "mock")]
pub use store::MockLogStore;
pub use store::{LogDirection, LogPage, LogQuery, LogStore, LogStoreExt, follow_logs};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{DeploymentId, InstanceName};

/// Who wrote a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// A build.
    Build,
    /// The app's own program.
    App,
    /// The platform.
    System,
}

/// Which of its outputs a program wrote to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line on its way to the [`LogStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLogLine {
    /// When it was written, where that is known better than "now": the container engine's time.
    pub at: Option<Timestamp>,
    /// Who wrote it.
    pub source: LogSource,
    /// To which output.
    pub stream: LogStream,
    /// By which instance.
    pub instance: Option<InstanceName>,
    /// In which deployment.
    pub deployment: Option<DeploymentId>,
    /// The text, without its line end.
    pub text: String,
}

impl NewLogLine {
    /// The longest text that is stored, in bytes: longer lines are cut and marked by the store.
    pub const MAX_TEXT_BYTES: usize = 16 * 1024;
}

/// A stored line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its time, strictly increasing within an app: it identifies the line.
    pub at: Timestamp,
    /// Its number within the app, from 1, without gaps.
    pub sequence: u64,
    /// Who wrote it.
    pub source: LogSource,
    /// To which output.
    pub stream: LogStream,
    /// By which instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceName>,
    /// In which deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentId>,
    /// The text.
    pub text: String,
}
