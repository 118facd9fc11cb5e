//! Route: from an instance that answers to a host that people reach.

use super::run::Target;
use super::{Effects, Performed, Work};
use crate::context::Context;
use crate::domain::{App, Host, OperationKind, Release, ReleaseNumber, Route, RouteTarget, Visibility};
use crate::error::{Error, Fault, Kind, Result};
use crate::ingress::Serving;
use crate::logs::LogSource;
use crate::pipeline::Output;
use crate::records::{self, RouteRecord, Versioned, release_id};
use crate::store::{Expect, Scope, Write};

impl Effects {
    pub(super) async fn route(&self, context: &Context, work: &mut Work<'_>) -> Result<Performed> {
        let host = self.host(work).await?;
        let generation = work.state.route_generation;
        let wanted = match work.spec.kind {
            OperationKind::Delete => None,
            // A stopped app keeps its host: the proxy says that it is stopped.
            OperationKind::Stop => Some(Vec::new()),
            _ if work.spec.config.visibility == Visibility::Private => None,
            _ => {
                let Some((instance, _)) = &work.state.outputs.started else {
                    return Err(Error::internal("effects.route", "nothing was started"));
                };
                // Verify may be long ago: the platform, the engine or the host may have been down in between.
                self.check_running(context, instance).await?;
                Some(vec![RouteTarget { instance: instance.name.clone(), address: instance.address }])
            }
        };
        let route = wanted.map(|targets| Route { host: host.clone(), app: work.spec.app.clone(), targets });
        self.point_name(context, &host, route.is_some()).await?;
        let ingress = &self.services.ingress;
        match &route {
            Some(route) => ingress.publish(context, route, generation).await?,
            None => ingress.withdraw(context, &host, generation).await?,
        }
        let serving = ingress.serving(context, &host).await?;
        let expected = Serving { generation, route: route.clone() };
        // A host that was never routed has nothing to withdraw.
        let is_absent = route.is_none() && serving.as_ref().is_none_or(|serving| serving.route.is_none());
        if serving.as_ref() != Some(&expected) && !is_absent {
            return Err(Error::new(
                Kind::Unavailable,
                "effects.route",
                "the proxy does not serve the new route yet",
            ));
        }
        let org = work.spec.org.clone();
        let record =
            RouteRecord { org, route: route.clone().unwrap_or_else(|| unrouted(&host, work)), generation };
        let mut writes = vec![match route {
            Some(_) => records::put(&record, Expect::Any)?,
            None => records::remove(&record, Expect::Any),
        }];
        if !work.spec.kind.serves() {
            return Ok(Performed { output: Output::Withdrawn { generation }, found: None, writes });
        }
        let url = if route.is_some() { ingress.url(&host) } else { String::new() };
        if !url.is_empty() {
            context.log(LogSource::System, format!("live at {url}"));
        }
        let release = self.release_number(work).await?;
        if release > work.status.last_release {
            writes.push(records::put(&self.release(work, release).await?, Expect::Absent)?);
        }
        Ok(Performed { output: Output::Routed { generation, release, url }, found: None, writes })
    }

    /// Restores what was routed before, if anything was.
    pub(super) async fn undo_route(&self, context: &Context, work: &mut Work<'_>) -> Result<Vec<Write>> {
        let host = self.host(work).await?;
        let generation = work.state.undo_generation;
        let scope = Scope::Org(work.spec.org.clone());
        let before: Option<Versioned<RouteRecord>> =
            self.services.records().get(&scope, host.as_str()).await?;
        self.point_name(context, &host, before.is_some()).await?;
        match before {
            Some(before) => {
                self.services.ingress.publish(context, &before.value.route, generation).await?;
                let restored = RouteRecord { generation, ..before.value };
                Ok(vec![records::put(&restored, Expect::Any)?])
            }
            None => {
                self.services.ingress.withdraw(context, &host, generation).await?;
                Ok(Vec::new())
            }
        }
    }

    /// The host of the operation's app.
    pub(super) async fn host(&self, work: &Work<'_>) -> Result<Host> {
        let scope = Scope::Org(work.spec.org.clone());
        let app: Option<Versioned<App>> = self.services.records().get(&scope, work.spec.app.as_str()).await?;
        let app = app.ok_or_else(|| Error::not_found("effects.host", "the app does not exist any more"))?;
        Host::of_app(&app.value.name, &self.services.settings.domain)
    }

    /// The release that goes live: a new one, unless the operation runs the live one again as it is.
    async fn release_number(&self, work: &Work<'_>) -> Result<ReleaseNumber> {
        let spec = work.spec;
        let next = ReleaseNumber(work.status.last_release.0 + 1);
        let runs_again = matches!(spec.kind, OperationKind::Restart | OperationKind::Start);
        let Some(number) = work.status.live.filter(|_| runs_again) else { return Ok(next) };
        let scope = Scope::Org(spec.org.clone());
        let release: Option<Versioned<Release>> =
            self.services.records().get(&scope, &release_id(&spec.app, number)).await?;
        Ok(if release.is_some_and(|release| release.value.config == spec.config) { number } else { next })
    }

    /// The release that the operation makes.
    async fn release(&self, work: &Work<'_>, number: ReleaseNumber) -> Result<Release> {
        let spec = work.spec;
        let Target { commit, image, port } = self.target(work).await?;
        Ok(Release {
            org: spec.org.clone(),
            app: spec.app.clone(),
            number,
            deployment: spec.id.clone(),
            commit,
            image,
            port,
            config: spec.config.clone(),
            created_at: self.services.clock.now(),
        })
    }

    /// Makes the name point at the ingress, or not, and reads it back.
    pub(crate) async fn point_name(&self, context: &Context, host: &Host, is_wanted: bool) -> Result<()> {
        let dns = &self.services.dns;
        for records in dns.desired(context, host).await? {
            if is_wanted {
                dns.set(context, &records).await?;
            } else {
                dns.remove(context, host, records.record_type).await?;
            }
            let in_force = dns.get(context, host, records.record_type).await?;
            if in_force.as_ref() != Some(&records).filter(|_| is_wanted) {
                return Err(Error::new(
                    Kind::Unavailable,
                    "effects.dns",
                    "the DNS service does not answer the new record yet",
                )
                .fault(Fault::Upstream));
            }
        }
        Ok(())
    }
}

/// Names the record of a host without a route, to remove it.
fn unrouted(host: &Host, work: &Work<'_>) -> Route {
    Route { host: host.clone(), app: work.spec.app.clone(), targets: Vec::new() }
}
