//! Log lines: where they go while something runs, and how they are read afterwards.

mod sink;
mod store;

pub use sink::{LogSink, LogWriter};
#[cfg(feature = "mock")]
pub use store::MockLogStore;
pub use store::{Followed, LogDirection, LogPage, LogQuery, LogStore, LogStoreExt, follow_logs};

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

    /// The line as a store keeps it behind the line `last` (its time and number), for those who implement one.
    ///
    /// Its time is that of the engine (not later than `now`, nor before 1970) or `now`, and strictly later than the
    /// last one's. Line ends become visible
    /// escapes; a text that is too long is cut and says so.
    #[must_use]
    pub fn into_stored(self, last: Option<(Timestamp, u64)>, now: Timestamp) -> LogLine {
        let at = self.at.unwrap_or(now).min(now).max(Timestamp::UNIX_EPOCH);
        let (at, sequence) = match last {
            None => (at, 1),
            Some((last, number)) => {
                let next = last.checked_add(jiff::SignedDuration::from_nanos(1)).unwrap_or(last);
                (at.max(next), number + 1)
            }
        };
        LogLine {
            at,
            sequence,
            source: self.source,
            stream: self.stream,
            instance: self.instance,
            deployment: self.deployment,
            text: bounded(escaped(self.text)),
        }
    }
}

fn escaped(text: String) -> String {
    if text.contains(['\n', '\r']) { text.replace('\n', "\\n").replace('\r', "\\r") } else { text }
}

fn bounded(mut text: String) -> String {
    if text.len() > NewLogLine::MAX_TEXT_BYTES {
        let mark = format!("… [cut: {} bytes in all]", text.len());
        let end = (0..=NewLogLine::MAX_TEXT_BYTES - mark.len()).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push_str(&mark);
        text.shrink_to_fit();
    }
    text
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
