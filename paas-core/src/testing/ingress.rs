//! What every [`Ingress`] does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(missing_docs)] // the name of each promise says it

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::SystemClock;
use crate::context::Context;
use crate::domain::{AppId, DeploymentId, Generation, HealthCheck, Host, InstanceName, Route, RouteTarget};
use crate::error::{Kind, Retry};
use crate::ids::{Ids, RandomIds};
use crate::ingress::{Ingress, Probe, RoutesDigest, ServedRoute, Serving};

/// Expands to one test for each promise of [`Ingress`]; see [`IngressHarness`].
#[macro_export]
macro_rules! conformance_ingress {
    ($harness:expr) => {
        $crate::conformance_tests!(
            ingress,
            $harness,
            [
                a_url_names_the_host,
                a_published_route_answers_and_is_read_back,
                a_host_that_was_never_routed_is_unknown,
                a_route_without_targets_is_stopped,
                requests_are_spread_over_all_targets,
                publishing_switches_to_the_new_instance,
                a_switch_leaves_other_hosts_alone,
                an_older_generation_is_refused,
                the_same_generation_again_changes_nothing,
                a_withdrawn_host_is_unknown,
                withdrawing_what_is_absent_succeeds,
                a_change_older_than_a_withdrawal_is_refused,
                every_route_in_force_is_listed_once,
                the_digest_is_that_of_what_is_listed,
                requests_in_flight_end_where_they_are,
                drain_returns_when_nothing_is_in_flight,
                drain_waits_for_requests_in_flight,
                drain_cuts_what_is_left_when_its_budget_is_spent,
                drain_ends_when_it_is_cancelled,
                drain_refuses_an_instance_with_routes,
                an_instance_can_be_routed_again_after_a_drain,
                probe_finds_a_healthy_instance,
                probe_says_why_an_instance_is_unhealthy,
                ping_answers,
            ]
        );
    };
}

/// What a request found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// This instance answered.
    Instance(InstanceName),
    /// The app is stopped.
    Stopped,
    /// No app has the host.
    Unknown,
}

/// A request that an instance has and does not answer yet.
#[async_trait]
pub trait Flight: Send {
    /// Lets the instance answer; true if the whole answer came, false if the request had been cut.
    async fn finish(self: Box<Self>) -> bool;
}

/// An ingress with instances behind it and clients before it.
#[async_trait]
pub trait IngressHarness: Send + Sync {
    /// The ingress.
    fn ingress(&self) -> Arc<dyn Ingress>;

    /// Makes an instance of this name answer somewhere.
    async fn start(&self, name: InstanceName) -> SocketAddr;

    /// An address whose health check fails.
    async fn unhealthy(&self) -> SocketAddr;

    /// Sends a request and waits for its answer.
    async fn request(&self, host: &Host) -> Answer;

    /// Sends a request and returns when an instance has it.
    async fn begin(&self, host: &Host) -> Box<dyn Flight>;
}

fn context() -> Context {
    Context::new(Arc::new(SystemClock::new())).with_budget(Duration::from_secs(30))
}

fn ids() -> RandomIds<SystemClock> {
    RandomIds::new(SystemClock::new())
}

/// A host that no other test uses: harnesses may share one ingress.
fn host() -> Host {
    let id = AppId::generate(&ids());
    format!("app-{}.localhost", id.suffix()).parse().unwrap()
}

async fn target(harness: &dyn IngressHarness) -> RouteTarget {
    let ids: &dyn Ids = &ids();
    let instance = InstanceName::of(&DeploymentId::generate(ids), 0);
    let address = harness.start(instance.clone()).await;
    RouteTarget { instance, address }
}

fn route(host: &Host, targets: &[RouteTarget]) -> Route {
    Route { host: host.clone(), app: AppId::generate(&ids()), targets: targets.to_vec() }
}

/// A host routed to one instance by generation 1.
async fn routed(harness: &dyn IngressHarness) -> (Host, RouteTarget) {
    let (host, target) = (host(), target(harness).await);
    let route = route(&host, std::slice::from_ref(&target));
    harness.ingress().publish(&context(), &route, Generation(1)).await.unwrap();
    (host, target)
}

async fn drain(harness: &dyn IngressHarness, context: &Context, target: &RouteTarget) -> crate::Result<()> {
    harness.ingress().drain(context, &target.instance, target.address).await
}

