//! The methods of every trait, written once for all wrappers; the table at the end says which wrapper implements
//! which trait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::sync::broadcast;

use super::{Class, Observe, Pass, Retry, Timeout, Verb};
use crate::context::Context;
use crate::dns::{DnsService, RecordCursor, RecordPage, RecordSet, RecordType};
use crate::domain::{
    AppId, CommitId, Generation, GitUrl, HealthCheck, Host, Image, Instance, InstanceName, OrgId,
    RootDirectory, Route,
};
use crate::error::{Fault, Result};
use crate::git::{Branches, GitProvider, Reference, Repository, Revision, SourceTree};
use crate::image::{BuildKey, BuildRequest, ImageBuilder, StoredImage};
use crate::ingress::{Ingress, Probe, RoutePage, RoutesDigest, Serving};
use crate::logs::{LogPage, LogQuery, LogStore, NewLogLine};
use crate::plan::{BuildPlan, Planner};
use crate::runtime::{Addressing, ContainerRuntime, InstanceSpec, OutputLine, OutputOptions, Selector};
use crate::store::{
    Backlog, Batch, Change, Claim, Claimed, Committed, Lease, Page, Position, Record, Scan, Scope,
    StateStore, StoredEvent, StreamId, WorkClass, WorkKey,
};
#[cfg(feature = "testing")]
use crate::testing::chaos::Chaos;
#[cfg(feature = "testing")]
use crate::testing::fail_point::FailPoints;

const fn upstream(operation: &'static str, class: Class) -> Verb {
    Verb { operation, class, fault: Fault::Upstream }
}

const fn platform(operation: &'static str, class: Class) -> Verb {
    Verb { operation, class, fault: Fault::Platform }
}

/// Passes one method on. Arguments of methods with a context are borrowed or copied, so the call can be repeated.
macro_rules! pass {
    ($self:ident, $verb:expr, $context:ident, $method:ident($($argument:expr),*)) => {{
        let context = &$self.context($context);
        $self.pass($verb, context, || $self.inner().$method(context, $($argument),*)).await
    }};
    ($self:ident, $verb:expr, $method:ident($($argument:expr),*)) => {
        $self.pass_once($verb, $self.inner().$method($($argument),*)).await
    };
}

macro_rules! git_provider {
    ([$($relaxed:tt)*] $wrapper:ty) => {
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: GitProvider $($relaxed)*> GitProvider for $wrapper {
            async fn branches(&self, context: &Context, repository: &Repository) -> Result<Branches> {
                pass!(self, upstream("git.branches", Class::Call), context, branches(repository))
            }

            async fn resolve(
                &self,
                context: &Context,
                repository: &Repository,
                reference: &Reference,
            ) -> Result<Revision> {
                pass!(self, upstream("git.resolve", Class::Call), context, resolve(repository, reference))
            }

            async fn fetch(
                &self,
                context: &Context,
                repository: &Repository,
                commit: &CommitId,
                root: &RootDirectory,
            ) -> Result<Arc<dyn SourceTree>> {
                pass!(self, upstream("git.fetch", Class::Transfer), context, fetch(repository, commit, root))
            }

            async fn forget(&self, org: &OrgId, url: &GitUrl) -> Result<()> {
                pass!(self, platform("git.forget", Class::Call), forget(org, url))
            }
        }
    };
}

macro_rules! planner {
    ([$($relaxed:tt)*] $wrapper:ty) => {
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: Planner $($relaxed)*> Planner for $wrapper {
            async fn plan(&self, tree: Arc<dyn SourceTree>) -> Result<BuildPlan> {
                pass!(self, platform("plan.plan", Class::Call), plan(tree))
            }
        }
    };
}

macro_rules! image_builder {
    ([$($relaxed:tt)*] $wrapper:ty) => {
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: ImageBuilder $($relaxed)*> ImageBuilder for $wrapper {
            async fn key(&self, context: &Context, request: &BuildRequest) -> Result<BuildKey> {
                pass!(self, platform("image.key", Class::Call), context, key(request))
            }

            async fn find(&self, context: &Context, key: &BuildKey) -> Result<Option<Image>> {
                pass!(self, platform("image.find", Class::Call), context, find(key))
            }

            async fn build(
                &self,
                context: &Context,
                request: &BuildRequest,
                key: &BuildKey,
            ) -> Result<Image> {
                let verb = platform("image.build", Class::Wait(request.limits.total));
                pass!(self, verb, context, build(request, key))
            }

            async fn remove(&self, context: &Context, digest: &str) -> Result<()> {
                pass!(self, platform("image.remove", Class::Call), context, remove(digest))
            }

            async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<StoredImage>> {
                pass!(self, platform("image.list", Class::Call), context, list(selector))
            }

            async fn prune(&self, context: &Context, keep_bytes: u64) -> Result<u64> {
                pass!(self, platform("image.prune", Class::Transfer), context, prune(keep_bytes))
            }
        }
    };
}

