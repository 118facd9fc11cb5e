//! A source tree, read from a mirror's objects.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use gix::ObjectId;
use gix::objs::tree::EntryKind as Mode;
use gix::objs::{CommitRefIter, Find as _, FindExt as _, Kind, TreeRefIter};
use gix::odb::HeaderExt as _;
use gix::odb::pack::cache::lru::MemoryCappedHashmap;
use paas_core::{
    CommitId, EntryKind, Error, Kind as ErrorKind, PathFilter, Result, RootDirectory, SourceTree, TreeEntry,
    TreeId, TreeListing,
};
use tokio::sync::Semaphore;

use crate::call::Call;
use crate::mirror::{Mirror, Place};
use crate::options::GitLimits;
use crate::{archive, errors};

const OPERATION: &str = "git.fetch";
/// The longest target of a link that an operating system takes.
const MAX_TARGET_BYTES: u64 = 4096;
/// The most bytes of all paths and targets together: they are held in memory.
const MAX_NAMES_BYTES: usize = 64 << 20;
/// How many bytes of objects a reader keeps that others are made from.
const CACHE_BYTES: usize = 16 << 20;
/// The longest path, in bytes.
const MAX_PATH_BYTES: usize = 4096;

/// Why there is no tree.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The commit is not in the mirror.
    Absent,
    /// The mirror lacks objects, or has broken ones.
    Broken(String),
    /// The tree breaks a rule, or has no such directory: fetching again changes nothing.
    Refused(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<gix::Error> for Fault {
    fn from(error: gix::Error) -> Self {
        if let Some(error) = errors::of_this_machine(&error) {
            return Self::Refused(errors::disk(OPERATION, error));
        }
        if error.is_resource_exhausted() {
            return Self::Refused(errors::too_large(OPERATION, errors::LARGE_FILE));
        }
        Self::Broken(format!("{error:?}"))
    }
}

/// A tree whose paths were all checked, and whose packs are all open: it can be read even after its mirror was
/// removed.
#[derive(Debug)]
pub(crate) struct GitTree {
    id: TreeId,
    commit: CommitId,
    listing: TreeListing,
    objects: Objects,
    readers: Arc<Semaphore>,
}

/// The objects of a tree's entries.
#[derive(Clone)]
pub(crate) struct Objects {
    store: Arc<gix::odb::Store>,
    source: Arc<Source>,
    /// Of the entry with the same index.
    ids: Arc<Vec<ObjectId>>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Objects").field("path", &self.store.path()).finish_non_exhaustive()
    }
}

impl Objects {
    /// Reads several; each thread needs its own.
    pub(crate) fn reader(&self) -> Reader {
        let mut handle = cached(gix::odb::Cache::from(self.store.to_handle_arc()));
        handle.refresh_never();
        Reader { handle, source: self.source.clone(), ids: self.ids.clone() }
    }
}

/// Reads objects, on one thread.
pub(crate) struct Reader {
    handle: gix::odb::HandleArc,
    source: Arc<Source>,
    ids: Arc<Vec<ObjectId>>,
}

impl Reader {
    /// The bytes of the entry at `index`, which is a file.
    pub(crate) fn read(&self, operation: &'static str, index: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.handle.find_blob(&self.ids[index], &mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.source.unreadable(operation, error)),
        }
    }
}

/// Where a tree's objects lie.
#[derive(Debug)]
struct Source {
    place: Place,
    mirror: Mirror,
}

impl Source {
    /// What it means that a file cannot be read which was there when the tree was opened. Power loss or a bad disk
    /// broke the mirror: it is removed, unless somebody fetches into it, and the next fetch brings everything again.
    fn unreadable(&self, operation: &'static str, error: gix::Error) -> Error {
        if let Some(error) = errors::of_this_machine(&error) {
            return errors::disk(operation, error);
        }
        if error.is_resource_exhausted() {
            return errors::too_large(operation, errors::LARGE_FILE);
        }
        let mirror = self.mirror.path();
        tracing::warn!(?error, ?mirror, "the mirror is broken: it is removed");
        let locked = self.place.try_lock().transpose();
        if let Some(Err(error)) = locked.map(|lock| self.mirror.remove(&lock?)) {
            tracing::warn!(%error, ?mirror, "the broken mirror could not be removed");
        }
        Error::new(ErrorKind::Unavailable, operation, "what was fetched of the repository is damaged")
            .code("mirror_damaged")
            .source(errors::Cause::Git(format!("{error:?}")))
    }
}

