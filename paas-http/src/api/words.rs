//! The words of the API: enumerations, kept apart from the core's so that neither's changes surprise the other.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An enumeration with the variants of one of the core's; a variant that is missing here does not compile.
macro_rules! words {
    ($(#[$documentation:meta])* $name:ident { $($(#[$about:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name {
            $($(#[$about])* $variant),+
        }

        impl From<paas_core::$name> for $name {
            fn from(word: paas_core::$name) -> Self {
                match word {
                    $(paas_core::$name::$variant => Self::$variant),+
                }
            }
        }

        impl From<$name> for paas_core::$name {
            fn from(word: $name) -> Self {
                match word {
                    $($name::$variant => Self::$variant),+
                }
            }
        }
    };
}

words!(
    /// Whose fault it is: the user's, this platform's, or that of a git server, registry or package index.
    Fault { User, Platform, Upstream }
);
words!(
    /// The state of an app, in one word.
    AppState {
        Pending,
        Building,
        Starting,
        Running,
        Failed,
        RollingOut,
        Crashed,
        Stopped,
        Deleting,
    }
);
words!(
    /// Whether an app should run.
    DesiredState { Running, Stopped }
);
words!(
    /// Who can reach an app: everybody who reaches the proxy, or only the org's own apps.
    Visibility { Public, Private }
);
words!(
    /// What a deployment does.
    OperationKind { Deploy, Restart, Config, Rollback, Stop, Start, Delete }
);
words!(
    /// The state of a deployment.
    DeploymentState {
        Queued,
        Building,
        Starting,
        Stopping,
        Running,
        Stopped,
        Deleted,
        Superseded,
        Failed,
        Cancelled,
        Stuck,
    }
);
words!(
    /// A step of a deployment.
    Step { Fetch, Plan, Build, Start, Verify, Route, Retire, Purge }
);
words!(
    /// What a condition is about.
    ConditionKind { SourceFetched, ImageBuilt, ContainerStarted, Healthy, Routed, DnsReady, Ready }
);
words!(
    /// Who wrote a log line.
    LogSource { Build, App, System }
);
words!(
    /// To which output a log line was written.
    LogStream { Stdout, Stderr }
);
words!(
    /// The order of log lines: oldest first, or newest first.
    LogDirection { Forward, Backward }
);

impl Step {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Plan => "plan",
            Self::Build => "build",
            Self::Start => "start",
            Self::Verify => "verify",
            Self::Route => "route",
            Self::Retire => "retire",
            Self::Purge => "purge",
        }
    }
}
