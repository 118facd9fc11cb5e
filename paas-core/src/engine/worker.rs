//! Takes one app's operations through the pipeline, under one lease.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::collector::OperationLog;
use super::effects::{Effects, FOREIGN_NAME, Performed, Scratch, Work};
use super::hub::{Hub, Watch};
use super::journal::{Extra, Journal};
use super::services::Services;
use crate::context::Context;
use crate::domain::{App, AppId, AppStatus, DeploymentSpec, InstanceName, OperationKind, Step};
use crate::error::{Error, Failure, Fault, Kind, Result, Retry};
use crate::pipeline::{Action, Event, Outcome, Output, Phase, State, may_be_outage};
use crate::records::{self, Versioned};
use crate::store::{Batch, Expect, Lease, LeaseChange, Scope, StreamId, WorkClass, Write};

/// The most substitutes for an instance's name.
const MAX_FALLBACKS: u32 = 5;
/// How long a cancelled step gets to prove that nothing of it goes on.
const CANCEL_GRACE: Duration = Duration::from_secs(60);
/// How long a step that is under way gets to end when the platform stops.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a step that used up its time gets to notice by itself before it is cancelled.
const BUDGET_GRACE: Duration = Duration::from_secs(10);
/// How often undoing is tried, outages not counted: for some minutes.
const UNDO_TRIES: u32 = 10;

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

/// What a request to cancel means for what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnCancel {
    /// It is to end.
    End,
    /// Nothing: it is what the request asks for.
    GoOn,
}

/// What became of an effect.
enum Attended<T> {
    /// It came to an end.
    Done(Result<T>),
    /// The platform stops: whether it acted is for the next start to find out.
    Interrupted,
}

