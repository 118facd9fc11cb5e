//! The provider: every call checked, bounded, and carried by a blocking thread that ends with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gix::ObjectId;
use paas_core::{
    Branches, CommitId, Context, Error, GitProvider, GitRef, GitUrl, Kind, LogSource, OrgId, Reference,
    Repository, Result, Revision, RootDirectory, SourceTree, SystemClock, error,
};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::call::{Call, StopOnDrop};
use crate::client::HttpClient;
use crate::errors;
use crate::mirror::{Lock, Mirror, Place, create_directory};
use crate::options::GitOptions;
use crate::remote::{Remote, unpacked};
use crate::transport::HttpTransport;
use crate::tree::{Fault, GitTree};

/// How long [`GitProvider::forget`] waits for a fetch of the same repository to end.
const FORGET_PATIENCE: Duration = Duration::from_secs(30);

/// A [`GitProvider`] for smart HTTP servers, which is all of the usual hosts.
///
/// Its mirrors lie below one directory that only this user can enter. Several processes may share it.
#[derive(Clone, Debug)]
pub struct GixProvider {
    directory: PathBuf,
    options: Arc<GitOptions>,
    client: HttpClient,
    /// Bound the blocking threads: those that read mirrors, and those that wait for servers.
    readers: Arc<Semaphore>,
    callers: Arc<Semaphore>,
}

impl GixProvider {
    /// A provider with its mirrors below `directory`, which is made when it is missing. Reads the certificates.
    ///
    /// # Errors
    /// `Unavailable` if the directory can't be made; `Internal` if the certificates can't be read.
    pub fn open(directory: impl AsRef<Path>, options: GitOptions) -> Result<Self> {
        let directory = directory.as_ref().to_owned();
        create_directory(&directory).map_err(|error| errors::disk("git.open", error))?;
        let client = HttpClient::new(&options)?;
        let readers = Arc::new(Semaphore::new(options.limits.readers.max(1)));
        let callers = Arc::new(Semaphore::new(options.limits.calls.max(1)));
        Ok(Self { directory, options: Arc::new(options), client, readers, callers })
    }

    /// Runs `work` on a blocking thread, and returns when it has ended: by itself, or because the caller
    /// cancelled or the time was over.
    async fn run<T: Send + 'static>(
        &self,
        call: &Arc<Call>,
        threads: &Arc<Semaphore>,
        work: impl FnOnce(&Arc<Call>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let operation = call.operation();
        let permit = tokio::select! {
            biased;
            ended = call.ended() => return Err(waited(ended)),
            permit = threads.clone().acquire_owned() => permit.map_err(error::map(operation))?,
        };
        let _stop = StopOnDrop(call.clone());
        let worker = call.clone();
        let mut running = tokio::task::spawn_blocking(move || {
            let result = work(&worker);
            drop(permit);
            result
        });
        let ended = tokio::select! {
            biased;
            result = &mut running => return result.map_err(error::map(operation))?,
            ended = call.ended() => ended,
        };
        call.stop();
        // Its result no longer matters, that it has ended does.
        let _ = running.await;
        Err(ended)
    }

    fn call(&self, operation: &'static str, context: &Context) -> Arc<Call> {
        Call::new(operation, context, &self.options.limits)
    }

    /// Connects to the server, on a blocking thread.
    fn connector(&self, repository: &Repository) -> impl Fn(&Arc<Call>) -> Result<Remote> + Send + 'static {
        let (client, runtime, repository) = (self.client.clone(), Handle::current(), repository.clone());
        move |call| {
            let http = HttpTransport::new(client.clone(), runtime.clone(), call.clone(), &repository);
            Remote::connect(call.clone(), http, &repository)
        }
    }
}

#[async_trait]
impl GitProvider for GixProvider {
    async fn branches(&self, context: &Context, repository: &Repository) -> Result<Branches> {
        self.options.egress.check_url(&repository.url)?;
        let call = self.call("git.branches", context);
        let connect = self.connector(repository);
        self.run(&call, &self.callers, move |call| {
            let mut branches = Branches::default();
            for reference in connect(call)?.refs(&["HEAD".to_owned(), "refs/heads/".to_owned()])? {
                let (name, target, commit) = unpacked(&reference);
                if name == "HEAD" {
                    branches.default = target.and_then(branch_name).filter(|_| commit.is_some());
                } else if let (Some(name), Some(commit)) = (branch_name(name), commit) {
                    branches.branches.insert(name, id_of(commit)?);
                }
            }
            Ok(branches)
        })
        .await
    }

