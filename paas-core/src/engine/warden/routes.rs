//! Looks whether the ingress serves the routes that are recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{PATIENCE, Warden, have_seen_to, is_busy};
use crate::context::Context;
use crate::domain::{AppId, AppStatus, Deployment, Host, OrgId};
use crate::error::{Kind, Result};
use crate::ingress::{RoutesDigest, ServedRoute};
use crate::records::{PageOptions, Versioned};
use crate::store::{IndexRange, Page, Scope};

impl Warden {
    /// Has a worker see to each app whose host is not served as recorded, and to each that is gone and still served.
    ///
    /// What the ingress serves is left alone where an app is behind it that no record has ever known: somebody else shares
    /// the ingress. So is what is newer than the store, as an older copy of it was put back.
    pub(super) async fn look_at_routes(&self) -> Result<()> {
        if !self.services.is_published.load(Ordering::Relaxed) {
            return Ok(());
        }
        let context = self.services.context().with_budget(PATIENCE);
        let digest = match self.services.ingress.digest(&context).await {
            Err(error) if error.kind() == Kind::Unsupported => return Ok(()),
            digest => digest?,
        };
        // After the digest: what was begun meanwhile is known then.
        self.learn().await?;
        let digests = (digest, self.locked().routes.digest());
        if digests.0 == digests.1 || *self.locked_settled() == Some(digests) {
            return Ok(());
        }
        let served = self.list_routes(&context).await?;
        self.learn().await?;
        // What is newer than the store now is not for ever.
        let mut is_settled = !served.values().any(|served| self.is_newer(served));
        for app in self.misrouted(&served) {
            let status: Option<Versioned<AppStatus>> =
                self.services.records().get(&Scope::System, app.as_str()).await?;
            let status = status.map(|status| status.value);
            let org = match &status {
                Some(status) => Some(status.org.clone()),
                None => self.former_owner(&app).await?,
            };
            let Some(org) = org else { continue };
            is_settled = false;
            if status.as_ref().is_some_and(is_busy) {
                continue;
            }
            self.learn_route(&app).await?;
            if self.misrouted(&served).contains(&app) {
                have_seen_to(&self.services, Scope::Org(org), &app).await?;
            }
        }
        *self.locked_settled() = is_settled.then_some(digests);
        Ok(())
    }

    async fn list_routes(&self, context: &Context) -> Result<BTreeMap<Host, ServedRoute>> {
        let (mut routes, mut from) = (BTreeMap::new(), 0);
        loop {
            let page = self.services.ingress.list(context, from).await?;
            routes.extend(page.routes.into_iter().map(|served| (served.route.host.clone(), served)));
            match page.next {
                Some(next) => from = next,
                None => return Ok(routes),
            }
        }
    }

    /// The apps whose hosts are not served as they are known to be recorded.
    fn misrouted(&self, served: &BTreeMap<Host, ServedRoute>) -> BTreeSet<AppId> {
        let newer: BTreeSet<&Host> =
            served.iter().filter(|(_, served)| self.is_newer(served)).map(|(host, _)| host).collect();
        let known = self.locked();
        let is_right = |host: &Host, digest: RoutesDigest| {
            let found = served.get(host).map(|served| RoutesDigest::of(&served.route, served.generation));
            newer.contains(host) || found == Some(digest)
        };
        let wrong = known.routes.iter().filter(|(host, route)| !is_right(host, route.digest));
        let is_unneeded = |host: &Host| known.routes.get(host).is_none() && !newer.contains(host);
        let unneeded = served.iter().filter(|(host, _)| is_unneeded(host));
        let unneeded = unneeded.map(|(_, served)| served.route.app.clone());
        wrong.map(|(_, route)| route.app.clone()).chain(unneeded).collect()
    }

    /// True for a route of a generation that the store has not come to: generations are positions of its events.
    fn is_newer(&self, served: &ServedRoute) -> bool {
        served.generation.0 > self.locked().position.unwrap_or_default().0
    }

    /// The org of an app that is gone: its deletion can be looked up for a while.
    async fn former_owner(&self, app: &AppId) -> Result<Option<OrgId>> {
        let of_app = IndexRange::starting_with(format!("{app}/"));
        let one = PageOptions { descending: true, limit: 1, cursor: None };
        let page: Page<Versioned<Deployment>> =
            self.services.records().scan(&Scope::System, "app", of_app, one).await?;
        Ok(page.items.into_iter().next().map(|deployment| deployment.value.org))
    }

    fn locked_settled(&self) -> std::sync::MutexGuard<'_, Option<(RoutesDigest, RoutesDigest)>> {
        // Nothing that panics runs under this lock.
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
