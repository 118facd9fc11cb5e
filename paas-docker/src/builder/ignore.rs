//! `.dockerignore`, by the engine's rules.

use paas_core::{Error, PathFilter, Result};
use regex::{RegexSet, RegexSetBuilder};

const OPERATION: &str = "docker.read_ignore_file";
/// The longest `.dockerignore` that is read, in bytes.
pub(super) const MAX_BYTES: u64 = 256 * 1024;
/// Each file of the tree is held against all of them.
const MAX_PATTERNS: usize = 1000;
/// What they may take in memory together once they are compiled.
const MAX_COMPILED_BYTES: usize = 4 * 1024 * 1024;

/// Which paths of a context the engine's command line would send, given the text of its `.dockerignore`.
///
/// # Errors
/// `Invalid`, the user's fault, with the line that cannot be read.
pub(super) fn filter(text: &str) -> Result<PathFilter> {
    let mut patterns = Vec::new();
    let text = text.trim_start_matches('\u{feff}');
    for (index, line) in text.lines().enumerate() {
        let is_bad = || {
            let line = index + 1;
            Error::invalid(OPERATION, format!(".dockerignore, line {line}: the pattern is not valid"))
        };
        let Some((is_exception, path)) = pattern(line) else { continue };
        let expression = expression(&path).filter(|_| !path.is_empty()).ok_or_else(is_bad)?;
        patterns.push(Pattern { is_exception, path, expression });
    }
    if patterns.is_empty() {
        return Ok(PathFilter::all());
    }
    let too_large =
        || Error::invalid(OPERATION, ".dockerignore has too many patterns, or one that is not valid");
    if patterns.len() > MAX_PATTERNS {
        return Err(too_large());
    }
    let matcher = RegexSetBuilder::new(patterns.iter().map(|pattern| &pattern.expression))
        .size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|cause| too_large().source(cause))?;
    let ignore = Ignore { patterns, matcher };
    Ok(PathFilter::new(move |path| ignore.wants(path)))
}

struct Ignore {
    patterns: Vec<Pattern>,
    matcher: RegexSet,
}

struct Pattern {
    /// It began with `!`.
    is_exception: bool,
    path: String,
    expression: String,
}

impl Ignore {
    /// The last pattern that matches the path or a directory above it decides. A directory that is left out takes
    /// its files along, unless an exception begins with its path.
    fn wants(&self, path: &str) -> bool {
        let mut last = None;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let part = &path[..end];
            last = last.max(self.matcher.matches(part).iter().next_back());
            let is_out = last.is_some_and(|index| !self.patterns[index].is_exception);
            if is_out && (end == path.len() || !self.has_exceptions_in(part)) {
                return false;
            }
        }
        true
    }

    fn has_exceptions_in(&self, directory: &str) -> bool {
        let is_in = |path: &str| {
            path.strip_prefix(directory).is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'/', ..]))
        };
        self.patterns.iter().any(|pattern| pattern.is_exception && is_in(&pattern.path))
    }
}

/// Whether the line is an exception, and its path from the context's root; `None` for a comment or nothing.
fn pattern(line: &str) -> Option<(bool, String)> {
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    let (is_exception, path) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    // As Go's `filepath.Clean`: no `.` parts, no doubled or trailing slashes, no parts that `..` takes back.
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match parts.last() {
            Some(last) if part == ".." && *last != ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let is_root = parts.is_empty() && !path.is_empty();
    if is_root || (path.is_empty() && !is_exception) { None } else { Some((is_exception, parts.join("/"))) }
}

/// The pattern as a regular expression: `*` and `?` stay within a directory, `**` does not. `None` if it is not valid.
fn expression(pattern: &str) -> Option<String> {
    let mut expression = "^".to_owned();
    let mut rest = pattern.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                expression.push_str(if rest.peek().is_none() { ".*" } else { "(.*/)?" });
            }
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '[' => {
                expression.push('[');
                expression.extend(rest.next_if_eq(&'^'));
                // At least one letter or range.
                let mut next = rest.next().filter(|letter| *letter != ']')?;
                while next != ']' {
                    match next {
                        '-' => expression.push('-'),
                        '\\' => push_literal(&mut expression, rest.next()?),
                        letter => push_literal(&mut expression, letter),
                    }
                    next = rest.next()?;
                }
                expression.push(']');
            }
            '\\' => push_literal(&mut expression, rest.next()?),
            letter => push_literal(&mut expression, letter),
        }
    }
    expression.push('$');
    Some(expression)
}

fn push_literal(expression: &mut String, letter: char) {
    expression.push_str(&regex::escape(letter.encode_utf8(&mut [0; 4])));
}