impl Worker {
    /// Works until there is nothing to do for the app now.
    ///
    /// # Errors
    /// `Conflict` with the code `fenced` when the lease was lost; `Internal` with the code `unknown_event` for a
    /// journal that this version can't read; the store's.
    pub(crate) async fn run(&self, mut lease: Lease) -> Result<()> {
        let app: AppId = lease.key.parse()?;
        let mut renew_at = self.services.clock.elapsed() + self.services.settings.lease_renewal;
        loop {
            let status: Option<Versioned<AppStatus>> =
                self.services.records().get(&lease.scope, app.as_str()).await?;
            let next =
                status.and_then(|status| status.value.active.or_else(|| status.value.queue.first().cloned()));
            let Some(id) = next else { return self.release(&lease, None).await };
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

    async fn release(&self, lease: &Lease, next: Option<(WorkClass, Timestamp)>) -> Result<()> {
        let release = LeaseChange::Release { lease: lease.clone(), next };
        let batch = Batch { fence: Some(lease.clone()), leases: vec![release], ..Batch::default() };
        self.services.store.commit(batch).await.map(drop)
    }

    /// Takes one operation as far as it goes now.
    async fn drive(&self, journal: &mut Journal, renew_at: &mut Duration) -> Result<Turn> {
        let id = journal.spec.id.clone();
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
        let turn = drive.take_steps().await;
        drive.log.flush().await;
        turn
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
                return self.let_go(self.journal.lease().class, now).await;
            }
            if self.services().clock.elapsed() >= *self.renew_at {
                self.renew().await?;
            }
            match self.journal.state.decide(now) {
                Action::Do { step, .. }
                    if step == Step::Build && self.journal.lease().class != WorkClass::Build =>
                {
                    return self.let_go(WorkClass::Build, now).await;
                }
                Action::Do { step, attempt } => {
                    if !matches!(self.journal.state.phase, Phase::Running { .. }) {
                        self.begin(step, attempt).await?;
                        continue;
                    }
                    if let Some(turn) = self.do_step(step, attempt).await? {
                        return Ok(turn);
                    }
                }
                Action::Undo { step } => {
                    if let Some(turn) = self.undo_step(step).await? {
                        return Ok(turn);
                    }
                }
                Action::Sleep { until } => return self.let_go(WorkClass::Light, until).await,
                Action::Finish { outcome } => return self.end(&outcome).await,
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

    async fn let_go(&self, class: WorkClass, due: Timestamp) -> Result<Turn> {
        self.worker.release(self.journal.lease(), Some((class, due))).await?;
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

    /// Runs an effect, and meanwhile renews the lease, watches for a request to cancel, and ends what takes longer
    /// than it may. The outer error is the worker's, the inner one the effect's.
    async fn attend<T>(
        &mut self,
        context: &Context,
        on_cancel: OnCancel,
        effect: impl Future<Output = Result<T>>,
    ) -> Result<Attended<T>> {
        let stop = self.worker.stop.clone();
        self.is_overdue = false;
        // An adapter that panics fails its step; what it was given is not used again.
        let effect = AssertUnwindSafe(effect).catch_unwind();
        let result = tokio::select! {
            biased;
            result = effect => result.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))),
            // Beside the effect, which goes on meanwhile: what this waits for, such as a connection to the store, may
            // be what the effect was just given.
            ended = self.watch(context, on_cancel) => Err(ended?),
        };
        Ok(match result {
            Err(_) if stop.is_cancelled() && context.is_cancelled() => Attended::Interrupted,
            Err(error) if self.is_overdue && error.kind() == Kind::Cancelled => {
                Attended::Done(Err(Error::new(Kind::Timeout, "worker.attend", "it took longer than it may")))
            }
            result => Attended::Done(result),
        })
    }

    /// Renews the lease, looks for a request to cancel and at the time, until a cancelled effect is overdue: answers
    /// the error that stands for it. Dropping it is safe at any time.
    async fn watch(&mut self, context: &Context, on_cancel: OnCancel) -> Result<Error> {
        let clock = self.services().clock.clone();
        let stop = self.worker.stop.clone();
        let (mut cancel_until, mut stop_at) = (None, None);
        let mut overdue_at =
            context.remaining().map(|left| clock.elapsed().saturating_add(left).saturating_add(BUDGET_GRACE));
        loop {
            if context.is_cancelled() && cancel_until.is_none() {
                cancel_until = Some(clock.elapsed() + CANCEL_GRACE);
            }
            let wake_at = [cancel_until, stop_at, overdue_at].into_iter().flatten().min();
            let wake_at = wake_at.map_or(*self.renew_at, |at| at.min(*self.renew_at));
            tokio::select! {
                biased;
                () = stop.cancelled(), if stop_at.is_none() => stop_at = Some(clock.elapsed() + STOP_GRACE),
                () = self.news.changed() => self.watch_for_cancel(context, on_cancel).await?,
                () = clock.sleep(wake_at.saturating_sub(clock.elapsed())) => {
                    let now = clock.elapsed();
                    if cancel_until.is_some_and(|until| now >= until) {
                        tracing::warn!(deployment = %self.journal.spec.id, "a cancelled step did not end in time");
                        return Ok(Error::cancelled("worker.attend"));
                    }
                    if stop_at.is_some_and(|at| now >= at) {
                        context.cancel();
                        stop_at = Some(now + CANCEL_GRACE);
                    }
                    if overdue_at.is_some_and(|at| now >= at) {
                        self.is_overdue = true;
                        context.cancel();
                        overdue_at = None;
                    }
                    if now >= *self.renew_at {
                        if let Err(error) = self.renew().await {
                            context.cancel();
                            return Err(error);
                        }
                        self.watch_for_cancel(context, on_cancel).await?;
                    }
                }
            }
        }
    }

    async fn watch_for_cancel(&mut self, context: &Context, on_cancel: OnCancel) -> Result<()> {
        match self.journal.refresh().await {
            // The store is out: the next renewal looks again.
            Err(error) if error.is_transient() => return Ok(()),
            result => result?,
        }
        if on_cancel == OnCancel::End && is_cancelled(&self.journal.state) {
            context.cancel();
        }
        Ok(())
    }

    /// # Errors
    /// `Conflict` when the lease is lost.
    async fn renew(&mut self) -> Result<()> {
        let (duration, renewal) = (self.services().settings.lease, self.services().settings.lease_renewal);
        *self.renew_at = self.services().clock.elapsed() + renewal;
        match self.services().store.renew(self.journal.lease(), duration).await {
            Ok(lease) => {
                self.journal.set_lease(lease);
                Ok(())
            }
            Err(error) if error.kind() == Kind::Conflict => Err(error),
            // The store is out: the lease may still be good, and every write is fenced.
            Err(_) => Ok(()),
        }
    }

    /// True if the failure came of an outage of the platform's own parts, which is waited out.
    async fn is_outage(&mut self, error: &Error) -> Result<bool> {
        if !may_be_outage(error) {
            return Ok(false);
        }
        let services = self.worker.services.clone();
        let context = services.context();
        let ask = async { Ok(services.is_out(&context).await) };
        Ok(matches!(self.attend(&context, OnCancel::GoOn, ask).await?, Attended::Done(Ok(true))))
    }

    async fn record_failure(
        &mut self,
        step: Step,
        attempt: u32,
        error: &Error,
        busy: Duration,
    ) -> Result<()> {
        if error.kind() == Kind::Internal {
            tracing::error!(deployment = %self.journal.spec.id, ?step, ?error, "a step failed");
        } else {
            tracing::info!(deployment = %self.journal.spec.id, ?step, ?error, "a step failed");
        }
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
        self.journal.commit(make).await
    }

    async fn record_success(
        &mut self,
        step: Step,
        attempt: u32,
        performed: Performed,
        busy: Duration,
    ) -> Result<Option<Turn>> {
        let Performed { output, found, writes } = performed;
        if step == Step::Route {
            // Whoever waits for this commit may read the log right behind it.
            self.log.flush().await;
        }
        let busy_millis = millis(busy);
        let (now, lease) = (self.services().clock.now(), self.journal.lease().clone());
        let frees_slot = step == Step::Build && lease.class == WorkClass::Build;
        if step == Step::Route {
            // It is settled with this commit: who reads its log then finds every line.
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
                let next = Some((WorkClass::Light, now));
                extra.release = Some(LeaseChange::Release { lease: lease.clone(), next });
            } else if let Some(next) = state.kind().step_after(last).filter(|next| *next != Step::Build) {
                events.push(Event::Started { step: next, attempt: 1 });
            }
            Ok((events, extra))
        };
        self.journal.commit(make).await?;
        Ok((frees_slot && !is_cancelled(&self.journal.state)).then_some(Turn::Released))
    }

