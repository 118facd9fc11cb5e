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
/// How many bytes a second of one instance are kept: at this rate a program that writes without end takes most of a
/// minute to push everything else out of the 200 MiB that an app's log has.
const BYTES_PER_SECOND: u64 = 4 * 1024 * 1024;
/// How long a mark for lines that were not kept waits for a line to go with.
const MARK: Duration = Duration::from_secs(1);
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
    let mut rate = Rate::default();
    loop {
        if let Err(error) = read(&services, &context, &instance, &mut rate).await {
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
async fn read(
    services: &Services,
    context: &Context,
    instance: &Instance,
    rate: &mut Rate,
) -> crate::Result<()> {
    let after = services.logs.last_of(&instance.app, &instance.name).await?;
    let options = OutputOptions { after, tail: None, follow: true };
    let output = services.runtime.output(context, &instance.name, &options).await?;
    let mut batches = output.ready_chunks(BATCH_LINES);
    loop {
        let batch = tokio::select! {
            biased;
            batch = batches.next() => batch,
            // It is silent now, and may be for ever.
            () = services.clock.sleep(MARK), if rate.dropped > 0 => Some(Vec::new()),
        };
        let is_over = batch.is_none();
        let (mut lines, mut failed) = (Vec::new(), None);
        rate.turn(services.clock.elapsed(), is_over, instance, &mut lines);
        for line in batch.into_iter().flatten() {
            match line {
                Ok(line) if rate.admits(&line) => {
                    lines.push(NewLogLine { text: line.text.clone(), ..stored(&line, instance) });
                }
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        if !lines.is_empty() {
            services.logs.append(&instance.app, lines).await?;
        }
        match failed {
            Some(error) => return Err(error),
            None if is_over => return Ok(()),
            None => {}
        }
    }
}

/// Caps the lines and bytes a second, and says how many lines were not kept.
#[derive(Debug, Default)]
struct Rate {
    second: u64,
    lines: u64,
    bytes: u64,
    dropped: u64,
    /// The last line that was not kept, without its text.
    last_dropped: Option<OutputLine>,
}

impl Rate {
    /// Begins a new second, if it is one, with the mark of what the last one did not keep.
    fn turn(&mut self, elapsed: Duration, is_over: bool, instance: &Instance, lines: &mut Vec<NewLogLine>) {
        if elapsed.as_secs() == self.second && !is_over {
            return;
        }
        (self.second, self.lines, self.bytes) = (elapsed.as_secs(), 0, 0);
        if let Some(last) = self.last_dropped.take() {
            let text = format!(
                "[{} lines dropped: more than {LINES_PER_SECOND} lines or {} MiB a second]",
                self.dropped,
                BYTES_PER_SECOND / (1024 * 1024),
            );
            self.dropped = 0;
            lines.push(NewLogLine { text, source: LogSource::System, ..stored(&last, instance) });
        }
    }

    fn admits(&mut self, line: &OutputLine) -> bool {
        let bytes = line.text.len() as u64;
        if self.lines >= LINES_PER_SECOND || self.bytes + bytes > BYTES_PER_SECOND {
            self.dropped += 1;
            self.last_dropped = Some(OutputLine { at: line.at, stream: line.stream, text: String::new() });
            return false;
        }
        self.lines += 1;
        self.bytes += bytes;
        true
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
    /// How many lines were not stored and not yet marked.
    dropped: Arc<AtomicU64>,
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
        let dropped = Arc::new(AtomicU64::new(0));
        tokio::spawn(pump(logs, app, deployment.clone(), receiver, dropped.clone()));
        Arc::new(Self { deployment, sender, dropped })
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
        if let Some((mark, dropped)) = mark(&self.deployment, &self.dropped)
            && self.sender.try_send(Message::Line(mark)).is_err()
        {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The line that stands for those that were not stored, if there are any, and how many they are.
fn mark(deployment: &DeploymentId, dropped: &AtomicU64) -> Option<(NewLogLine, u64)> {
    let dropped = dropped.swap(0, Ordering::Relaxed);
    let mark = NewLogLine {
        at: None,
        source: LogSource::System,
        stream: LogStream::Stdout,
        instance: None,
        deployment: Some(deployment.clone()),
        text: format!("[{dropped} lines dropped: the log could not be stored in time]"),
    };
    (dropped > 0).then_some((mark, dropped))
}

async fn pump(
    logs: Arc<dyn LogStore>,
    app: AppId,
    deployment: DeploymentId,
    mut receiver: mpsc::Receiver<Message>,
    dropped: Arc<AtomicU64>,
) {
    let mut messages = Vec::with_capacity(BATCH_LINES);
    loop {
        let is_over = receiver.recv_many(&mut messages, BATCH_LINES).await == 0;
        let (mut lines, mut flushes) = (Vec::with_capacity(messages.len()), Vec::new());
        for message in messages.drain(..) {
            match message {
                Message::Line(line) => lines.push(line),
                Message::Flush(done) => flushes.push(done),
            }
        }
        let mut count = lines.len() as u64;
        // No line may come any more for the mark to go before.
        if (is_over || !flushes.is_empty())
            && let Some((mark, dropped)) = mark(&deployment, &dropped)
        {
            lines.push(mark);
            count += dropped;
        }
        if !lines.is_empty()
            && let Err(error) = logs.append(&app, lines).await
        {
            tracing::warn!(%app, count, ?error, "log lines could not be stored");
            dropped.fetch_add(count, Ordering::Relaxed);
        }
        for done in flushes {
            // Nobody waits any more: fine.
            let _ = done.send(());
        }
        if is_over {
            return;
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
