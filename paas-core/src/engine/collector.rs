//! Brings instances' output into the log store, and operations' own lines.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::domain::{AppId, DeploymentId, Instance, InstanceName};
use crate::engine::services::Services;
use crate::logs::{LogSink, LogSource, LogStore, LogStream, LogWriter, NewLogLine};
use crate::runtime::{OutputLine, OutputOptions, Selector};

/// The most lines that one append takes.
const BATCH_LINES: usize = 512;
/// How many lines may wait for the log store before further ones are dropped and counted.
const QUEUE_LINES: usize = 8192;
/// How many lines a second of one instance are kept; the rest is counted.
const LINES_PER_SECOND: u64 = 10_000;
/// How long a finished instance's last lines are waited for.
const FINISH: Duration = Duration::from_secs(5);
/// How often a silent, ended instance is looked at again.
const POLL: Duration = Duration::from_secs(5);

/// Follows the output of every instance, one task each.
#[derive(Debug)]
pub(crate) struct Collector {
    services: Arc<Services>,
    followers: Mutex<BTreeMap<InstanceName, Follower>>,
}

#[derive(Debug)]
struct Follower {
    /// Set when the instance has ended for good: the follower ends with its output.
    last: CancellationToken,
    task: JoinHandle<()>,
}

impl Collector {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self { services, followers: Mutex::default() }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<InstanceName, Follower>> {
        // Nothing that panics runs under this lock.
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows every instance that runs now: what the platform does when it starts.
    pub(crate) async fn follow_all(&self) -> crate::Result<()> {
        let context = self.services.context().with_budget(Duration::from_secs(30));
        for instance in self.services.runtime.list(&context, &Selector::default()).await? {
            self.follow(&instance);
        }
        Ok(())
    }

    /// Follows an instance from the last line that is stored. Doing it again changes nothing.
    pub(crate) fn follow(&self, instance: &Instance) {
        let mut followers = self.locked();
        followers.retain(|_, follower| !follower.task.is_finished());
        if followers.contains_key(&instance.name) {
            return;
        }
        let last = CancellationToken::new();
        let work = follow(self.services.clone(), instance.clone(), last.clone());
        followers.insert(instance.name.clone(), Follower { last, task: tokio::spawn(work) });
    }

    /// Returns when the output of an instance whose process has ended is stored, or when it takes too long.
    pub(crate) async fn finish(&self, name: &InstanceName) {
        let Some(mut follower) = self.locked().remove(name) else { return };
        follower.last.cancel();
        tokio::select! {
            biased;
            _ = &mut follower.task => {}
            () = self.services.clock.sleep(FINISH) => follower.task.abort(),
        }
    }

