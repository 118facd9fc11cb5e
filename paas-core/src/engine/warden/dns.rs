//! Looks whether the DNS records that apps need are in force.

use std::collections::{BTreeMap, BTreeSet};

use super::{PATIENCE, Warden, have_seen_to, is_busy};
use crate::context::Context;
use crate::dns::{RecordCursor, RecordSet, RecordType};
use crate::domain::{AppId, AppStatus, Host};
use crate::error::{Kind, Result};
use crate::records::Versioned;
use crate::store::Scope;

impl Warden {
    /// Looks for ever, as rarely as the settings say; not at all where there is no zone to look at. Dropping it is safe at
    /// any time.
    pub(crate) async fn watch_dns(&self) {
        loop {
            self.services.clock.sleep(self.services.settings.dns_look).await;
            match self.look_at_dns().await {
                Err(error) if error.kind() == Kind::Unsupported => return,
                Err(error) => tracing::debug!(?error, "the warden can't look at DNS records now"),
                Ok(()) => {}
            }
        }
    }

    /// Has a worker see to each app with a route whose records are not those that its host needs. Other records are nobody's
    /// business here.
    async fn look_at_dns(&self) -> Result<()> {
        let services = &self.services;
        let context = services.context().with_budget(PATIENCE);
        self.learn().await?;
        let hosts: BTreeMap<Host, AppId> =
            self.locked().routes.iter().map(|(host, known)| (host.clone(), known.app.clone())).collect();
        let found = self.list_records(&context, &hosts).await?;
        let mut suspects = BTreeSet::new();
        for (host, app) in &hosts {
            for wanted in services.dns.desired(&context, host).await? {
                if found.get(&(host.clone(), wanted.record_type)) != Some(&wanted) {
                    suspects.insert(app);
                }
            }
        }
        for app in suspects {
            // After the list: what was begun meanwhile is known then.
            let status: Option<Versioned<AppStatus>> =
                services.records().get(&Scope::System, app.as_str()).await?;
            if let Some(status) = status.map(|status| status.value).filter(|status| !is_busy(status)) {
                have_seen_to(services, Scope::Org(status.org), app).await?;
            }
        }
        Ok(())
    }

    /// The records of these hosts.
    async fn list_records(
        &self,
        context: &Context,
        hosts: &BTreeMap<Host, AppId>,
    ) -> Result<BTreeMap<(Host, RecordType), RecordSet>> {
        let (mut found, mut from) = (BTreeMap::new(), RecordCursor::default());
        loop {
            let page = self.services.dns.list(context, &from).await?;
            let of_hosts = page.records.into_iter().filter(|set| hosts.contains_key(&set.host));
            found.extend(of_hosts.map(|set| ((set.host.clone(), set.record_type), set)));
            match page.next {
                Some(next) => from = next,
                None => return Ok(found),
            }
        }
    }
}
