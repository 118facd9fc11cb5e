//! The one error type: what went wrong, whose fault it is, and whether trying again can help.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Shorthand for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong. Frontends map it exhaustively, once, to their own codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// The request itself is malformed or breaks a rule.
    Invalid,
    /// It does not exist, or belongs to another org.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The present state, or a concurrent change, does not allow it.
    Conflict,
    /// Nobody is known to be asking.
    Unauthenticated,
    /// Known, but not allowed.
    PermissionDenied,
    /// Too often; see [`Error::retry`] for when to come back.
    RateLimited,
    /// A part that is needed does not answer now.
    Unavailable,
    /// It took longer than it may.
    Timeout,
    /// This adapter cannot do it at all.
    Unsupported,
    /// The user's build ended with an error.
    BuildFailed,
    /// The program did not start, or did not answer its health check.
    Unhealthy,
    /// Somebody asked for it to stop.
    Cancelled,
    /// A defect of the platform.
    Internal,
}

impl Kind {
    /// The text of it, as its serialised form has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
            Self::BuildFailed => "build_failed",
            Self::Unhealthy => "unhealthy",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The user's code, configuration or request: trying again unchanged fails again.
    User,
    /// This platform or the machine under it.
    Platform,
    /// A git server, registry, package index or DNS provider.
    Upstream,
}

impl Fault {
    /// The text of it, as its serialised form has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Platform => "platform",
            Self::Upstream => "upstream",
        }
    }
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// The same call fails again.
    Permanent,
    /// The same call may succeed, not before `after` where the other side said so.
    Transient {
        /// The earliest time from now that the other side asked for.
        after: Option<Duration>,
    },
    /// It was transient, and somebody has retried already: nobody retries again.
    Exhausted,
}

/// The code of an upstream that is away.
pub(crate) const UNREACHABLE: &str = "unreachable";

