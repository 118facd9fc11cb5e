//! Calls of adapters.

use super::{Histogram, SECONDS};
use crate::error::{Kind, Result};

/// How long calls of adapters took, by operation (such as `git.fetch`) and outcome.
pub static CALL_DURATION: Histogram<2> = Histogram {
    name: "paas_call_duration_seconds",
    help: "How long calls of adapters took.",
    labels: ["operation", "outcome"],
    bounds: &SECONDS,
};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It answered.
    Ok,
    /// It failed, with an error of this kind.
    Failed(Kind),
    /// Whoever asked let go of it before it ended.
    Dropped,
}

impl Outcome {
    /// The outcome that a result means.
    pub fn of<T>(result: &Result<T>) -> Self {
        result.as_ref().map_or_else(|error| Self::Failed(error.kind()), |_| Self::Ok)
    }

    /// The text of it: `ok`, `dropped`, or the kind's.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed(kind) => kind.as_str(),
            Self::Dropped => "dropped",
        }
    }
}