    async fn resolve(
        &self,
        context: &Context,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Revision> {
        self.options.egress.check_url(&repository.url)?;
        let wanted = match reference {
            Reference::Commit(commit) => return Ok(Revision { commit: commit.clone(), branch: None }),
            Reference::Named(name) => Some(name.clone()),
            Reference::Default => None,
        };
        let call = self.call("git.resolve", context);
        let connect = self.connector(repository);
        self.run(&call, &self.callers, move |call| resolve(&mut connect(call)?, wanted)).await
    }

    async fn fetch(
        &self,
        context: &Context,
        repository: &Repository,
        commit: &CommitId,
        root: &RootDirectory,
    ) -> Result<Arc<dyn SourceTree>> {
        const OPERATION: &str = "git.fetch";
        self.options.egress.check_url(&repository.url)?;
        let wanted = ObjectId::from_hex(commit.as_str().as_bytes()).map_err(|_| {
            Error::invalid(OPERATION, "repositories with SHA-256 ids are not supported")
                .code("unsupported_id")
        })?;
        let place = Place::new(&self.directory, &repository.org, &repository.url);
        let fetch = Fetch {
            mirror: place.mirror(repository),
            place: place.clone(),
            options: self.options.clone(),
            commit: commit.clone(),
            root: root.clone(),
            readers: self.readers.clone(),
        };
        let call = self.call(OPERATION, context);
        // What is here already is read without waiting for anybody.
        let reader = fetch.clone();
        match self.run(&call, &self.readers, move |call| Ok(reader.open(call))).await? {
            Ok(tree) => return Ok(Arc::new(tree)),
            Err(Fault::Refused(error)) => return Err(error),
            Err(Fault::Absent | Fault::Broken(_)) => {}
        }
        let call = self.call(OPERATION, context);
        let lock = place.lock(call.context(), OPERATION).await.map_err(waited)?;
        let connect = self.connector(repository);
        let tree = self.run(&call, &self.callers, move |call| fetch.run(call, wanted, connect, lock)).await?;
        let (commit, received) = (commit.short(), call.received().div_ceil(1024));
        context.log(LogSource::System, format!("Fetched commit {commit}, {received} KiB"));
        Ok(Arc::new(tree))
    }

    async fn forget(&self, org: &OrgId, url: &GitUrl) -> Result<()> {
        const OPERATION: &str = "git.forget";
        let place = Place::new(&self.directory, org, url);
        if !place.exists().await {
            return Ok(());
        }
        let context = Context::new(Arc::new(SystemClock::new())).with_budget(FORGET_PATIENCE);
        let lock = place.lock(&context, OPERATION).await?;
        tokio::task::spawn_blocking(move || place.remove(&lock))
            .await
            .map_err(error::map(OPERATION))?
            .map_err(|error| errors::disk(OPERATION, error))
    }
}

/// The error of a call that ended before it had its turn.
fn waited(error: Error) -> Error {
    if error.kind() == Kind::Timeout { errors::busy("git.fetch") } else { error }
}

/// One fetch of a commit, on a blocking thread.
#[derive(Clone)]
struct Fetch {
    mirror: Mirror,
    place: Place,
    options: Arc<GitOptions>,
    commit: CommitId,
    root: RootDirectory,
    readers: Arc<Semaphore>,
}

impl Fetch {
    fn open(&self, call: &Call) -> Result<GitTree, Fault> {
        GitTree::open(call, &self.place, &self.mirror, &self.commit, &self.root, self.readers.clone())
    }

