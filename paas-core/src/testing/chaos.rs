//! Seeded faults: calls that fail, answers that are lost, sides that never answer.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use sha2::{Digest, Sha256};

use super::process::Process;
use crate::clock::Clock;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::wrap::{Pass, Verb};

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// It fails before it reaches the adapter: nothing happened.
    FailBefore,
    /// The adapter does it, and the answer is lost: it looks failed.
    LoseReply,
    /// It reaches the adapter so much later.
    Delay(Duration),
    /// It never reaches the adapter, and ends only when it is cancelled, out of time, or dropped.
    Hang,
}

/// How often which mischief is done.
///
/// Whether a call meets it follows from the seed, the operation and how many calls of that operation came before,
/// and from nothing else: the order of other calls does not change it.
///
/// ```
/// use paas_core::testing::chaos::{ChaosPlan, Mischief};
/// // Every tenth call fails before its effect, every tenth after it, and the second build hangs.
/// let plan = ChaosPlan { fail_before_percent: 10, lose_reply_percent: 10, ..ChaosPlan::calm() }
///     .nth("image.build", 2, Mischief::Hang);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChaosPlan {
    /// How many of a hundred calls fail before their effect.
    pub fail_before_percent: u8,
    /// How many of a hundred have their effect and lose their answer.
    pub lose_reply_percent: u8,
    /// How many of a hundred come late.
    pub delay_percent: u8,
    /// How many of a hundred hang.
    pub hang_percent: u8,
    /// The most by which a call comes late.
    pub longest_delay: Duration,
    /// What certain calls meet, by operation and number from 1, whatever the dice say.
    pub scripted: BTreeMap<(&'static str, u64), Mischief>,
}

impl ChaosPlan {
    /// Nothing happens to any call.
    #[must_use]
    pub fn calm() -> Self {
        Self::default()
    }

    /// Also does `mischief` to the `nth` call, counted from 1, of an operation such as `"store.commit"`.
    #[must_use]
    pub fn nth(mut self, operation: &'static str, nth: u64, mischief: Mischief) -> Self {
        self.scripted.insert((operation, nth), mischief);
        self
    }

    fn decide(&self, seed: u64, operation: &'static str, nth: u64) -> Option<Mischief> {
        if let Some(mischief) = self.scripted.get(&(operation, nth)) {
            return Some(*mischief);
        }
        // A digest and not a generator: its answer is the same in every version of every library.
        let digest = Sha256::new()
            .chain_update(seed.to_be_bytes())
            .chain_update(nth.to_be_bytes())
            .chain_update(operation)
            .finalize();
        let number =
            |at: usize| u32::from_be_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]]);
        let dice = number(0) % 100;
        let delay = self.longest_delay.mul_f64(f64::from(number(4)) / f64::from(u32::MAX));
        let mut below = 0;
        [
            (self.fail_before_percent, Mischief::FailBefore),
            (self.lose_reply_percent, Mischief::LoseReply),
            (self.delay_percent, Mischief::Delay(delay)),
            (self.hang_percent, Mischief::Hang),
        ]
        .into_iter()
        .find(|(percent, _)| {
            below += u32::from(*percent);
            dice < below
        })
        .map(|(_, mischief)| mischief)
    }
}

/// One mischief that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChaosEntry {
    /// The operation.
    pub operation: &'static str,
    /// Which call of that operation it was, counted from 1.
    pub nth: u64,
    /// What was done to it.
    pub mischief: Mischief,
}

impl fmt::Display for ChaosEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} #{}: {:?}", self.operation, self.nth, self.mischief)
    }
}

/// Does mischief to the calls of an adapter, as a plan and a seed say. It implements every trait.
///
/// Injected failures are `Unavailable` and transient, with the code `chaos`. Trees and open streams are left alone.
#[derive(Debug)]
pub struct Chaos<T> {
    inner: T,
    clock: Arc<dyn Clock>,
    seed: u64,
    plan: ChaosPlan,
    process: Process,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: BTreeMap<&'static str, u64>,
    journal: VecDeque<ChaosEntry>,
}

impl<T> Chaos<T> {
    /// How many entries the journal keeps, newest last.
    pub const JOURNAL_LENGTH: usize = 10_000;

    /// Does to the calls of `inner` what `plan` says with this seed.
    pub fn new(inner: T, clock: Arc<dyn Clock>, seed: u64, plan: ChaosPlan) -> Self {
        Self { inner, clock, seed, plan, process: Process::default(), state: Mutex::default() }
    }

    /// The same for the calls of a process that can be paused and killed.
    #[must_use]
    pub fn of_process(self, process: Process) -> Self {
        Self { process, ..self }
    }

    /// The adapter itself, for looking at what really happened.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// What was done so far: for the message of a test that fails, beside the seed.
    pub fn journal(&self) -> Vec<ChaosEntry> {
        self.locked().journal.iter().cloned().collect()
    }

    /// Counts a call and decides what it meets.
    fn meet(&self, operation: &'static str) -> Option<Mischief> {
        let mut state = self.locked();
        let nth = state.calls.entry(operation).or_default();
        *nth += 1;
        let nth = *nth;
        if self.process.is_calm() {
            return None;
        }
        let mischief = self.plan.decide(self.seed, operation, nth)?;
        if state.journal.len() == Self::JOURNAL_LENGTH {
            state.journal.pop_front();
        }
        state.journal.push_back(ChaosEntry { operation, nth, mischief });
        Some(mischief)
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn act<R>(
        &self,
        verb: Verb,
        context: Option<&Context>,
        call: BoxFuture<'_, Result<R>>,
    ) -> Result<R> {
        self.process.call(self.disturb(verb, context, call)).await
    }

    async fn disturb<R>(
        &self,
        verb: Verb,
        context: Option<&Context>,
        call: BoxFuture<'_, Result<R>>,
    ) -> Result<R> {
        let operation = verb.operation;
        let failed = || {
            Error::new(Kind::Unavailable, operation, "a fault was injected").code("chaos").fault(verb.fault)
        };
        // Until the adapter is reached nothing runs, so that these waits may be dropped.
        let wait = async |waiting: BoxFuture<'static, Result<()>>| match context {
            Some(context) => context.run(operation, waiting).await,
            None => waiting.await,
        };
        match self.meet(operation) {
            None => call.await,
            Some(Mischief::FailBefore) => Err(failed()),
            Some(Mischief::LoseReply) => {
                // Also when it failed by itself: nobody hears of that either.
                let _lost = call.await;
                Err(failed())
            }
            Some(Mischief::Delay(delay)) => {
                let clock = self.clock.clone();
                let late = async move {
                    clock.sleep(delay).await;
                    Ok(())
                };
                wait(Box::pin(late)).await?;
                call.await
            }
            Some(Mischief::Hang) => {
                wait(Box::pin(std::future::pending())).await?;
                Err(failed())
            }
        }
    }
}

impl<T: Send + Sync> Pass for Chaos<T> {
    type Inner = T;

    fn inner(&self) -> &T {
        &self.inner
    }

    async fn pass<'a, R: Send>(
        &'a self,
        verb: Verb,
        context: &'a Context,
        call: impl Fn() -> BoxFuture<'a, Result<R>> + Send + Sync + 'a,
    ) -> Result<R> {
        self.act(verb, Some(context), call()).await
    }

    async fn pass_once<'a, R: Send>(&'a self, verb: Verb, call: BoxFuture<'a, Result<R>>) -> Result<R> {
        self.act(verb, None, call).await
    }
}
