//! Takes back what the steps of a failed or cancelled operation did.

use super::attend::{Attended, OnCancel};
use super::{Drive, Turn};
use crate::domain::{AppStatus, DeploymentSpec, InstanceName, Step};
use crate::engine::effects::{Scratch, Work};
use crate::engine::journal::Extra;
use crate::error::{Error, Failure, Fault, Result, Retry};
use crate::pipeline::{Event, Phase, State};

/// How often undoing is tried, outages not counted: for some minutes.
const UNDO_TRIES: u32 = 10;

impl Drive<'_> {
    pub(super) async fn undo_step(&mut self, step: Step) -> Result<Option<Turn>> {
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
            let attended = self.attend(&context, OnCancel::GoOn, undo).await?;
            if self.journal.state.phase != state.phase {
                // As of a step: it is somebody else's now.
                return Ok(None);
            }
            let error = match attended {
                Attended::Interrupted => return self.interrupt().await.map(Some),
                Attended::Done(Ok(writes)) => break (Event::UndoFinished { step }, writes),
                Attended::Done(Err(error)) => error,
            };
            let is_outage = self.is_outage(&error).await?;
            if !error.is_transient() || (!is_outage && tries + 1 == UNDO_TRIES) {
                tracing::warn!(?error, "a step could not be undone");
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
