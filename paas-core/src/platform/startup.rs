//! What a platform does when it starts: it makes what is match what should be.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Platform;
use crate::error::{Kind, Result};
use crate::records::{RouteRecord, Versioned};
use crate::store::{IndexRange, Scope};

/// The waits between tries while a part does not answer.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Platform {
    /// Publishes every route again and goes on collecting logs, in the background: a part that is out keeps nobody from
    /// reading. What died with the host is the warden's.
    pub(super) fn restore(&self) {
        let platform = self.clone();
        self.inner.engine.spawn(async move {
            let mut wait = FIRST_WAIT;
            while let Err(error) = platform.try_restore().await {
                tracing::warn!(?error, "the state of things can't be restored yet");
                platform.pause(&mut wait).await;
            }
        });
    }

    async fn pause(&self, wait: &mut Duration) {
        self.services().clock.sleep(*wait).await;
        *wait = (*wait * 2).min(LONGEST_WAIT);
    }

    async fn try_restore(&self) -> Result<()> {
        self.publish_routes().await?;
        self.services().is_published.store(true, Ordering::Relaxed);
        self.inner.collector.follow_all().await
    }

    async fn publish_routes(&self) -> Result<()> {
        let services = self.services();
        let routes: Vec<Versioned<RouteRecord>> =
            self.records().all(&Scope::System, "host", IndexRange::all()).await?;
        for RouteRecord { route, generation, .. } in routes.into_iter().map(|record| record.value) {
            let context = services.context().with_budget(Duration::from_secs(30));
            match services.ingress.publish(&context, &route, generation).await {
                Err(error) if error.kind() == Kind::Conflict => {
                    let serving = services.ingress.serving(&context, &route.host).await?;
                    let newer = serving.map_or(0, |serving| serving.generation.0);
                    // The proxy has a newer one: an operation that was under way will finish it. Generations are
                    // positions of the store's events.
                    if !self.records().has_position(newer).await? {
                        tracing::error!(
                            host = %route.host,
                            "the proxy's routes are newer than anything in the store: was an older copy of the store put \
                             back? Stop the proxy, remove its saved table, and start both again"
                        );
                    }
                }
                result => result?,
            }
        }
        Ok(())
    }
}