    fn run(
        self,
        call: &Arc<Call>,
        wanted: ObjectId,
        connect: impl Fn(&Arc<Call>) -> Result<Remote>,
        lock: Lock,
    ) -> Result<GitTree> {
        let disk = |error| errors::disk(call.operation(), error);
        // Somebody else may have fetched it while this call waited for the lock.
        match self.open(call) {
            Ok(tree) => return Ok(tree),
            Err(Fault::Refused(error)) => return Err(error),
            Err(Fault::Absent | Fault::Broken(_)) => {}
        }
        match self.receive(call, wanted, &connect, &lock)? {
            Ok(tree) => return Ok(tree),
            Err(reason) => {
                let mirror = self.mirror.path();
                tracing::warn!(reason, ?mirror, "the mirror is broken, or its server is: it is made anew");
            }
        }
        self.mirror.remove(&lock).map_err(disk)?;
        self.receive(call, wanted, &connect, &lock)?.map_err(|reason| {
            let message = "the git server sent a commit that cannot be read";
            errors::unavailable(call.operation(), message, errors::Cause::Git(reason))
        })
    }

    /// Fetches what the mirror lacks of the commit. The inner error says what cannot be read: the mirror may be
    /// at fault, because the server sends only what the mirror claims not to have.
    fn receive(
        &self,
        call: &Arc<Call>,
        wanted: ObjectId,
        connect: &impl Fn(&Arc<Call>) -> Result<Remote>,
        lock: &Lock,
    ) -> Result<Result<GitTree, String>> {
        let limits = &self.options.limits;
        let disk = |error| errors::disk(call.operation(), error);
        let bytes = self.mirror.prepare(limits, lock).map_err(disk)?;
        self.place.tidy(lock).map_err(disk)?;
        let room = limits.disk_bytes.saturating_sub(bytes);
        let objects = self.mirror.objects(limits).map_err(disk)?;
        let mut present = self.mirror.commits();
        // If it is listed and yet cannot be read, all of it has to come again.
        present.retain(|commit| *commit != wanted);
        let fetched = connect(call)?.fetch(self.mirror.path(), &objects, wanted, present, room);
        drop(objects);
        if let Err(error) = fetched {
            // Nothing half-made stays, also when nobody fetches this repository ever again.
            if let Err(error) = self.mirror.prepare(limits, lock) {
                tracing::warn!(?error, mirror = ?self.mirror.path(), "what a failed fetch left could not be removed");
            }
            return if error.reason() == Some(errors::UNREADABLE) {
                Ok(Err(format!("{error:?}")))
            } else {
                Err(error)
            };
        }
        match self.open(call) {
            Ok(tree) => Ok(Ok(tree)),
            Err(Fault::Refused(error)) => Err(error),
            Err(Fault::Broken(reason)) => Ok(Err(reason)),
            Err(Fault::Absent) => Ok(Err("the commit did not come".to_owned())),
        }
    }
}

fn resolve(remote: &mut Remote, wanted: Option<GitRef>) -> Result<Revision> {
    const OPERATION: &str = "git.resolve";
    let mut prefixes = vec!["HEAD".to_owned()];
    if let Some(name) = &wanted {
        prefixes.extend([format!("refs/heads/{name}"), format!("refs/tags/{name}")]);
    }
    let refs = remote.refs(&prefixes)?;
    let find = |name: &str| refs.iter().map(unpacked).find(|(found, ..)| *found == name);
    let head = find("HEAD");
    let default = head.and_then(|(_, target, _)| target).and_then(branch_name);
    let Some(name) = wanted else {
        let commit = head.and_then(|(.., commit)| commit).ok_or_else(|| {
            Error::not_found(OPERATION, "the repository is empty")
                .code("branch_not_found")
                .hint("push a commit to it")
        })?;
        return Ok(Revision { commit: id_of(commit)?, branch: default });
    };
    let found = find(&format!("refs/heads/{name}")).or_else(|| find(&format!("refs/tags/{name}")));
    let commit = found.and_then(|(.., commit)| commit).ok_or_else(|| {
        let error = Error::not_found(OPERATION, format!("there is no branch or tag `{name}`"));
        let error = error.code("branch_not_found");
        match &default {
            Some(default) => error.hint(format!("the default branch is `{default}`")),
            None => error,
        }
    })?;
    Ok(Revision { commit: id_of(commit)?, branch: Some(name) })
}

/// The branch that a ref's full name means, if it is one that the platform can name.
fn branch_name(full_name: &str) -> Option<GitRef> {
    full_name.strip_prefix("refs/heads/")?.parse().ok()
}

fn id_of(commit: ObjectId) -> Result<CommitId> {
    commit.to_string().parse()
}
