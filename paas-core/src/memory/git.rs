//! A git server in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::tree::{MemoryFiles, MemoryTree};
use crate::context::Context;
use crate::domain::{CommitId, EgressPolicy, GitRef, GitUrl, OrgId, RootDirectory, Secret};
use crate::error::{Error, Failure, Kind, Result};
use crate::git::{Branches, GitProvider, Reference, Repository, Revision, SourceTree};
use crate::watch;

/// A [`GitProvider`] whose repositories are put into it. Clones share them.
///
/// ```
/// # use std::sync::Arc;
/// # use paas_core::memory::MemoryGit;
/// # use paas_core::{Context, GitProvider, OrgId, Reference, Repository, SystemClock};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let git = MemoryGit::new();
/// let (url, main) = ("https://git.test/hello".parse()?, "main".parse()?);
/// let commit = git.commit(&url, &main, [("index.html", "<h1>hello</h1>")]);
///
/// let context = Context::new(Arc::new(SystemClock::new()));
/// let repository = Repository { org: OrgId::default_org(), url, token: None };
/// let revision = git.resolve(&context, &repository, &Reference::Default).await?;
/// assert_eq!(revision.commit, commit);
/// let tree = git.fetch(&context, &repository, &commit, &"".parse()?).await?;
/// assert_eq!(tree.read("index.html", 1024).await?.unwrap(), "<h1>hello</h1>");
/// # Ok::<(), paas_core::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct MemoryGit {
    state: Arc<Mutex<State>>,
    egress: EgressPolicy,
    /// While true, every call waits.
    held: watch::Sender<bool>,
}

impl Default for MemoryGit {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<GitUrl, MemoryRepository>,
    /// What each org has fetched, with which token.
    mirrors: BTreeMap<(OrgId, GitUrl), Vec<Mirror>>,
    /// How often each repository's server was asked.
    requests: BTreeMap<GitUrl, u64>,
}

#[derive(Debug, Default)]
struct MemoryRepository {
    default: Option<GitRef>,
    branches: BTreeMap<GitRef, CommitId>,
    tags: BTreeMap<GitRef, CommitId>,
    commits: BTreeMap<CommitId, MemoryFiles>,
    token: Option<Secret>,
    /// What the next calls fail with, and how many of them.
    failure: Option<(Failure, u64)>,
}

#[derive(Debug)]
struct Mirror {
    token: Option<Secret>,
    commits: BTreeMap<CommitId, MemoryFiles>,
}

