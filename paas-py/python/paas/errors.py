"""The exceptions: one base, one class for each kind of error."""

from typing import ClassVar

from paas.words import Fault, Kind


class PaasError(Exception):
    """Something went wrong. ``str(error)`` is the message, safe to show to users.

    The hint and the last log lines are also its notes, so that a traceback shows them.
    """

    kind: Kind = "internal"
    """What kind of thing went wrong."""
    fault: Fault
    """Whose fault it is: the user's, the platform's, or that of a git server, registry or package index."""
    operation: str
    """The operation that failed, such as ``git.fetch``."""
    code: str | None
    """A machine-readable reason within the kind, such as ``name_taken``."""
    hint: str | None
    """What to do about it."""
    evidence: tuple[str, ...]
    """The last log lines before it, oldest first."""
    retryable: bool
    """Whether the same request may succeed later."""
    detail: str
    """The causes, for the operator's log: not for users."""

    by_kind: ClassVar[dict[Kind, type["PaasError"]]] = {}

    def __init_subclass__(cls, *, kind: Kind | None = None) -> None:
        """Take the place of the kind; a subclass of one's own takes none."""
        if kind is not None:
            cls.kind = kind
            cls.by_kind[kind] = cls

    def __init__(
        self,
        message: str = "",
        *,
        fault: Fault = "platform",
        operation: str = "",
        code: str | None = None,
        hint: str | None = None,
        evidence: tuple[str, ...] = (),
        retryable: bool = False,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.operation = operation
        self.code = code
        self.hint = hint
        self.evidence = evidence
        self.retryable = retryable
        self.detail = detail
        for line in evidence:
            self.add_note(f"| {line}")
        if hint is not None:
            self.add_note(f"hint: {hint}")


class Invalid(PaasError, kind="invalid"):
    """The request itself is malformed or breaks a rule."""


class NotFound(PaasError, kind="not_found"):
    """It does not exist."""


class AlreadyExists(PaasError, kind="already_exists"):
    """The name is taken."""


class Conflict(PaasError, kind="conflict"):
    """The present state, or a concurrent change, does not allow it."""


class Unauthenticated(PaasError, kind="unauthenticated"):
    """Nobody is known to be asking."""


class PermissionDenied(PaasError, kind="permission_denied"):
    """It is not allowed: a repository on a private address, for one."""


class RateLimited(PaasError, kind="rate_limited"):
    """It was asked too often."""


class Unavailable(PaasError, kind="unavailable"):
    """A part that is needed does not answer now."""


class Timeout(PaasError, kind="timeout"):
    """It took longer than it may."""


class Unsupported(PaasError, kind="unsupported"):
    """The platform cannot do it at all."""


class BuildFailed(PaasError, kind="build_failed"):
    """The user's build ended with an error."""


class Unhealthy(PaasError, kind="unhealthy"):
    """The program did not start, or did not answer its health check."""


class Cancelled(PaasError, kind="cancelled"):
    """Somebody asked for it to stop."""


class Internal(PaasError, kind="internal"):
    """A defect of the platform."""


def from_parts(
    kind: Kind,
    message: str,
    *,
    fault: Fault,
    operation: str,
    code: str | None,
    hint: str | None,
    evidence: tuple[str, ...],
    retryable: bool,
    detail: str,
) -> PaasError:
    """Make the exception of an error of the extension module."""
    # A kind of a newer extension module still is a PaasError.
    error = PaasError.by_kind.get(kind, PaasError)(
        message,
        fault=fault,
        operation=operation,
        code=code,
        hint=hint,
        evidence=evidence,
        retryable=retryable,
        detail=detail,
    )
    error.kind = kind
    return error
