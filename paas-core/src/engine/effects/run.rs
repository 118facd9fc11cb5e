//! Start and Verify: from an image to an instance that answers.

use std::time::Duration;

use super::{Effects, Work};
use crate::context::Context;
use crate::domain::{CommitId, Image, Instance, InstanceName, InstanceState, Port, Release};
use crate::engine::collector::last_lines;
use crate::error::{Error, Failure, Fault, Kind, Result};
use crate::ingress::Probe;
use crate::logs::LogSource;
use crate::pipeline::{EXITED, Output};
use crate::records::{Versioned, release_id};
use crate::runtime::{Addressing, InstanceSpec, Placement};
use crate::store::Scope;

/// The waits between probes: at once, then 10 ms, doubling to a second.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How long to look for the exit code of an instance that was started again.
const ENDING_PATIENCE: Duration = Duration::from_secs(2);
/// How long an instance that never had a request gets to end when it is taken back.
const UNDO_GRACE: Duration = Duration::from_secs(2);

/// What an operation runs.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub commit: CommitId,
    pub image: Image,
    pub port: Port,
}

impl Effects {
    /// What the operation runs: what it built, or what an old release ran.
    pub(super) async fn target(&self, work: &Work<'_>) -> Result<Target> {
        let spec = work.spec;
        let outputs = &work.state.outputs;
        if let (Some((commit, _)), Some((image, _))) = (&outputs.fetched, &outputs.built) {
            let port = spec.config.port.or(image.port).or(outputs.planned_port).unwrap_or(Port::DEFAULT);
            return Ok(Target { commit: commit.clone(), image: image.clone(), port });
        }
        // What is live is known only now: a deployment ahead of this operation may have brought a newer release.
        let number = spec.from_release.or(work.status.live).ok_or_else(|| {
            Error::internal("effects.target", "an operation without a build has no release to run")
        })?;
        let id = release_id(&spec.app, number);
        let release: Option<Versioned<Release>> =
            self.services.records().get(&Scope::Org(spec.org.clone()), &id).await?;
        let release = release
            .ok_or_else(|| Error::not_found("effects.target", format!("there is no release {number}")))?
            .value;
        // A port that was set wins; one that was derived then is derived the same way now.
        let derived = if release.config.port.is_none() { Some(release.port) } else { release.image.port };
        let port = spec.config.port.or(derived).unwrap_or(Port::DEFAULT);
        Ok(Target { commit: release.commit, image: release.image, port })
    }

    pub(super) async fn start(&self, context: &Context, work: &mut Work<'_>) -> Result<Output> {
        let spec = self.instance_spec(work).await?;
        context.log(LogSource::System, format!("starting {} on port {}", spec.name, u32::from(spec.port)));
        let instance = self.services.runtime.ensure(context, &spec).await?;
        self.collector.follow(&instance);
        Ok(Output::Started { instance, port: spec.port })
    }

    /// Makes the live instance run that an operation brought: under this name, at its address.
    pub(crate) async fn restore(
        &self,
        context: &Context,
        work: &Work<'_>,
        name: &InstanceName,
    ) -> Result<()> {
        // A journal that this version can't read all of may not tell the name.
        let spec = InstanceSpec { name: name.clone(), ..self.instance_spec(work).await? };
        // What is there is replaced: what it wrote last is kept.
        self.collector.finish(&spec.name).await;
        let instance = self.services.runtime.ensure(context, &spec).await?;
        self.collector.follow(&instance);
        Ok(())
    }

    /// What the operation's instance is to be: the same every time that it is asked.
    async fn instance_spec(&self, work: &Work<'_>) -> Result<InstanceSpec> {
        let spec = work.spec;
        let target = self.target(work).await?;
        let placement = match self.services.runtime.addressing() {
            Addressing::Platform => self.addresses.allocate(&spec.org, &spec.app, &spec.id).await?,
            Addressing::Runtime => Placement::Chosen,
        };
        Ok(InstanceSpec {
            name: InstanceName::of(&spec.id, work.state.fallback),
            org: spec.org.clone(),
            app: spec.app.clone(),
            deployment: spec.id.clone(),
            image: target.image,
            port: target.port,
            env: self.services.open_env(&spec.app, &spec.config)?,
            resources: spec.config.resources,
            stop_grace: self.services.settings.stop_grace,
            placement,
        })
    }

