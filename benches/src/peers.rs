//! Peers that are programs of their own, with lock files of their own: their dependencies clash with the platform's.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::Result;

/// A peer's program.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    program: PathBuf,
}

impl Peer {
    /// Starts it; it takes a folder and a time, and prints a turn, as our own contestants do.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.program)
    }
}

/// Builds the apalis-sqlite peer, if that was not done before.
pub(crate) async fn apalis() -> Result<Peer> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/apalis");
    // Beside this program, so that everything that was compiled lies below one folder.
    let target = std::env::current_exe()?.with_file_name("peers");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--locked", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .await?;
    if !status.success() {
        return Err("its program can't be built".into());
    }
    Ok(Peer { program: target.join("release/apalis-peer") })
}

/// The first of the engine's command lines on the path that builds with BuildKit: up to version 22 by itself, later with
/// a plug-in.
pub(crate) async fn docker() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in
        std::env::split_paths(&path).map(|folder| folder.join("docker")).filter(|file| file.exists())
    {
        let plugin =
            Command::new(&program).args(["buildx", "version"]).stderr(Stdio::null()).output().await?;
        let version =
            Command::new(&program).args(["version", "--format", "{{.Client.Version}}"]).output().await?;
        let version = String::from_utf8_lossy(&version.stdout);
        let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(u32::MAX);
        if plugin.status.success() || major < 23 {
            return Ok(program);
        }
    }
    Err("no `docker` on the path builds with BuildKit: install its buildx plug-in".into())
}
