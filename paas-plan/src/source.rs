//! What recipes see of a tree: the paths near its root, and bounded reads of text.

use std::collections::BTreeMap;
use std::sync::Arc;

use paas_core::{EntryKind, Error, Result, SourceTree};

use crate::OPERATION;

/// Far above any manifest that a person wrote.
const MAX_BYTES: u64 = 1024 * 1024;
/// Manifests and entry points lie near the root; what lies deeper is not looked at.
const MAX_DEPTH: usize = 3;

/// A tree, as recipes look at it.
#[derive(Debug)]
pub(crate) struct Source {
    tree: Arc<dyn SourceTree>,
    /// Each path near the root, and whether it is a directory.
    paths: BTreeMap<String, bool>,
}

impl Source {
    pub(crate) async fn new(tree: Arc<dyn SourceTree>) -> Result<Self> {
        let entries = tree.entries().await?;
        let paths = entries
            .iter()
            .filter(|entry| entry.path.split('/').count() <= MAX_DEPTH)
            .filter(|entry| entry.kind != EntryKind::Submodule)
            .map(|entry| (entry.path.clone(), entry.kind == EntryKind::Directory))
            .collect();
        Ok(Self { tree, paths })
    }

    pub(crate) fn has_file(&self, path: &str) -> bool {
        self.paths.get(path) == Some(&false)
    }

    pub(crate) fn has_directory(&self, path: &str) -> bool {
        self.paths.get(path) == Some(&true)
    }

    /// The files near the root, sorted.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().filter(|(_, is_directory)| !**is_directory).map(|(path, _)| path.as_str())
    }

    /// The text of a manifest, without a byte order mark.
    ///
    /// # Errors
    /// The user's, when it is too large or not UTF-8: a manifest that is there decides, so it must be readable.
    pub(crate) async fn manifest(&self, path: &str) -> Result<Option<String>> {
        if !self.has_file(path) {
            return Ok(None);
        }
        let bytes = match self.tree.read(path, MAX_BYTES).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) if error.reason() == Some("too_large") => {
                return Err(Error::invalid(OPERATION, format!("`{path}` is larger than 1 MiB"))
                    .code("too_large")
                    .hint(format!("make `{path}` smaller, or add a Dockerfile"))
                    .source(format!("{error:?}")));
            }
            Err(error) => return Err(error),
        };
        let text = std::str::from_utf8(&bytes).map_err(|cause| {
            let line = bytes[..cause.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            Error::invalid(OPERATION, format!("`{path}` is not UTF-8 text (line {line})"))
                .hint(format!("save `{path}` as UTF-8"))
                .source(cause)
        })?;
        Ok(Some(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()))
    }

    /// The text of a file of code, or `None` if it is too large or not text: it only serves to guess.
    pub(crate) async fn code(&self, path: &str) -> Result<Option<String>> {
        match self.manifest(path).await {
            Err(error) if error.operation() == OPERATION => Ok(None),
            answer => answer,
        }
    }
}