/// An error of any operation of the platform.
///
/// `Display` prints only [`message`](Error::message), which is safe to show to users; `Debug` also
/// prints the operation, the context and the chain of causes.
///
/// ```
/// use paas_core::{Error, Fault, Kind};
/// let error = Error::new(Kind::NotFound, "git.resolve", "branch `mian` does not exist")
///     .fault(Fault::User)
///     .hint("the default branch is `main`");
/// assert_eq!(error.to_string(), "branch `mian` does not exist");
/// assert!(!error.is_transient());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    retry: Retry,
    fault: Fault,
    operation: Cow<'static, str>,
    code: Option<Cow<'static, str>>,
    message: String,
    hint: Option<String>,
    context: Vec<(&'static str, String)>,
    evidence: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` in `operation` (`"docker.create_container"`), with a message for users.
    /// Fault and retry follow from the kind until they are set.
    pub fn new(kind: Kind, operation: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let (fault, retry) = match kind {
            Kind::Invalid
            | Kind::NotFound
            | Kind::AlreadyExists
            | Kind::Conflict
            | Kind::Unauthenticated
            | Kind::PermissionDenied
            | Kind::BuildFailed
            | Kind::Unhealthy
            | Kind::Cancelled => (Fault::User, Retry::Permanent),
            Kind::RateLimited => (Fault::Upstream, Retry::Transient { after: None }),
            Kind::Unavailable | Kind::Timeout => (Fault::Platform, Retry::Transient { after: None }),
            Kind::Unsupported | Kind::Internal => (Fault::Platform, Retry::Permanent),
        };
        Self(Box::new(Inner {
            kind,
            retry,
            fault,
            operation: operation.into(),
            code: None,
            message: message.into(),
            hint: None,
            context: Vec::new(),
            evidence: Vec::new(),
            source: None,
        }))
    }

    /// A user's mistake: [`Kind::Invalid`].
    pub fn invalid(operation: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, operation, message)
    }

    /// Something that is not there, or not theirs: the message says no more than that.
    pub fn not_found(operation: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, operation, message)
    }

    /// A defect of the platform: the message stays general, `source` says what happened.
    pub fn internal(
        operation: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::new(Kind::Internal, operation, "an internal error occurred").source(source)
    }

    /// Something upstream (a git server, a registry, a DNS provider) can't be reached, or says that it is out of order:
    /// it may be back in half an hour. An operation waits for it until its deadline.
    pub fn unreachable(operation: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, operation, message).fault(Fault::Upstream).code(UNREACHABLE)
    }

    /// The call was cancelled and has cleaned up behind itself.
    pub fn cancelled(operation: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Cancelled, operation, "cancelled")
    }

    /// Says whose fault it is.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.0.fault = fault;
        self
    }

    /// Says whether trying again can help.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// A machine-readable reason within the kind, such as `egress_denied` or `too_large`.
    #[must_use]
    pub fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// A fact for the operator's log; never shown to users.
    #[must_use]
    pub fn context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// The last log lines before the failure, oldest first; at most [`Failure::EVIDENCE_LINES`] are kept, and of
    /// each at most [`Failure::EVIDENCE_LINE_BYTES`].
    #[must_use]
    pub fn evidence(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        let mut last = VecDeque::with_capacity(Failure::EVIDENCE_LINES);
        for mut line in lines {
            if last.len() == Failure::EVIDENCE_LINES {
                last.pop_front();
            }
            let end = (0..=line.len().min(Failure::EVIDENCE_LINE_BYTES))
                .rev()
                .find(|&at| line.is_char_boundary(at));
            line.truncate(end.unwrap_or_default());
            last.push_back(line);
        }
        self.0.evidence = last.into();
        self
    }

    /// The cause, printed by `Debug` only.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whose fault it is.
    pub fn whose(&self) -> Fault {
        self.0.fault
    }

    /// Whether trying again can help.
    pub fn retryable(&self) -> Retry {
        self.0.retry
    }

    /// True if the same call may succeed later and nobody has given up on it.
    pub fn is_transient(&self) -> bool {
        matches!(self.0.retry, Retry::Transient { .. })
    }

    /// The operation that failed, such as `git.fetch`.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The message for users.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The machine-readable reason, where there is one.
    pub fn reason(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// What the reader can do about it.
    pub fn hinted(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The last log lines before the failure.
    pub fn evidence_lines(&self) -> &[String] {
        &self.0.evidence
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        write!(
            formatter,
            "{:?} in {} ({:?}, {:?}): {}",
            inner.kind, inner.operation, inner.fault, inner.retry, inner.message
        )?;
        for (key, value) in &inner.context {
            write!(formatter, "; {key}={value}")?;
        }
        let mut cause = inner.source.as_deref().map(|source| source as &dyn std::error::Error);
        while let Some(error) = cause {
            write!(formatter, "; caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// Names the operation of a foreign error that nothing better is known of: an internal error.
///
/// ```
/// # use paas_core::error;
/// let parsed: Result<u8, _> = "x".parse::<u8>().map_err(error::map("config.parse"));
/// assert_eq!(parsed.unwrap_err().operation(), "config.parse");
/// ```
pub fn map<E>(operation: &'static str) -> impl FnOnce(E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| Error::internal(operation, source)
}

/// An [`Error`] as the journal keeps it and the API shows it: nothing internal is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind.
    pub kind: Kind,
    /// Whose fault it is.
    pub fault: Fault,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The operation that failed, such as `git.fetch`.
    pub operation: String,
    /// A machine-readable reason within the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What happened, for people.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The last log lines before it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

impl Failure {
    /// How many log lines a failure carries at most: enough to see a stack trace's end.
    pub const EVIDENCE_LINES: usize = 20;
    /// How many bytes of each: a failure is part of a journal event, which is bounded.
    pub const EVIDENCE_LINE_BYTES: usize = 4096;
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            fault: error.whose(),
            retryable: error.is_transient(),
            operation: error.operation().to_owned(),
            code: error.reason().map(str::to_owned),
            message: error.message().to_owned(),
            hint: error.hinted().map(str::to_owned),
            evidence: error.evidence_lines().to_vec(),
        }
    }
}

impl From<&Failure> for Error {
    fn from(failure: &Failure) -> Self {
        let mut error = Self::new(failure.kind, failure.operation.clone(), failure.message.clone())
            .fault(failure.fault)
            .retry(if failure.retryable { Retry::Transient { after: None } } else { Retry::Permanent })
            .evidence(failure.evidence.iter().cloned());
        error.0.hint.clone_from(&failure.hint);
        error.0.code = failure.code.clone().map(Cow::Owned);
        error
    }
}
