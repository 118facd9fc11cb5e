//! Bare repositories, written by the `git` program itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use paas_core::memory::{MemoryFile, MemoryFiles};
use paas_core::{CommitId, Error, GitRef, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

const OPERATION: &str = "git_server.git";
/// When every commit was made: the same files in the same order give the same ids.
const COMMIT_SECONDS: u32 = 1_767_225_600;

/// `git` with nobody's configuration.
pub(super) fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .env_remove("GIT_DIR")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("HOME", directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs `git` to its end and answers what it printed.
pub(super) async fn run(directory: &Path, arguments: &[&str], input: &[u8]) -> Result<String> {
    let mut child = git(directory).args(arguments).spawn().map_err(missing)?;
    let mut stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin.take() {
            stdin.write_all(input).await?;
        }
        Ok(())
    };
    // git may print before it has read everything: both at once.
    let (written, output) = tokio::join!(write, child.wait_with_output());
    let output = output.map_err(paas_core::error::map(OPERATION))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::internal(OPERATION, message).context("arguments", arguments.join(" ")));
    }
    written.map_err(|error: std::io::Error| Error::internal(OPERATION, error))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(super) fn missing(error: std::io::Error) -> Error {
    Error::internal(OPERATION, error).hint("install git: apt-get install git")
}

/// Makes an empty bare repository, unless there is one.
pub(super) async fn create(directory: &Path, name: &str) -> Result<PathBuf> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_safe) {
        return Err(Error::invalid("git_server.create", "this is not a repository's name"));
    }
    let path = directory.join(format!("{name}.git"));
    if !path.exists() {
        tokio::fs::create_dir_all(&path).await.map_err(paas_core::error::map(OPERATION))?;
        run(&path, &["init", "--quiet", "--bare", "--initial-branch=main", "."], &[]).await?;
    }
    Ok(path)
}

/// Adds a commit of these files, all of them, to the end of a branch.
pub(super) async fn commit(path: &Path, branch: &GitRef, files: &MemoryFiles) -> Result<CommitId> {
    let full_name = format!("refs/heads/{branch}");
    let branches = run(path, &["for-each-ref", "--format=%(refname)", "refs/heads/"], &[]).await?;
    if branches.is_empty() {
        run(path, &["symbolic-ref", "HEAD", &full_name], &[]).await?;
    }
    let mut input = format!(
        "commit {full_name}\ncommitter demo <demo@localhost> {COMMIT_SECONDS} +0000\ndata 6\ncommit\n"
    );
    if branches.lines().any(|found| found == full_name) {
        input.push_str(&format!("from {full_name}^0\n"));
    }
    input.push_str("deleteall\n");
    let mut input = input.into_bytes();
    for (path, file) in files.iter() {
        let (mode, bytes) = match file {
            MemoryFile::File { bytes, executable: false } => ("100644", bytes.as_ref()),
            MemoryFile::File { bytes, executable: true } => ("100755", bytes.as_ref()),
            MemoryFile::Symlink(target) => ("120000", target.as_bytes()),
            MemoryFile::Submodule => {
                let id = "1".repeat(40);
                input.extend(format!("M 160000 {id} {}\n", quoted(path)).bytes());
                continue;
            }
        };
        input.extend(format!("M {mode} inline {}\ndata {}\n", quoted(path), bytes.len()).bytes());
        input.extend(bytes);
        input.push(b'\n');
    }
    run(path, &["fast-import", "--quiet", "--date-format=raw"], &input).await?;
    run(path, &["rev-parse", &full_name], &[]).await?.parse()
}

/// A path as `git fast-import` reads it.
fn quoted(path: &str) -> String {
    let escaped = path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}
