//! What requests look like, and how their texts become typed values.

use std::collections::BTreeMap;

use paas_core::{AppChanges, EnvName, Error, HealthCheckChanges, ResourceChanges, Secret};
use serde::Deserialize;
use utoipa::ToSchema;

use super::types::{HealthProbe, Visibility};
use crate::json::present;
use crate::problem::{Refusal, Result};

/// An app that somebody wants.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewApp {
    /// 1 to 63 of `a-z`, `0-9` and `-`, starting with a letter: the first label of its host.
    name: String,
    /// The address of the git repository, `https://…`.
    repository: String,
    /// The branch or tag; the repository's default branch when not given.
    branch: Option<String>,
    /// Always this commit.
    commit: Option<String>,
    /// The directory of the repository that holds it.
    root_directory: Option<String>,
    /// The token for a private repository. It is never shown again.
    #[schema(value_type = Option<String>, format = Password)]
    token: Option<Secret>,
    /// The port its program listens on; the plan's, the image's or 8080 when not given.
    #[schema(minimum = 1, maximum = 65535)]
    port: Option<u32>,
    /// Its environment variables. Values are never shown again.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    env: BTreeMap<String, Secret>,
    visibility: Option<Visibility>,
    resources: Option<ResourcesPatch>,
    health_check: Option<HealthCheckPatch>,
    /// Whether it is deployed at once.
    #[serde(default = "yes")]
    #[schema(default = true)]
    deploy: bool,
}

fn yes() -> bool {
    true
}

/// A part of the limits; what is not given stays, `null` goes back to the default.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResourcesPatch {
    /// Memory in bytes.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    memory_bytes: Option<Option<u64>>,
    /// CPU time in thousandths of a core.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    cpu_millis: Option<Option<u32>>,
    /// Processes and threads.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    pids: Option<Option<u32>>,
}

impl From<ResourcesPatch> for ResourceChanges {
    fn from(patch: ResourcesPatch) -> Self {
        let default = paas_core::Resources::default();
        Self {
            memory_bytes: patch.memory_bytes.map(|value| value.unwrap_or(default.memory_bytes)),
            cpu_millis: patch.cpu_millis.map(|value| value.unwrap_or(default.cpu_millis)),
            pids: patch.pids.map(|value| value.unwrap_or(default.pids)),
        }
    }
}

/// A part of the health check; what is not given stays, `null` goes back to the default. The `check` is one value.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthCheckPatch {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<HealthProbe>)]
    check: Option<Option<HealthProbe>>,
    /// How long one probe may take.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    timeout_seconds: Option<Option<u32>>,
    /// How long an instance may take to become healthy.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    grace_seconds: Option<Option<u32>>,
}

impl From<HealthCheckPatch> for HealthCheckChanges {
    fn from(patch: HealthCheckPatch) -> Self {
        let default = paas_core::HealthCheck::default();
        Self {
            check: patch.check.map(|check| check.map_or(default.check, Into::into)),
            timeout_seconds: patch.timeout_seconds.map(|value| value.unwrap_or(default.timeout_seconds)),
            grace_seconds: patch.grace_seconds.map(|value| value.unwrap_or(default.grace_seconds)),
        }
    }
}

/// Changes of an app, as a JSON merge patch: what is absent stays, `null` goes back to the default.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppPatch {
    /// The address of another git repository. The token of the old one is forgotten unless a new one is given.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    repository: Option<Option<String>>,
    /// Another branch; `null` is the default one.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    branch: Option<Option<String>>,
    /// Pins a commit; `null` follows the branch again.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    commit: Option<Option<String>>,
    /// Another directory.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    root_directory: Option<Option<String>>,
    /// Another token; `null` forgets it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = Password)]
    token: Option<Option<Secret>>,
    /// Another port; `null` finds it out again.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    port: Option<Option<u32>>,
    /// Environment variables to set, or with `null` to remove; the others stay.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    env: Option<Option<BTreeMap<String, Option<Secret>>>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Visibility>)]
    visibility: Option<Option<Visibility>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<ResourcesPatch>)]
    resources: Option<Option<ResourcesPatch>>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<HealthCheckPatch>)]
    health_check: Option<Option<HealthCheckPatch>>,
}

