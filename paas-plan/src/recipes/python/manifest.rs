//! What a Python app depends on, and which Python it asks for.

use std::collections::BTreeSet;

use paas_core::{Error, Result};
use toml::{Table, Value};

use crate::OPERATION;
use crate::base_images::Wanted;
use crate::source::Source;
use crate::version::Requirement;

const REQUIREMENTS: &str = "requirements.txt";
const PYPROJECT: &str = "pyproject.toml";

/// How dependencies are installed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Install {
    /// `requirements.txt`; whether pip needs no other file of the repository for it.
    Requirements { stand_alone: bool },
    /// The list of `[project]`.
    Dependencies(Vec<String>),
    /// The project itself, by its build system, which knows the dependencies.
    Project,
}

impl Install {
    /// The command; empty if there is nothing to install.
    pub(super) fn command(&self) -> Vec<String> {
        let arguments: Vec<&str> = match self {
            Self::Requirements { .. } => vec!["-r", REQUIREMENTS],
            Self::Dependencies(list) if list.is_empty() => return Vec::new(),
            Self::Dependencies(list) => ["--"].into_iter().chain(list.iter().map(String::as_str)).collect(),
            Self::Project => vec!["."],
        };
        ["pip", "install"].into_iter().chain(arguments).map(str::to_owned).collect()
    }
}

/// What the manifests say.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) install: Install,
    /// The names of direct dependencies, as the index spells them.
    pub(super) dependencies: BTreeSet<String>,
    pub(super) wanted: Option<Wanted>,
    pub(super) reason: String,
}

impl Manifest {
    /// `None` if this is no Python app.
    pub(super) async fn read(source: &Source) -> Result<Option<Self>> {
        let requirements = source.manifest(REQUIREMENTS).await?;
        let pyproject = match source.manifest(PYPROJECT).await? {
            Some(text) => Some((parse(&text)?, text)),
            None => None,
        };
        let (install, dependencies, reason) = if let Some(text) = &requirements {
            let (stand_alone, dependencies) = read_requirements(text);
            (Install::Requirements { stand_alone }, dependencies, "there is a requirements.txt")
        } else if let Some((table, _)) = &pyproject {
            let Some((install, dependencies)) = read_project(table)? else { return Ok(None) };
            (install, dependencies, "there is a pyproject.toml that describes a project")
        } else {
            return Ok(None);
        };
        let wanted = wanted(source, pyproject.as_ref()).await?;
        Ok(Some(Self { install, dependencies, wanted, reason: format!("Python, because {reason}") }))
    }
}

fn parse(text: &str) -> Result<Table> {
    text.parse().map_err(|cause: toml::de::Error| {
        let line = cause.span().map_or(1, |span| line_at(text, span.start));
        Error::invalid(OPERATION, format!("`{PYPROJECT}` is not TOML (line {line})"))
            .hint(format!("mend line {line} of `{PYPROJECT}`"))
            .source(cause)
    })
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Whether the file needs no other, and the names in it.
fn read_requirements(text: &str) -> (bool, BTreeSet<String>) {
    let mut stand_alone = true;
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let refers_to_file =
            ["-r", "-c", "-e", "--requirement", "--constraint", "--editable", "--find-links", "-f"]
                .iter()
                .any(|option| line.starts_with(option));
        if refers_to_file || line.starts_with(['.', '/']) || line.contains("file:") {
            stand_alone = false;
        }
        names.extend(name(line));
    }
    (stand_alone, names)
}

/// The name that a requirement starts with, as the index spells it.
fn name(requirement: &str) -> Option<String> {
    let end = requirement
        .find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
        .unwrap_or(requirement.len());
    let name = requirement[..end].to_ascii_lowercase().replace(['_', '.'], "-");
    name.starts_with(|c: char| c.is_ascii_alphanumeric()).then_some(name)
}

/// The dependencies of a project; `None` if the file only configures tools.
fn read_project(table: &Table) -> Result<Option<(Install, BTreeSet<String>)>> {
    let poetry = table.get("tool").and_then(|tool| tool.get("poetry")).and_then(Value::as_table);
    let Some(project) = table.get("project").and_then(Value::as_table) else {
        let Some(poetry) = poetry else { return Ok(None) };
        let dependencies = poetry.get("dependencies").and_then(Value::as_table);
        let names = dependencies.into_iter().flat_map(Table::keys).filter_map(|key| name(key)).collect();
        return Ok(Some((Install::Project, names)));
    };
    let is_dynamic = project
        .get("dynamic")
        .and_then(Value::as_array)
        .is_some_and(|dynamic| dynamic.iter().any(|field| field.as_str() == Some("dependencies")));
    if is_dynamic {
        return Ok(Some((Install::Project, BTreeSet::new())));
    }
    let mut list = Vec::new();
    for dependency in project.get("dependencies").and_then(Value::as_array).into_iter().flatten() {
        match dependency.as_str() {
            Some(text) if !text.trim().is_empty() && !text.contains(char::is_control) => {
                list.push(text.trim().to_owned());
            }
            _ => {
                return Err(Error::invalid(
                    OPERATION,
                    format!("`{PYPROJECT}` has a dependency that is not one"),
                )
                .hint("each of `project.dependencies` is one line of text, such as \"flask>=3\""));
            }
        }
    }
    let names = list.iter().filter_map(|text| name(text)).collect();
    Ok(Some((Install::Dependencies(list), names)))
}

/// The version that is asked for: the most particular file wins.
async fn wanted(source: &Source, pyproject: Option<&(Table, String)>) -> Result<Option<Wanted>> {
    for file in [".python-version", "runtime.txt"] {
        let Some(text) = source.manifest(file).await? else { continue };
        let first = text
            .lines()
            .map(str::trim)
            .enumerate()
            .find(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        if let Some((index, line)) = first {
            let version = line.strip_prefix("python-").unwrap_or(line);
            return Wanted::parse(file, index + 1, version, Requirement::python).map(Some);
        }
    }
    let Some((table, text)) = pyproject else { return Ok(None) };
    let asked =
        table.get("project").and_then(|project| project.get("requires-python")).and_then(Value::as_str);
    let Some(asked) = asked else { return Ok(None) };
    let line = text.find("requires-python").map_or(1, |at| line_at(text, at));
    Wanted::parse(PYPROJECT, line, asked, Requirement::python).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_as_the_index_does() {
        for (requirement, expected) in [
            ("Flask>=3", Some("flask")),
            ("uvicorn[standard]==0.30 ; python_version > '3'", Some("uvicorn")),
            ("ruamel.yaml", Some("ruamel-yaml")),
            ("typing_extensions @ https://x/y", Some("typing-extensions")),
            ("-r other.txt", None),
            ("", None),
        ] {
            assert_eq!(name(requirement).as_deref(), expected, "{requirement}");
        }
    }

    #[test]
    fn requirements_that_need_other_files_are_noticed() {
        for text in
            ["-r base.txt", "-c limits.txt", "-e .", "./local", "x @ file:lib", "flask\n--find-links dist"]
        {
            assert!(!read_requirements(text).0, "{text}");
        }
        assert!(read_requirements("flask==3 --hash=sha256:00\n# -r x\n--index-url https://x").0);
    }
}
