//! What a platform does when it starts: it makes what is match what should be.

use std::time::Duration;

use super::Platform;
use super::accept::Request;
use crate::domain::{App, AppState, AppStatus, DesiredState, OperationKind};
use crate::error::{Kind, Result};
use crate::records::{RouteRecord, Versioned};
use crate::runtime::Selector;
use crate::store::{IndexRange, Scope};

/// The waits between tries while a part does not answer.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Platform {
    /// Publishes every route again, goes on collecting logs, and starts what died with the host, in the background:
    /// a part that is out keeps nobody from reading.
    pub(super) fn restore(&self) {
        let platform = self.clone();
        self.inner.engine.spawn(async move {
            let mut wait = FIRST_WAIT;
            while let Err(error) = platform.try_restore().await {
                tracing::warn!(?error, "the state of things can't be restored yet");
                platform.services().clock.sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        });
    }

    async fn try_restore(&self) -> Result<()> {
        self.publish_routes().await?;
        self.inner.collector.follow_all().await?;
        self.start_dead().await
    }

    async fn publish_routes(&self) -> Result<()> {
        let services = self.services();
        let routes: Vec<Versioned<RouteRecord>> =
            self.records().all(&Scope::System, "host", IndexRange::all()).await?;
        for RouteRecord { route, generation, .. } in routes.into_iter().map(|record| record.value) {
            let context = services.context().with_budget(Duration::from_secs(30));
            match services.ingress.publish(&context, &route, generation).await {
                // The proxy has a newer one: an operation that was under way will finish it.
                Err(error) if error.kind() == Kind::Conflict => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// An instance that should run but does not, as after a reboot, is replaced by a restart, behind whatever is
    /// under way: an operation that is past its Route brings no new instance.
    async fn start_dead(&self) -> Result<()> {
        let services = self.services();
        let context = services.context().with_budget(Duration::from_secs(60));
        let instances = services.runtime.list(&context, &Selector::default()).await?;
        let is_running =
            |name| instances.iter().any(|instance| instance.name == name && instance.is_running());
        let statuses: Vec<Versioned<AppStatus>> =
            self.records().all(&Scope::System, "id", IndexRange::all()).await?;
        for status in statuses.into_iter().map(|status| status.value) {
            let Some(instance) = status.instance.filter(|_| status.state == AppState::Running) else {
                continue;
            };
            if is_running(instance.name) {
                continue;
            }
            let scope = Scope::Org(status.org.clone());
            let app: Option<Versioned<App>> = self.records().get(&scope, status.id.as_str()).await?;
            if app.is_some_and(|app| app.value.desired == DesiredState::Running) {
                tracing::warn!(app = %status.id, "its instance is gone: restarting it");
                match self.accept(&status.org, &status.id, Request::of(OperationKind::Restart)).await {
                    // Somebody changed the app meanwhile: that operation brings it up.
                    Err(error) if error.kind() == Kind::Conflict => {}
                    result => drop(result?),
                }
            }
        }
        Ok(())
    }
}
