//! The DNS records of an app's host are those that it needs.

use super::Tending;
use crate::context::Context;
use crate::domain::ConditionKind;
use crate::engine::tally;
use crate::error::Result;
use crate::pipeline::{DnsDrift, Event};
use crate::records::{RouteRecord, Versioned};

impl Tending<'_> {
    /// Sets the records that are not as they should be, and no others. A service that is asked by everybody has its limits:
    /// while the app itself is down, it is not asked.
    pub(super) async fn see_to_dns(&mut self, context: &Context) -> Result<Result<()>> {
        let services = self.worker.services.clone();
        let Some(status) = self.status.as_ref().map(|status| &status.value) else { return Ok(Ok(())) };
        let is_down = status.crashes.as_ref().is_some_and(|crashes| crashes.is_down);
        // While it is false, it has been told what is wrong.
        let is_ready = |kind, holds| kind != ConditionKind::DnsReady || holds;
        let is_told = !status.conditions.iter().all(|condition| is_ready(condition.kind, condition.holds));
        let Some(host) = self.host().await?.filter(|_| !is_down && !self.is_busy()) else {
            return Ok(Ok(()));
        };
        let route: Option<Versioned<RouteRecord>> =
            services.records().get(&self.lease.scope, host.as_str()).await?;
        if route.is_none() {
            return Ok(Ok(()));
        }
        let compare = async {
            let mut drifts = Vec::new();
            for wanted in services.dns.desired(context, &host).await? {
                match services.dns.get(context, &host, wanted.record_type).await? {
                    None => drifts.push((wanted.record_type, DnsDrift::Missing)),
                    Some(found) if found != wanted => drifts.push((wanted.record_type, DnsDrift::Changed)),
                    Some(_) => {}
                }
            }
            Ok(drifts)
        };
        let drifts = match self.holding(context, compare).await? {
            Ok(drifts) => drifts,
            Err(error) => return Ok(Err(error)),
        };
        for (record_type, drift) in drifts.iter().filter(|_| !is_told) {
            let (host, record_type, drift) = (host.clone(), *record_type, *drift);
            if self.tell(Event::DnsDriftFound { host, record_type, drift }).await?.is_none() {
                return Ok(Ok(()));
            }
        }
        if !drifts.is_empty() {
            let pointing = self.worker.effects.point_name(context, &host, true);
            if let Err(error) = self.holding(context, pointing).await? {
                return Ok(Err(error));
            }
        }
        for (_, drift) in &drifts {
            tally::drift_repaired(&services.metrics, drift.as_str());
        }
        if is_told || !drifts.is_empty() {
            self.tell(Event::DnsRestored { host }).await?;
        }
        Ok(Ok(()))
    }
}
