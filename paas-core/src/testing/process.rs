//! A simulated process: it can be paused and killed, as the real one can.

use crate::watch::Sender;

/// The process that calls come from, as [`Chaos`](super::chaos::Chaos) sees it. Clones are the same process.
///
/// # Guarantees
/// - A paused process makes no call and hears no answer; what it asked for before goes on meanwhile.
/// - A killed one never again does either, and what was under way for it ends as if its connection had: whether it
///   had its effect is open.
///
/// ```
/// use paas_core::testing::process::Process;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let process = Process::default();
/// assert_eq!(process.call(async { 7 }).await, 7);
/// process.kill();
/// assert!(!process.is_alive());
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Process(Sender<Condition>);

#[derive(Clone, Copy, Debug, Default)]
struct Condition {
    is_paused: bool,
    is_killed: bool,
    is_calm: bool,
}

impl Process {
    /// Stops it, until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.0.modify(|condition| condition.is_paused = true);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.0.modify(|condition| condition.is_paused = false);
    }

    /// Ends it for ever.
    pub fn kill(&self) {
        self.0.modify(|condition| condition.is_killed = true);
    }

    /// From here on its calls meet no mischief.
    pub fn calm(&self) {
        self.0.modify(|condition| condition.is_calm = true);
    }

    /// True until it is killed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.0.value().is_killed
    }

    pub(super) fn is_calm(&self) -> bool {
        self.0.value().is_calm
    }

    /// Makes a call from this process.
    pub async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        self.running().await;
        let answer = tokio::select! {
            biased;
            () = self.killed() => None,
            answer = call => Some(answer),
        };
        self.running().await;
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    async fn running(&self) {
        self.until(|condition| !condition.is_paused && !condition.is_killed).await;
    }

    async fn killed(&self) {
        self.until(|condition| condition.is_killed).await;
    }

    async fn until(&self, wanted: impl Fn(&Condition) -> bool) {
        self.0.subscribe().until(wanted).await;
    }
}
