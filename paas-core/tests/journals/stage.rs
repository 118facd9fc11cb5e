//! Where stories happen that are recorded: the real engine on a store that writes down what is committed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::LocalBoxFuture;
use paas_core::memory::{MemoryRuntime, Program, Script};
use paas_core::pipeline::State;
use paas_core::testing::front::{Front, StoreFront};
use paas_core::{
    Addressing, Append, Batch, Committed, DeploymentHandle, Event, OrgId, Platform, PlatformBuilder,
    Recorded, Result, Scope, StateStore, Step, StreamId,
};

use crate::golden::{Commit, Golden};
use crate::world::{Idle, World};

/// Something that happens, to be recorded.
#[derive(Debug)]
pub(crate) struct Story {
    /// The name of its file.
    pub(crate) name: &'static str,
    /// What happens.
    pub(crate) about: &'static str,
    pub(crate) tell: fn(&Stage) -> LocalBoxFuture<'_, ()>,
}

/// Writes down what is committed.
#[derive(Debug)]
struct Recorder {
    store: Arc<dyn StateStore>,
    commits: Mutex<Vec<Batch>>,
}

#[async_trait]
impl StoreFront for Recorder {
    fn behind(&self) -> &dyn StateStore {
        &*self.store
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        let committed = self.store.commit(batch.clone()).await?;
        self.commits.lock().unwrap().push(batch);
        Ok(committed)
    }
}

pub(crate) struct Stage {
    pub(crate) world: World,
    store: Arc<Front<Recorder>>,
    pages: Mutex<Vec<String>>,
    chosen_addresses: Mutex<bool>,
}

/// Lets a story happen.
pub(crate) async fn record(story: &Story) -> Golden {
    let world = World::new();
    let recorder = Recorder { store: world.store.clone(), commits: Mutex::default() };
    let stage = Stage {
        store: Arc::new(Front(recorder)),
        world,
        pages: Mutex::default(),
        chosen_addresses: Mutex::default(),
    };
    (story.tell)(&stage).await;
    let batches = std::mem::take(&mut *stage.store.0.commits.lock().unwrap());
    let commits = batches.iter().map(Commit::from);
    Golden {
        about: story.about.to_owned(),
        pages: stage.pages.into_inner().unwrap(),
        chosen_addresses: stage.chosen_addresses.into_inner().unwrap(),
        commits: commits.filter(|commit| !(commit.writes.is_empty() && commit.appends.is_empty())).collect(),
        ends: ends(&*stage.store).await,
    }
}

/// The state of every operation in a store.
async fn ends(store: &dyn StateStore) -> std::collections::BTreeMap<String, serde_json::Value> {
    let events = store.feed(&Scope::System, paas_core::Position(0), usize::MAX).await.unwrap();
    let mut journals = std::collections::BTreeMap::<String, Vec<Recorded>>::new();
    for stored in events.into_iter().filter(|stored| stored.stream.as_str().starts_with("dpl_")) {
        let event = Event::decode(&stored.body);
        let (stream, version, position, at) = (stored.stream, stored.version, stored.position, stored.at);
        let recorded = Recorded { stream: stream.clone(), version, position, at, event };
        journals.entry(stream.to_string()).or_default().push(recorded);
    }
    let state = |journal: Vec<Recorded>| serde_json::to_value(State::replay(&journal)).unwrap();
    journals.into_iter().map(|(id, journal)| (id, state(journal))).collect()
}

impl Stage {
    pub(crate) fn builder(&self) -> PlatformBuilder {
        self.world.builder().store(self.store.clone())
    }

    pub(crate) async fn platform(&self) -> Platform {
        self.builder().start().await.unwrap()
    }

    /// A platform that works on nothing.
    pub(crate) async fn asking(&self) -> Platform {
        self.builder().store(Arc::new(Front(Idle(self.store.clone())))).start().await.unwrap()
    }

    /// A platform whose runtime chooses the addresses.
    pub(crate) async fn choosing(&self) -> Platform {
        *self.chosen_addresses.lock().unwrap() = true;
        let runtime = MemoryRuntime::new(self.world.host.clone()).with_addressing(Addressing::Runtime);
        self.builder().runtime(Arc::new(runtime)).start().await.unwrap()
    }

    pub(crate) fn push(&self, page: &str) {
        self.push_scripted(page, Script::default());
    }

    pub(crate) fn push_scripted(&self, page: &str, script: Script) {
        self.world.push_scripted(page, script);
        self.pages.lock().unwrap().push(page.to_owned());
    }

    pub(crate) fn push_program(&self, page: &str, program: Program) {
        self.push_scripted(page, Script { program, ..Script::default() });
    }

    /// Appends to an operation what this version does not know.
    pub(crate) async fn append_unknown(&self, handle: &DeploymentHandle) {
        let append = Append {
            scope: Scope::Org(OrgId::default_org()),
            stream: StreamId::from(handle.id()),
            expect: handle.history(0).await.unwrap().len() as u64,
            at: paas_core::Clock::now(&*self.world.clock),
            events: vec![crate::FUTURE.as_bytes().to_vec()],
        };
        self.store.commit(Batch { appends: vec![append], ..Batch::default() }).await.unwrap();
    }
}

/// Waits until an operation is at a step.
pub(crate) async fn reach(handle: &DeploymentHandle, step: Step) {
    while handle.get().await.unwrap().step != Some(step) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
