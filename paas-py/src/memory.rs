//! What a test puts into an in-memory platform.

use std::time::Duration;

use paas_core::memory::{MemoryGit as Git, MemoryHost as Host, MemoryTree, Program, ProgramExit, Script};
use paas_core::{Error, Failure, GitRef, GitUrl, Kind, Result, SourceTree};
use pyo3::prelude::*;

use crate::arguments::{Content, Pairs, SecretText, duration};
use crate::error::raise;

/// The git servers of an in-memory platform: any `https://` address is a repository once something is committed to it.
#[pyclass(frozen, module = "paas")]
pub(crate) struct MemoryGit(pub(crate) Git);

#[pymethods]
impl MemoryGit {
    /// Adds a commit with these files, all of them, to the end of a branch, and answers its id. The first branch is
    /// the repository's default one.
    #[pyo3(signature = (url, branch, files))]
    fn commit(&self, url: &str, branch: &str, files: Pairs<Content>) -> PyResult<String> {
        let commit = || -> Result<String> {
            let (url, branch): (GitUrl, GitRef) = (url.parse()?, branch.parse()?);
            Ok(self.0.commit(&url, &branch, files.into_files()).to_string())
        };
        commit().map_err(|error| raise(&error))
    }

    /// Shows the repository only to those who bring this token.
    fn require_token(&self, url: &str, token: SecretText) -> PyResult<()> {
        let url = url.parse().map_err(|error| raise(&error))?;
        self.0.require_token(&url, token.0);
        Ok(())
    }

    fn __repr__(&self) -> &'static str {
        "<paas.MemoryGit>"
    }
}

/// The machine of an in-memory platform, where nothing is really built or run.
#[pyclass(frozen, module = "paas")]
pub(crate) struct MemoryHost(pub(crate) Host);

#[pymethods]
impl MemoryHost {
    /// Says what building a tree of exactly these files does, and what its image does when it runs: the build writes
    /// `output`, takes `build_seconds`, and fails with the message `build_error` if there is one; the program ends at
    /// its start with `exit_code` if there is one.
    #[pyo3(signature = (files, *, output=Vec::new(), build_seconds=0.0, build_error=None, exit_code=None))]
    fn script(
        &self,
        files: Pairs<Content>,
        output: Vec<String>,
        build_seconds: f64,
        build_error: Option<String>,
        exit_code: Option<i64>,
    ) -> PyResult<()> {
        let script = || -> Result<()> {
            let build_failure = build_error.map(|message| {
                let error = Error::new(Kind::BuildFailed, "memory.build", message).evidence(output.clone());
                Failure::from(&error)
            });
            let exit =
                exit_code.map(|code| ProgramExit { after: Duration::ZERO, code, out_of_memory: false });
            let script = Script {
                build_output: output,
                build_time: duration("memory_host.script", Some(build_seconds))?,
                build_failure,
                program: Program { exit, ..Program::default() },
                ..Script::default()
            };
            self.0.script(MemoryTree::new(files.into_files())?.id(), script);
            Ok(())
        };
        script().map_err(|error| raise(&error))
    }

    /// How many builds run now.
    #[getter]
    fn builds_running(&self) -> usize {
        self.0.builds_running()
    }

    /// How many instances there are.
    #[getter]
    fn instances(&self) -> usize {
        self.0.instances().len()
    }

    fn __repr__(&self) -> &'static str {
        "<paas.MemoryHost>"
    }
}
