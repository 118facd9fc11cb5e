//! Whose fault a failed build is.

use paas_core::{Error, Fault, Kind, Retry};

use super::progress::FailedStep;

const OPERATION: &str = "docker.build";

/// What package managers and downloaders say when their index or the way to it is down.
const NETWORK_FAILURES: [&str; 11] = [
    "Temporary failure in name resolution",
    "Temporary failure resolving",
    "Could not resolve host",
    "unable to resolve host",
    "Failed to establish a new connection",
    "EAI_AGAIN",
    "ETIMEDOUT",
    "ECONNRESET",
    "ECONNREFUSED",
    "503 Service Unavailable",
    "503  Service Unavailable",
];

/// How their lines begin: a user's own program, its failing tests for one, may print the same failures.
const INSTALLERS: [&str; 14] = [
    "npm ERR!",
    "npm error",
    "error An unexpected error occurred",
    "ERR_PNPM",
    "WARN  GET",
    "Temporary failure resolving",
    "Err:",
    "E: Failed to fetch",
    "W: Failed to fetch",
    "WARNING: Retrying",
    "ERROR: Could not install packages",
    "curl: (",
    "wget: ",
    "fatal: unable to access",
];

/// The error of a build that the engine ended with `message`, at `step` where one is known to have failed.
pub(super) fn of(message: &str, step: Option<FailedStep>) -> Error {
    let message = shortened(message);
    let step = step.unwrap_or_default();
    let evidence = step.last_lines.clone();
    let name = instruction(&step.name);
    // First of all: the command that meets it fails as well.
    let is_full = |text: &str| text.to_ascii_lowercase().contains("no space left on device");
    if is_full(&message) || is_full(&step.error) || evidence.iter().any(|line| is_full(line)) {
        return Error::new(Kind::Unavailable, OPERATION, "the disk of the build machine is full")
            .retry(Retry::Transient { after: None })
            .code("storage_full")
            .hint("free space, for example with `docker builder prune`")
            .context("engine", &message)
            .evidence(evidence);
    }
    if let Some(code) = exit_code(&step.error).or_else(|| exit_code(&message)) {
        if evidence.iter().any(|line| is_network_failure(line)) {
            // Built again some times, but not for an hour: a name in the user's command may be wrong.
            return Error::new(
                Kind::Unavailable,
                OPERATION,
                format!("`{name}` could not reach a package index (exit code {code})"),
            )
            .fault(Fault::Upstream)
            .evidence(evidence);
        }
        let error = Error::new(Kind::BuildFailed, OPERATION, format!("`{name}` ended with exit code {code}"))
            .evidence(evidence);
        return match code {
            137 => error.hint("the step was killed, most often because it used too much memory"),
            127 => error
                .hint("a command was not found: is it in the base image or installed by an earlier step?"),
            _ => error.hint("run the same command on the same commit, and look at the lines above"),
        };
    }
    let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text) || step.error.contains(text));
    if has(&["pull access denied", "repository does not exist", "manifest unknown", "manifest for"]) {
        return Error::new(
            Kind::BuildFailed,
            OPERATION,
            format!("an image does not exist or may not be pulled: {message}"),
        )
        .hint("check the image names in FROM and COPY --from");
    }
    if has(&[
        "dial tcp",
        "no such host",
        "i/o timeout",
        "TLS handshake",
        "x509:",
        "failed to do request",
        "toomanyrequests",
        "failed to resolve source metadata",
        "unexpected status",
    ]) {
        let said = "the registry of a base image cannot be reached";
        // A registry whose name is misspelt, or that is not to be trusted, does not come back by itself.
        let error = if has(&["no such host", "x509:"]) {
            Error::new(Kind::Unavailable, OPERATION, said).fault(Fault::Upstream)
        } else {
            Error::unreachable(OPERATION, said)
        };
        return error.retry(Retry::Transient { after: None }).context("engine", &message).hint(
            "get the base image onto this machine (examples/setup/base-images.sh makes the platform's own), \
                   or check the way to the registry",
        );
    }
    let is_of_user = has(&[
        "dockerfile parse error",
        "failed to create LLB definition",
        "failed to compute cache key",
        "failed to calculate checksum",
        "not found",
        "failed to read dockerfile",
        "no build stage",
        "unknown instruction",
        "executable file not found",
    ]);
    if is_of_user || step.name.starts_with('[') && !step.name.starts_with("[internal]") {
        let text = if name.is_empty() { message } else { format!("`{name}` failed: {message}") };
        return Error::new(Kind::BuildFailed, OPERATION, text).evidence(evidence);
    }
    // The engine answers: this is no outage, which would be waited out, but may pass all the same.
    Error::new(Kind::Internal, OPERATION, "the container engine could not build")
        .retry(Retry::Transient { after: None })
        .context("engine", message)
        .evidence(evidence)
}

