//! What is sent to the engine: the Dockerfile, generated files, and the tree behind them.

use std::collections::BTreeMap;
use std::io::{self, Cursor};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use paas_core::{Dockerfile, Error, PathFilter, Result, SourceTree};

use super::ignore;

/// Where the Dockerfile stands in the context, so that it replaces no file of the repository.
pub(super) const DOCKERFILE: &str = ".paas.Dockerfile";

/// What is not sent.
const IGNORE_FILE: &str = ".dockerignore";

/// The context of a build as a tar stream: `dockerfile` under its reserved name, the plan's own files, then what
/// `.dockerignore`, the tree's and behind it the plan's, leaves of the tree. Nothing is held in memory but one chunk.
///
/// # Errors
/// `Invalid` when `.dockerignore` cannot be read.
pub(super) async fn archive(
    tree: &dyn SourceTree,
    plan: &Dockerfile,
    dockerfile: &str,
) -> Result<BoxStream<'static, io::Result<Bytes>>> {
    let ignore_file = tree.read(IGNORE_FILE, ignore::MAX_BYTES).await?.unwrap_or_default();
    let mut ignored = String::from_utf8_lossy(&ignore_file).into_owned();
    let mut own: BTreeMap<String, Bytes> = BTreeMap::new();
    if let Dockerfile::Generated { files, .. } = plan {
        own.extend(files.iter().map(|(path, text)| (path.clone(), Bytes::from(text.clone()))));
    }
    if let Some(also) = own.remove(IGNORE_FILE) {
        ignored.push('\n');
        ignored.push_str(&String::from_utf8_lossy(&also));
    }
    let wanted = ignore::filter(&ignored)?;
    own.insert(DOCKERFILE.to_owned(), Bytes::from(dockerfile.to_owned()));
    let first = entries(&own).map_err(paas_core::error::map("docker.build_context"))?;
    let rest = PathFilter::new(move |path| wanted.wants(path) && !own.contains_key(path));
    let tree = tree.archive(rest).map_err(io::Error::other);
    Ok(futures::stream::once(async move { Ok(first) }).chain(tree).boxed())
}

/// The error that a tree had while it was streamed, if that is why the engine's request failed.
pub(super) fn cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        if let Some(io) = error.downcast_ref::<io::Error>()
            && let Some(found) = io.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The entries without the archive's end mark, so that more can follow.
fn entries(files: &BTreeMap<String, Bytes>) -> io::Result<Bytes> {
    let mut builder = tar::Builder::new(Cursor::new(Vec::new()));
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        builder.append_data(&mut header, path, bytes.as_ref())?;
    }
    // `into_inner` would write the end mark: what `get_ref` shows is padded to whole blocks already.
    Ok(Bytes::copy_from_slice(builder.get_ref().get_ref()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use paas_core::memory::MemoryTree;

    use super::*;

    /// A plan hides what its `.dockerignore` names, whatever the repository's says, and the file itself is not sent.
    #[tokio::test]
    async fn a_plan_adds_to_what_is_ignored() {
        let tree = MemoryTree::new([
            (".dockerignore", "secret\n!.env\n"),
            (".env", "x"),
            (".well-known/acme", "x"),
            ("css/.hidden/file", "x"),
            ("css/site.css", "x"),
            ("index.html", "x"),
            ("secret", "x"),
        ])
        .unwrap();
        let files = BTreeMap::from([
            (IGNORE_FILE.to_owned(), "**/.*\n!**/.well-known\n".to_owned()),
            (".paas/httpd.conf".to_owned(), "x".to_owned()),
        ]);
        let plan = Dockerfile::Generated { text: "FROM scratch".to_owned(), files };
        let stream = archive(&tree, &plan, "FROM scratch").await.unwrap();
        let bytes = stream.try_collect::<Vec<_>>().await.unwrap().concat();
        let mut archive = tar::Archive::new(Cursor::new(bytes));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            entry.read_to_end(&mut Vec::new()).unwrap();
            if entry.header().entry_type().is_file() {
                found.push(path);
            }
        }
        found.sort();
        assert_eq!(
            found,
            [".paas.Dockerfile", ".paas/httpd.conf", ".well-known/acme", "css/site.css", "index.html"]
        );
    }
}
