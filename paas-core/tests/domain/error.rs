//! Errors and failures.

use std::time::Duration;

use paas_core::{Error, Failure, Fault, Kind, Retry, error};
use proptest::prelude::*;

const KINDS: [Kind; 14] = [
    Kind::Invalid,
    Kind::NotFound,
    Kind::AlreadyExists,
    Kind::Conflict,
    Kind::Unauthenticated,
    Kind::PermissionDenied,
    Kind::RateLimited,
    Kind::Unavailable,
    Kind::Timeout,
    Kind::Unsupported,
    Kind::BuildFailed,
    Kind::Unhealthy,
    Kind::Cancelled,
    Kind::Internal,
];

#[test]
fn display_shows_the_message_and_nothing_else() {
    let error = Error::new(Kind::Unavailable, "docker.create_container", "the engine does not answer")
        .context("socket", "/run/docker.sock")
        .source(std::io::Error::other("connection refused"))
        .hint("start the engine")
        .evidence(["last line".to_owned()]);
    assert_eq!(error.to_string(), "the engine does not answer");
}

#[test]
fn debug_shows_the_operation_the_context_and_every_cause() {
    let cause = Error::internal("inner.operation", std::io::Error::other("connection refused"));
    let error =
        Error::new(Kind::Unavailable, "docker.ping", "no answer").context("socket", "here").source(cause);
    let printed = format!("{error:?}");
    for part in
        ["Unavailable", "docker.ping", "no answer", "socket=here", "an internal error", "connection refused"]
    {
        assert!(printed.contains(part), "{part:?} is missing in {printed}");
    }
}

#[test]
fn a_failure_has_nothing_internal() {
    let error = Error::internal("docker.ping", std::io::Error::other("hunter2")).context("key", "hunter2");
    let failure = Failure::from(&error);
    for text in [serde_json::to_string(&failure).unwrap(), format!("{failure:?}"), error.to_string()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(failure.message, "an internal error occurred");
}

#[test]
fn a_kind_has_the_same_text_everywhere() {
    for kind in KINDS {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}

#[test]
fn only_what_can_succeed_later_is_transient() {
    let transient: Vec<_> =
        KINDS.into_iter().filter(|kind| Error::new(*kind, "x", "x").is_transient()).collect();
    assert_eq!(transient, [Kind::RateLimited, Kind::Unavailable, Kind::Timeout]);
    let users: Vec<_> =
        KINDS.into_iter().filter(|kind| Error::new(*kind, "x", "x").whose() == Fault::User).collect();
    assert!(users.iter().all(|kind| !transient.contains(kind)), "a user's fault is never retried");
}

#[test]
fn what_was_given_up_on_is_not_retried_again() {
    let error = Error::new(Kind::Unavailable, "x", "x").retry(Retry::Exhausted);
    assert!(!error.is_transient());
    assert!(!Error::from(&Failure::from(&error)).is_transient());
}

#[test]
fn evidence_is_the_last_lines_and_bounded() {
    let lines = (0..1000).map(|line| format!("line {line}"));
    let error = Error::new(Kind::BuildFailed, "image.build", "failed").evidence(lines);
    let kept = error.evidence_lines();
    assert_eq!((kept.len(), kept[0].as_str(), kept[19].as_str()), (20, "line 980", "line 999"));

    let long = Error::new(Kind::BuildFailed, "image.build", "failed").evidence(["ü".repeat(100_000)]);
    assert_eq!(long.evidence_lines()[0].len(), Failure::EVIDENCE_LINE_BYTES);
    let odd = Error::new(Kind::BuildFailed, "image.build", "failed")
        .evidence([format!("a{}", "ü".repeat(100_000))]);
    assert_eq!(odd.evidence_lines()[0].len(), Failure::EVIDENCE_LINE_BYTES - 1, "no character is cut in two");
}

#[test]
fn a_foreign_error_gets_an_operation() {
    let error: Error = "x".parse::<u8>().map_err(error::map("config.parse")).unwrap_err();
    assert_eq!(
        (error.kind(), error.operation(), error.to_string().contains("digit")),
        (Kind::Internal, "config.parse", false)
    );
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("digit"));
}

prop_compose! {
    fn failures()(
        kind in proptest::sample::select(KINDS.to_vec()),
        fault in proptest::sample::select(vec![Fault::User, Fault::Platform, Fault::Upstream]),
        retryable in any::<bool>(),
        operation in "[a-z]{1,9}\\.[a-z_]{1,9}",
        code in proptest::option::of("[a-z_]{1,20}"),
        message in any::<String>(),
        hint in proptest::option::of(any::<String>()),
        evidence in proptest::collection::vec(any::<String>(), 0..Failure::EVIDENCE_LINES),
    ) -> Failure {
        Failure { kind, fault, retryable, operation, code, message, hint, evidence }
    }
}

proptest! {
    #[test]
    fn a_failure_comes_back_from_the_journal_and_from_an_error(failure in failures()) {
        let stored = serde_json::to_vec(&failure).unwrap();
        prop_assert_eq!(&serde_json::from_slice::<Failure>(&stored).unwrap(), &failure);
        prop_assert_eq!(&Failure::from(&Error::from(&failure)), &failure);
    }
}

#[test]
fn the_other_side_s_wish_is_kept() {
    let after = Some(Duration::from_secs(7));
    let error = Error::new(Kind::RateLimited, "git.resolve", "too often").retry(Retry::Transient { after });
    assert_eq!(error.retryable(), Retry::Transient { after });
}
