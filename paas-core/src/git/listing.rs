//! The entries of a tree, checked before anybody reads them.

use std::sync::Arc;

use super::{EntryKind, TreeEntry};
use crate::error::{Error, Result};

/// How many links are followed before a path counts as a loop, as in Linux.
const MAX_LINKS: usize = 40;
/// How many parts of paths are walked to check all links of a tree.
const MAX_PARTS: usize = 4_000_000;
/// What the operation is called in errors: trees are checked when they are fetched.
const OPERATION: &str = "git.fetch";

/// The entries of a source tree, sorted and safe: what every [`SourceTree`](super::SourceTree) is built around.
///
/// # Guarantees
/// - Every name is one that can neither leave the tree nor pass for git's own directory on any file system.
/// - No link leads out of the tree, neither by itself nor through other links.
///
/// ```
/// use paas_core::{EntryKind, TreeEntry, TreeListing};
/// let link = |target: &str| TreeEntry { path: "Dockerfile".into(), kind: EntryKind::Symlink { target: target.into() } };
/// assert!(TreeListing::new(vec![link("docker/Dockerfile")]).is_ok());
/// assert_eq!(TreeListing::new(vec![link("/etc/shadow")]).unwrap_err().reason(), Some("unsafe_path"));
/// ```
#[derive(Clone, Debug)]
pub struct TreeListing {
    entries: Arc<Vec<TreeEntry>>,
}