    /// Ends every follower: what was stored stays, the rest is read at the next start.
    pub(crate) fn stop(&self) {
        for follower in std::mem::take(&mut *self.locked()).into_values() {
            follower.task.abort();
        }
    }
}

async fn follow(services: Arc<Services>, instance: Instance, last: CancellationToken) {
    let context = services.context();
    loop {
        if let Err(error) = read(&services, &context, &instance).await {
            tracing::debug!(instance = %instance.name, ?error, "an instance's output can't be read");
        }
        if last.is_cancelled() {
            return;
        }
        match services.runtime.inspect(&context, &instance.name).await {
            Ok(None) => return,
            Ok(Some(_)) | Err(_) => {
                tokio::select! {
                    biased;
                    // What came between the end of the output and the end of the process is still to be read.
                    () = last.cancelled() => {}
                    () = services.clock.sleep(POLL) => {}
                }
            }
        }
    }
}

/// Stores output until it ends.
async fn read(services: &Services, context: &Context, instance: &Instance) -> crate::Result<()> {
    let after = services.logs.last_of(&instance.app, &instance.name).await?;
    let options = OutputOptions { after, tail: None, follow: true };
    let output = services.runtime.output(context, &instance.name, &options).await?;
    let mut batches = output.ready_chunks(BATCH_LINES);
    let mut rate = Rate::default();
    while let Some(batch) = batches.next().await {
        let (mut lines, mut failed) = (Vec::with_capacity(batch.len()), None);
        for line in batch {
            match line {
                Ok(line) => rate.admit(services.clock.elapsed(), line, instance, &mut lines),
                Err(error) => failed = Some(error),
            }
        }
        services.logs.append(&instance.app, lines).await?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

/// Caps the lines a second, and says how many were not kept.
#[derive(Debug, Default)]
struct Rate {
    second: u64,
    admitted: u64,
    dropped: u64,
}

impl Rate {
    fn admit(
        &mut self,
        elapsed: Duration,
        line: OutputLine,
        instance: &Instance,
        lines: &mut Vec<NewLogLine>,
    ) {
        if elapsed.as_secs() != self.second {
            self.second = elapsed.as_secs();
            self.admitted = 0;
            if self.dropped > 0 {
                let text =
                    format!("[{} lines dropped: more than {LINES_PER_SECOND} lines a second]", self.dropped);
                self.dropped = 0;
                lines.push(NewLogLine { text, ..stored(&line, instance) });
            }
        }
        if self.admitted >= LINES_PER_SECOND {
            self.dropped += 1;
            return;
        }
        self.admitted += 1;
        lines.push(NewLogLine { text: line.text.clone(), ..stored(&line, instance) });
    }
}

fn stored(line: &OutputLine, instance: &Instance) -> NewLogLine {
    NewLogLine {
        at: Some(line.at),
        source: LogSource::App,
        stream: line.stream,
        instance: Some(instance.name.clone()),
        deployment: Some(instance.deployment.clone()),
        text: String::new(),
    }
}

/// The log of one operation: queues lines and stores them in batches.
#[derive(Debug)]
pub(crate) struct OperationLog {
    deployment: DeploymentId,
    sender: mpsc::Sender<Message>,
    dropped: AtomicU64,
}

#[derive(Debug)]
enum Message {
    Line(NewLogLine),
    Flush(oneshot::Sender<()>),
}

impl OperationLog {
    /// A log that ends with its last handle.
    pub(crate) fn start(logs: Arc<dyn LogStore>, app: AppId, deployment: DeploymentId) -> Arc<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE_LINES);
        tokio::spawn(pump(logs, app, receiver));
        Arc::new(Self { deployment, sender, dropped: AtomicU64::new(0) })
    }

    /// A sink into it.
    pub(crate) fn sink(self: &Arc<Self>) -> LogSink {
        LogSink::to(self.clone())
    }

    /// Returns when everything that was written before is stored.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.sender.send(Message::Flush(done)).await.is_ok() {
            // An error means that the pump is gone, and with it what it could not store.
            let _ = flushed.await;
        }
    }
}

impl LogWriter for OperationLog {
    fn write(&self, mut line: NewLogLine) {
        line.deployment = Some(self.deployment.clone());
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let mark = NewLogLine {
                source: LogSource::System,
                text: format!("[{dropped} lines dropped: the log could not be stored fast enough]"),
                ..line.clone()
            };
            if self.sender.try_send(Message::Line(mark)).is_err() {
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn pump(logs: Arc<dyn LogStore>, app: AppId, mut receiver: mpsc::Receiver<Message>) {
    let mut messages = Vec::with_capacity(BATCH_LINES);
    while receiver.recv_many(&mut messages, BATCH_LINES).await > 0 {
        let (mut lines, mut flushes) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in messages.drain(..) {
            match message {
                Message::Line(line) => lines.push(line),
                Message::Flush(done) => flushes.push(done),
            }
        }
        let count = lines.len();
        if count > 0
            && let Err(error) = logs.append(&app, lines).await
        {
            tracing::warn!(%app, count, ?error, "log lines could not be stored");
        }
        for done in flushes {
            // Nobody waits any more: fine.
            let _ = done.send(());
        }
    }
}

/// The last lines of an instance's output, for people.
pub(crate) async fn last_lines(services: &Services, name: &InstanceName, count: usize) -> Vec<String> {
    let context = services.context().with_budget(Duration::from_secs(5));
    let options = OutputOptions { after: None, tail: Some(count), follow: false };
    let Ok(output) = services.runtime.output(&context, name, &options).await else { return Vec::new() };
    let lines =
        output.take(count).filter_map(|line| async { line.ok() }).map(|line: OutputLine| match line.stream {
            LogStream::Stdout | LogStream::Stderr => line.text,
        });
    context
        .run("instance.last_lines", async { Ok(lines.collect::<Vec<_>>().await) })
        .await
        .unwrap_or_default()
}
