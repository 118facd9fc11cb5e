//! What a platform does when it starts: it makes what is match what should be.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Platform;
use super::accept::Request;
use crate::domain::{App, AppId, AppState, AppStatus, Deployment, DesiredState, OperationKind};
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
                platform.pause(&mut wait).await;
            }
            let (mut wait, mut wanted) = (FIRST_WAIT, None);
            loop {
                match platform.start_dead(wanted.as_ref()).await {
                    Ok(left) if left.is_empty() => return,
                    Ok(left) => wanted = Some(left),
                    Err(error) => tracing::warn!(?error, "what died can't be started yet"),
                }
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

    /// An instance that should run but does not, as after a reboot, is replaced by a restart. Answers the apps to look
    /// at again, of which the next call looks at no others: what is under way may bring a new instance, or fail.
    async fn start_dead(&self, wanted: Option<&BTreeSet<AppId>>) -> Result<BTreeSet<AppId>> {
        let services = self.services();
        let context = services.context().with_budget(Duration::from_secs(60));
        let instances = services.runtime.list(&context, &Selector::default()).await?;
        let is_running =
            |name| instances.iter().any(|instance| instance.name == name && instance.is_running());
        let statuses: Vec<Versioned<AppStatus>> =
            self.records().all(&Scope::System, "id", IndexRange::all()).await?;
        let mut left = BTreeSet::new();
        for status in statuses.into_iter().map(|status| status.value) {
            let is_dead = status.state == AppState::Running
                && status.instance.as_ref().is_some_and(|instance| !is_running(instance.name.clone()));
            if !is_dead || wanted.is_some_and(|wanted| !wanted.contains(&status.id)) {
                continue;
            }
            match self.start_again(&status).await {
                Ok(true) => {}
                Ok(false) => drop(left.insert(status.id)),
                Err(error) => {
                    tracing::warn!(app = %status.id, ?error, "it can't be started again yet");
                    left.insert(status.id);
                }
            }
        }
        Ok(left)
    }

    /// False if something that is under way has to end first.
    async fn start_again(&self, status: &AppStatus) -> Result<bool> {
        let scope = Scope::Org(status.org.clone());
        let app: Option<Versioned<App>> = self.records().get(&scope, status.id.as_str()).await?;
        if app.is_none_or(|app| app.value.desired != DesiredState::Running) {
            return Ok(true);
        }
        for id in status.active.iter().chain(&status.queue) {
            let operation: Option<Versioned<Deployment>> = self.records().get(&scope, id.as_str()).await?;
            // One that is past its Route brings no new instance.
            if operation.is_some_and(|operation| !operation.value.state.is_settled()) {
                return Ok(false);
            }
        }
        tracing::warn!(app = %status.id, "its instance is gone: restarting it");
        match self.accept(&status.org, &status.id, Request::of(OperationKind::Restart)).await {
            // Somebody changed the app meanwhile: that operation brings it up.
            Err(error) if error.kind() == Kind::Conflict => Ok(true),
            result => result.map(|_| true),
        }
    }
}