impl TreeListing {
    /// Sorts and checks `entries`.
    ///
    /// # Errors
    /// `Invalid` with the code `unsafe_path`, naming the first path that breaks a rule; with the code `too_large` if
    /// its links lead through each other too often.
    pub fn new(mut entries: Vec<TreeEntry>) -> Result<Self> {
        entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(Self::unsafe_path(&pair[0].path, "it is there twice"));
        }
        for entry in &entries {
            if let Some(name) = entry.path.split('/').find(|name| !is_safe_name(name)) {
                return Err(Self::unsafe_path(
                    &entry.path,
                    &format!("`{}` is not a name to use", name.escape_debug()),
                ));
            }
        }
        let listing = Self { entries: Arc::new(entries) };
        let mut parts = MAX_PARTS;
        for entry in listing.entries.iter() {
            let EntryKind::Symlink { target } = &entry.kind else { continue };
            match listing.walk(&entry.path, &mut parts) {
                Walked::Outside => {
                    let target = target.escape_debug();
                    return Err(Self::unsafe_path(
                        &entry.path,
                        &format!("it is a link that leads outside, to `{target}`"),
                    ));
                }
                Walked::TooFar => {
                    return Err(Error::invalid(
                        OPERATION,
                        "the repository is too large: it has too many links",
                    )
                    .code("too_large")
                    .hint("remove links that lead through other links"));
                }
                Walked::Inside(_) | Walked::Loop => {}
            }
        }
        Ok(listing)
    }

    /// The error for a path that may not be in a tree: `Invalid` with the code `unsafe_path`, naming it.
    pub fn unsafe_path(path: &str, reason: &str) -> Error {
        let path = path.escape_debug();
        Error::invalid(OPERATION, format!("the repository has an unsafe path, `{path}`: {reason}"))
            .code("unsafe_path")
            .hint("remove it from the repository and deploy again")
    }

    /// Every entry, sorted by path.
    pub fn entries(&self) -> &Arc<Vec<TreeEntry>> {
        &self.entries
    }

    /// The entry at `path`, as it is: links are not followed.
    pub fn get(&self, path: &str) -> Option<&TreeEntry> {
        self.index_of(path).map(|index| &self.entries[index])
    }

    /// The index of the file, directory or submodule that `path` leads to, following links; `None` if it leads
    /// nowhere.
    pub fn find(&self, path: &str) -> Option<usize> {
        match self.walk(path, &mut { MAX_PARTS }) {
            Walked::Inside(path) => self.index_of(&path),
            Walked::Outside | Walked::Loop | Walked::TooFar => None,
        }
    }

    fn index_of(&self, path: &str) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()
    }

    /// Walks `path` as an operating system would, with the tree's root in place of the file system's. Takes what it
    /// walks from `parts`.
    fn walk(&self, path: &str, parts: &mut usize) -> Walked {
        let mut here = String::new();
        let mut rest: Vec<&str> = path.split('/').rev().collect();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let Some(left) = parts.checked_sub(1) else { return Walked::TooFar };
            *parts = left;
            match name {
                "" | "." => continue,
                ".." => {
                    if here.is_empty() {
                        return Walked::Outside;
                    }
                    here.truncate(here.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let parent_length = here.len();
            if !here.is_empty() {
                here.push('/');
            }
            here.push_str(name);
            let Some(TreeEntry { kind: EntryKind::Symlink { target }, .. }) = self.get(&here) else {
                continue;
            };
            links += 1;
            if target.starts_with('/') {
                return Walked::Outside;
            }
            if links > MAX_LINKS {
                return Walked::Loop;
            }
            here.truncate(parent_length);
            rest.extend(target.split('/').rev());
        }
        Walked::Inside(here)
    }
}

/// Where a path leads.
enum Walked {
    Inside(String),
    Outside,
    Loop,
    TooFar,
}

/// True for a name that stays in its directory, and that no file system takes for `.git`: neither one that
/// ignores case, nor HFS+ with the characters that it ignores, nor NTFS with its short names and streams.
fn is_safe_name(name: &str) -> bool {
    // NTFS takes a backslash for a slash.
    name.split('\\').all(|part| !matches!(part, "" | "." | "..") && !is_git_directory(part))
}

fn is_git_directory(name: &str) -> bool {
    let is_ignored_by_hfs = |c: char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let name: String = name.chars().filter(|c| !is_ignored_by_hfs(*c)).collect();
    let name = name.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    name.eq_ignore_ascii_case(".git") || name.eq_ignore_ascii_case("git~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(path: &str, target: &str) -> TreeEntry {
        TreeEntry { path: path.into(), kind: EntryKind::Symlink { target: target.into() } }
    }

    fn file(path: &str) -> TreeEntry {
        TreeEntry { path: path.into(), kind: EntryKind::File { size: 1, executable: false } }
    }

    #[test]
    fn names_that_pass_for_git_are_refused() {
        let names = [
            ".git",
            ".GIT",
            ".Git",
            "git~1",
            "GIT~1",
            ".git.",
            ".git ",
            ".git . .",
            ".git::$INDEX_ALLOCATION",
            ".g\u{200c}it",
            "\u{feff}.git",
            "..",
            ".",
            "",
            "a\\..\\b",
            "a\\.git",
        ];
        for name in names {
            for path in [name.to_owned(), format!("{name}/hooks"), format!("sub/{name}")] {
                let error = TreeListing::new(vec![file(&path)]).expect_err(&path);
                assert_eq!(error.reason(), Some("unsafe_path"), "{path}");
            }
        }
        for name in [".gitignore", ".github", "git", "git~2", "...", "x.git", ".gitmodules", "a b", "ü"] {
            TreeListing::new(vec![file(name)]).expect(name);
        }
    }

    #[test]
    fn a_link_that_leaves_only_through_another_link_is_refused() {
        // Each target alone stays inside; together they do not.
        let entries = vec![link("a/b/top", "../.."), link("out", "a/b/top/..")];
        let error = TreeListing::new(entries).unwrap_err();
        assert_eq!(error.reason(), Some("unsafe_path"));
        assert!(error.message().contains("`out`"), "{error}");
    }

    #[test]
    fn links_that_lead_through_each_other_again_and_again_are_too_large() {
        let target = format!("{}l", "d/../".repeat(800));
        let mut entries: Vec<_> = (0..200).map(|number| link(&format!("l{number}"), &target)).collect();
        entries.push(link("l", &target));
        let error = TreeListing::new(entries).unwrap_err();
        assert_eq!(error.reason(), Some("too_large"));
    }

    #[test]
    fn links_are_followed_within_the_tree() {
        let entries =
            vec![file("lib/real.txt"), link("app/lib", "../lib"), link("loop", "loop"), link("gone", "no")];
        let listing = TreeListing::new(entries).unwrap();
        let found = listing.find("app/lib/real.txt").map(|index| listing.entries()[index].path.clone());
        assert_eq!(found.as_deref(), Some("lib/real.txt"));
        assert_eq!(listing.find("loop"), None);
        assert_eq!(listing.find("gone"), None);
        assert_eq!(listing.find("../lib/real.txt"), None);
    }
}
