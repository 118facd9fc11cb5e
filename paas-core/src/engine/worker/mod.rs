//! Takes one app's operations through the pipeline, under one lease.

mod attend;
mod tend;
mod undo;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use attend::{Attended, OnCancel};

use super::collector::OperationLog;
use super::effects::{Effects, FOREIGN_NAME, Performed, Scratch, Work};
use super::hub::{Hub, Watch};
use super::journal::{Extra, Journal};
use super::services::Services;
use crate::domain::{App, AppId, AppStatus, OperationKind, Step};
use crate::error::{Error, Failure, Kind, Result};
use crate::logs::LogSource;
use crate::pipeline::{Action, Event, Outcome, Output, Phase, State};
use crate::records::{self, Versioned};
use crate::store::{Batch, Expect, Lease, LeaseChange, Scope, StreamId, WorkClass, Write};

/// The most substitutes for an instance's name.
const MAX_FALLBACKS: u32 = 5;

/// Works on one app.
#[derive(Debug)]
pub(crate) struct Worker {
    pub services: Arc<Services>,
    pub effects: Arc<Effects>,
    pub hub: Arc<Hub>,
    /// Fires when the platform stops: the worker lets go of the app.
    pub stop: CancellationToken,
}

/// How a worker's turn on one operation ended.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// The operation is over, and the lease is still held for the next one.
    Ended,
    /// The lease was given back.
    Released,
}

impl Worker {
    /// Works until there is nothing to do for the app now.
    ///
    /// # Errors
    /// `Conflict` with the code `fenced` when the lease was lost; `Unsupported` for a journal that this
    /// version can't read; the store's.
    pub(crate) async fn run(&self, mut lease: Lease) -> Result<()> {
        let app: AppId = lease.key.parse()?;
        let mut renew_at = self.services.clock.elapsed() + self.services.settings.lease_renewal;
        loop {
            let status: Option<Versioned<AppStatus>> =
                self.services.records().get(&lease.scope, app.as_str()).await?;
            let next = status.as_ref().and_then(|status| status.value.next_operation().cloned());
            let Some(id) = next else {
                let span = tracing::info_span!("tend", org = Empty, %app);
                if let Scope::Org(org) = &lease.scope {
                    span.record("org", tracing::field::display(org));
                }
                let again = self.tend(&mut lease, &app, status).instrument(span).await?;
                return self.release(&lease, again.map(|after| (WorkClass::Light, after))).await;
            };
            let Some(mut journal) = Journal::load(self.services.clone(), lease.clone(), &app, &id).await?
            else {
                return self.release(&lease, None).await;
            };
            if self.drive(&mut journal, &mut renew_at).await? == Turn::Released {
                return Ok(());
            }
            lease = journal.lease().clone();
        }
    }

    async fn release(&self, lease: &Lease, next: Option<(WorkClass, Duration)>) -> Result<()> {
        let release = LeaseChange::Release { lease: lease.clone(), next };
        let batch = Batch { fence: Some(lease.clone()), leases: vec![release], ..Batch::default() };
        self.services.store.commit(batch).await.map(drop)
    }

    /// Takes one operation as far as it goes now.
    async fn drive(&self, journal: &mut Journal, renew_at: &mut Duration) -> Result<Turn> {
        let spec = &journal.spec;
        let span = tracing::info_span!(
            "operation",
            org = %spec.org,
            app = %spec.app,
            deployment = %spec.id,
            kind = %spec.kind.as_str(),
            outcome = Empty,
        );
        let id = spec.id.clone();
        let news = self.hub.watch(StreamId::from(&id));
        let log = OperationLog::start(self.services.logs.clone(), journal.spec.app.clone(), id);
        let mut drive = Drive {
            worker: self,
            journal,
            news,
            log,
            scratch: Scratch::default(),
            renew_at,
            is_overdue: false,
        };
        let work = async {
            let turn = drive.take_steps().await;
            drive.log.flush().await;
            turn
        };
        work.instrument(span).await
    }
}

