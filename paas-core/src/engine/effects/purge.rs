//! Purge: remove what an app leaves behind its instances and its route.

use super::{Effects, Work};
use crate::context::Context;
use crate::domain::{App, Deployment, DeploymentSpec, Release};
use crate::error::Result;
use crate::pipeline::Output;
use crate::records::{self, AddressRecord, RouteRecord, Versioned};
use crate::store::{Batch, Expect, IndexRange, Scope, Write};

/// How many records one commit removes.
const BATCH_RECORDS: usize = 500;

impl Effects {
    pub(super) async fn purge(&self, context: &Context, work: &mut Work<'_>) -> Result<Output> {
        let spec = work.spec;
        let services = &self.services;
        let images = services.builder.list(context, &spec.org, &spec.app).await?;
        for image in &images {
            services.builder.remove(context, image).await?;
        }
        let scope = Scope::Org(spec.org.clone());
        let apps: Vec<Versioned<App>> = services.records().all(&scope, "id", IndexRange::all()).await?;
        let others: Vec<_> = apps.into_iter().map(|app| app.value).filter(|app| app.id != spec.app).collect();
        if others.iter().all(|app| app.source.repository != spec.source.repository) {
            services.git.forget(&spec.org, &spec.source.repository).await?;
        }
        if others.is_empty() {
            services.runtime.remove_network(context, &spec.org).await?;
        }
        services.logs.remove(&spec.app).await?;
        self.purge_records(work, &scope).await?;
        Ok(Output::Purged { images: images.len() as u64 })
    }

    /// Removes the app's releases, route, addresses and older operations. The app's own record goes with the last
    /// commit of the operation, so that a crash in between repeats this step and loses nothing.
    async fn purge_records(&self, work: &Work<'_>, scope: &Scope) -> Result<()> {
        let spec = work.spec;
        let records = self.services.records();
        let of_app = || IndexRange::starting_with(format!("{}/", spec.app));
        let mut writes: Vec<Write> = Vec::new();
        for release in records.all::<Release>(scope, "app", of_app()).await? {
            writes.push(records::remove(&release.value, Expect::Any));
        }
        for deployment in records.all::<Deployment>(scope, "app", of_app()).await? {
            if deployment.value.id == spec.id {
                continue;
            }
            if let Some(old) = records.get::<DeploymentSpec>(scope, deployment.value.id.as_str()).await? {
                writes.push(records::remove(&old.value, Expect::Any));
            }
            writes.push(records::remove(&deployment.value, Expect::Any));
        }
        let host = self.host(work).await?;
        if let Some(route) = records.get::<RouteRecord>(scope, host.as_str()).await? {
            writes.push(records::remove(&route.value, Expect::Any));
        }
        let addresses = IndexRange::starting_with(format!("{}/", spec.org));
        for address in records.all::<AddressRecord>(scope, "org", addresses).await? {
            // A resting address stays known until it is given again.
            if address.value.app == spec.app && address.value.freed_at.is_none() {
                self.addresses.free(&address.value.deployment).await?;
            }
        }
        for chunk in writes.chunks(BATCH_RECORDS) {
            self.services.store.commit(Batch { writes: chunk.to_vec(), ..Batch::default() }).await?;
        }
        Ok(())
    }
}
