//! The platform: what programs and frontends call.

mod abandon;
mod accept;
mod app_changes;
mod apps;
mod builder;
mod deployments;
mod health;
mod key_check;
mod logs;
mod metrics;
mod part;
mod repeat;
mod startup;
mod update;
mod views;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

pub use app_changes::{AppChanges, ChangeEffects, HealthCheckChanges, NewApp, ResourceChanges};
pub use apps::Apps;
pub use builder::PlatformBuilder;
pub use deployments::{DeployOptions, DeploymentHandle, WaitFor, Waited};
pub use health::{Health, Problem};
pub use part::Part;
pub use views::{AppRef, AppView, Created, NameCheck, Updated};

use crate::clock::Clock;
use crate::domain::OrgId;
use crate::engine::{Collector, Engine, Hub, Services};
use crate::error::Result;
use crate::ids::Ids;
use crate::pipeline::Recorded;
use crate::records::{Records, decode_event};
use crate::settings::Settings;
use crate::store::{Position, Scope, StoredEvent};

/// A platform: accepts apps and deployments, and takes them to live URLs.
///
/// Cheap to clone; every clone is the same platform. Dropping handles cancels nothing; [`shutdown`](Self::shutdown)
/// lets go of what is under way, which goes on at the next start on the same store.
///
/// # Guarantees
/// What a call answered `Ok` for is on stable storage. See the promises in the README.
#[derive(Clone, Debug)]
pub struct Platform {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    services: Arc<Services>,
    engine: Arc<Engine>,
    hub: Arc<Hub>,
    collector: Arc<Collector>,
    /// Fires when the platform stops: what would wait for ever ends.
    closing: CancellationToken,
}

impl Platform {
    /// A builder, for choosing adapters.
    #[must_use]
    pub fn builder() -> PlatformBuilder {
        PlatformBuilder::default()
    }

    /// The apps of the default org.
    #[must_use]
    pub fn apps(&self) -> Apps {
        self.org(&OrgId::default_org())
    }

    /// The apps of one org: nothing of another one is seen or changed through them.
    #[must_use]
    pub fn org(&self, org: &OrgId) -> Apps {
        Apps::new(self.clone(), org.clone())
    }

    /// Deploys an app of the default org: the newest commit of its branch, or the commit it is pinned to.
    ///
    /// # Errors
    /// As [`Apps::deploy`].
    pub async fn deploy(&self, app: impl Into<AppRef> + Send) -> Result<DeploymentHandle> {
        self.apps().deploy(app, DeployOptions::default()).await
    }

    /// Every event of every stream after a position, and those to come: it ends when the platform shuts down.
    ///
    /// A reader that keeps the position of the last event it handled misses none, whatever happens in between. An event
    /// of a newer version, which this one does not know, is an [`Event::Unknown`](crate::Event::Unknown).
    pub fn events(&self, after: Position) -> BoxStream<'static, Result<Recorded>> {
        self.feed(Scope::System, after)
    }

    /// What an operator set.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.services.settings
    }

    /// Where its time comes from, for frontends that wait.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.services.clock
    }

    /// Where its identifiers come from, for frontends that name requests.
    #[must_use]
    pub fn ids(&self) -> &Arc<dyn Ids> {
        &self.inner.services.ids
    }

    /// Lets go of everything that is under way and stops working. Apps keep running.
    pub async fn shutdown(&self) {
        self.inner.engine.stop().await;
        self.inner.collector.stop();
        self.inner.closing.cancel();
    }

    fn services(&self) -> &Arc<Services> {
        &self.inner.services
    }

    fn records(&self) -> Records {
        self.inner.services.records()
    }

    fn feed(&self, scope: Scope, after: Position) -> BoxStream<'static, Result<Recorded>> {
        const PAGE: usize = 500;
        /// The longest that a lost hint of news matters.
        const NET: Duration = Duration::from_secs(5);
        let news = self.inner.hub.watch_feed();
        let state = (self.clone(), news, after, Vec::new().into_iter());
        Box::pin(futures::stream::try_unfold(state, move |(platform, mut news, mut after, mut page)| {
            let scope = scope.clone();
            async move {
                loop {
                    if let Some(stored) = page.next() {
                        let stored: StoredEvent = stored;
                        after = stored.position;
                        return Ok(Some((decode_event(stored), (platform, news, after, page))));
                    }
                    let is_closing = platform.inner.closing.is_cancelled();
                    news.mark_seen();
                    page = platform.services().store.feed(&scope, after, PAGE).await?.into_iter();
                    if page.len() > 0 {
                        continue;
                    }
                    if is_closing {
                        return Ok(None);
                    }
                    tokio::select! {
                        biased;
                        () = platform.inner.closing.cancelled() => {}
                        () = news.changed() => {}
                        () = platform.services().clock.sleep(NET) => {}
                    }
                }
            }
        }))
    }
}
