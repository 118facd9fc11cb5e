//! What a Dockerfile may say, and which images it names.

use std::collections::{BTreeMap, BTreeSet};

use paas_core::{Error, Result};

const OPERATION: &str = "docker.check_dockerfile";

/// A Dockerfile that was checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Its text as the engine gets it: without a `# syntax=` line, which would fetch a frontend from a registry.
    pub(super) text: String,
    /// The images that it takes something from, with the line that says so. Stages of its own are not among them.
    pub(super) images: Vec<NamedImage>,
}

/// An image that a Dockerfile names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedImage {
    pub(super) name: String,
    pub(super) line: usize,
}

/// Checks a Dockerfile.
///
/// The parser sees at least the instructions that the engine sees: where versions of the engine read a line
/// differently, it takes every reading.
///
/// # Errors
/// `Invalid`, the user's fault, with the line: another frontend, `--network=host`, `--security=insecure`, or an
/// image name that cannot be worked out.
pub(super) fn check(text: &str) -> Result<Checked> {
    let text = text.trim_start_matches('\u{feff}');
    let Directives { escape, kept } = Directives::read(text)?;
    let mut reader = Reader { arguments: platform_arguments(), ..Reader::default() };
    for (line, instruction) in instructions(&kept, escape) {
        reader.take(line, &instruction)?;
    }
    let Reader { images, stages, .. } = reader;
    let is_stage = |name: &str| name == "scratch" || name.is_empty() || stages.contains(&name.to_lowercase());
    let images = images.into_iter().filter(|image| !is_stage(&image.name)).collect();
    Ok(Checked { text: kept, images })
}

fn refused(line: usize, message: &str) -> Error {
    Error::invalid(OPERATION, format!("Dockerfile, line {line}: {message}")).code("dockerfile_refused")
}

/// The comments at the top that steer the parser.
struct Directives {
    escape: char,
    /// The text without `# syntax=`.
    kept: String,
}

impl Directives {
    fn read(text: &str) -> Result<Self> {
        let mut directives = Self { escape: '\\', kept: String::with_capacity(text.len()) };
        let mut is_head = true;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let comment = line.trim().strip_prefix('#').or_else(|| line.trim().strip_prefix("//"));
            let directive = comment.and_then(|comment| comment.split_once('='));
            match directive.map(|(name, value)| (name.trim().to_lowercase(), value.trim())) {
                Some((name, value)) if is_head && name == "syntax" => {
                    if !is_own_frontend(value) {
                        return Err(refused(index + 1, "another frontend (`# syntax=`) is not allowed")
                            .hint("remove the line: the engine's own frontend builds the file"));
                    }
                    continue;
                }
                Some((name, value)) if is_head && name == "escape" => {
                    directives.escape = value.chars().next().unwrap_or('\\');
                }
                // Some frontends look behind comments and shebangs too: none is named there by mistake.
                _ => is_head = is_head && comment.is_some(),
            }
            directives.kept.push_str(line);
        }
        if directives.kept.trim_start().starts_with('{') {
            return Err(refused(1, "this is not a Dockerfile"));
        }
        Ok(directives)
    }
}

/// The official frontend is what the engine has built in.
fn is_own_frontend(value: &str) -> bool {
    let name = value.strip_prefix("docker.io/").unwrap_or(value);
    let name = name.split(['@', ':']).next().unwrap_or_default();
    name == "docker/dockerfile"
}

/// The instructions with the number of the line where each begins: those of joined lines, and each physical line
/// by itself, since engines disagree on which lines `\\` joins.
fn instructions(text: &str, escape: char) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut joined: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (part, continues) = match trimmed.strip_suffix(escape) {
            Some(part) => (part, true),
            None => (trimmed, false),
        };
        if joined.is_some() {
            found.push((index + 1, part.to_owned()));
        }
        let (start, mut instruction) = joined.take().unwrap_or((index + 1, String::new()));
        instruction.push_str(part);
        instruction.push(' ');
        if continues {
            joined = Some((start, instruction));
        } else {
            found.push((start, instruction));
        }
    }
    found.extend(joined);
    found
}

#[derive(Default)]
struct Reader {
    /// The arguments before the first `FROM`, which are all that image names can be made of.
    arguments: BTreeMap<String, String>,
    stages: BTreeSet<String>,
    images: Vec<NamedImage>,
    has_stage: bool,
}

