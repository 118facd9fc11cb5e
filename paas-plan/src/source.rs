//! What recipes see of a tree: its paths, and bounded reads of text.

use std::sync::Arc;

use paas_core::{EntryKind, Error, Result, SourceTree, TreeEntry};

use crate::OPERATION;

/// Far above any manifest that a person wrote.
const MAX_BYTES: u64 = 1024 * 1024;
/// Entry points lie near the root; what lies deeper is not looked through.
const MAX_DEPTH: usize = 3;

/// A tree, as recipes look at it.
#[derive(Debug)]
pub(crate) struct Source {
    tree: Arc<dyn SourceTree>,
    /// Sorted by path: the tree may have very many.
    entries: Arc<Vec<TreeEntry>>,
}

impl Source {
    pub(crate) async fn new(tree: Arc<dyn SourceTree>) -> Result<Self> {
        let entries = tree.entries().await?;
        Ok(Self { tree, entries })
    }

    pub(crate) fn has_file(&self, path: &str) -> bool {
        self.kind(path).is_some_and(is_file)
    }

    pub(crate) fn has_directory(&self, path: &str) -> bool {
        self.kind(path) == Some(&EntryKind::Directory)
    }

    fn kind(&self, path: &str) -> Option<&EntryKind> {
        let at = self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        Some(&self.entries[at].kind)
    }

    /// The files near the root, sorted.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        let is_near = |entry: &&TreeEntry| entry.path.split('/').nth(MAX_DEPTH).is_none();
        self.entries
            .iter()
            .filter(|entry| is_file(&entry.kind))
            .filter(is_near)
            .map(|entry| entry.path.as_str())
    }

    /// The text of a manifest, without a byte order mark.
    ///
    /// # Errors
    /// The user's, when it is too large or not UTF-8: a manifest that is there decides, so it must be readable.
    pub(crate) async fn manifest(&self, path: &str) -> Result<Option<String>> {
        self.text(path).await?
    }

    /// The text of a file of code, or `None` if it is too large or not text: it only serves to guess.
    pub(crate) async fn code(&self, path: &str) -> Result<Option<String>> {
        Ok(self.text(path).await?.unwrap_or_default())
    }

    /// The text of a file. The inner error says why it is none; the outer one, why it could not be read.
    async fn text(&self, path: &str) -> Result<Result<Option<String>>> {
        if !self.has_file(path) {
            return Ok(Ok(None));
        }
        let bytes = match self.tree.read(path, MAX_BYTES).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Ok(None)),
            Err(error) if error.reason() == Some("too_large") => {
                return Ok(Err(Error::invalid(OPERATION, format!("`{path}` is larger than 1 MiB"))
                    .code("too_large")
                    .hint(format!("make `{path}` smaller, or add a Dockerfile"))
                    .source(format!("{error:?}"))));
            }
            Err(error) => return Err(error),
        };
        Ok(match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Some(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())),
            Err(cause) => {
                let line = bytes[..cause.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
                Err(Error::invalid(OPERATION, format!("`{path}` is not UTF-8 text (line {line})"))
                    .hint(format!("save `{path}` as UTF-8"))
                    .source(cause))
            }
        })
    }
}

/// A link counts as what it may lead to.
fn is_file(kind: &EntryKind) -> bool {
    matches!(kind, EntryKind::File { .. } | EntryKind::Symlink { .. })
}
