"""An embeddable platform-as-a-service: a git repository goes in, a verified live URL comes out.

Every call that waits exists twice: ``x()`` blocks, ``x_async()`` starts at once and is awaited. Nothing that
was accepted depends on being watched: an interrupted wait, a cancelled task or a forgotten object leaves the
deployment alone.
"""

from paas._paas import App, Apps, Deployment, LogLine, MemoryGit, MemoryHost, Platform, Release, Stream
from paas.errors import (
    AlreadyExists,
    BuildFailed,
    Cancelled,
    Conflict,
    Internal,
    Invalid,
    NotFound,
    PaasError,
    PermissionDenied,
    RateLimited,
    Timeout,
    Unauthenticated,
    Unavailable,
    Unhealthy,
    Unsupported,
)
from paas.events import Event

__all__ = [
    "AlreadyExists",
    "App",
    "Apps",
    "BuildFailed",
    "Cancelled",
    "Conflict",
    "Deployment",
    "Event",
    "Internal",
    "Invalid",
    "LogLine",
    "MemoryGit",
    "MemoryHost",
    "NotFound",
    "PaasError",
    "PermissionDenied",
    "Platform",
    "RateLimited",
    "Release",
    "Stream",
    "Timeout",
    "Unauthenticated",
    "Unavailable",
    "Unhealthy",
    "Unsupported",
]