impl Reader {
    fn take(&mut self, line: usize, instruction: &str) -> Result<()> {
        let (keyword, rest) = instruction.split_once(char::is_whitespace).unwrap_or((instruction, ""));
        match keyword.to_ascii_uppercase().as_str() {
            "ARG" if !self.has_stage => self.argument(line, rest),
            "FROM" => self.from(line, rest),
            "COPY" | "ADD" | "RUN" => self.flags(line, rest),
            "ONBUILD" => self.take(line, rest.trim_start()),
            _ => Ok(()),
        }
    }

    fn argument(&mut self, line: usize, rest: &str) -> Result<()> {
        for word in rest.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let value = self.expanded(line, &unquoted(value))?;
            self.arguments.insert(name.to_owned(), value);
        }
        Ok(())
    }

    fn from(&mut self, line: usize, rest: &str) -> Result<()> {
        let mut words = rest.split_whitespace().skip_while(|word| word.starts_with("--"));
        let name = self.expanded(line, &unquoted(words.next().unwrap_or_default()))?;
        self.images.push(NamedImage { name, line });
        let is_as = words.next().is_some_and(|word| word.eq_ignore_ascii_case("as"));
        if let (true, Some(stage)) = (is_as, words.next()) {
            self.stages.insert(stage.to_lowercase());
        }
        self.has_stage = true;
        Ok(())
    }

    fn flags(&mut self, line: usize, rest: &str) -> Result<()> {
        for word in rest.split_whitespace().take_while(|word| word.starts_with("--")) {
            let flag = unquoted(word);
            let Some((name, value)) = flag.split_once('=') else { continue };
            match (name, value) {
                ("--network", "host") | ("--security", "insecure") => {
                    return Err(refused(line, &format!("`{flag}` is not allowed")));
                }
                ("--from", image) => self.source(line, image)?,
                ("--mount", options) => {
                    let from = options.split(',').filter_map(|option| option.trim().strip_prefix("from="));
                    for image in from {
                        self.source(line, image)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A stage, by its number or name, or an image.
    fn source(&mut self, line: usize, name: &str) -> Result<()> {
        if name.contains('$') {
            return Err(refused(line, "variables cannot stand in `from`"));
        }
        if name.bytes().any(|byte| !byte.is_ascii_digit()) {
            self.images.push(NamedImage { name: name.to_owned(), line });
        }
        Ok(())
    }

    /// `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+alternative}` by the arguments.
    fn expanded(&self, line: usize, text: &str) -> Result<String> {
        let unreadable =
            || refused(line, "this image name cannot be worked out").hint("write it without `${…}`");
        let Some((before, after)) = text.split_once('$') else { return Ok(text.to_owned()) };
        let (value, rest) = if let Some(braced) = after.strip_prefix('{') {
            let (inner, rest) = braced.split_once('}').ok_or_else(unreadable)?;
            let end = inner.find(|letter: char| !is_name(letter)).unwrap_or(inner.len());
            let (name, operator) = inner.split_at(end);
            let value = self.arguments.get(name).filter(|value| !value.is_empty());
            let value = match (operator.get(..2), operator.get(2..)) {
                (None, _) if operator.is_empty() => value.cloned().unwrap_or_default(),
                (Some(":-"), Some(default)) if !default.contains('$') => {
                    value.cloned().unwrap_or_else(|| default.to_owned())
                }
                (Some(":+"), Some(alternative)) if !alternative.contains('$') => {
                    value.map(|_| alternative.to_owned()).unwrap_or_default()
                }
                _ => return Err(unreadable()),
            };
            (value, rest)
        } else {
            let end = after.find(|letter: char| !is_name(letter)).unwrap_or(after.len());
            let (name, rest) = after.split_at(end);
            (self.arguments.get(name).cloned().unwrap_or_default(), rest)
        };
        Ok(format!("{before}{value}{}", self.expanded(line, rest)?))
    }
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Without quotes and escapes: they cannot be part of an image name or of a flag's words.
fn unquoted(text: &str) -> String {
    text.chars().filter(|letter| !matches!(letter, '"' | '\'' | '\\' | '`')).collect()
}

/// What every engine knows of the platform it builds for.
fn platform_arguments() -> BTreeMap<String, String> {
    let architecture = architecture();
    let mut arguments = BTreeMap::new();
    for side in ["TARGET", "BUILD"] {
        arguments.insert(format!("{side}OS"), "linux".to_owned());
        arguments.insert(format!("{side}ARCH"), architecture.to_owned());
        arguments.insert(format!("{side}VARIANT"), String::new());
        arguments.insert(format!("{side}PLATFORM"), format!("linux/{architecture}"));
    }
    arguments
}

/// This machine's architecture, as images call it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        check(text).unwrap().images.into_iter().map(|image| image.name).collect()
    }

    fn refusal(text: &str) -> String {
        check(text).unwrap_err().to_string()
    }

    #[test]
    fn every_way_to_name_an_image_is_seen() {
        assert_eq!(names("FROM a\nFROM --platform=linux/amd64 b AS x\nfrom x\nFROM scratch"), ["a", "b"]);
        assert_eq!(
            names("FROM a\nCOPY --from=other/b:1 /x /y\nCOPY --chown=1 --from=0 /x /y"),
            ["a", "other/b:1"]
        );
        assert_eq!(names("FROM a\nADD --from=b /x /y"), ["a", "b"]);
        assert_eq!(names("FROM a\nRUN --mount=type=bind,from=b,target=/x ls"), ["a", "b"]);
        assert_eq!(names("FROM a\nRUN --mount=type=cache,target=/x \\\n  --mount=\"from=b\" ls"), ["a", "b"]);
        assert_eq!(names("FROM a\nONBUILD COPY --from=b /x /y"), ["a", "b"]);
        assert_eq!(names("FROM a\nCOPY \\\n # a comment\n\n --from=b /x /y"), ["a", "b"]);
        assert_eq!(names("FROM a\r\nCOPY --fr\\om='b' /x /y\r\n"), ["a", "b"]);
    }

    #[test]
    fn lines_that_engines_join_differently_are_read_both_ways() {
        assert!(names("FROM a\nRUN echo \\\\\nFROM b").contains(&"b".to_owned()));
        assert_eq!(names("# escape=`\nFROM a\nCOPY `\n --from=b /x /y"), ["a", "b"]);
        assert_eq!(names("# escape=`\nFROM a\nRUN dir c:\\\nFROM b"), ["a", "b"]);
    }

    #[test]
    fn arguments_are_expanded_as_the_engine_does() {
        assert_eq!(names("ARG A=x B=\"y\"\nARG C=${A}-$B\nFROM $A/${B}:${C}"), ["x/y:x-y"]);
        assert_eq!(names("ARG A\nFROM ${A:-b}\nFROM c${A:+d}"), ["b", "c"]);
        assert_eq!(names("ARG A=1\nFROM ${A:+d}-${TARGETOS}"), ["d-linux"]);
        assert!(refusal("FROM ${A#x}").contains("line 1"));
        assert!(refusal("ARG A=b\nFROM ${B:-${A}}").contains("line 2"));
        assert!(refusal("FROM a\nCOPY --from=$B /x /y").contains("line 2"));
    }

    #[test]
    fn the_official_frontend_is_the_built_in_one_and_others_are_refused() {
        let checked = check("# syntax=docker/dockerfile:1.4\n# escape=`\nFROM a\n").unwrap();
        assert_eq!(checked.text, "# escape=`\nFROM a\n");
        assert!(refusal("# syntax=evil/frontend\nFROM a").contains("line 1"));
        assert!(refusal("#!/bin/x\n#SYNTAX = docker/dockerfile-upstream\nFROM a").contains("line 2"));
        assert!(refusal("// syntax=evil/frontend\nFROM a").contains("line 1"));
        assert!(refusal("{\"syntax\":\"evil/frontend\"}").contains("not a Dockerfile"));
        assert!(check("FROM a\n# syntax=evil/frontend\n").is_ok());
    }

    #[test]
    fn host_network_and_insecure_steps_are_refused_with_the_line() {
        assert!(refusal("FROM a\n\nRUN --network=host ls").contains("line 3"));
        assert!(
            refusal("FROM a\nRUN --mount=type=tmpfs,target=/x --security=\"insecure\" ls").contains("line 2")
        );
        assert!(check("FROM a\nRUN --network=none ls").is_ok());
        assert!(check("FROM a\nRUN echo --network=host").is_ok());
    }
}