/// Objects with a memory for those that others are made from.
fn cached<S: Clone>(objects: gix::odb::Cache<S>) -> gix::odb::Cache<S> {
    objects.with_pack_cache(|| Box::new(MemoryCappedHashmap::new(CACHE_BYTES)))
}

/// What can't be read though every byte of it came as it was sent.
fn malformed(what: &str) -> Fault {
    Error::invalid(OPERATION, format!("the repository is malformed: {what}"))
        .code("malformed_object")
        .hint("check it with `git fsck`")
        .into()
}

impl GitTree {
    /// Reads and checks every entry of `root` in `commit`, until the call is stopped.
    pub(crate) fn open(
        call: &Call,
        place: &Place,
        mirror: &Mirror,
        commit: &CommitId,
        root: &RootDirectory,
        readers: Arc<Semaphore>,
    ) -> Result<Self, Fault> {
        let limits = call.limits();
        let Ok(objects) = mirror.objects(limits) else { return Err(Fault::Absent) };
        let mut objects = cached(objects);
        objects.prevent_pack_unload();
        let id = ObjectId::from_hex(commit.as_str().as_bytes()).map_err(|_| Fault::Absent)?;
        let mut buffer = Vec::new();
        let tree = match objects.try_find(&id, &mut buffer)? {
            None => return Err(Fault::Absent),
            Some(found) if found.kind == Kind::Commit => {
                CommitRefIter::from_bytes(found.data, gix::hash::Kind::Sha1)
                    .tree_id()
                    .map_err(|_| malformed("its commit has no tree"))?
            }
            Some(_) => return Err(errors::commit_not_found(OPERATION, commit.as_str()).into()),
        };
        let mut walk = Walk { call, objects: &objects, limits, found: Vec::new(), bytes: 0, names: 0 };
        let tree = walk.directory(tree, root)?;
        walk.below(tree)?;
        let mut found = walk.found;
        found.sort_unstable_by(|(one, _), (other, _)| one.path.cmp(&other.path));
        let (entries, ids) = found.into_iter().unzip();
        let id = tree.to_string().parse()?;
        let store = objects.into_inner().into_arc().map_err(|error| errors::disk(OPERATION, error))?.store();
        let source = Arc::new(Source { place: place.clone(), mirror: mirror.clone() });
        let objects = Objects { store, source, ids: Arc::new(ids) };
        Ok(Self { id, commit: commit.clone(), listing: TreeListing::new(entries)?, objects, readers })
    }
}

/// A walk over a tree, bounded in every direction.
struct Walk<'a> {
    call: &'a Call,
    objects: &'a gix::odb::Handle,
    limits: &'a GitLimits,
    found: Vec<(TreeEntry, ObjectId)>,
    /// What the files have together.
    bytes: u64,
    /// What the paths and targets have together.
    names: usize,
}

