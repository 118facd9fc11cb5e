//! Purge: remove what an app leaves behind its instances and its route.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::stream::{BoxStream, TryStreamExt};

use super::{Effects, Work};
use crate::context::Context;
use crate::domain::{App, AppId, AppStatus, Deployment, DeploymentSpec, GitUrl, OperationKind, Release};
use crate::error::{Error, Kind, Result};
use crate::pipeline::Output;
use crate::records::{self, RouteRecord, Versioned};
use crate::runtime::Selector;
use crate::store::{Batch, Expect, IndexRange, Scope, Write};

/// How many records are held, and removed in one commit.
const PAGE_RECORDS: usize = 50;
/// The code of the adapters' errors for what an instance still uses.
const IN_USE: &str = "in_use";
const OPERATION: &str = "effects.purge";
/// How often it is tried to remove a network.
const NETWORK_TRIES: u32 = 10;
/// After how long what was in use is tried again.
const WAIT: Duration = Duration::from_secs(2);
/// How long an instance that was left over gets to end: it has no route any more.
const GRACE: Duration = Duration::from_secs(2);

impl Effects {
    pub(super) async fn purge(&self, context: &Context, work: &mut Work<'_>) -> Result<Output> {
        let spec = work.spec;
        let services = &self.services;
        let scope = Scope::Org(spec.org.clone());
        self.remove_leftovers(context, spec).await?;
        let images = services.builder.list(context, &Selector::of_app(&spec.org, &spec.app)).await?;
        for image in &images {
            while is_in_use(context, services.builder.remove(context, &image.digest).await).await? {}
        }
        let staying = self.staying_apps(&scope, &spec.app).await?;
        let used: BTreeSet<&GitUrl> = staying.iter().map(|app| &app.source.repository).collect();
        for repository in self.repositories(&scope, spec).await? {
            if !used.contains(&repository) {
                services.git.forget(&spec.org, &repository).await?;
            }
        }
        if staying.is_empty() {
            self.remove_network(context, &scope, spec).await?;
        }
        services.logs.remove(&spec.app).await?;
        self.purge_records(work, &scope).await?;
        Ok(Output::Purged { images: images.len() as u64 })
    }

    /// Removes the instances that Retire could not: they hold the images.
    async fn remove_leftovers(&self, context: &Context, spec: &DeploymentSpec) -> Result<()> {
        let runtime = &self.services.runtime;
        let selector = Selector::of_app(&spec.org, &spec.app);
        for instance in runtime.list(context, &selector).await? {
            runtime.stop(context, &instance.name, GRACE).await?;
            self.collector.finish(&instance.name).await;
            runtime.remove(context, &instance.name).await?;
        }
        Ok(())
    }

    /// The org's other apps, but for those that are being deleted, too: of two, each would leave to the other what they
    /// share.
    async fn staying_apps(&self, scope: &Scope, app: &AppId) -> Result<Vec<App>> {
        let records = self.services.records();
        let apps: Vec<Versioned<App>> = records.all(scope, "id", IndexRange::all()).await?;
        let mut staying = Vec::new();
        for other in apps.into_iter().map(|app| app.value).filter(|other| other.id != *app) {
            let status: Option<Versioned<AppStatus>> = records.get(scope, other.id.as_str()).await?;
            let Some(status) = status else { continue };
            let mut is_leaving = false;
            for id in status.value.active.iter().chain(&status.value.queue) {
                let waiting: Option<Versioned<Deployment>> = records.get(scope, id.as_str()).await?;
                is_leaving |= waiting.is_some_and(|waiting| waiting.value.kind == OperationKind::Delete);
            }
            if !is_leaving {
                staying.push(other);
            }
        }
        Ok(staying)
    }

    /// Every repository that the app was ever deployed from.
    async fn repositories(&self, scope: &Scope, spec: &DeploymentSpec) -> Result<BTreeSet<GitUrl>> {
        let records = self.services.records();
        let mut repositories = BTreeSet::from([spec.source.repository.clone()]);
        let mut pages = self.operations(scope, spec);
        while let Some(page) = pages.try_next().await? {
            for operation in page {
                let old: Option<Versioned<DeploymentSpec>> =
                    records.get(scope, operation.value.id.as_str()).await?;
                repositories.extend(old.map(|old| old.value.source.repository));
            }
        }
        Ok(repositories)
    }

