//! What somebody changes at the DNS service is put right.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use paas_core::pipeline::DnsDrift;
use paas_core::testing::chaos::{Chaos, ChaosPlan, Mischief};
use paas_core::testing::fail_point::FailPoints;
use paas_core::{AppStatus, ConditionKind, Event, RecordSet, RecordType};

use crate::world::{World, live};
use crate::{WITHIN, hello, host, is_served, told};

fn is_dns_ready(status: &AppStatus) -> bool {
    status.conditions.iter().any(|condition| condition.kind == ConditionKind::DnsReady && condition.holds)
}

#[tokio::test(start_paused = true)]
async fn a_dns_record_that_somebody_changed_is_set_again_and_no_foreign_one() {
    let (world, platform) = hello().await;
    let own = world.dns.records().remove(0);
    let changed = RecordSet { values: ["192.0.2.99".to_owned()].into(), ..own.clone() };
    let foreign = [
        RecordSet { host: "mail.localhost".parse().unwrap(), ..changed.clone() },
        RecordSet { record_type: RecordType::Txt, ..changed.clone() },
    ];
    foreign.iter().for_each(|set| world.dns.put(set));
    let mut right = vec![own.clone()];
    right.extend(foreign.clone());
    let sorted = |mut sets: Vec<RecordSet>| {
        sets.sort_by_key(|set| (set.host.clone(), set.record_type));
        sets
    };
    for change in [None, Some(&changed)] {
        match change {
            None => world.dns.take(&own.host, own.record_type),
            Some(changed) => world.dns.put(changed),
        }
        tokio::time::sleep(WITHIN).await;
        assert_eq!(sorted(world.dns.records()), sorted(right.clone()));
        assert!(is_dns_ready(&platform.apps().get("hello").await.unwrap().status));
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let found = |drift| Event::DnsDriftFound { host: host(), record_type: own.record_type, drift };
    let restored = Event::DnsRestored { host: host() };
    assert_eq!(
        told(&platform).await,
        [found(DnsDrift::Missing), restored.clone(), found(DnsDrift::Changed), restored]
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_dns_service_takes_no_records_it_is_told_once() {
    let (world, platform) = hello().await;
    platform.shutdown().await;
    let plan = (1..=100).fold(ChaosPlan::calm(), |plan, nth| plan.nth("dns.set", nth, Mischief::FailBefore));
    let dns = Chaos::new(world.dns.clone(), world.clock.clone(), 1, plan);
    let platform = world.builder().dns(Arc::new(dns)).start().await.unwrap();
    let own = world.dns.records().remove(0);
    world.dns.take(&own.host, own.record_type);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!is_dns_ready(&platform.apps().get("hello").await.unwrap().status));
    assert!(is_served(&world));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.dns.records(), std::slice::from_ref(&own));
    let missing = DnsDrift::Missing;
    let found = Event::DnsDriftFound { host: host(), record_type: own.record_type, drift: missing };
    assert_eq!(told(&platform).await, [found, Event::DnsRestored { host: host() }]);
}

#[tokio::test(start_paused = true)]
async fn the_dns_service_is_asked_for_a_page_and_not_for_each_app() {
    let world = World::new();
    world.push_page("one");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let hook = {
        let asked = asked.clone();
        Arc::new(move |point: &str| asked.lock().unwrap().push(point.to_owned()))
    };
    let dns = FailPoints::new(world.dns.clone(), hook);
    let platform = world.builder().dns(Arc::new(dns)).start().await.unwrap();
    for name in ["one", "two", "three"] {
        live(&platform, name).await;
    }
    asked.lock().unwrap().clear();
    tokio::time::sleep(Duration::from_secs(200)).await;
    let count = |operation: &str| {
        let point = format!("{operation} before");
        asked.lock().unwrap().iter().filter(|asked| **asked == point).count()
    };
    assert_eq!((count("dns.get"), count("dns.set")), (0, 0), "all is right");
    assert!((9..=11).contains(&count("dns.list")), "{}", count("dns.list"));
    platform.shutdown().await;
}
