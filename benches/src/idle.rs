//! Goal 10: memory and processor time of a platform that does nothing, with 100 and 10,000 running apps.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use paas_core::memory::MemoryHost;
use paas_core::{
    Addressing, Clock, ContainerRuntime, Context, Error, Instance, InstanceName, InstanceSpec, Keyring,
    OrgId, OutputLine, OutputOptions, Platform, Selector, SystemClock,
};
use paas_proxy::{Proxy, ProxyConfig};
use paas_store::{FileLogStore, SqliteStore};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::report::{Report, Row, Target};
use crate::store::pipeline;
use crate::{Effort, Result, machine};

/// How long it gets to settle, and is watched.
const SETTLE: Duration = Duration::from_secs(6);
const WATCH: Duration = Duration::from_secs(10);

pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let counts: &[(usize, f64)] =
        if effort.is_quick { &[(100, 40.0)] } else { &[(100, 40.0), (10_000, 100.0)] };
    for (count, mebibytes) in counts {
        measure(report, *count, *mebibytes).await?;
    }
    report.note(
        "Goal 10: one process with the SQLite store, the log files, the proxy with every route and a follower for each \
         instance's output; the container engine and the git server are stood in for.",
    );
    Ok(())
}

async fn measure(report: &mut Report, count: usize, mebibytes: f64) -> Result<()> {
    let (folder, clock) = (tempfile::tempdir()?, SystemClock::new());
    let program = std::env::current_exe()?;
    let command = |name: &str| {
        let mut command = Command::new(&program);
        command.arg(name).arg(folder.path()).arg(count.to_string());
        command
    };
    let status = command("idle-seed").status().await?;
    if !status.success() {
        return Err(format!("{count} apps could not be deployed").into());
    }
    let mut child =
        command("idle").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    BufReader::new(output).lines().next_line().await?.ok_or("the idle platform ended")?;
    clock.sleep(SETTLE).await;
    let process = child.id().ok_or("the idle platform ended")?;
    let before = machine::processor_time(process)?;
    clock.sleep(WATCH).await;
    let used = machine::processor_time(process)? - before;
    let resident = machine::resident_mebibytes(process)?;
    drop(child.stdin.take());
    child.wait().await?;
    let row = |what: String, value, unit, target| Row {
        goal: 10,
        what,
        who: "platform".to_owned(),
        value,
        unit,
        target,
        ..Row::default()
    };
    let bound = Some(Target::AtMost(mebibytes));
    report.row(row(format!("idle: resident memory, {count} apps"), resident, "MiB", bound));
    let percent = used.as_secs_f64() / WATCH.as_secs_f64() * 100.0;
    report.row(row(format!("idle: CPU, {count} apps"), percent, "%", Some(Target::AtMost(0.5))));
    Ok(())
}

/// Deploys `count` apps into a store below `folder`, and notes their instances.
pub(crate) async fn seed(folder: &Path, count: usize) -> Result<()> {
    let host = MemoryHost::new(Arc::new(SystemClock::new()));
    let platform = pipeline::platform(folder, pipeline::repository()?, host.clone()).await?;
    let apps = platform.apps();
    stream::iter(0..count)
        .map(|number| {
            let apps = apps.clone();
            async move {
                let created = apps.create(pipeline::new_app(&format!("app-{number}"))?).await?;
                created.first_deployment()?.outcome().await?;
                Ok::<_, crate::Error>(())
            }
        })
        .buffer_unordered(64)
        .try_collect::<()>()
        .await?;
    platform.shutdown().await;
    tokio::fs::write(folder.join("instances.json"), serde_json::to_vec(&host.instances())?).await?;
    Ok(())
}

/// Runs a platform on that store until the input ends.
#[allow(clippy::print_stdout)] // tells whoever started this process that it runs
pub(crate) async fn stand(folder: &Path) -> Result<()> {
    let clock = Arc::new(SystemClock::new());
    let instances = serde_json::from_slice(&tokio::fs::read(folder.join("instances.json")).await?)?;
    let config = ProxyConfig {
        listen: "127.0.0.1:0".parse()?,
        directory: Some(folder.join("proxy")),
        ..ProxyConfig::default()
    };
    let platform = Platform::builder()
        .clock(clock.clone())
        .store(Arc::new(SqliteStore::open(folder.join("state.db"), clock.clone()).await?))
        .logs(Arc::new(FileLogStore::open(folder.join("logs"), clock.clone()).await?))
        .keyring(Keyring::open(&folder.join("master.key"))?)
        .git(pipeline::repository()?)
        .runtime(Arc::new(Standing(instances)))
        .ingress(Arc::new(Proxy::start(config, clock).await?))
        .start()
        .await?;
    println!("ready");
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    platform.shutdown().await;
    Ok(())
}

/// Every instance runs and says nothing: what an engine with as many containers would answer.
#[derive(Debug)]
struct Standing(Vec<Instance>);

fn unsupported() -> Error {
    Error::new(paas_core::Kind::Unsupported, "standing", "nothing is deployed while idling is measured")
}

#[async_trait]
impl ContainerRuntime for Standing {
    fn addressing(&self) -> Addressing {
        Addressing::Runtime
    }

    async fn ensure(&self, _: &Context, _: &InstanceSpec) -> paas_core::Result<Instance> {
        Err(unsupported())
    }

    async fn inspect(&self, _: &Context, name: &InstanceName) -> paas_core::Result<Option<Instance>> {
        Ok(self.0.iter().find(|instance| instance.name == *name).cloned())
    }

    async fn list(&self, _: &Context, _: &Selector) -> paas_core::Result<Vec<Instance>> {
        Ok(self.0.clone())
    }

    async fn stop(&self, _: &Context, _: &InstanceName, _: Duration) -> paas_core::Result<()> {
        Err(unsupported())
    }

    async fn remove(&self, _: &Context, _: &InstanceName) -> paas_core::Result<()> {
        Err(unsupported())
    }

    async fn remove_network(&self, _: &Context, _: &OrgId) -> paas_core::Result<()> {
        Err(unsupported())
    }

    async fn networks(&self, _: &Context) -> paas_core::Result<Vec<OrgId>> {
        Ok(Vec::new())
    }

    async fn output(
        &self,
        _: &Context,
        _: &InstanceName,
        _: &OutputOptions,
    ) -> paas_core::Result<BoxStream<'static, paas_core::Result<OutputLine>>> {
        Ok(stream::pending().boxed())
    }

    async fn endings(&self, _: &Context) -> paas_core::Result<BoxStream<'static, ()>> {
        Ok(Box::pin(futures::stream::pending()))
    }

    async fn ping(&self, _: &Context) -> paas_core::Result<()> {
        Ok(())
    }
}
