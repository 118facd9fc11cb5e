//! What goes wrong between here and a git server, in the platform's terms.

use std::io;
use std::time::Duration;

use paas_core::{Error, Fault, Kind, Retry};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The code of what a server sent, and nobody can read. Sometimes it is the mirror that is at fault.
pub(crate) const UNREADABLE: &str = "unreadable_pack";
/// What is said of a file past the limit.
pub(crate) const LARGE_FILE: &str = "a file of it is larger than the platform takes";

/// A cause that is the adapter's own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("the connection failed: {0}")]
    Connection(String),
    #[error("git: {0}")]
    Git(String),
}

/// git hosts answer alike whether a repository is missing or hidden, so the same is said of both.
pub(crate) fn repository_not_found(operation: &'static str) -> Error {
    Error::not_found(operation, "there is no such repository, or not with this token")
        .code("repository_not_found")
        .hint("check the address, and the token of a private repository")
}

pub(crate) fn commit_not_found(operation: &'static str, commit: &str) -> Error {
    Error::not_found(operation, format!("there is no commit {commit} in the repository"))
        .code("commit_not_found")
        .hint("push the commit, or deploy a branch")
}

pub(crate) fn timeout(operation: &'static str) -> Error {
    Error::new(Kind::Timeout, operation, "the git server took longer than it may")
        .code("clone_timeout")
        .fault(Fault::Upstream)
}

pub(crate) fn too_large(operation: &'static str, what: &str) -> Error {
    Error::invalid(operation, format!("the repository is too large: {what}"))
        .code("too_large")
        .hint("remove large files from the commit")
}

pub(crate) fn denied(operation: &'static str) -> Error {
    Error::new(Kind::PermissionDenied, operation, "this address is not reachable from the platform")
        .code("egress_denied")
        .hint("private and local addresses are refused unless the operator allows the host")
}

/// Nobody knows the host of the address.
pub(crate) fn host_not_found(operation: &'static str) -> Error {
    Error::not_found(operation, "there is no host of that name")
        .code("host_not_found")
        .hint("check the address of the repository")
}

pub(crate) fn unavailable(operation: &'static str, message: &str, cause: Cause) -> Error {
    Error::new(Kind::Unavailable, operation, message).fault(Fault::Upstream).source(cause)
}

/// Time was over before anything was asked of a server: others were at work.
pub(crate) fn busy(operation: &'static str) -> Error {
    Error::new(Kind::Timeout, operation, "other fetches took longer than this one could wait")
        .code("git_busy")
}

/// A file-system error of the mirrors' directory.
pub(crate) fn disk(operation: &'static str, error: io::Error) -> Error {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let described = Error::new(Kind::Unavailable, operation, "the platform could not store the repository");
    let described = if is_full {
        described.code("storage_full").hint("free space on the platform's disk")
    } else {
        described
    };
    described.source(error)
}

/// What of gix's error the operating system said. It is this machine that is at fault, not what was read.
pub(crate) fn of_this_machine(error: &gix::Error) -> Option<io::Error> {
    error
        .iter_errors()
        .filter_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
        .map(io::Error::from_raw_os_error)
        .next()
}

/// What a status other than success means.
pub(crate) fn from_status(operation: &'static str, status: StatusCode, headers: &HeaderMap) -> Error {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let after = seconds.map(Duration::from_secs);
    let is_limited =
        status == StatusCode::TOO_MANY_REQUESTS || (status == StatusCode::FORBIDDEN && after.is_some());
    if is_limited {
        return Error::new(Kind::RateLimited, operation, "the git server asks to come back later")
            .retry(Retry::Transient { after })
            .source(Cause::Status(status));
    }
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE => {
            repository_not_found(operation).source(Cause::Status(status))
        }
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            Error::unreachable(operation, "the git server has a problem")
                .retry(Retry::Transient { after })
                .source(Cause::Status(status))
        }
        status => unavailable(operation, "the git server refused the request", Cause::Status(status))
            .retry(Retry::Permanent),
    }
}

/// What a failed connection means. The chain of causes holds what the resolver refused, if it did.
pub(crate) fn from_connection(operation: &'static str, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        match error.downcast_ref::<Error>().and_then(Error::reason) {
            Some("egress_denied") => return denied(operation),
            Some("host_not_found") => return host_not_found(operation),
            _ => {}
        }
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.contains("certificate") {
        let message = "the git server's certificate is not trusted";
        return unavailable(operation, message, Cause::Connection(text))
            .retry(Retry::Permanent)
            .hint("the operator can add a certificate authority");
    }
    let message = if error.is_connect() {
        "the git server cannot be reached"
    } else {
        "the connection to the git server broke"
    };
    Error::unreachable(operation, message).source(Cause::Connection(text))
}

/// What gix's error means where nobody noted a better reason.
pub(crate) fn from_gix(operation: &'static str, error: gix::Error) -> Error {
    let cause = Cause::Git(format!("{error:?}"));
    if let Some(error) = of_this_machine(&error) {
        return disk(operation, error);
    }
    if error.is_resource_exhausted() {
        return too_large(operation, LARGE_FILE).source(cause);
    }
    unavailable(operation, "the git server gave an answer that cannot be used", cause)
}

/// What it means that a pack could not be stored where nobody noted a better reason.
pub(crate) fn from_pack(operation: &'static str, error: gix::Error) -> Error {
    let is_cut = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    let is_cut = error.iter_errors().any(|error| error.downcast_ref().is_some_and(is_cut));
    let described = from_gix(operation, error);
    match described.whose() {
        Fault::Upstream if !is_cut => described.code(UNREADABLE),
        _ => described,
    }
}
