//! Which operation and step a log line belongs to: what an adapter logs carries it, and no secret.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use paas_core::memory::MemoryPlanner;
use paas_core::{BuildPlan, Planner, Result, Secret, SourceTree};
use tracing_subscriber::fmt::format::FmtSpan;
use world::{World, new_app};

const SECRET: &str = "hunter2";

/// What a subscriber wrote.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The first line that contains a text.
    fn line(&self, text: &str) -> String {
        let written = self.text();
        let line = written.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("no {text} in {written}")).to_owned()
    }
}

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Says that it plans.
#[derive(Debug)]
struct Talkative;

#[async_trait]
impl Planner for Talkative {
    async fn plan(&self, tree: Arc<dyn SourceTree>) -> Result<BuildPlan> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tracing::info!("looking at the tree");
        MemoryPlanner.plan(tree).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_of_an_adapter_says_which_operation_and_step_it_is_from() {
    let written = Written::default();
    let writer = {
        let written = written.clone();
        move || written.clone()
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_ansi(false)
        .with_writer(writer)
        .finish();
    // The test's only thread.
    let _guard = tracing::subscriber::set_default(subscriber);
    let world = World::new();
    world.push_page("one");
    let platform = world.builder().planner(Arc::new(Talkative)).start().await.unwrap();
    let mut app = new_app("hello");
    app.token = Some(Secret::from(SECRET.to_owned()));
    app.env.set("PASSWORD".to_owned().try_into().unwrap(), Secret::from(SECRET.to_owned())).unwrap();
    let created = platform.apps().create(app).await.unwrap();
    let (app, deployment) = (created.app.clone(), created.first_deployment().unwrap());
    deployment.outcome().await.unwrap();
    let (org, id) = (&app.org, deployment.id());
    let operation = format!("operation{{org={org} app={} deployment={id} kind=deploy", app.id);
    let line = written.line("looking at the tree");
    assert!(line.contains(&operation) && line.contains("step{step=plan attempt=1}"), "{line}");
    let line = written.line("a step is done");
    assert!(line.contains(&operation) && line.contains("step{step=fetch attempt=1"), "{line}");

    world.host.crash(&world.host.instances()[0].name.clone(), 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let line = written.line("seeing to an app");
    assert!(line.contains(&format!("tend{{app={} org={org}}}", app.id)), "{line}");
    assert!(!line.contains("operation{"), "{line}");
    let line = written.line("an operation ended");
    assert!(line.contains(&operation) && line.contains("outcome=\"succeeded\""), "{line}");
    assert!(!written.text().contains(SECRET));
}
