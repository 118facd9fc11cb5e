//! The trait of ingresses: which instances answer for a host.

use std::fmt::Debug;
use std::net::SocketAddr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::domain::{Generation, HealthCheck, Host, InstanceName, Route};
use crate::error::{Error, Fault, Kind, Result};
use crate::fingerprint::Fingerprint;

/// What an ingress serves for a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The generation of the last change, also of a withdrawal.
    pub generation: Generation,
    /// The route; `None` after a withdrawal.
    pub route: Option<Route>,
}

/// A route in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedRoute {
    /// The route.
    pub route: Route,
    /// The generation of the change that published it.
    pub generation: Generation,
}

/// Some of the routes in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePage {
    /// The routes, in no order.
    pub routes: Vec<ServedRoute>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<u64>,
}

/// A digest of routes in force: the sum of what each of them adds, so that a change costs the same however many there
/// are. Equal digests are equal routes, for all that chance allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoutesDigest(pub u64);

impl RoutesDigest {
    /// What one route adds. It is the same in every version that a proxy process may have.
    #[must_use]
    pub fn of(route: &Route, generation: Generation) -> Self {
        let mut fingerprint = Fingerprint::new("served-route/1");
        fingerprint.text(route.host.as_str()).number(generation.0).text(route.app.as_str());
        for target in &route.targets {
            fingerprint.text(target.instance.as_str()).text(&target.address.to_string());
        }
        Self(fingerprint.finish_short())
    }

    /// That of these routes and of those of `other`.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// That of these routes without those of `other`, which are among them.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// The check is met.
    Healthy,
    /// It is not, and why: for people.
    Unhealthy(String),
}

/// Routes requests by host to instances.
///
/// # Flow
/// `publish` switches a host to its new instances, requests in flight end where they are, `drain` waits for them;
/// `serving` reads back. Every so often `digest` tells whether all routes are as they should be, and `list` which are not.
///
/// # Guarantees
/// - A change carries a [`Generation`]: one older than what the host has is refused (`Conflict`, code
///   `stale_generation`), the same one again changes nothing. A withdrawal is a change too.
/// - When `publish` returns, every live proxy routes new requests by it; no request fails because of the switch.
/// - The routes outlive the control plane where the ingress is a process of its own.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Ingress: Debug + Send + Sync + 'static {
    /// Where people reach an app's host, such as `http://hello.localhost:8080`.
    fn url(&self, host: &Host) -> String;

    /// Routes a host.
    async fn publish(&self, context: &Context, route: &Route, generation: Generation) -> Result<()>;

    /// Takes a host away. Withdrawing what is absent succeeds.
    async fn withdraw(&self, context: &Context, host: &Host, generation: Generation) -> Result<()>;

    /// What every live proxy serves for a host; `None` if it was never routed, or if proxies differ.
    async fn serving(&self, context: &Context, host: &Host) -> Result<Option<Serving>>;

    /// The digest of every route that is in force; a withdrawal is none. It must be cheap: it is asked for every few
    /// seconds. Of several live proxies, a host that they do not all serve alike counts as if it had no route.
    ///
    /// # Errors
    /// `Unsupported` where routes can't be listed: then nobody sees to those that somebody else removes.
    async fn digest(&self, context: &Context) -> Result<RoutesDigest>;

    /// Every route that the digest is about, a page of bounded size at a time, from where the last one ended: the first
    /// begins at 0. A route that is in force all the while is in one of the pages.
    ///
    /// # Errors
    /// As [`digest`](Self::digest).
    async fn list(&self, context: &Context, from: u64) -> Result<RoutePage>;

    /// Returns when no request is in flight to an instance, or when the context's budget is spent: connections that
    /// never end (WebSockets) are then cut. An instance with routes is not drained (`Conflict`, code `still_routed`):
    /// withdraw or replace it first.
    async fn drain(&self, context: &Context, instance: &InstanceName, address: SocketAddr) -> Result<()>;

    /// Asks an instance its health check once, from where requests will come from.
    async fn probe(&self, context: &Context, address: SocketAddr, check: &HealthCheck) -> Result<Probe>;

    /// Answers if the ingress does: for readiness.
    async fn ping(&self, context: &Context) -> Result<()>;
}

/// The errors that every ingress gives in the same words.
impl Error {
    /// The change of a route is older than the change that the host already has.
    pub fn stale_generation(operation: &'static str, present: Generation) -> Self {
        Self::new(Kind::Conflict, operation, "a newer change of this route is already in force")
            .code("stale_generation")
            .fault(Fault::Platform)
            .hint("if an older copy of the store was put back: stop the proxy, remove its saved table, start both again")
            .context("present", present.0)
    }

    /// An instance was to be drained while requests still go to it.
    pub fn still_routed(operation: &'static str, instance: &InstanceName) -> Self {
        Self::new(Kind::Conflict, operation, "the instance still has routes")
            .code("still_routed")
            .hint("withdraw or replace its routes first")
            .context("instance", instance)
    }
}
