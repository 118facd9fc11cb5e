//! What every [`DnsService`] does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(missing_docs)] // the name of each promise says it

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clock::SystemClock;
use crate::context::Context;
use crate::dns::{DnsService, RecordCursor, RecordSet, RecordType};
use crate::domain::Host;
use crate::error::Kind;

/// Expands to one test for each promise of [`DnsService`]; the harness is a [`DnsHarness`].
#[macro_export]
macro_rules! conformance_dns_service {
    ($harness:expr) => {
        $crate::conformance_tests!(
            dns_service,
            $harness,
            [
                what_is_desired_is_of_the_host,
                what_is_desired_can_be_set_and_is_read_back,
                setting_makes_the_set_exactly_this,
                removing_what_is_absent_succeeds,
                what_was_removed_is_gone,
                types_and_names_are_apart,
                every_set_in_force_is_listed_once,
            ]
        );
    };
}

/// A DNS service to test.
#[derive(Debug)]
pub struct DnsHarness {
    /// The service.
    pub service: Arc<dyn DnsService>,
    /// The domain that it has a zone for; none where it has no zone at all, and `set` must be `Unsupported`.
    pub zone: Option<Host>,
}

fn context() -> Context {
    Context::new(Arc::new(SystemClock::new()))
}

impl DnsHarness {
    fn host(&self, name: &str) -> Host {
        match &self.zone {
            Some(zone) => format!("{name}.{zone}").parse().unwrap(),
            None => format!("{name}.localhost").parse().unwrap(),
        }
    }

    /// Sets the records, if there is a zone; a declared gap must answer `Unsupported`.
    async fn set(&self, records: &RecordSet) -> bool {
        match self.service.set(&context(), records).await {
            Ok(()) => self.zone.is_some() || panic!("a service without a zone took records"),
            Err(error) if self.zone.is_none() => {
                assert_eq!(error.kind(), Kind::Unsupported);
                false
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn get(&self, host: &Host, record_type: RecordType) -> Option<RecordSet> {
        self.service.get(&context(), host, record_type).await.unwrap()
    }
}

fn records(host: &Host, record_type: RecordType, values: &[&str]) -> RecordSet {
    let values: BTreeSet<String> = values.iter().map(|value| (*value).to_owned()).collect();
    RecordSet { host: host.clone(), record_type, values, ttl_seconds: 60 }
}

pub async fn what_is_desired_is_of_the_host(harness: &DnsHarness) {
    let host = harness.host("desired");
    let desired = harness.service.desired(&context(), &host).await.unwrap();
    assert_eq!(desired.is_empty(), harness.zone.is_none(), "{desired:?}");
    for set in desired {
        assert_eq!(set.host, host);
        assert!(!set.values.is_empty());
    }
}

pub async fn what_is_desired_can_be_set_and_is_read_back(harness: &DnsHarness) {
    let host = harness.host("written");
    for set in harness.service.desired(&context(), &host).await.unwrap() {
        for _ in 0..2 {
            assert!(harness.set(&set).await);
            assert_eq!(harness.get(&host, set.record_type).await.as_ref(), Some(&set));
        }
    }
}

pub async fn setting_makes_the_set_exactly_this(harness: &DnsHarness) {
    let host = harness.host("exactly");
    let (first, second) = (["192.0.2.1", "192.0.2.2"].as_slice(), ["192.0.2.2", "192.0.2.3"].as_slice());
    for values in [first, second] {
        let set = records(&host, RecordType::A, values);
        let expected = harness.set(&set).await.then_some(set);
        assert_eq!(harness.get(&host, RecordType::A).await, expected);
    }
}

pub async fn removing_what_is_absent_succeeds(harness: &DnsHarness) {
    let host = harness.host("absent");
    for _ in 0..2 {
        harness.service.remove(&context(), &host, RecordType::Txt).await.unwrap();
    }
    assert_eq!(harness.get(&host, RecordType::Txt).await, None);
}

pub async fn what_was_removed_is_gone(harness: &DnsHarness) {
    let host = harness.host("removed");
    harness.set(&records(&host, RecordType::A, &["192.0.2.1"])).await;
    harness.service.remove(&context(), &host, RecordType::A).await.unwrap();
    assert_eq!(harness.get(&host, RecordType::A).await, None);
}

pub async fn types_and_names_are_apart(harness: &DnsHarness) {
    let (host, other) = (harness.host("apart"), harness.host("other"));
    let kept = records(&host, RecordType::Txt, &["\"kept\""]);
    let is_set = harness.set(&kept).await;
    harness.set(&records(&host, RecordType::A, &["192.0.2.1"])).await;
    harness.service.remove(&context(), &host, RecordType::A).await.unwrap();
    harness.service.remove(&context(), &other, RecordType::Txt).await.unwrap();
    assert_eq!(harness.get(&host, RecordType::Txt).await, is_set.then_some(kept));
}

pub async fn every_set_in_force_is_listed_once(harness: &DnsHarness) {
    // More than any page holds in memory.
    const SETS: usize = 250;
    let hosts = (0..SETS).map(|number| harness.host(&format!("listed-{number}")));
    let sets: Vec<_> = hosts.map(|host| records(&host, RecordType::A, &["192.0.2.1", "192.0.2.2"])).collect();
    for set in &sets {
        harness.set(set).await;
    }
    harness.service.remove(&context(), &sets[0].host, RecordType::A).await.unwrap();
    let (mut listed, mut from) = (Vec::new(), RecordCursor::default());
    loop {
        let page = match harness.service.list(&context(), &from).await {
            // A declared gap.
            Err(error) if error.kind() == Kind::Unsupported => return,
            page => page.unwrap(),
        };
        listed.extend(page.records);
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    for set in &sets[1..] {
        assert_eq!(listed.iter().filter(|found| *found == set).count(), 1, "{set:?}");
    }
    assert!(!listed.iter().any(|found| found.host == sets[0].host));
}
