//! `.dockerignore`, by the engine's rules.

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use paas_core::{Error, PathFilter, Result};

/// The longest `.dockerignore` that is read, in bytes.
pub(super) const MAX_BYTES: u64 = 256 * 1024;

/// Which paths of a context the engine's command line would send, given the text of its `.dockerignore`.
///
/// # Errors
/// `Invalid`, the user's fault, with the line that cannot be read.
pub(super) fn filter(text: &str) -> Result<PathFilter> {
    let mut builder = GitignoreBuilder::new("");
    let mut has_patterns = false;
    for (number, line) in text.lines().enumerate() {
        let line = if number == 0 { line.trim_start_matches('\u{feff}') } else { line };
        let Some(pattern) = rooted(line) else { continue };
        has_patterns = true;
        builder.add_line(None, &pattern).map_err(|error| invalid(number, error))?;
    }
    if !has_patterns {
        return Ok(PathFilter::all());
    }
    let matcher = builder.build().map_err(|error| invalid(0, error))?;
    Ok(PathFilter::new(move |path| is_wanted(&matcher, path)))
}

/// The line as a pattern that is anchored to the context's root, as every pattern of a `.dockerignore` is; `None`
/// for a comment or nothing.
fn rooted(line: &str) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    let (negation, pattern) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    // As Go's `filepath.Clean`: no `.` parts, no doubled or trailing slashes.
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() {
        return None;
    }
    Some(format!("{negation}/{}", parts.join("/")))
}

/// An excluded directory takes its files along, unless a later `!` pattern names one of them.
fn is_wanted(matcher: &Gitignore, path: &str) -> bool {
    !matcher.matched_path_or_any_parents(path, false).is_ignore()
}

fn invalid(line: usize, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid(
        "docker.read_ignore_file",
        format!(".dockerignore, line {}: the pattern is not valid", line + 1),
    )
    .source(cause)
}
