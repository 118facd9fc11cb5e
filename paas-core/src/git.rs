//! The trait of git providers, and of the trees they bring.

mod listing;
mod tar;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::context::Context;
use crate::domain::{CommitId, GitRef, GitUrl, OrgId, RootDirectory, Secret, TreeId};
use crate::error::Result;

pub use listing::TreeListing;
pub use tar::{TAR_END, tar_header, tar_padding};

/// A repository as somebody is allowed to read it.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Who asks. What one org fetched is never shown to another.
    pub org: OrgId,
    /// Where it is.
    pub url: GitUrl,
    /// The token for it; none for a public one.
    pub token: Option<Secret>,
}

/// What to resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The default branch.
    Default,
    /// A branch, or else a tag, of this name.
    Named(GitRef),
    /// This commit. It is not looked for until it is fetched.
    Commit(CommitId),
}

/// A ref, resolved to what never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The commit.
    pub commit: CommitId,
    /// The branch or tag that it was resolved from.
    pub branch: Option<GitRef>,
}

/// The branches of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branches {
    /// The one that a clone checks out; none in an empty repository.
    pub default: Option<GitRef>,
    /// Every branch and the commit it points at.
    pub branches: BTreeMap<GitRef, CommitId>,
}

/// Brings source code.
///
/// # Flow
/// `resolve` turns a branch into a commit without moving files; `fetch` brings that commit and answers a tree to
/// read from.
///
/// # Guarantees
/// - `fetch` of the same revision and directory gives the same tree; doing it again moves only what is missing.
/// - No request leaves for an address that the operator's [`EgressPolicy`](crate::EgressPolicy) denies, also not
///   after a redirect; a token is never sent to another host than the URL's.
/// - Limits on time, bytes, files and depth hold whatever the server sends; cancelling ends the transfer.
/// - The token is in no file, log line or error.
///
/// # Errors
/// `NotFound`, the user's fault, with the code `repository_not_found` (or not with this token),
/// `branch_not_found`, `commit_not_found` or `root_directory_not_found`.
/// `PermissionDenied` with the code `egress_denied`. `Invalid` with the code `unsafe_path` or `too_large`.
/// `Timeout` with the code `clone_timeout`. `Unavailable`, upstream's fault, when the server is; `RateLimited`.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait GitProvider: Debug + Send + Sync + 'static {
    /// The branches, asked of the server now.
    async fn branches(&self, context: &Context, repository: &Repository) -> Result<Branches>;

    /// Resolves a reference, asking the server now.
    async fn resolve(
        &self,
        context: &Context,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Revision>;

    /// Brings a commit here and answers the tree of `root` in it.
    async fn fetch(
        &self,
        context: &Context,
        repository: &Repository,
        commit: &CommitId,
        root: &RootDirectory,
    ) -> Result<Arc<dyn SourceTree>>;

    /// Forgets what was fetched of a repository for this org, whatever the token was. Removing what is absent succeeds.
    async fn forget(&self, org: &OrgId, url: &GitUrl) -> Result<()>;
}

/// What an entry of a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link that stays within the tree.
    Symlink {
        /// Where it points, relative to its own directory.
        target: String,
    },
    /// A directory.
    Directory,
    /// Another repository at this place; its files are not here.
    Submodule,
}

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeEntry {
    /// Its path from the tree's root, with `/` between its parts.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
}

/// Which paths of a tree are wanted.
#[derive(Clone)]
pub struct PathFilter(Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl PathFilter {
    /// Every path.
    #[must_use]
    pub fn all() -> Self {
        Self::new(|_| true)
    }

    /// The paths for which `wanted` holds.
    pub fn new(wanted: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(wanted))
    }

    /// True if `path` is wanted.
    #[must_use]
    pub fn wants(&self, path: &str) -> bool {
        (self.0)(path)
    }
}

impl Debug for PathFilter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PathFilter")
    }
}

/// An immutable source tree. It is read where it lies and never checked out.
///
/// # Guarantees
/// Every path is relative, has no `..` and no `.git`, and no link leaves the tree: what breaks this was refused
/// when the tree was fetched. The same [`id`](Self::id) means the same entries and bytes.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait SourceTree: Debug + Send + Sync + 'static {
    /// The git id of the tree at the root directory.
    fn id(&self) -> TreeId;

    /// The commit it belongs to.
    fn commit(&self) -> CommitId;

    /// Every entry, sorted by path, directories before what is in them.
    async fn entries(&self) -> Result<Arc<Vec<TreeEntry>>>;

    /// The bytes of a file, following links; `None` if there is no such file.
    ///
    /// # Errors
    /// `Invalid` with the code `too_large` when it has more than `max_bytes`.
    async fn read(&self, path: &str, max_bytes: u64) -> Result<Option<Bytes>>;

    /// The entries that `include` wants, as a tar stream (POSIX ustar, with pax headers where needed), sorted
    /// by path, all times 0: the same tree gives the same bytes. Dropping the stream ends the work behind it.
    fn archive(&self, include: PathFilter) -> BoxStream<'static, Result<Bytes>>;
}
