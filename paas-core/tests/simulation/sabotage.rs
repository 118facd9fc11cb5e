//! Classic bugs, put in on purpose: the simulation has to find each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use paas_core::testing::front::{Front, StoreFront};
use paas_core::{
    Addressing, Batch, Committed, ContainerRuntime, Context, Event, Expect, Instance, InstanceName,
    InstanceSpec, OrgId, OutputLine, OutputOptions, Position, Result, Scope, Selector, StateStore, Step,
    StreamId, Write,
};

/// What is wrong with the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Nothing.
    None,
    /// The beginning of Start is recorded only behind it.
    ActFirst,
    /// Workers' commits are not tied to their leases.
    Unfenced,
    /// Each try of Start takes another name.
    FreshNames,
}

impl Sabotage {
    pub(crate) fn store(self, store: Arc<dyn StateStore>) -> Arc<dyn StateStore> {
        match self {
            Self::None | Self::FreshNames => store,
            Self::ActFirst | Self::Unfenced => {
                Arc::new(Front(Careless { store, sabotage: self, owed: Mutex::default() }))
            }
        }
    }

    pub(crate) fn runtime(self, runtime: Arc<dyn ContainerRuntime>) -> Arc<dyn ContainerRuntime> {
        match self {
            Self::FreshNames => Arc::new(FreshNames { runtime, tries: AtomicU32::new(0) }),
            Self::None | Self::ActFirst | Self::Unfenced => runtime,
        }
    }
}

/// A store whose callers have one of the bugs of the journal.
#[derive(Debug)]
struct Careless {
    store: Arc<dyn StateStore>,
    sabotage: Sabotage,
    /// The beginnings that were not recorded yet.
    owed: Mutex<BTreeMap<StreamId, Batch>>,
}

impl Careless {
    /// Writes to wherever the journal is by now, whoever has the lease.
    async fn append_anywhere(&self, mut batch: Batch) -> Result<Committed> {
        if batch.fence.take().is_none() {
            return self.store.commit(batch).await;
        }
        for append in &mut batch.appends {
            let behind = self.store.events(&append.scope, &append.stream, append.expect, usize::MAX).await?;
            append.expect += behind.len() as u64;
        }
        for write in &mut batch.writes {
            if let Write::Update { expect, .. } | Write::Put { expect, .. } = write {
                *expect = Expect::Any;
            }
        }
        self.store.commit(batch).await
    }

    /// Owes the store the beginning of Start until the next commit of its journal.
    async fn act_first(&self, batch: Batch) -> Result<Committed> {
        let Some(append) = batch.appends.first().filter(|_| batch.fence.is_some()) else {
            return self.store.commit(batch).await;
        };
        let owed = self.owed.lock().unwrap().remove(&append.stream);
        if let Some(owed) = owed {
            self.store.commit(owed).await?;
        }
        let last: Option<Event> = append.events.last().and_then(|event| serde_json::from_slice(event).ok());
        if !matches!(last, Some(Event::Started { step: Step::Start, .. })) {
            return self.store.commit(batch).await;
        }
        // What the commit would have answered, had it been made.
        let newest = self.store.feed(&Scope::System, Position(0), usize::MAX).await?;
        let newest = newest.last().map_or(0, |event| event.position.0);
        let mut committed = Committed::default();
        for write in &batch.writes {
            committed.versions.push(match write {
                Write::Put { expect: Expect::Version(version), .. }
                | Write::Update { expect: Expect::Version(version), .. } => version + 1,
                _ => 1,
            });
        }
        committed.positions = batch.appends.iter().map(|_| Position(newest + 1)).collect();
        let stream = append.stream.clone();
        self.owed.lock().unwrap().insert(stream, batch);
        Ok(committed)
    }
}

#[async_trait]
impl StoreFront for Careless {
    fn behind(&self) -> &dyn StateStore {
        &*self.store
    }

    async fn commit(&self, batch: Batch) -> Result<Committed> {
        match self.sabotage {
            Sabotage::Unfenced => self.append_anywhere(batch).await,
            Sabotage::ActFirst => self.act_first(batch).await,
            Sabotage::None | Sabotage::FreshNames => self.store.commit(batch).await,
        }
    }
}

#[derive(Debug)]
struct FreshNames {
    runtime: Arc<dyn ContainerRuntime>,
    tries: AtomicU32,
}

#[async_trait]
impl ContainerRuntime for FreshNames {
    fn addressing(&self) -> Addressing {
        // Another name of the same operation has the same address, which is taken.
        Addressing::Runtime
    }

    async fn ensure(&self, context: &Context, spec: &InstanceSpec) -> Result<Instance> {
        let name = InstanceName::of(&spec.deployment, self.tries.fetch_add(1, Ordering::Relaxed));
        self.runtime.ensure(context, &InstanceSpec { name, ..spec.clone() }).await
    }

    async fn inspect(&self, context: &Context, name: &InstanceName) -> Result<Option<Instance>> {
        self.runtime.inspect(context, name).await
    }

    async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<Instance>> {
        self.runtime.list(context, selector).await
    }

    async fn stop(&self, context: &Context, name: &InstanceName, grace: Duration) -> Result<()> {
        self.runtime.stop(context, name, grace).await
    }

    async fn remove(&self, context: &Context, name: &InstanceName) -> Result<()> {
        self.runtime.remove(context, name).await
    }

    async fn remove_network(&self, context: &Context, org: &OrgId) -> Result<()> {
        self.runtime.remove_network(context, org).await
    }

    async fn networks(&self, context: &Context) -> Result<Vec<OrgId>> {
        self.runtime.networks(context).await
    }

    async fn output(
        &self,
        context: &Context,
        name: &InstanceName,
        options: &OutputOptions,
    ) -> Result<BoxStream<'static, Result<OutputLine>>> {
        self.runtime.output(context, name, options).await
    }

    async fn endings(&self, context: &Context) -> Result<BoxStream<'static, ()>> {
        self.runtime.endings(context).await
    }

    async fn ping(&self, context: &Context) -> Result<()> {
        self.runtime.ping(context).await
    }
}