    async fn undo_step(&mut self, step: Step) -> Result<Option<Turn>> {
        if self.journal.state.phase != (Phase::Undoing { step: Some(step) }) {
            let make = |_: &State, _: &AppStatus| Ok((vec![Event::UndoStarted { step }], Extra::default()));
            return self.journal.commit(make).await.map(|()| None);
        }
        let effects = self.worker.effects.clone();
        let (state, status, spec) =
            (self.journal.state.clone(), self.journal.status().clone(), self.journal.spec.clone());
        let mut scratch = Scratch::default();
        let (mut tries, mut outages) = (0, 0);
        let (event, writes) = loop {
            let context = self.services().context().with_log(self.log.sink());
            let context = context.with_budget(effects.budget(step, &spec));
            let mut work = Work { spec: &spec, state: &state, status: &status, scratch: &mut scratch };
            let undo = effects.undo(&context, step, &mut work);
            let error = match self.attend(&context, OnCancel::GoOn, undo).await? {
                Attended::Interrupted => return self.interrupt().await.map(Some),
                Attended::Done(Ok(writes)) => break (Event::UndoFinished { step }, writes),
                Attended::Done(Err(error)) => error,
            };
            let is_outage = self.is_outage(&error).await?;
            if !error.is_transient() || (!is_outage && tries + 1 == UNDO_TRIES) {
                tracing::warn!(deployment = %spec.id, ?step, ?error, "a step could not be undone");
                let failure = leftover(&spec, &state, step, &error);
                break (Event::UndoFailed { step, failure }, Vec::new());
            }
            let counter = if is_outage { &mut outages } else { &mut tries };
            let random = self.services().ids.random();
            let delay = self.services().settings.retry.backoff.delay(*counter, random, None);
            *counter += 1;
            let context = self.services().context();
            let pause = context.sleep("worker.undo", delay);
            if matches!(self.attend(&context, OnCancel::GoOn, pause).await?, Attended::Interrupted) {
                return self.interrupt().await.map(Some);
            }
        };
        let make = |_: &State, _: &AppStatus| {
            Ok((vec![event.clone()], Extra { writes: writes.clone(), ..Extra::default() }))
        };
        self.journal.commit(make).await.map(|()| None)
    }

    /// Lets go of what goes on at the next start.
    async fn interrupt(&mut self) -> Result<Turn> {
        let now = self.services().clock.now();
        self.let_go(self.journal.lease().class, now).await
    }

    /// Records the end, and gives the lease back when nothing waits behind it, or when it takes a build slot, which
    /// what waits has no use for.
    async fn end(&mut self, outcome: &Outcome) -> Result<Turn> {
        // Whoever waits for the end may read the log right behind it.
        self.log.flush().await;
        let is_deleted = self.journal.spec.kind == OperationKind::Delete && *outcome == Outcome::Succeeded;
        let (removals, appends) = if is_deleted { self.removal().await? } else { (Vec::new(), Vec::new()) };
        let (now, lease) = (self.services().clock.now(), self.journal.lease().clone());
        let id = self.journal.spec.id.clone();
        // Who reads its log once it is over finds every line.
        self.log.flush().await;
        let make = |_: &State, status: &AppStatus| {
            let is_last = is_deleted || status.queue.iter().all(|queued| *queued == id);
            let next = (!is_last).then_some((WorkClass::Light, now));
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
        let version = records.events(&scope, &stream, 0).await?.last().map_or(0, |last| last.version);
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

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    Error::internal("worker.attend", format!("panicked: {}", text.unwrap_or("without a text")))
}

/// What people are told of a step that could not be undone.
fn leftover(spec: &DeploymentSpec, state: &State, step: Step, error: &Error) -> Failure {
    let what = match step {
        Step::Route => "its route".to_owned(),
        _ => format!("its instance {}", InstanceName::of(&spec.id, state.fallback)),
    };
    let told = Error::new(error.kind(), "worker.undo", format!("{what} could not be taken back: {error}"))
        .fault(Fault::Platform)
        .retry(Retry::Permanent)
        .hint("the next operation of the app takes it back; until then it may still be there");
    Failure::from(&told)
}
