//! A source tree in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use sha2::{Digest, Sha256};

use crate::domain::{CommitId, RootDirectory, TreeId};
use crate::error::{Error, Result};
use crate::git::{
    EntryKind, PathFilter, SourceTree, TAR_END, TreeEntry, TreeListing, tar_header, tar_padding,
};

/// Files, links and submodules by path: what a commit is made of. Nothing is checked until a tree is made of it.
///
/// ```
/// use paas_core::memory::MemoryFiles;
/// let files = MemoryFiles::from([("README.md", "# Hello")]).executable("run.sh", "#!/bin/sh").symlink("start", "run.sh");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryFiles(BTreeMap<String, MemoryFile>);

/// What is at a path of [`MemoryFiles`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryFile {
    /// A file.
    File {
        /// What is in it.
        bytes: Bytes,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link to this target.
    Symlink(String),
    /// Another repository.
    Submodule,
}

impl MemoryFiles {
    /// Adds a file, replacing what was there.
    #[must_use]
    pub fn file(self, path: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        self.with(path, MemoryFile::File { bytes: bytes.into(), executable: false })
    }

    /// Adds a file that may be executed, replacing what was there.
    #[must_use]
    pub fn executable(self, path: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        self.with(path, MemoryFile::File { bytes: bytes.into(), executable: true })
    }

    /// Adds a symbolic link, replacing what was there.
    #[must_use]
    pub fn symlink(self, path: impl Into<String>, target: impl Into<String>) -> Self {
        self.with(path, MemoryFile::Symlink(target.into()))
    }

    /// Adds a submodule, replacing what was there.
    #[must_use]
    pub fn submodule(self, path: impl Into<String>) -> Self {
        self.with(path, MemoryFile::Submodule)
    }

    /// Removes what is at `path`, if anything is.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.0.remove(path);
        self
    }

    /// Every path, sorted, and what is there.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MemoryFile)> {
        self.0.iter().map(|(path, file)| (path.as_str(), file))
    }

    fn with(mut self, path: impl Into<String>, file: MemoryFile) -> Self {
        self.0.insert(path.into(), file);
        self
    }

    /// The id of a commit of these files, the `sequence`th of its repository.
    pub(super) fn commit_id(&self, parent: Option<&CommitId>, sequence: usize) -> CommitId {
        let parent = parent.map(|parent| format!("parent {parent}\n")).unwrap_or_default();
        let author = format!("memory <memory@localhost> {sequence} +0000");
        let tree = hex(&tree_hash(&self.0));
        let text = format!("tree {tree}\n{parent}author {author}\ncommitter {author}\n\ncommit {sequence}\n");
        // 64 hexadecimal digits are the id of a commit.
        #[allow(clippy::expect_used)]
        hex(&object_hash("commit", text.as_bytes())).parse().expect("a hash is an id")
    }
}

impl<P: Into<String>, B: Into<Bytes>, const N: usize> From<[(P, B); N]> for MemoryFiles {
    fn from(files: [(P, B); N]) -> Self {
        files.into_iter().collect()
    }
}

impl<P: Into<String>, B: Into<Bytes>> FromIterator<(P, B)> for MemoryFiles {
    fn from_iter<I: IntoIterator<Item = (P, B)>>(files: I) -> Self {
        files.into_iter().fold(Self::default(), |all, (path, bytes)| all.file(path, bytes))
    }
}

/// A [`SourceTree`] of files in memory. Its ids are those of git's SHA-256 object format.
///
/// ```
/// # use paas_core::memory::MemoryTree;
/// # use paas_core::SourceTree as _;
/// let tree = MemoryTree::new([("app/main.py", "print('hello')")])?;
/// let same = MemoryTree::new([("app/main.py", "print('hello')")])?;
/// assert_eq!(tree.id(), same.id());
/// # Ok::<(), paas_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryTree {
    id: TreeId,
    commit: CommitId,
    listing: TreeListing,
    files: Arc<BTreeMap<String, MemoryFile>>,
}

impl MemoryTree {
    /// A tree of these files, of a first commit with nothing else in it.
    ///
    /// # Errors
    /// `Invalid` with the code `unsafe_path`.
    pub fn new(files: impl Into<MemoryFiles>) -> Result<Self> {
        let files = files.into();
        Self::of_commit(files.commit_id(None, 0), &files, &RootDirectory::default())
    }