    /// The app's operations, a page at a time: each can hold the last lines of a log, and there is no end to them.
    fn operations(
        &self,
        scope: &Scope,
        spec: &DeploymentSpec,
    ) -> BoxStream<'static, Result<Vec<Versioned<Deployment>>>> {
        let of_app = IndexRange::starting_with(format!("{}/", spec.app));
        self.services.records().pages(scope, "app", of_app, PAGE_RECORDS)
    }

    /// Removes the org's network. What is on it for long is nothing of the app's: then the network is left to the warden,
    /// and the deletion ends.
    async fn remove_network(&self, context: &Context, scope: &Scope, spec: &DeploymentSpec) -> Result<()> {
        for _ in 0..NETWORK_TRIES {
            match self.services.runtime.remove_network(context, &spec.org).await {
                Err(error) if error.reason() == Some(IN_USE) => {}
                result => return result,
            }
            let apps: Vec<Versioned<App>> =
                self.services.records().all(scope, "id", IndexRange::all()).await?;
            // One that is being deleted removes it later; one that was made just now needs it.
            if apps.iter().any(|app| app.value.id != spec.app) {
                return Ok(());
            }
            context.sleep(OPERATION, WAIT).await?;
        }
        tracing::warn!(org = %spec.org, "the network of an org without an app is in use: it is removed once it is not");
        Ok(())
    }

    /// Removes the app's releases, route, addresses and older operations. The app's own record goes with the last
    /// commit of the operation, so that a crash in between repeats this step and loses nothing.
    async fn purge_records(&self, work: &Work<'_>, scope: &Scope) -> Result<()> {
        let spec = work.spec;
        let records = self.services.records();
        let of_app = IndexRange::starting_with(format!("{}/", spec.app));
        let mut releases = records.pages::<Release>(scope, "app", of_app, PAGE_RECORDS);
        while let Some(page) = releases.try_next().await? {
            let writes = page.iter().map(|release| records::remove(&release.value, Expect::Any));
            self.commit(writes.collect()).await?;
        }
        let mut operations = self.operations(scope, spec);
        while let Some(page) = operations.try_next().await? {
            let mut writes: Vec<Write> = Vec::new();
            for operation in page.into_iter().filter(|operation| operation.value.id != spec.id) {
                if let Some(old) = records.get::<DeploymentSpec>(scope, operation.value.id.as_str()).await? {
                    writes.push(records::remove(&old.value, Expect::Any));
                }
                writes.push(records::remove(&operation.value, Expect::Any));
            }
            self.commit(writes).await?;
        }
        let host = self.host(work).await?;
        if let Some(route) = records.get::<RouteRecord>(scope, host.as_str()).await? {
            self.commit(vec![records::remove(&route.value, Expect::Any)]).await?;
        }
        // A resting address stays known until it is given again.
        self.addresses.free_all(&spec.org, &spec.app, &BTreeSet::new()).await?;
        Ok(())
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<()> {
        self.services.store.commit(Batch { writes, ..Batch::default() }).await.map(drop)
    }
}

/// True, after a while, if an instance stood in the way of a removal: what the platform itself has still to clear away
/// is nobody's mistake, so it is tried until the step's time is up.
async fn is_in_use(context: &Context, removed: Result<()>) -> Result<bool> {
    match removed {
        Err(error) if error.reason() == Some(IN_USE) => {}
        result => return result.map(|()| false),
    }
    match context.sleep(OPERATION, WAIT).await {
        Err(ended) if ended.kind() == Kind::Timeout => Err(Error::new(
            Kind::Timeout,
            OPERATION,
            "a container still uses an image of the app",
        )
        .hint("remove the containers that somebody made from the app's images, and delete the app again")
        .source(ended)),
        waited => waited.map(|()| true),
    }
}
