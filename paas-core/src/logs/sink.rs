//! Where an adapter writes log lines, without waiting.

use std::fmt::{self, Debug};
use std::sync::Arc;

use super::{LogSource, LogStream, NewLogLine};

/// Takes lines without blocking: it queues them, or drops and counts them when its queue is full.
pub trait LogWriter: Debug + Send + Sync + 'static {
    /// Takes one line.
    fn write(&self, line: NewLogLine);
}

/// A cheap handle to a [`LogWriter`], or to nowhere.
#[derive(Clone, Default)]
pub struct LogSink(Option<Arc<dyn LogWriter>>);

impl LogSink {
    /// A sink that forgets what it is given.
    #[must_use]
    pub fn discard() -> Self {
        Self(None)
    }

    /// A sink that hands every line to `writer`.
    #[must_use]
    pub fn to(writer: Arc<dyn LogWriter>) -> Self {
        Self(Some(writer))
    }

    /// Writes a line to standard output of `source`.
    pub fn line(&self, source: LogSource, text: String) {
        self.write(NewLogLine {
            at: None,
            source,
            stream: LogStream::Stdout,
            instance: None,
            deployment: None,
            text,
        });
    }

    /// Writes a line.
    pub fn write(&self, line: NewLogLine) {
        if let Some(writer) = &self.0 {
            writer.write(line);
        }
    }
}

impl Debug for LogSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "LogSink" } else { "LogSink(discard)" })
    }
}