    pub(super) fn of_commit(commit: CommitId, files: &MemoryFiles, root: &RootDirectory) -> Result<Self> {
        let files = below(&files.0, root)?;
        let mut entries = BTreeMap::new();
        for (path, file) in &files {
            for (at, _) in path.match_indices('/') {
                if files.contains_key(&path[..at]) {
                    return Err(TreeListing::unsafe_path(path, "it lies below a file"));
                }
                entries.insert(path[..at].to_owned(), EntryKind::Directory);
            }
            entries.insert(path.clone(), file.kind());
        }
        let entries = entries.into_iter().map(|(path, kind)| TreeEntry { path, kind }).collect();
        // 64 hexadecimal digits are the id of a tree.
        #[allow(clippy::expect_used)]
        let id = hex(&tree_hash(&files)).parse().expect("a hash is an id");
        Ok(Self { id, commit, listing: TreeListing::new(entries)?, files: Arc::new(files) })
    }
}

impl MemoryFile {
    fn kind(&self) -> EntryKind {
        match self {
            Self::File { bytes, executable } => {
                EntryKind::File { size: bytes.len() as u64, executable: *executable }
            }
            Self::Symlink(target) => EntryKind::Symlink { target: target.clone() },
            Self::Submodule => EntryKind::Submodule,
        }
    }
}

/// The files below `root`, by their paths from there.
fn below(files: &BTreeMap<String, MemoryFile>, root: &RootDirectory) -> Result<BTreeMap<String, MemoryFile>> {
    if root.is_repository_root() {
        return Ok(files.clone());
    }
    let prefix = format!("{root}/");
    let found: BTreeMap<_, _> = files
        .iter()
        .filter_map(|(path, file)| Some((path.strip_prefix(&prefix)?.to_owned(), file.clone())))
        .collect();
    if found.is_empty() {
        return Err(Error::not_found(
            "git.fetch",
            format!("there is no directory `{root}` in the repository"),
        )
        .code("root_directory_not_found"));
    }
    Ok(found)
}

#[async_trait]
impl SourceTree for MemoryTree {
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
        let found = self.listing.find(path).map(|index| &self.listing.entries()[index].path);
        match found.and_then(|path| self.files.get(path)) {
            Some(MemoryFile::File { bytes, .. }) if bytes.len() as u64 > max_bytes => {
                Err(Error::invalid("git.read", format!("the file `{}` is too large", path.escape_debug()))
                    .code("too_large"))
            }
            Some(MemoryFile::File { bytes, .. }) => Ok(Some(bytes.clone())),
            _ => Ok(None),
        }
    }

    fn archive(&self, include: PathFilter) -> BoxStream<'static, Result<Bytes>> {
        let (files, count) = (self.files.clone(), self.listing.entries().len());
        let entries = self.listing.entries().clone();
        let members = (0..count).filter_map(move |index| {
            let entry = &entries[index];
            include.wants(&entry.path).then(|| match files.get(&entry.path) {
                Some(MemoryFile::File { bytes, .. }) => {
                    let padding = Bytes::from_static(tar_padding(bytes.len() as u64));
                    vec![Bytes::from(tar_header(entry)), bytes.clone(), padding]
                }
                _ => vec![Bytes::from(tar_header(entry))],
            })
        });
        let chunks = members.flatten().chain([Bytes::from_static(TAR_END)]);
        stream::iter(chunks.filter(|chunk| !chunk.is_empty()).map(Ok)).boxed()
    }
}

fn object_hash(kind: &str, contents: &[u8]) -> [u8; 32] {
    let header = format!("{kind} {}\0", contents.len());
    Sha256::new().chain_update(header).chain_update(contents).finalize().into()
}

/// The hash of the tree of these files, as git makes it.
fn tree_hash(files: &BTreeMap<String, MemoryFile>) -> [u8; 32] {
    // What git sorts by (a directory's name has a slash at its end) → mode, name, hash.
    let mut children: BTreeMap<String, (&str, &str, [u8; 32])> = BTreeMap::new();
    let mut directories: BTreeMap<&str, BTreeMap<String, MemoryFile>> = BTreeMap::new();
    for (path, file) in files {
        if let Some((directory, rest)) = path.split_once('/') {
            directories.entry(directory).or_default().insert(rest.to_owned(), file.clone());
            continue;
        }
        let (mode, hash) = match file {
            MemoryFile::File { bytes, executable: false } => ("100644", object_hash("blob", bytes)),
            MemoryFile::File { bytes, executable: true } => ("100755", object_hash("blob", bytes)),
            MemoryFile::Symlink(target) => ("120000", object_hash("blob", target.as_bytes())),
            MemoryFile::Submodule => ("160000", [0; 32]),
        };
        children.insert(path.clone(), (mode, path, hash));
    }
    for (name, files) in &directories {
        children.insert(format!("{name}/"), ("40000", name, tree_hash(files)));
    }
    let mut contents = Vec::new();
    for (mode, name, hash) in children.values() {
        contents.extend(format!("{mode} {name}\0").bytes());
        contents.extend(hash);
    }
    object_hash("tree", &contents)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
