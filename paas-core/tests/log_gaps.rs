//! What is missing from a log is marked: too much at once, a store that fails, output that ends there.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use paas_core::memory::{Program, ProgramExit, Script};
use paas_core::testing::chaos::{Chaos, ChaosPlan};
use paas_core::{AppId, InstanceName, LogPage, LogQuery, LogSource, LogStore, NewLogLine, Platform, Result};
use world::{World, live, new_app};

fn writing(output: Vec<String>) -> Script {
    Script { program: Program { output, ..Program::default() }, ..Script::default() }
}

/// Every line of the app's own program, and every mark.
async fn lines(platform: &Platform) -> (Vec<String>, Vec<String>) {
    let app = platform.apps().get("hello").await.unwrap().app.id;
    let (mut query, mut texts, mut marks) = (LogQuery::of(app), Vec::new(), Vec::new());
    query.limit = LogQuery::MAX_LIMIT;
    loop {
        let page = platform.apps().logs("hello", query.clone()).await.unwrap();
        query.after = page.lines.last().map(|line| line.at).or(query.after);
        for line in page.lines {
            match line.source {
                LogSource::App => texts.push(line.text),
                LogSource::System if line.text.contains("dropped") => marks.push(line.text),
                LogSource::System | LogSource::Build => {}
            }
        }
        if !page.has_more {
            return (texts, marks);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn more_lines_a_second_than_are_kept_are_counted_though_no_line_follows() {
    let world = World::new();
    world.push_scripted("loud", writing((0..25_000).map(|number| number.to_string()).collect()));
    let platform = world.platform().await;
    live(&platform, "hello").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (texts, marks) = lines(&platform).await;
    assert_eq!(texts.len(), 10_000);
    assert_eq!(marks.len(), 1);
    assert!(marks[0].starts_with("[15000 lines dropped"), "{marks:?}");
}

#[tokio::test(start_paused = true)]
async fn more_bytes_a_second_than_are_kept_are_counted() {
    let world = World::new();
    world.push_scripted("loud", writing(vec!["x".repeat(16 * 1024); 1000]));
    let platform = world.platform().await;
    live(&platform, "hello").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (texts, marks) = lines(&platform).await;
    assert_eq!(texts.len(), 256, "4 MiB");
    assert!(marks[0].starts_with("[744 lines dropped"), "{marks:?}");
    // The next second is another one.
    let name = world.host.instances()[0].name.clone();
    world.host.write(&name, paas_core::LogStream::Stdout, "calm again");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(lines(&platform).await.0.last().unwrap(), "calm again");
}

#[tokio::test(start_paused = true)]
async fn output_that_ends_in_a_gap_says_so() {
    let mut world = World::new();
    world.settings.retry.start_attempts = 1;
    let mut script = writing(vec!["x".to_owned(); 10_001]);
    script.program.exit = Some(ProgramExit { after: Duration::ZERO, code: 1, out_of_memory: false });
    world.push_scripted("loud", script);
    let platform = world.platform().await;
    platform.apps().create(new_app("hello")).await.unwrap().deployment.unwrap().settled().await.unwrap();
    let (_, marks) = lines(&platform).await;
    assert_eq!(marks, ["[1 lines dropped: more than 10000 lines or 4 MiB a second]"]);
}

/// Loses the next calls of `append`.
#[derive(Debug)]
struct Failing {
    logs: Arc<dyn LogStore>,
    failures: AtomicU32,
}

#[async_trait]
impl LogStore for Failing {
    async fn append(&self, app: &AppId, lines: Vec<NewLogLine>) -> Result<()> {
        let is_build = lines.iter().any(|line| line.source == LogSource::Build);
        let left = self.failures.load(Ordering::SeqCst);
        if is_build && left > 0 {
            self.failures.store(left - 1, Ordering::SeqCst);
            return Err(paas_core::Error::new(
                paas_core::Kind::Unavailable,
                "logs.append",
                "the disk is full",
            ));
        }
        self.logs.append(app, lines).await
    }

    async fn read(&self, query: &LogQuery) -> Result<LogPage> {
        self.logs.read(query).await
    }

    async fn wait(&self, app: &AppId, after: Option<Timestamp>) -> Result<()> {
        self.logs.wait(app, after).await
    }

    async fn last_of(&self, app: &AppId, instance: &InstanceName) -> Result<Option<Timestamp>> {
        self.logs.last_of(app, instance).await
    }

    async fn remove(&self, app: &AppId) -> Result<()> {
        self.logs.remove(app).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_is_complete_when_its_operation_is_over_however_slow_the_disk() {
    let world = World::new();
    let build_output: Vec<String> = (0..1500).map(|number| format!("line {number}")).collect();
    world.push_scripted("one", Script { build_output: build_output.clone(), ..Script::default() });
    let late = ChaosPlan { delay_percent: 100, longest_delay: Duration::from_secs(10), ..ChaosPlan::calm() };
    let logs = Chaos::new(world.logs.clone(), world.clock.clone(), 1, late);
    let platform = world.builder().logs(Arc::new(logs)).start().await.unwrap();
    let deployment = platform.apps().create(new_app("hello")).await.unwrap().deployment.unwrap();
    deployment.outcome().await.unwrap();
    let app = deployment.get().await.unwrap().app;
    let query = LogQuery { source: Some(LogSource::Build), limit: LogQuery::MAX_LIMIT, ..LogQuery::of(app) };
    let stored = world.logs.read(&query).await.unwrap().lines;
    assert_eq!(stored.into_iter().map(|line| line.text).collect::<Vec<_>>(), build_output);
}

#[tokio::test(start_paused = true)]
async fn lines_of_an_operation_that_could_not_be_stored_are_counted() {
    let world = World::new();
    let build_output = vec!["step".to_owned(); 3];
    let build_time = Duration::from_secs(1);
    world.push_scripted("one", Script { build_output, build_time, ..Script::default() });
    let failing = Arc::new(Failing { logs: world.logs.clone(), failures: AtomicU32::new(1) });
    let platform = world.builder().logs(failing.clone()).start().await.unwrap();
    live(&platform, "hello").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(failing.failures.load(Ordering::SeqCst), 0);
    let (_, marks) = lines(&platform).await;
    assert_eq!(marks, ["[3 lines dropped: the log could not be stored in time]"]);
}
