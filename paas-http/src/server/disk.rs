//! The disk that the data directory is on.

use std::path::PathBuf;

use async_trait::async_trait;
use paas_core::{Context, Error, Kind, Part, Result, error};

const OPERATION: &str = "server.disk";
/// With less left, somebody has to look: a build or a mirror may fill it in no time.
const LEAST_BYTES: u64 = 512 * 1024 * 1024;

/// Says when the disk is nearly full.
#[derive(Debug)]
pub(super) struct Disk(pub(super) PathBuf);

#[async_trait]
impl Part for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    async fn ping(&self, _: &Context) -> Result<()> {
        let directory = self.0.clone();
        // A network's disk may take its time.
        let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&directory)).await;
        let found = asked.map_err(error::map(OPERATION))?.map_err(error::map(OPERATION))?;
        left(found.f_bavail.saturating_mul(found.f_frsize), LEAST_BYTES).map_err(|error| {
            error.hint(format!(
                "free some space where {} is: when it is full, nothing is accepted",
                self.0.display()
            ))
        })
    }
}

fn left(bytes: u64, least: u64) -> Result<()> {
    if bytes >= least {
        return Ok(());
    }
    let message = format!("only {} MiB are left on the disk of the data directory", bytes / (1024 * 1024));
    Err(Error::new(Kind::Unavailable, OPERATION, message))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use paas_core::SystemClock;

    use super::*;

    #[tokio::test]
    async fn a_disk_is_named_when_little_is_left_or_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::new(Arc::new(SystemClock::new()));
        Disk(folder.path().to_owned()).ping(&context).await.unwrap();
        Disk(folder.path().join("gone")).ping(&context).await.unwrap_err();
        let error = left(LEAST_BYTES - 1, LEAST_BYTES).unwrap_err();
        assert!(error.message().contains("only 511 MiB"), "{error:?}");
        left(LEAST_BYTES, LEAST_BYTES).unwrap();
    }
}