/// One worker on one operation.
struct Drive<'a> {
    worker: &'a Worker,
    journal: &'a mut Journal,
    news: Watch,
    log: Arc<OperationLog>,
    scratch: Scratch,
    /// When the lease is renewed next, in monotonic time. It outlives the steps: many short ones are a long time.
    renew_at: &'a mut Duration,
    /// True once the effect that is under way had to be cancelled because its time was up.
    is_overdue: bool,
}

impl Drive<'_> {
    fn services(&self) -> &Services {
        &self.worker.services
    }

    async fn take_steps(&mut self) -> Result<Turn> {
        loop {
            let now = self.services().clock.now();
            if self.worker.stop.is_cancelled() {
                return self.let_go(self.journal.lease().class, Duration::ZERO).await;
            }
            if self.services().clock.elapsed() >= *self.renew_at {
                self.renew().await?;
            }
            match self.journal.state.decide(now) {
                Action::Do { step, .. }
                    if step == Step::Build && self.journal.lease().class != WorkClass::Build =>
                {
                    return self.let_go(WorkClass::Build, Duration::ZERO).await;
                }
                Action::Do { step, attempt } => {
                    if !matches!(self.journal.state.phase, Phase::Running { .. }) {
                        self.begin(step, attempt).await?;
                        continue;
                    }
                    let span = tracing::info_span!("step", step = %step.as_str(), attempt, outcome = Empty);
                    if let Some(turn) = self.do_step(step, attempt).instrument(span).await? {
                        return Ok(turn);
                    }
                }
                Action::Undo { step } => {
                    let span = tracing::info_span!("undo", step = %step.as_str());
                    if let Some(turn) = self.undo_step(step).instrument(span).await? {
                        return Ok(turn);
                    }
                }
                Action::Sleep { until } => {
                    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    return self.let_go(WorkClass::Light, wait).await;
                }
                Action::Finish { outcome } => return self.end(&outcome).await,
                Action::Wait { by } => {
                    let error = Error::new(Kind::Unsupported, "worker.drive", by.to_string());
                    return Err(error.context("deployment", &self.journal.spec.id));
                }
                Action::Idle => return self.skip().await,
            }
        }
    }

    /// Goes on with the next operation when this one was ended by others before it began, as in a queue.
    async fn skip(&mut self) -> Result<Turn> {
        self.journal.reload().await?;
        let (id, status) = (&self.journal.spec.id, self.journal.status());
        if status.active.as_ref() == Some(id) || status.queue.contains(id) {
            // Its last event and the app's record are written in one commit: they can't disagree.
            return Err(Error::internal("worker.drive", "the active operation is over already")
                .context("deployment", id));
        }
        Ok(Turn::Ended)
    }

    async fn let_go(&self, class: WorkClass, after: Duration) -> Result<Turn> {
        // Another worker goes on: what this one wrote comes before what that one does.
        self.log.flush().await;
        self.worker.release(self.journal.lease(), Some((class, after))).await?;
        Ok(Turn::Released)
    }

    async fn begin(&mut self, step: Step, attempt: u32) -> Result<()> {
        let make = |state: &State, _: &AppStatus| {
            // Somebody may have asked to cancel in the meantime.
            let is_wanted = state.decide(Timestamp::MAX) == Action::Do { step, attempt };
            let events = is_wanted.then_some(Event::Started { step, attempt });
            Ok((events.into_iter().collect(), Extra::default()))
        };
        self.journal.commit(make).await
    }

    /// Does a step and records what came of it, with the beginning of the next step.
    async fn do_step(&mut self, step: Step, attempt: u32) -> Result<Option<Turn>> {
        let remaining = self.services().settings.retry.deadline.saturating_sub(self.journal.state.busy);
        let effects = self.worker.effects.clone();
        let budget = effects.budget(step, &self.journal.spec).min(remaining);
        let context = self.services().context().with_budget(budget).with_log(self.log.sink());
        let (state, status, spec) =
            (self.journal.state.clone(), self.journal.status().clone(), self.journal.spec.clone());
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut work = Work { spec: &spec, state: &state, status: &status, scratch: &mut scratch };
        let began = self.services().clock.elapsed();
        let attended = if is_cancelled(&state) {
            // It began before a crash and is not wanted any more: undoing looks for what it left.
            Attended::Done(Err(Error::cancelled("worker.do_step")))
        } else {
            self.attend(&context, OnCancel::End, effects.perform(&context, step, &mut work)).await?
        };
        self.scratch = scratch;
        if self.journal.state.phase != state.phase {
            // Somebody gave it up, or a newer version wrote what this one can't read: what came of the step is theirs.
            return Ok(None);
        }
        let busy = self.services().clock.elapsed().saturating_sub(began);
        match attended {
            Attended::Interrupted => self.interrupt().await.map(Some),
            Attended::Done(Err(error))
                if error.reason() == Some(FOREIGN_NAME)
                    && step == Step::Start
                    && state.fallback < MAX_FALLBACKS =>
            {
                let fallback = state.fallback + 1;
                let make =
                    |_: &State, _: &AppStatus| Ok((vec![Event::NameTaken { fallback }], Extra::default()));
                self.journal.commit(make).await.map(|()| None)
            }
            Attended::Done(Err(error)) => {
                self.record_failure(step, attempt, &error, busy).await.map(|()| None)
            }
            Attended::Done(Ok(performed)) => self.record_success(step, attempt, performed, busy).await,
        }
    }

    async fn record_failure(
        &mut self,
        step: Step,
        attempt: u32,
        error: &Error,
        busy: Duration,
    ) -> Result<()> {
        if error.kind() == Kind::Internal {
            tracing::error!(?error, "a step failed");
        } else {
            tracing::info!(?error, "a step failed");
        }
        Span::current().record("outcome", error.kind().as_str());
        let is_outage = self.is_outage(error).await?;
        let (random, now) = (self.services().ids.random(), self.services().clock.now());
        let (busy_millis, left) = (millis(busy), std::mem::take(&mut self.scratch.left));
        let services = self.worker.services.clone();
        let make = |state: &State, _: &AppStatus| {
            let event = if is_cancelled(state) {
                let failure = Failure::from(&Error::cancelled(error.operation().to_owned()));
                Event::Failed { step, attempt, failure, retry: None, busy_millis }
            } else {
                let policy = &services.settings.retry;
                let retry = if is_outage {
                    Some(policy.wait_out(state, step, attempt, error, now, random))
                } else {
                    policy.after(state, step, attempt, error, now, random)
                };
                if retry.is_none() && step == Step::Retire {
                    // It never fails the operation: what is left is the warden's.
                    Event::Finished {
                        step,
                        output: Output::Retired { removed: Vec::new(), left: left.clone() },
                        busy_millis,
                    }
                } else {
                    Event::Failed { step, attempt, failure: Failure::from(error), retry, busy_millis }
                }
            };
            Ok((vec![event], Extra::default()))
        };
        self.journal.commit(make).await?;
        if let Phase::Waiting { retry, since } = &self.journal.state.phase {
            let seconds = retry.at.duration_since(*since).as_secs_f64();
            let text = format!("{}: {error}; it is tried again in {seconds:.1} s", step.as_str());
            self.log.sink().line(LogSource::System, text);
        }
        Ok(())
    }

    async fn record_success(
        &mut self,
        step: Step,
        attempt: u32,
        performed: Performed,
        busy: Duration,
    ) -> Result<Option<Turn>> {
        let Performed { output, found, writes } = performed;
        let busy_millis = millis(busy);
        let lease = self.journal.lease().clone();
        let frees_slot = step == Step::Build && lease.class == WorkClass::Build;
        if step == Step::Route || frees_slot {
            // With this commit it is settled, or another worker goes on and settles it: who reads its log then finds
            // every line.
            self.log.flush().await;
        }
        let make = |state: &State, _: &AppStatus| {
            if is_cancelled(state) {
                let failure = Failure::from(&Error::cancelled("worker.record_success"));
                let failed = Event::Failed { step, attempt, failure, retry: None, busy_millis };
                return Ok((vec![failed], Extra::default()));
            }
            let mut events = vec![Event::Finished { step, output: output.clone(), busy_millis }];
            let mut last = step;
            if let Some(image) = &found {
                last = Step::Build;
                events.push(Event::Started { step: last, attempt: 1 });
                events.push(Event::Finished {
                    step: last,
                    output: Output::Built { image: image.clone(), cached: true },
                    busy_millis: 0,
                });
            }
            let mut extra = Extra { writes: writes.clone(), ..Extra::default() };
            if frees_slot {
                let next = Some((WorkClass::Light, Duration::ZERO));
                extra.release = Some(LeaseChange::Release { lease: lease.clone(), next });
            } else if let Some(next) = state.kind().step_after(last).filter(|next| *next != Step::Build) {
                events.push(Event::Started { step: next, attempt: 1 });
            }
            Ok((events, extra))
        };
        self.journal.commit(make).await?;
        self.services().outages.go_on(&self.journal.spec.app);
        Span::current().record("outcome", "ok");
        tracing::info!(busy_millis, "a step is done");
        Ok((frees_slot && !is_cancelled(&self.journal.state)).then_some(Turn::Released))
    }

    /// Lets go of what goes on at the next start.
    async fn interrupt(&mut self) -> Result<Turn> {
        self.let_go(self.journal.lease().class, Duration::ZERO).await
    }

    /// Records the end, and gives the lease back when nothing waits behind it, or when it takes a build slot, which
    /// what waits has no use for.
    async fn end(&mut self, outcome: &Outcome) -> Result<Turn> {
        // Whoever waits for the end may read the log right behind it.
        self.log.flush().await;
        let is_deleted = self.journal.spec.kind == OperationKind::Delete && *outcome == Outcome::Succeeded;
        let (removals, appends) = if is_deleted { self.removal().await? } else { (Vec::new(), Vec::new()) };
        let lease = self.journal.lease().clone();
        let id = self.journal.spec.id.clone();
        let make = |_: &State, status: &AppStatus| {
            let is_last = is_deleted || status.queue.iter().all(|queued| *queued == id);
            let next = (!is_last).then_some((WorkClass::Light, Duration::ZERO));
            let gives_back = is_last || lease.class == WorkClass::Build;
            let release = gives_back.then(|| LeaseChange::Release { lease: lease.clone(), next });
            let extra = Extra {
                writes: removals.clone(),
                appends: appends.clone(),
                release,
                removes_app: is_deleted,
            };
            Ok((vec![Event::Ended { outcome: outcome.clone() }], extra))
        };
        self.journal.commit(make).await?;
        Span::current().record("outcome", outcome.as_str());
        tracing::info!("an operation ended");
        let is_last = is_deleted || self.journal.status().queue.is_empty();
        Ok(if is_last || lease.class == WorkClass::Build { Turn::Released } else { Turn::Ended })
    }

    /// The records that go with the last commit of a deletion, and the app's own last event.
    async fn removal(&self) -> Result<(Vec<Write>, Vec<crate::store::Append>)> {
        let journal = &self.journal;
        let records = self.services().records();
        let scope = Scope::Org(journal.spec.org.clone());
        let mut writes =
            vec![records::remove(journal.status(), Expect::Any), records::remove(&journal.spec, Expect::Any)];
        let app: Option<Versioned<App>> = records.get(&scope, journal.spec.app.as_str()).await?;
        let Some(app) = app else { return Ok((writes, Vec::new())) };
        writes.push(records::remove(&app.value, Expect::Any));
        let stream = StreamId::from(&app.value.id);
        let version = records.count_events(&scope, &stream).await?;
        let event = Event::AppDeleted { name: app.value.name };
        let append = records::append(scope, stream, version, self.services().clock.now(), &[event])?;
        Ok((writes, vec![append]))
    }
}

/// True if the operation is to stop and still can.
fn is_cancelled(state: &State) -> bool {
    state.cancel.is_some() && !state.is_committed()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
