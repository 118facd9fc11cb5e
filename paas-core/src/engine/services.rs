//! Everything that the engine works with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::future::join_all;

use super::outages::Outages;
use crate::clock::Clock;
use crate::context::Context;
use crate::dns::DnsService;
use crate::domain::{AppId, Config, Env, EnvName, OrgId, Secret, Source};
use crate::error::{self, Result};
use crate::git::{GitProvider, Repository};
use crate::ids::Ids;
use crate::image::ImageBuilder;
use crate::ingress::Ingress;
use crate::logs::LogStore;
use crate::metrics::Metrics;
use crate::plan::Planner;
use crate::platform::Part;
use crate::records::Records;
use crate::runtime::ContainerRuntime;
use crate::seal::{Keyring, Sealed};
use crate::settings::Settings;
use crate::store::StateStore;

/// How long a part gets to say that it is there.
pub(crate) const PING_PATIENCE: Duration = Duration::from_secs(5);

/// The adapters and what goes with them.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub store: Arc<dyn StateStore>,
    pub git: Arc<dyn GitProvider>,
    pub planner: Arc<dyn Planner>,
    pub builder: Arc<dyn ImageBuilder>,
    pub runtime: Arc<dyn ContainerRuntime>,
    pub dns: Arc<dyn DnsService>,
    pub ingress: Arc<dyn Ingress>,
    pub logs: Arc<dyn LogStore>,
    pub clock: Arc<dyn Clock>,
    pub ids: Arc<dyn Ids>,
    pub keyring: Arc<Keyring>,
    pub settings: Arc<Settings>,
    pub metrics: Arc<Metrics>,
    pub outages: Arc<Outages>,
    /// True once every recorded route was published at the start: what is missing from then on has drifted.
    pub is_published: Arc<AtomicBool>,
    /// What an installation added, such as a disk.
    pub parts: Vec<Arc<dyn Part>>,
}

impl Services {
    pub(crate) fn records(&self) -> Records {
        Records::new(self.store.clone())
    }

    /// A context without a deadline.
    pub(crate) fn context(&self) -> Context {
        Context::new(self.clock.clone())
    }

    /// Asks every part of the platform itself whether it answers, each for at most [`PING_PATIENCE`].
    pub(crate) async fn ping(&self, context: &Context) -> Vec<(&'static str, Result<()>)> {
        let context = context.with_budget(PING_PATIENCE);
        let others = self
            .parts
            .iter()
            .map(|part| async { (part.name(), context.run("part.ping", part.ping(&context)).await) });
        let (store, runtime, ingress, others) = tokio::join!(
            context.run("store.ping", self.store.ping()),
            context.run("runtime.ping", self.runtime.ping(&context)),
            context.run("ingress.ping", self.ingress.ping(&context)),
            join_all(others),
        );
        let mut answers = vec![("store", store), ("engine", runtime), ("ingress", ingress)];
        answers.extend(others);
        for (part, answer) in &answers {
            self.outages.note(part, self.clock.now(), answer);
        }
        answers
    }

    /// True if a part of the platform itself does not answer.
    pub(crate) async fn is_out(&self, context: &Context) -> bool {
        self.ping(context).await.iter().any(|(_, answer)| answer.is_err())
    }

    /// Seals an app's environment.
    pub(crate) fn seal_env(&self, app: &AppId, env: &Env) -> Result<(Sealed, Vec<EnvName>)> {
        let plain: BTreeMap<&str, &str> =
            env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        let plain = serde_json::to_string(&plain).map_err(error::map("env.seal"))?;
        let sealed = self.keyring.seal(&env_purpose(app), &Secret::from(plain))?;
        Ok((sealed, env.names().cloned().collect()))
    }

    /// Opens an app's environment.
    pub(crate) fn open_env(&self, app: &AppId, config: &Config) -> Result<Env> {
        let plain = self.keyring.open_sealed(&env_purpose(app), &config.env)?;
        let plain: BTreeMap<EnvName, Secret> =
            serde_json::from_str(plain.expose()).map_err(error::map("env.open"))?;
        let mut env = Env::default();
        for (name, value) in plain {
            env.set(name, value)?;
        }
        Ok(env)
    }

    /// Seals the token of an app's repository.
    pub(crate) fn seal_token(&self, app: &AppId, token: &Secret) -> Result<Sealed> {
        self.keyring.seal(&token_purpose(app), token)
    }

    /// The repository of an app, as it may be read.
    pub(crate) fn repository(&self, org: &OrgId, app: &AppId, source: &Source) -> Result<Repository> {
        let token = source
            .token
            .as_ref()
            .map(|sealed| self.keyring.open_sealed(&token_purpose(app), sealed))
            .transpose()?;
        Ok(Repository { org: org.clone(), url: source.repository.clone(), token })
    }
}

fn env_purpose(app: &AppId) -> String {
    format!("{app}/env")
}

fn token_purpose(app: &AppId) -> String {
    format!("{app}/token")
}
