//! The model: what the platform knows, in types that cannot hold a bad value.

mod app;
mod crash;
mod deployment;
mod egress;
mod env;
mod git;
mod health;
mod id;
mod idempotency;
mod instance;
mod name;
mod release;
mod resources;
mod route;
mod secret;

pub use app::{App, AppState, AppStatus, Condition, ConditionKind, Config, DesiredState, Source, Visibility};
pub use crash::Crashes;
pub use deployment::{Deployment, DeploymentSpec, DeploymentState, OperationKind, Step};
pub use egress::EgressPolicy;
pub use env::{Env, EnvName};
pub use git::{CommitId, GitRef, GitUrl, RootDirectory, TreeId};
pub use health::{HealthCheck, HealthCheckKind};
pub use id::{AppId, DeploymentId, OrgId};
pub use idempotency::IdempotencyKey;
pub use instance::{Instance, InstanceName, InstanceState};
pub use name::AppName;
pub use release::{Image, Release, ReleaseNumber};
pub use resources::{Port, Resources};
pub use route::{Generation, Host, Route, RouteTarget};
pub use secret::Secret;
