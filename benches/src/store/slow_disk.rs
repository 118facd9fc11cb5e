//! Compiles the library that makes syncs slow.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::Result;
use crate::contestant::SlowDisk;

/// Builds it beside this program, if it is not there yet.
pub(super) async fn build(micros: u32) -> Result<SlowDisk> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("native/slow_sync.c");
    let library: PathBuf = std::env::current_exe()?.with_file_name("libpaas_slow_sync.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    let status = compiler.status().await.map_err(|error| format!("no C compiler (`cc`): {error}"))?;
    if !status.success() {
        return Err(format!("cc could not compile {}", source.display()).into());
    }
    Ok(SlowDisk { library, micros })
}