pub async fn a_url_names_the_host(harness: &dyn IngressHarness) {
    let host = host();
    let url = harness.ingress().url(&host);
    let parsed = url::Url::parse(&url).unwrap();
    assert!(matches!(parsed.scheme(), "http" | "https"), "{url}");
    assert_eq!(parsed.host_str(), Some(host.as_str()));
}

pub async fn a_published_route_answers_and_is_read_back(harness: &dyn IngressHarness) {
    let (host, target) = (host(), target(harness).await);
    let route = route(&host, std::slice::from_ref(&target));
    harness.ingress().publish(&context(), &route, Generation(7)).await.unwrap();
    assert_eq!(harness.request(&host).await, Answer::Instance(target.instance));
    let serving = harness.ingress().serving(&context(), &host).await.unwrap();
    assert_eq!(serving, Some(Serving { generation: Generation(7), route: Some(route) }));
}

pub async fn a_host_that_was_never_routed_is_unknown(harness: &dyn IngressHarness) {
    let host = host();
    assert_eq!(harness.request(&host).await, Answer::Unknown);
    assert_eq!(harness.ingress().serving(&context(), &host).await.unwrap(), None);
}

pub async fn a_route_without_targets_is_stopped(harness: &dyn IngressHarness) {
    let (host, _) = routed(harness).await;
    harness.ingress().publish(&context(), &route(&host, &[]), Generation(2)).await.unwrap();
    assert_eq!(harness.request(&host).await, Answer::Stopped);
}

pub async fn requests_are_spread_over_all_targets(harness: &dyn IngressHarness) {
    let host = host();
    let targets = [target(harness).await, target(harness).await, target(harness).await];
    harness.ingress().publish(&context(), &route(&host, &targets), Generation(1)).await.unwrap();
    let mut answers = BTreeSet::new();
    for _ in 0..targets.len() {
        answers.insert(harness.request(&host).await);
    }
    assert_eq!(answers, targets.into_iter().map(|target| Answer::Instance(target.instance)).collect());
}

pub async fn publishing_switches_to_the_new_instance(harness: &dyn IngressHarness) {
    let (host, old) = routed(harness).await;
    assert_eq!(harness.request(&host).await, Answer::Instance(old.instance));
    let new = target(harness).await;
    let route = route(&host, std::slice::from_ref(&new));
    harness.ingress().publish(&context(), &route, Generation(2)).await.unwrap();
    for _ in 0..5 {
        assert_eq!(harness.request(&host).await, Answer::Instance(new.instance.clone()));
    }
}

pub async fn a_switch_leaves_other_hosts_alone(harness: &dyn IngressHarness) {
    let (host, target) = routed(harness).await;
    let (other, _) = routed(harness).await;
    harness.ingress().withdraw(&context(), &other, Generation(2)).await.unwrap();
    assert_eq!(harness.request(&host).await, Answer::Instance(target.instance));
}

pub async fn an_older_generation_is_refused(harness: &dyn IngressHarness) {
    let (host, target) = (host(), target(harness).await);
    let newer = route(&host, std::slice::from_ref(&target));
    let ingress = harness.ingress();
    ingress.publish(&context(), &newer, Generation(5)).await.unwrap();
    let stale = [
        ingress.publish(&context(), &route(&host, &[]), Generation(4)).await,
        ingress.withdraw(&context(), &host, Generation(4)).await,
    ];
    for result in stale {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (Kind::Conflict, Some("stale_generation")));
        assert_eq!(error.retryable(), Retry::Permanent);
    }
    assert_eq!(harness.request(&host).await, Answer::Instance(target.instance));
}

pub async fn the_same_generation_again_changes_nothing(harness: &dyn IngressHarness) {
    let (host, target) = routed(harness).await;
    let ingress = harness.ingress();
    ingress.publish(&context(), &route(&host, &[]), Generation(1)).await.unwrap();
    ingress.withdraw(&context(), &host, Generation(1)).await.unwrap();
    assert_eq!(harness.request(&host).await, Answer::Instance(target.instance));
}

pub async fn a_withdrawn_host_is_unknown(harness: &dyn IngressHarness) {
    let (host, _) = routed(harness).await;
    harness.ingress().withdraw(&context(), &host, Generation(2)).await.unwrap();
    assert_eq!(harness.request(&host).await, Answer::Unknown);
    let serving = harness.ingress().serving(&context(), &host).await.unwrap();
    assert_eq!(serving, Some(Serving { generation: Generation(2), route: None }));
}