impl MemoryGit {
    /// Without repositories, calling public addresses only.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Arc::default(), egress: EgressPolicy::default(), held: watch::Sender::default() }
    }

    /// The same with another egress policy.
    #[must_use]
    pub fn with_egress(self, egress: EgressPolicy) -> Self {
        Self { egress, ..self }
    }

    /// Adds a commit with these files, all of them, to the end of a branch. Makes the repository and the branch
    /// where they are missing; the first branch is the default one. The same commits in the same order have the
    /// same ids.
    pub fn commit(&self, url: &GitUrl, branch: &GitRef, files: impl Into<MemoryFiles>) -> CommitId {
        let files = files.into();
        let mut state = self.locked();
        let repository = state.repositories.entry(url.clone()).or_default();
        let parent = repository.branches.get(branch);
        let commit = files.commit_id(parent, repository.commits.len());
        repository.default.get_or_insert_with(|| branch.clone());
        repository.branches.insert(branch.clone(), commit.clone());
        repository.commits.insert(commit.clone(), files);
        commit
    }

    /// Points a tag at a commit.
    pub fn tag(&self, url: &GitUrl, tag: &GitRef, commit: &CommitId) {
        let mut state = self.locked();
        state.repositories.entry(url.clone()).or_default().tags.insert(tag.clone(), commit.clone());
    }

    /// Makes an empty repository, unless there is one.
    pub fn create(&self, url: &GitUrl) {
        self.locked().repositories.entry(url.clone()).or_default();
    }

    /// Removes a repository, as its owner would on the server. What was fetched stays fetched.
    pub fn remove(&self, url: &GitUrl) {
        self.locked().repositories.remove(url);
    }

    /// Shows the repository only to those who bring this token.
    pub fn require_token(&self, url: &GitUrl, token: impl Into<Secret>) {
        self.locked().repositories.entry(url.clone()).or_default().token = Some(token.into());
    }

    /// Lets the next `times` calls that ask the server for this repository fail.
    pub fn fail(&self, url: &GitUrl, error: &Error, times: u64) {
        let failure = (times > 0).then(|| (Failure::from(error), times));
        self.locked().repositories.entry(url.clone()).or_default().failure = failure;
    }

    /// Holds every call that asks a server, as a stalled one would, until [`release`](Self::release) or the
    /// call's own end.
    pub fn hold(&self) {
        self.held.send(true);
    }

    /// Lets the held calls go on.
    pub fn release(&self) {
        self.held.send(false);
    }

    /// How often this repository's server was asked.
    pub fn requests(&self, url: &GitUrl) -> u64 {
        self.locked().requests.get(url).copied().unwrap_or_default()
    }

    /// The commits that an org has here, whatever the token was.
    pub fn fetched(&self, org: &OrgId, url: &GitUrl) -> BTreeSet<CommitId> {
        let state = self.locked();
        let mirrors = state.mirrors.get(&(org.clone(), url.clone()));
        mirrors.into_iter().flatten().flat_map(|mirror| mirror.commits.keys().cloned()).collect()
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves the maps usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the "server": waits while it is held, then reads the repository as the token may see it.
    async fn ask<T>(
        &self,
        context: &Context,
        operation: &'static str,
        asked: &Repository,
        answer: impl FnOnce(&MemoryRepository) -> Result<T> + Send,
    ) -> Result<T> {
        let mut held = self.held.subscribe();
        context
            .run(operation, async {
                held.until(|held| !held).await;
                let mut state = self.locked();
                *state.requests.entry(asked.url.clone()).or_default() += 1;
                let not_found = || {
                    Error::not_found(operation, "there is no such repository, or not with this token")
                        .code("repository_not_found")
                        .hint("check the address, and the token of a private repository")
                };
                let repository = state.repositories.get_mut(&asked.url).ok_or_else(not_found)?;
                if let Some((failure, times)) = repository.failure.take() {
                    if times > 1 {
                        repository.failure = Some((failure.clone(), times - 1));
                    }
                    return Err(Error::from(&failure));
                }
                if repository.token.is_some() && repository.token != asked.token {
                    return Err(not_found());
                }
                answer(repository)
            })
            .await
            .map_err(|error| if error.kind() == Kind::Timeout { error.code("clone_timeout") } else { error })
    }

    fn mirrored(&self, asked: &Repository, commit: &CommitId) -> Option<MemoryFiles> {
        let state = self.locked();
        let mirrors = state.mirrors.get(&(asked.org.clone(), asked.url.clone()))?;
        mirrors.iter().find(|mirror| mirror.token == asked.token)?.commits.get(commit).cloned()
    }

    fn keep(&self, asked: &Repository, commit: &CommitId, files: &MemoryFiles) {
        let mut state = self.locked();
        let mirrors = state.mirrors.entry((asked.org.clone(), asked.url.clone())).or_default();
        let commits = BTreeMap::from([(commit.clone(), files.clone())]);
        match mirrors.iter_mut().find(|mirror| mirror.token == asked.token) {
            Some(mirror) => mirror.commits.extend(commits),
            None => mirrors.push(Mirror { token: asked.token.clone(), commits }),
        }
    }
}

#[async_trait]
impl GitProvider for MemoryGit {
    async fn branches(&self, context: &Context, repository: &Repository) -> Result<Branches> {
        self.egress.check_url(&repository.url)?;
        self.ask(context, "git.branches", repository, |found| {
            Ok(Branches { default: found.default.clone(), branches: found.branches.clone() })
        })
        .await
    }

    async fn resolve(
        &self,
        context: &Context,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Revision> {
        self.egress.check_url(&repository.url)?;
        let name = match reference {
            Reference::Commit(commit) => return Ok(Revision { commit: commit.clone(), branch: None }),
            Reference::Named(name) => Some(name),
            Reference::Default => None,
        };
        self.ask(context, "git.resolve", repository, |found| {
            let Some(name) = name.or(found.default.as_ref()) else {
                return Err(
                    Error::not_found("git.resolve", "the repository is empty").code("branch_not_found")
                );
            };
            let commit = found.branches.get(name).or_else(|| found.tags.get(name)).ok_or_else(|| {
                Error::not_found("git.resolve", format!("there is no branch or tag `{name}`"))
                    .code("branch_not_found")
            })?;
            Ok(Revision { commit: commit.clone(), branch: Some(name.clone()) })
        })
        .await
    }

    async fn fetch(
        &self,
        context: &Context,
        repository: &Repository,
        commit: &CommitId,
        root: &RootDirectory,
    ) -> Result<Arc<dyn SourceTree>> {
        self.egress.check_url(&repository.url)?;
        let files = match self.mirrored(repository, commit) {
            Some(files) => files,
            None => {
                let files = self
                    .ask(context, "git.fetch", repository, |found| {
                        found.commits.get(commit).cloned().ok_or_else(|| {
                            Error::not_found(
                                "git.fetch",
                                format!("there is no commit {commit} in the repository"),
                            )
                            .code("commit_not_found")
                        })
                    })
                    .await?;
                self.keep(repository, commit, &files);
                files
            }
        };
        Ok(Arc::new(MemoryTree::of_commit(commit.clone(), &files, root)?))
    }

    async fn forget(&self, org: &OrgId, url: &GitUrl) -> Result<()> {
        self.locked().mirrors.remove(&(org.clone(), url.clone()));
        Ok(())
    }
}