fn is_network_failure(line: &str) -> bool {
    let line = line.trim_start();
    INSTALLERS.iter().any(|start| line.starts_with(start))
        && NETWORK_FAILURES.iter().any(|text| line.contains(text))
}

/// Without the layers of `failed to solve: rpc error: … desc = ` that each part of the engine puts before it.
fn shortened(message: &str) -> String {
    let mut text = message;
    for prefix in ["desc = ", "failed to solve: ", "failed to solve with frontend dockerfile.v0: "] {
        if let Some((_, rest)) = text.rsplit_once(prefix) {
            text = rest;
        }
    }
    text.chars().take(500).collect()
}

/// `RUN make` of `[build 2/3] RUN make`, shortened.
fn instruction(name: &str) -> String {
    let text = name.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(name, |(_, text)| text);
    let mut shown: String = text.chars().take(200).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The number in `executor failed running [/bin/sh -c make]: exit code: 2`.
fn exit_code(message: &str) -> Option<i64> {
    let (_, rest) = message.rsplit_once("exit code: ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(error: &str, line: &str) -> Option<FailedStep> {
        let name = "[2/3] RUN make".to_owned();
        Some(FailedStep { name, error: error.to_owned(), last_lines: vec![line.to_owned()] })
    }

    #[test]
    fn a_command_that_failed_is_the_users() {
        let error = of("x", step("executor failed running [/bin/sh -c make]: exit code: 2", "no rule"));
        assert_eq!((error.kind(), error.whose()), (Kind::BuildFailed, Fault::User));
        assert_eq!(error.message(), "`RUN make` ended with exit code 2");
        assert_eq!(error.evidence_lines(), ["no rule"]);
    }

    #[test]
    fn a_package_index_that_is_down_is_upstreams() {
        for line in [
            "  Temporary failure resolving 'deb.debian.org'",
            "E: Failed to fetch http://deb.debian.org/x  503  Service Unavailable [IP: 1.2.3.4 80]",
            "npm ERR! code ECONNRESET",
            "npm error code EAI_AGAIN",
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(': Failed to establish a new connection'",
            "curl: (6) Could not resolve host: example.com",
        ] {
            let error = of("x", step("exit code: 1", line));
            assert_eq!(
                (error.kind(), error.whose(), error.is_transient()),
                (Kind::Unavailable, Fault::Upstream, true),
                "{line}"
            );
        }
    }

    #[test]
    fn a_failing_test_that_tells_of_a_network_is_the_users() {
        for line in ["AssertionError: expected '503 Service Unavailable'", "Error: read ECONNRESET"] {
            let error = of("x", step("exit code: 1", line));
            assert_eq!((error.kind(), error.whose()), (Kind::BuildFailed, Fault::User), "{line}");
        }
    }

    #[test]
    fn a_full_disk_is_the_platforms_whatever_met_it() {
        for (message, step) in [
            ("x", step("exit code: 1", "cp: write error: No space left on device")),
            ("failed to copy: write /var/lib/docker/x: no space left on device", None),
        ] {
            let error = of(message, step);
            assert_eq!((error.whose(), error.reason()), (Fault::Platform, Some("storage_full")), "{message}");
            // It is waited out while the disk is nearly full, and counts as a try otherwise.
            assert!(error.is_transient() && error.kind() == Kind::Unavailable, "{message}");
        }
    }

    #[test]
    fn a_registry_that_is_down_is_upstreams() {
        let message = "failed to solve with frontend dockerfile.v0: failed to create LLB definition: failed to do \
                       request: Head \"https://registry-1.docker.io/\": dial tcp: lookup registry-1.docker.io: no such host";
        let error = of(message, None);
        assert_eq!(
            (error.kind(), error.whose(), error.is_transient()),
            (Kind::Unavailable, Fault::Upstream, true)
        );
        assert!(error.hinted().is_some());
    }

    #[test]
    fn a_bad_dockerfile_is_the_users() {
        let error = of(
            "failed to solve: rpc error: code = Unknown desc = dockerfile parse error line 1: unknown instruction: FRO",
            None,
        );
        assert_eq!((error.kind(), error.whose()), (Kind::BuildFailed, Fault::User));
        assert_eq!(error.message(), "dockerfile parse error line 1: unknown instruction: FRO");
    }

    #[test]
    fn what_is_not_known_is_the_platforms_and_no_outage() {
        let error = of("transport is closing", None);
        assert_eq!(
            (error.kind(), error.whose(), error.is_transient()),
            (Kind::Internal, Fault::Platform, true)
        );
    }
}