pub async fn withdrawing_what_is_absent_succeeds(harness: &dyn IngressHarness) {
    let host = host();
    for _ in 0..2 {
        harness.ingress().withdraw(&context(), &host, Generation(3)).await.unwrap();
    }
}

pub async fn a_change_older_than_a_withdrawal_is_refused(harness: &dyn IngressHarness) {
    let (host, target) = (host(), target(harness).await);
    let ingress = harness.ingress();
    ingress.withdraw(&context(), &host, Generation(9)).await.unwrap();
    let late = route(&host, std::slice::from_ref(&target));
    let error = ingress.publish(&context(), &late, Generation(8)).await.unwrap_err();
    assert_eq!(error.reason(), Some("stale_generation"));
    ingress.publish(&context(), &late, Generation(10)).await.unwrap();
    assert_eq!(harness.request(&host).await, Answer::Instance(target.instance));
}

/// Every route that is in force, also those of other tests; `None` if the ingress can't list: a declared gap.
async fn listed(harness: &dyn IngressHarness) -> Option<BTreeMap<Host, ServedRoute>> {
    let (mut routes, mut from) = (BTreeMap::new(), 0);
    loop {
        let page = match harness.ingress().list(&context(), from).await {
            Err(error) if error.kind() == Kind::Unsupported => return None,
            page => page.unwrap(),
        };
        for served in page.routes {
            let twice = routes.insert(served.route.host.clone(), served);
            assert_eq!(twice, None, "it is listed twice");
        }
        match page.next {
            Some(next) => from = next,
            None => return Some(routes),
        }
    }
}

pub async fn every_route_in_force_is_listed_once(harness: &dyn IngressHarness) {
    // More than any page holds.
    const ROUTES: u64 = 2_500;
    let ingress = harness.ingress();
    let routes: Vec<_> = (1..=ROUTES)
        .map(|generation| ServedRoute { route: route(&host(), &[]), generation: Generation(generation) })
        .collect();
    for served in &routes {
        ingress.publish(&context(), &served.route, served.generation).await.unwrap();
    }
    let (withdrawn, kept) = routes.split_at(2);
    for served in withdrawn {
        ingress.withdraw(&context(), &served.route.host, Generation(ROUTES + 1)).await.unwrap();
    }
    let (host, target) = routed(harness).await;
    let Some(listed) = listed(harness).await else { return };
    for served in kept {
        assert_eq!(listed.get(&served.route.host), Some(served));
    }
    assert!(withdrawn.iter().all(|served| !listed.contains_key(&served.route.host)));
    let full = &listed[&host];
    assert_eq!((full.route.targets.as_slice(), full.generation), (&[target][..], Generation(1)));
}

pub async fn the_digest_is_that_of_what_is_listed(harness: &dyn IngressHarness) {
    let ingress = harness.ingress();
    let digest = || async {
        match ingress.digest(&context()).await {
            Err(error) if error.kind() == Kind::Unsupported => None,
            digest => Some(digest.unwrap()),
        }
    };
    let (first, _) = routed(harness).await;
    let (second, _) = routed(harness).await;
    let changes = [None, Some((&first, 2)), Some((&first, 3)), Some((&second, 2))];
    let mut seen = BTreeSet::new();
    for change in changes {
        match change {
            Some((host, 2)) => ingress.withdraw(&context(), host, Generation(2)).await.unwrap(),
            Some((host, generation)) => {
                ingress.publish(&context(), &route(host, &[]), Generation(generation)).await.unwrap();
            }
            None => {}
        }
        // Other tests may change routes of their own meanwhile.
        let settled = loop {
            let Some(before) = digest().await else { return };
            let Some(listed) = listed(harness).await else { panic!("it has a digest and no list") };
            if digest().await == Some(before) {
                let parts = listed.values().map(|served| RoutesDigest::of(&served.route, served.generation));
                assert_eq!(parts.fold(RoutesDigest::default(), RoutesDigest::with), before);
                break before;
            }
        };
        assert!(seen.insert(settled.0), "a change left the digest as it was");
    }
}

