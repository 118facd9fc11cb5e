//! Goal 2: how soon an idle platform begins what it accepted, and how long its steps take.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use paas_core::memory::MemoryHost;
use paas_core::{
    Branches, Clock, CommitId, Context, Event, GitProvider, GitUrl, OrgId, Reference, Repository, Revision,
    RootDirectory, SourceTree, SystemClock,
};

use crate::contest::{Contest, Turn, median};
use crate::report::{Report, Row, Target};
use crate::store::pipeline;
use crate::{Effort, Result};

const ASKED: &str = "idle: asked → first step begun";
const ACCEPTED: &str = "idle: accepted → first step begun";

/// Notes when the first step of a deployment begins: it resolves the branch.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn GitProvider>,
    clock: Arc<SystemClock>,
    resolved: Mutex<Option<Duration>>,
}

#[async_trait]
impl GitProvider for Watched {
    async fn branches(&self, context: &Context, repository: &Repository) -> paas_core::Result<Branches> {
        self.inner.branches(context, repository).await
    }

    async fn resolve(
        &self,
        context: &Context,
        repository: &Repository,
        reference: &Reference,
    ) -> paas_core::Result<Revision> {
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.elapsed());
        self.inner.resolve(context, repository, reference).await
    }

    async fn fetch(
        &self,
        context: &Context,
        repository: &Repository,
        commit: &CommitId,
        root: &RootDirectory,
    ) -> paas_core::Result<Arc<dyn SourceTree>> {
        self.inner.fetch(context, repository, commit, root).await
    }

    async fn forget(&self, org: &OrgId, url: &GitUrl) -> paas_core::Result<()> {
        self.inner.forget(org, url).await
    }
}

pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let clock = Arc::new(SystemClock::new());
    let git = Arc::new(Watched {
        inner: pipeline::repository()?,
        clock: clock.clone(),
        resolved: Mutex::default(),
    });
    let platform = pipeline::platform(folder.path(), git.clone(), MemoryHost::new(clock.clone())).await?;
    let created = platform.apps().create(pipeline::new_app("idle")?).await?;
    created.first_deployment()?.outcome().await?;

    let (mut asked_times, mut accepted_times) = (Vec::new(), Vec::new());
    let (mut ended, mut commits) = (Contest::default(), Vec::new());
    for _ in 0..if effort.is_quick { 20 } else { 300 } {
        clock.sleep(Duration::from_millis(5)).await;
        let asked = clock.elapsed();
        let handle = platform.deploy("idle").await?;
        let accepted = clock.elapsed();
        let events: Vec<_> = handle.events(0).try_collect().await?;
        ended.add("pipeline", Turn::of_time(clock.elapsed() - asked));
        let resolved = git.resolved.lock().unwrap_or_else(PoisonError::into_inner).take();
        let resolved = resolved.ok_or("the deployment fetched nothing")?;
        asked_times.push((resolved - asked).as_secs_f64() * 1e3);
        // A worker may be faster than the answer.
        accepted_times.push(resolved.saturating_sub(accepted).as_secs_f64() * 1e3);
        let finished = events.iter().filter(|recorded| matches!(recorded.event, Event::Finished { .. }));
        commits.push(finished.count() as f64);
    }
    platform.shutdown().await;
    let percentile = |times: &mut Vec<f64>, percent: usize| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() * percent / 100).copied().unwrap_or_default()
    };
    let row = |what: &str, value, target| Row {
        goal: 2,
        what: what.to_owned(),
        who: "pipeline".to_owned(),
        value,
        unit: "ms",
        target,
        ..Row::default()
    };
    for (what, times, goal) in
        [(ACCEPTED, &mut accepted_times, Some(Target::AtMost(0.5))), (ASKED, &mut asked_times, None)]
    {
        report.row(row(&format!("{what}, p50"), percentile(times, 50), goal));
        report.row(row(&format!("{what}, p99"), percentile(times, 99), None));
    }
    let steps = median(commits.into_iter()).unwrap_or_default();
    let whole = ended.median("pipeline").map(|turn| turn.value).unwrap_or_default();
    report.row(row(&format!("idle: a whole deployment, {steps} steps, p50"), whole, None));
    report.row(row("idle: ten steps at that pace", whole / steps * 10.0, Some(Target::AtMost(4.0))));
    Ok(())
}