    pub(super) async fn verify(&self, context: &Context, work: &mut Work<'_>) -> Result<Output> {
        let Some((started, port)) = &work.state.outputs.started else {
            return Err(Error::internal("effects.verify", "nothing was started"));
        };
        let check = &work.spec.config.health_check;
        let patience = context.clock().elapsed() + check.grace();
        let (mut wait, mut probes) = (FIRST_WAIT, 0);
        loop {
            probes += 1;
            let probe = self.services.ingress.probe(context, started.address, check).await?;
            self.check_running(context, started).await?;
            let reason = match probe {
                Probe::Healthy => {
                    context.log(LogSource::System, format!("healthy after {probes} probes"));
                    return Ok(Output::Verified { probes });
                }
                Probe::Unhealthy(reason) => reason,
            };
            if context.clock().elapsed() >= patience {
                return Err(self.unhealthy(&started.name, *port, &reason, check.grace_seconds).await);
            }
            context.sleep("effects.verify", wait).await?;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Fails unless the instance runs, and has since it was started.
    pub(super) async fn check_running(&self, context: &Context, started: &Instance) -> Result<()> {
        match self.services.runtime.inspect(context, &started.name).await? {
            // Those before it are of an earlier try, which the runtime got over.
            Some(observed) if observed.is_running() && observed.restarts <= started.restarts => Ok(()),
            Some(observed) => {
                let ended = self.ending(context, &started.name, observed.state).await?;
                Err(self.exited(&started.name, &ended).await)
            }
            None => Err(exited(&started.name, "its container disappeared", Vec::new())),
        }
    }

    pub(super) async fn undo_start(&self, context: &Context, work: &mut Work<'_>) -> Result<()> {
        let spec = work.spec;
        let runtime = &self.services.runtime;
        for fallback in 0..=work.state.fallback {
            let name = InstanceName::of(&spec.id, fallback);
            // A name that something foreign has is answered with `None`: it is not ours to touch.
            if runtime.inspect(context, &name).await?.is_some() {
                runtime.stop(context, &name, UNDO_GRACE).await?;
                self.collector.finish(&name).await;
                runtime.remove(context, &name).await?;
            }
        }
        self.addresses.free(&spec.id).await
    }

    /// How it ended. A runtime that started it again hides that until it ends once more, mostly soon.
    async fn ending(
        &self,
        context: &Context,
        name: &InstanceName,
        mut state: InstanceState,
    ) -> Result<InstanceState> {
        let patience = context.clock().elapsed() + ENDING_PATIENCE;
        while state == InstanceState::Running && context.clock().elapsed() < patience {
            context.sleep("effects.verify", FIRST_WAIT).await?;
            let Some(observed) = self.services.runtime.inspect(context, name).await? else { break };
            state = observed.state;
        }
        Ok(state)
    }

    async fn exited(&self, name: &InstanceName, state: &InstanceState) -> Error {
        let lines = last_lines(&self.services, name, Failure::EVIDENCE_LINES).await;
        let what = match state {
            InstanceState::Exited { out_of_memory: true, .. } => "it used more memory than it may".to_owned(),
            InstanceState::Exited { code, .. } => format!("its process ended with code {code}"),
            InstanceState::Running => "its process ended and was started again".to_owned(),
            InstanceState::CutOff => "its container was taken from its network".to_owned(),
        };
        exited(name, &what, lines)
    }

    async fn unhealthy(&self, name: &InstanceName, port: Port, reason: &str, seconds: u32) -> Error {
        let lines = last_lines(&self.services, name, Failure::EVIDENCE_LINES).await;
        let port = u32::from(port);
        Error::new(
            Kind::Unhealthy,
            "effects.verify",
            format!("the app did not become healthy within {seconds} s: {reason}"),
        )
        .fault(Fault::User)
        .evidence(lines)
        .hint(format!(
            "listen on 0.0.0.0:$PORT (PORT is {port}), answer the health check with a status below 500, or set \
             another port or health check"
        ))
    }
}

fn exited(name: &InstanceName, what: &str, lines: Vec<String>) -> Error {
    Error::new(Kind::Unhealthy, "effects.verify", format!("the app did not start: {what}"))
        .fault(Fault::User)
        .code(EXITED)
        .context("instance", name)
        .evidence(lines)
        .hint("the last lines of its log say why; run the image's start command locally to see the same")
}