/// How to deploy.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDeployment {
    /// Build even if the same tree was built before.
    #[serde(default)]
    pub(crate) no_cache: bool,
}

/// Which release to run again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRollback {
    /// The number of the release.
    pub(crate) release: u64,
}

/// Names the field whose value broke a rule.
fn named<T>(field: &str, result: paas_core::Result<T>) -> Result<T> {
    result.map_err(|error: Error| Refusal::from(error).field(field))
}

fn parsed<T: std::str::FromStr<Err = Error>>(field: &str, text: Option<String>) -> Result<Option<T>> {
    named(field, text.map(|text| text.parse()).transpose())
}

fn port(number: Option<u32>) -> Result<Option<paas_core::Port>> {
    named("port", number.map(paas_core::Port::try_from).transpose())
}

fn env_name(name: &str) -> Result<EnvName> {
    // As in the message, what may be a value is not repeated.
    let shown: String = name.chars().take_while(|letter| *letter != '=').take(64).collect();
    named(&format!("env.{shown}"), name.parse())
}

impl NewApp {
    pub(crate) fn into_core(self) -> Result<paas_core::NewApp> {
        let mut env = paas_core::Env::default();
        for (name, value) in self.env {
            let checked = env_name(&name)?;
            named(&format!("env.{name}"), env.set(checked, value))?;
        }
        let resources = ResourceChanges::from(self.resources.unwrap_or_default());
        let health_check = HealthCheckChanges::from(self.health_check.unwrap_or_default());
        Ok(paas_core::NewApp {
            name: named("name", self.name.parse())?,
            repository: named("repository", self.repository.parse())?,
            branch: parsed("branch", self.branch)?,
            commit: parsed("commit", self.commit)?,
            root_directory: parsed("root_directory", self.root_directory)?.unwrap_or_default(),
            token: self.token,
            port: port(self.port)?,
            env,
            visibility: self.visibility.map(Into::into).unwrap_or_default(),
            resources: resources.applied_to(paas_core::Resources::default()),
            health_check: health_check.applied_to(&paas_core::HealthCheck::default()),
            deploy: self.deploy,
        })
    }
}

impl AppPatch {
    pub(crate) fn into_core(self) -> Result<AppChanges> {
        let irremovable = |field: &str| {
            let detail = format!("{field} can't be removed");
            Refusal::of_request(http::StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail).field(field)
        };
        let repository = match self.repository {
            Some(None) => return Err(irremovable("repository")),
            repository => parsed("repository", repository.flatten())?,
        };
        let mut env = BTreeMap::new();
        match self.env {
            Some(None) => return Err(irremovable("env").hint("give `null` for each name that is to go")),
            variables => {
                for (name, value) in variables.flatten().unwrap_or_default() {
                    env.insert(env_name(&name)?, value);
                }
            }
        }
        let all_resources = || ResourceChanges::from(paas_core::Resources::default());
        let all_health = || HealthCheckChanges::from(paas_core::HealthCheck::default());
        Ok(AppChanges {
            repository,
            branch: self.branch.map(|branch| parsed("branch", branch)).transpose()?,
            commit: self.commit.map(|commit| parsed("commit", commit)).transpose()?,
            root_directory: self
                .root_directory
                .map(|root| parsed("root_directory", root).map(Option::unwrap_or_default))
                .transpose()?,
            token: self.token,
            port: self.port.map(port).transpose()?,
            env,
            visibility: self.visibility.map(|wanted| wanted.map(Into::into).unwrap_or_default()),
            resources: self
                .resources
                .map_or_else(ResourceChanges::default, |patch| patch.map_or_else(all_resources, Into::into)),
            health_check: self
                .health_check
                .map_or_else(HealthCheckChanges::default, |patch| patch.map_or_else(all_health, Into::into)),
        })
    }
}