impl Walk<'_> {
    /// The tree of a directory.
    fn directory(&self, mut tree: ObjectId, root: &RootDirectory) -> Result<ObjectId, Fault> {
        let mut buffer = Vec::new();
        for name in root.as_str().split('/').filter(|name| !name.is_empty()) {
            self.tree(&tree, &mut buffer)?;
            let mut next = None;
            for entry in TreeRefIter::from_bytes(&buffer, gix::hash::Kind::Sha1) {
                let entry = entry.map_err(|_| malformed("it has a directory that is none"))?;
                if entry.filename == name && entry.mode.is_tree() {
                    next = Some(entry.oid.to_owned());
                }
            }
            tree = next.ok_or_else(|| {
                Error::not_found(OPERATION, format!("there is no directory `{root}` in the repository"))
                    .code("root_directory_not_found")
                    .hint("check the app's root directory")
            })?;
        }
        Ok(tree)
    }

    /// Takes in everything below a tree. Directories wait in a list, not on the thread's stack.
    fn below(&mut self, tree: ObjectId) -> Result<(), Fault> {
        let mut waiting = vec![(String::new(), 1, tree)];
        let mut buffer = Vec::new();
        while let Some((parent, depth, tree)) = waiting.pop() {
            if depth > self.limits.depth {
                return Err(errors::too_large(OPERATION, "its directories are too deep").into());
            }
            self.tree(&tree, &mut buffer)?;
            for entry in TreeRefIter::from_bytes(&buffer, gix::hash::Kind::Sha1) {
                self.call.check()?;
                let entry = entry.map_err(|_| malformed("it has a directory that is none"))?;
                let path = joined(&parent, entry.filename)?;
                let id = entry.oid.to_owned();
                let kind = match entry.mode.kind() {
                    Mode::Tree => {
                        waiting.push((path.clone(), depth + 1, id));
                        EntryKind::Directory
                    }
                    Mode::Blob => EntryKind::File { size: self.size(&id)?, executable: false },
                    Mode::BlobExecutable => EntryKind::File { size: self.size(&id)?, executable: true },
                    Mode::Link => EntryKind::Symlink { target: self.target(&path, &id)? },
                    Mode::Commit => EntryKind::Submodule,
                };
                self.names += path.len();
                if let EntryKind::Symlink { target } = &kind {
                    self.names += target.len();
                }
                if self.names > MAX_NAMES_BYTES {
                    return Err(errors::too_large(OPERATION, "the names of its files are too long").into());
                }
                self.found.push((TreeEntry { path, kind }, id));
                if self.found.len() > self.limits.entries {
                    return Err(
                        errors::too_large(OPERATION, "it has more files than the platform takes").into()
                    );
                }
            }
        }
        Ok(())
    }

    /// Reads a tree.
    fn tree(&self, id: &ObjectId, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        self.call.check()?;
        match self.objects.try_find(id, buffer)? {
            None => Err(Fault::Broken(format!("{id} is missing"))),
            Some(found) if found.kind != Kind::Tree => Err(malformed("it has a directory that is none")),
            Some(_) => Ok(()),
        }
    }

    fn size(&mut self, id: &ObjectId) -> Result<u64, Fault> {
        let header = self.objects.header(id)?;
        if header.kind() != Kind::Blob {
            return Err(malformed("it has a file that is none"));
        }
        let size = header.size();
        self.bytes = self.bytes.saturating_add(size);
        if size > self.limits.object_bytes as u64 {
            return Err(errors::too_large(OPERATION, errors::LARGE_FILE).into());
        }
        if self.bytes > self.limits.disk_bytes {
            return Err(errors::too_large(OPERATION, "its files are larger than the platform takes").into());
        }
        Ok(size)
    }

    fn target(&mut self, path: &str, id: &ObjectId) -> Result<String, Fault> {
        if self.size(id)? > MAX_TARGET_BYTES {
            return Err(TreeListing::unsafe_path(path, "it is a link with a target that is too long").into());
        }
        let mut buffer = Vec::new();
        let target = self.objects.find_blob(id, &mut buffer)?.data.to_vec();
        String::from_utf8(target)
            .map_err(|_| TreeListing::unsafe_path(path, "it is a link whose target is not UTF-8").into())
    }
}

fn joined(parent: &str, name: &[u8]) -> Result<String, Error> {
    let Ok(name) = std::str::from_utf8(name) else {
        return Err(TreeListing::unsafe_path(&String::from_utf8_lossy(name), "its name is not UTF-8"));
    };
    let path = if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
    if name.contains('/') {
        return Err(TreeListing::unsafe_path(&path, "a name of it has a slash"));
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(errors::too_large(OPERATION, "its directories are too deep"));
    }
    Ok(path)
}

#[async_trait]
impl SourceTree for GitTree {
    fn id(&self) -> TreeId {
        self.id.clone()
    }

    fn commit(&self) -> CommitId {
        self.commit.clone()
    }

    async fn entries(&self) -> Result<Arc<Vec<TreeEntry>>> {
        Ok(self.listing.entries().clone())
    }

    async fn read(&self, path: &str, max_bytes: u64) -> Result<Option<Bytes>> {
        const OPERATION: &str = "git.read";
        let Some(index) = self.listing.find(path) else { return Ok(None) };
        match self.listing.entries()[index].kind {
            EntryKind::File { size, .. } if size > max_bytes => {
                Err(Error::invalid(OPERATION, format!("the file `{}` is too large", path.escape_debug()))
                    .code("too_large"))
            }
            EntryKind::File { .. } => {
                let readers = self.readers.clone();
                let permit = readers.acquire_owned().await.map_err(paas_core::error::map(OPERATION))?;
                let objects = self.objects.clone();
                let reading = tokio::task::spawn_blocking(move || {
                    // Held until the thread is done, also if nobody waits for it any more.
                    let _permit = permit;
                    objects.reader().read(OPERATION, index)
                });
                let bytes = reading.await.map_err(paas_core::error::map(OPERATION))??;
                Ok(Some(bytes.into()))
            }
            _ => Ok(None),
        }
    }

    fn archive(&self, include: PathFilter) -> BoxStream<'static, Result<Bytes>> {
        archive::stream(self.listing.entries().clone(), self.objects.clone(), include, self.readers.clone())
    }
}
