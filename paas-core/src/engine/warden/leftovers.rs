//! Looks for what grows unseen: images, networks, and what builds keep.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{have_seen_to, is_busy};
use crate::domain::{App, AppId, AppStatus, OrgId};
use crate::engine::services::Services;
use crate::error::Result;
use crate::records::{PageOptions, Versioned};
use crate::runtime::Selector;
use crate::store::{IndexRange, Page, Scope};

/// How often it looks: what it finds takes room, and hurts nobody.
const LOOK: Duration = Duration::from_secs(5 * 60);
/// How long each look may take.
const PATIENCE: Duration = Duration::from_secs(2 * 60);

/// Finds images beyond those that are kept, and has a worker remove them under their app's lease; removes networks of
/// orgs without an app, and what builds keep beyond its budget.
#[derive(Debug)]
pub(crate) struct Leftovers {
    services: Arc<Services>,
}

impl Leftovers {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self { services }
    }

    /// Looks for ever. Dropping it is safe at any time.
    pub(crate) async fn run(&self) {
        loop {
            self.services.clock.sleep(LOOK).await;
            let looks = [
                ("images", self.look_at_images().await),
                ("networks", self.look_at_networks().await),
                ("what builds keep", self.prune().await),
            ];
            for (what, look) in looks {
                if let Err(error) = look {
                    tracing::debug!(what, ?error, "can't be looked at now");
                }
            }
        }
    }

    async fn look_at_images(&self) -> Result<()> {
        let services = &self.services;
        let context = services.context().with_budget(PATIENCE);
        let mut counts: BTreeMap<(OrgId, AppId), usize> = BTreeMap::new();
        for image in services.builder.list(&context, &Selector::default()).await? {
            *counts.entry((image.org, image.app)).or_default() += 1;
        }
        for ((org, app), count) in counts {
            let scope = Scope::Org(org);
            let status: Option<Versioned<AppStatus>> = services.records().get(&scope, app.as_str()).await?;
            let is_too_many =
                status.is_none_or(|status| count > services.settings.images_kept && !is_busy(&status.value));
            if is_too_many {
                have_seen_to(services, scope, &app).await?;
            }
        }
        Ok(())
    }

    /// An app may be made in the org meanwhile: its start makes the network again.
    async fn look_at_networks(&self) -> Result<()> {
        let services = &self.services;
        let context = services.context().with_budget(PATIENCE);
        for org in services.runtime.networks(&context).await? {
            let one = PageOptions { descending: false, limit: 1, cursor: None };
            let scope = Scope::Org(org.clone());
            let apps: Page<Versioned<App>> =
                services.records().scan(&scope, "id", IndexRange::all(), one).await?;
            if apps.items.is_empty() {
                // Something that is nobody's may be on it: the others are removed all the same.
                match services.runtime.remove_network(&context, &org).await {
                    Ok(()) => tracing::info!(%org, "removed the network of an org without an app"),
                    Err(error) => tracing::debug!(%org, ?error, "a network can't be removed now"),
                }
            }
        }
        Ok(())
    }

    async fn prune(&self) -> Result<()> {
        let context = self.services.context().with_budget(PATIENCE);
        let freed = self.services.builder.prune(&context, self.services.settings.build_cache_bytes).await?;
        if freed > 0 {
            tracing::info!(bytes = freed, "what builds had kept was removed");
        }
        Ok(())
    }
}
