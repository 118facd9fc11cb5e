"""The words that states, steps and events are told in, for type checkers."""

from typing import Literal, TypeAlias

AppState: TypeAlias = Literal[
    "pending",
    "building",
    "starting",
    "running",
    "failed",
    "rolling_out",
    "crashed",
    "stopped",
    "deleting",
]
DeploymentState: TypeAlias = Literal[
    "queued",
    "building",
    "starting",
    "stopping",
    "running",
    "stopped",
    "deleted",
    "superseded",
    "failed",
    "cancelled",
    "stuck",
]
EventType: TypeAlias = Literal[
    "accepted",
    "started",
    "finished",
    "failed",
    "name_taken",
    "cancel_requested",
    "undo_started",
    "undo_finished",
    "undo_failed",
    "abandoned",
    "ended",
    "app_created",
    "app_changed",
    "drift_found",
    "route_drift_found",
    "dns_drift_found",
    "dns_restored",
    "instance_renamed",
    "instance_restored",
    "images_collected",
    "image_gone",
    "instance_steady",
    "app_deleted",
    "unknown",
]
Fault: TypeAlias = Literal["user", "platform", "upstream"]
Kind: TypeAlias = Literal[
    "invalid",
    "not_found",
    "already_exists",
    "conflict",
    "unauthenticated",
    "permission_denied",
    "rate_limited",
    "unavailable",
    "timeout",
    "unsupported",
    "build_failed",
    "unhealthy",
    "cancelled",
    "internal",
]
LogSource: TypeAlias = Literal["build", "app", "system"]
LogOutput: TypeAlias = Literal["stdout", "stderr"]
OperationKind: TypeAlias = Literal["deploy", "restart", "config", "rollback", "stop", "start", "delete"]
Step: TypeAlias = Literal["fetch", "plan", "build", "start", "verify", "route", "retire", "purge"]
