//! Watches the process, so that one that dies is missed at once and not by the next call.

use std::sync::Arc;
use std::time::Duration;

use super::Wire;
use super::link::Link;
use crate::timer::sleep;

/// The waits before the process is looked for again.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A process that lived this long was not ended by its start.
const STEADY: Duration = Duration::from_secs(30);

/// Holds a connection to the process, which ends with it. Then the process is found or started again, and told what
/// this program has published: its table on disk may be lost or damaged. Goes on until dropped.
pub(super) async fn watch(link: Arc<Link>, mut wire: Wire) {
    let mut wait = FIRST_WAIT;
    loop {
        if tokio::time::timeout(STEADY, wire.interrupted()).await.is_err() {
            wait = FIRST_WAIT;
            wire.interrupted().await;
        }
        tracing::warn!("the proxy process is gone: looking for it, or starting it again");
        wire = loop {
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            match link.restore().await {
                Ok(wire) => break wire,
                Err(error) => tracing::warn!(?error, "the proxy does not serve yet"),
            }
        };
        tracing::info!("the proxy serves again");
    }
}