macro_rules! container_runtime {
    ([$($relaxed:tt)*] $wrapper:ty) => {
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: ContainerRuntime $($relaxed)*> ContainerRuntime for $wrapper {
            fn addressing(&self) -> Addressing {
                self.inner().addressing()
            }

            async fn ensure(&self, context: &Context, spec: &InstanceSpec) -> Result<Instance> {
                pass!(self, platform("runtime.ensure", Class::Call), context, ensure(spec))
            }

            async fn inspect(&self, context: &Context, name: &InstanceName) -> Result<Option<Instance>> {
                pass!(self, platform("runtime.inspect", Class::Call), context, inspect(name))
            }

            async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<Instance>> {
                pass!(self, platform("runtime.list", Class::Call), context, list(selector))
            }

            async fn stop(&self, context: &Context, name: &InstanceName, grace: Duration) -> Result<()> {
                pass!(self, platform("runtime.stop", Class::Wait(grace)), context, stop(name, grace))
            }

            async fn remove(&self, context: &Context, name: &InstanceName) -> Result<()> {
                pass!(self, platform("runtime.remove", Class::Call), context, remove(name))
            }

            async fn remove_network(&self, context: &Context, org: &OrgId) -> Result<()> {
                pass!(self, platform("runtime.remove_network", Class::Call), context, remove_network(org))
            }

            async fn networks(&self, context: &Context) -> Result<Vec<OrgId>> {
                pass!(self, platform("runtime.networks", Class::Call), context, networks())
            }

            async fn output(
                &self,
                context: &Context,
                name: &InstanceName,
                options: &OutputOptions,
            ) -> Result<BoxStream<'static, Result<OutputLine>>> {
                pass!(self, platform("runtime.output", Class::Call), context, output(name, options))
            }

            async fn endings(&self, context: &Context) -> Result<BoxStream<'static, ()>> {
                pass!(self, platform("runtime.endings", Class::Call), context, endings())
            }

            async fn ping(&self, context: &Context) -> Result<()> {
                pass!(self, platform("runtime.ping", Class::Ping), context, ping())
            }
        }
    };
}

macro_rules! dns_service {
    ([$($relaxed:tt)*] $wrapper:ty) => {
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: DnsService $($relaxed)*> DnsService for $wrapper {
            async fn desired(&self, context: &Context, host: &Host) -> Result<Vec<RecordSet>> {
                pass!(self, upstream("dns.desired", Class::Call), context, desired(host))
            }

            async fn get(
                &self,
                context: &Context,
                host: &Host,
                record_type: RecordType,
            ) -> Result<Option<RecordSet>> {
                pass!(self, upstream("dns.get", Class::Call), context, get(host, record_type))
            }

            async fn list(&self, context: &Context, from: &RecordCursor) -> Result<RecordPage> {
                pass!(self, upstream("dns.list", Class::Call), context, list(from))
            }

            async fn set(&self, context: &Context, records: &RecordSet) -> Result<()> {
                pass!(self, upstream("dns.set", Class::Call), context, set(records))
            }

            async fn remove(&self, context: &Context, host: &Host, record_type: RecordType) -> Result<()> {
                pass!(self, upstream("dns.remove", Class::Call), context, remove(host, record_type))
            }
        }
    };
}

macro_rules! ingress {
    ([$($relaxed:tt)*] $wrapper:ty) => {
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: Ingress $($relaxed)*> Ingress for $wrapper {
            fn url(&self, host: &Host) -> String {
                self.inner().url(host)
            }

            async fn publish(
                &self,
                context: &Context,
                route: &Route,
                generation: Generation,
            ) -> Result<()> {
                pass!(self, platform("ingress.publish", Class::Call), context, publish(route, generation))
            }

            async fn withdraw(&self, context: &Context, host: &Host, generation: Generation) -> Result<()> {
                pass!(self, platform("ingress.withdraw", Class::Call), context, withdraw(host, generation))
            }

            async fn serving(&self, context: &Context, host: &Host) -> Result<Option<Serving>> {
                pass!(self, platform("ingress.serving", Class::Call), context, serving(host))
            }

            async fn digest(&self, context: &Context) -> Result<RoutesDigest> {
                pass!(self, platform("ingress.digest", Class::Call), context, digest())
            }

            async fn list(&self, context: &Context, from: u64) -> Result<RoutePage> {
                pass!(self, platform("ingress.list", Class::Call), context, list(from))
            }

            async fn drain(
                &self,
                context: &Context,
                instance: &InstanceName,
                address: SocketAddr,
            ) -> Result<()> {
                pass!(self, platform("ingress.drain", Class::Budgeted), context, drain(instance, address))
            }

            async fn probe(
                &self,
                context: &Context,
                address: SocketAddr,
                check: &HealthCheck,
            ) -> Result<Probe> {
                let verb = platform("ingress.probe", Class::Wait(check.timeout()));
                pass!(self, verb, context, probe(address, check))
            }

            async fn ping(&self, context: &Context) -> Result<()> {
                pass!(self, platform("ingress.ping", Class::Ping), context, ping())
            }
        }
    };
}