pub async fn requests_in_flight_end_where_they_are(harness: &dyn IngressHarness) {
    let (host, _) = routed(harness).await;
    let flight = harness.begin(&host).await;
    let new = target(harness).await;
    let route = route(&host, std::slice::from_ref(&new));
    harness.ingress().publish(&context(), &route, Generation(2)).await.unwrap();
    assert_eq!(harness.request(&host).await, Answer::Instance(new.instance));
    assert!(flight.finish().await, "the switch cut a request");
}

pub async fn drain_returns_when_nothing_is_in_flight(harness: &dyn IngressHarness) {
    let (host, target) = routed(harness).await;
    assert_eq!(harness.request(&host).await, Answer::Instance(target.instance.clone()));
    harness.ingress().withdraw(&context(), &host, Generation(2)).await.unwrap();
    drain(harness, &context(), &target).await.unwrap();
    // Repeating it changes nothing.
    drain(harness, &context(), &target).await.unwrap();
}

pub async fn drain_waits_for_requests_in_flight(harness: &dyn IngressHarness) {
    let (host, target) = routed(harness).await;
    let (first, second) = (harness.begin(&host).await, harness.begin(&host).await);
    harness.ingress().withdraw(&context(), &host, Generation(2)).await.unwrap();
    let ingress = harness.ingress();
    let drained =
        tokio::spawn(async move { ingress.drain(&context(), &target.instance, target.address).await });
    assert!(first.finish().await, "the drain cut a request");
    tokio::task::yield_now().await;
    assert!(!drained.is_finished(), "a request is still in flight");
    assert!(second.finish().await, "the drain cut a request");
    drained.await.unwrap().unwrap();
}

pub async fn drain_cuts_what_is_left_when_its_budget_is_spent(harness: &dyn IngressHarness) {
    let (host, target) = routed(harness).await;
    let flight = harness.begin(&host).await;
    harness.ingress().withdraw(&context(), &host, Generation(2)).await.unwrap();
    drain(harness, &context().with_budget(Duration::from_millis(50)), &target).await.unwrap();
    assert!(!flight.finish().await, "the request was not cut");
}

pub async fn drain_ends_when_it_is_cancelled(harness: &dyn IngressHarness) {
    let (host, target) = routed(harness).await;
    let flight = harness.begin(&host).await;
    harness.ingress().withdraw(&context(), &host, Generation(2)).await.unwrap();
    let context = context();
    let (result, ()) = tokio::join!(drain(harness, &context, &target), async { context.cancel() });
    assert_eq!(result.unwrap_err().kind(), Kind::Cancelled);
    assert!(flight.finish().await, "a cancelled drain cut a request");
}

pub async fn drain_refuses_an_instance_with_routes(harness: &dyn IngressHarness) {
    let (host, target) = routed(harness).await;
    let error = drain(harness, &context(), &target).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Conflict, Some("still_routed")));
    assert_eq!(harness.request(&host).await, Answer::Instance(target.instance));
}

pub async fn an_instance_can_be_routed_again_after_a_drain(harness: &dyn IngressHarness) {
    let (host, target) = routed(harness).await;
    let ingress = harness.ingress();
    let flight = harness.begin(&host).await;
    ingress.publish(&context(), &route(&host, &[]), Generation(2)).await.unwrap();
    drain(harness, &context().with_budget(Duration::from_millis(50)), &target).await.unwrap();
    // An undo puts the old instance back.
    let again = route(&host, std::slice::from_ref(&target));
    ingress.publish(&context(), &again, Generation(3)).await.unwrap();
    assert_eq!(harness.request(&host).await, Answer::Instance(target.instance));
    assert!(!flight.finish().await, "the request was not cut");
}

pub async fn probe_finds_a_healthy_instance(harness: &dyn IngressHarness) {
    let target = target(harness).await;
    let probe = harness.ingress().probe(&context(), target.address, &HealthCheck::default()).await;
    assert_eq!(probe.unwrap(), Probe::Healthy);
}

pub async fn probe_says_why_an_instance_is_unhealthy(harness: &dyn IngressHarness) {
    let address = harness.unhealthy().await;
    let probe = harness.ingress().probe(&context(), address, &HealthCheck::default()).await;
    match probe.unwrap() {
        Probe::Unhealthy(reason) => assert!(!reason.is_empty()),
        Probe::Healthy => panic!("it is not healthy"),
    }
}

pub async fn ping_answers(harness: &dyn IngressHarness) {
    harness.ingress().ping(&context()).await.unwrap();
}