macro_rules! state_store {
    ([$($relaxed:tt)*] $wrapper:ty) => {
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: StateStore $($relaxed)*> StateStore for $wrapper {
            async fn commit(&self, batch: Batch) -> Result<Committed> {
                pass!(self, platform("store.commit", Class::Call), commit(batch))
            }

            async fn get(&self, scope: &Scope, kind: &'static str, id: &str) -> Result<Option<Record>> {
                pass!(self, platform("store.get", Class::Call), get(scope, kind, id))
            }

            async fn find(
                &self,
                scope: &Scope,
                kind: &'static str,
                key: &'static str,
                value: &str,
            ) -> Result<Option<Record>> {
                pass!(self, platform("store.find", Class::Call), find(scope, kind, key, value))
            }

            async fn scan(&self, scan: &Scan) -> Result<Page<Record>> {
                pass!(self, platform("store.scan", Class::Call), scan(scan))
            }

            async fn events(
                &self,
                scope: &Scope,
                stream: &StreamId,
                after: u64,
                limit: usize,
            ) -> Result<Vec<StoredEvent>> {
                pass!(self, platform("store.events", Class::Call), events(scope, stream, after, limit))
            }

            async fn feed(&self, scope: &Scope, after: Position, limit: usize) -> Result<Vec<StoredEvent>> {
                pass!(self, platform("store.feed", Class::Call), feed(scope, after, limit))
            }

            async fn claim(&self, claim: &Claim) -> Result<Claimed> {
                pass!(self, platform("store.claim", Class::Call), claim(claim))
            }

            async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease> {
                pass!(self, platform("store.renew", Class::Call), renew(lease, duration))
            }

            async fn count(&self, class: WorkClass, key: Option<WorkKey>) -> Result<u64> {
                pass!(self, platform("store.count", Class::Call), count(class, key))
            }

            async fn backlog(&self, class: WorkClass) -> Result<Backlog> {
                pass!(self, platform("store.backlog", Class::Call), backlog(class))
            }

            fn changes(&self) -> broadcast::Receiver<Change> {
                self.inner().changes()
            }

            async fn sweep(&self, limit: usize) -> Result<usize> {
                pass!(self, platform("store.sweep", Class::Call), sweep(limit))
            }

            async fn ping(&self) -> Result<()> {
                pass!(self, platform("store.ping", Class::Ping), ping())
            }
        }
    };
}

macro_rules! log_store {
    ([$($relaxed:tt)*] $wrapper:ty) => {
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<T: LogStore $($relaxed)*> LogStore for $wrapper {
            async fn append(&self, app: &AppId, lines: Vec<NewLogLine>) -> Result<()> {
                pass!(self, platform("log_store.append", Class::Call), append(app, lines))
            }

            async fn read(&self, query: &LogQuery) -> Result<LogPage> {
                pass!(self, platform("log_store.read", Class::Call), read(query))
            }

            async fn wait(&self, app: &AppId, after: Option<Timestamp>) -> Result<()> {
                pass!(self, platform("log_store.wait", Class::Budgeted), wait(app, after))
            }

            async fn last_of(&self, app: &AppId, instance: &InstanceName) -> Result<Option<Timestamp>> {
                pass!(self, platform("log_store.last_of", Class::Call), last_of(app, instance))
            }

            async fn remove(&self, app: &AppId) -> Result<()> {
                pass!(self, platform("log_store.remove", Class::Call), remove(app))
            }
        }
    };
}

/// The traits whose every call goes to another program: a wrapper for those.
macro_rules! remote_traits {
    ([$($relaxed:tt)*] $wrapper:ty) => {
        git_provider!([$($relaxed)*] $wrapper);
        image_builder!([$($relaxed)*] $wrapper);
        container_runtime!([$($relaxed)*] $wrapper);
        dns_service!([$($relaxed)*] $wrapper);
        ingress!([$($relaxed)*] $wrapper);
    };
}

/// The others: a planner is pure, and the stores answer from the machine itself and are never asked twice.
macro_rules! local_traits {
    ([$($relaxed:tt)*] $wrapper:ty) => {
        planner!([$($relaxed)*] $wrapper);
        state_store!([$($relaxed)*] $wrapper);
        log_store!([$($relaxed)*] $wrapper);
    };
}

remote_traits!([+ ?Sized] Arc<T>);
local_traits!([+ ?Sized] Arc<T>);
remote_traits!([] Observe<T>);
local_traits!([] Observe<T>);
remote_traits!([] Retry<T>);
remote_traits!([] Timeout<T>);
#[cfg(feature = "testing")]
remote_traits!([] Chaos<T>);
#[cfg(feature = "testing")]
remote_traits!([] FailPoints<T>);
#[cfg(feature = "testing")]
local_traits!([] Chaos<T>);
#[cfg(feature = "testing")]
local_traits!([] FailPoints<T>);
