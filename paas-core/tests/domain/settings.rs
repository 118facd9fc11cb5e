//! The settings: their defaults are the contract's, and what makes no sense is refused.

use std::time::Duration;

use paas_core::{HealthCheck, Kind, Platform, Settings};

#[test]
fn the_defaults_are_the_contracts() {
    let settings = Settings::default();
    let seconds = Duration::from_secs;
    assert_eq!((settings.drain, settings.stop_grace), (seconds(30), seconds(30)));
    assert_eq!((settings.lease, settings.lease_renewal), (seconds(15), seconds(5)));
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(settings.build_slots, (cores / 2).max(1));
    assert_eq!(settings.retry.deadline, seconds(60 * 60));
    assert_eq!(settings.retry.start_attempts, 4);
    assert_eq!(settings.retry.backoff.base, Duration::from_millis(500));
    assert_eq!(settings.retry.backoff.max, seconds(60));
    assert_eq!((settings.build_limits.total, settings.build_limits.silence), (seconds(900), seconds(300)));
    let check = HealthCheck::default();
    assert_eq!((check.timeout(), check.grace()), (seconds(5), seconds(60)));
    settings.validate().unwrap();
}

#[tokio::test]
async fn a_setting_that_makes_no_sense_keeps_the_platform_from_starting() {
    type Change = fn(&mut Settings);
    let changes: [(&str, Change); 10] = [
        ("build_slots", |settings| settings.build_slots = 0),
        ("operation_slots", |settings| settings.operation_slots = 0),
        ("queue_limit", |settings| settings.queue_limit = 0),
        ("retry.attempts", |settings| settings.retry.attempts = 0),
        ("drain", |settings| settings.drain = Duration::MAX),
        ("dns_look", |settings| settings.dns_look = Duration::ZERO),
        ("build_limits.total", |settings| settings.build_limits.total = Duration::MAX),
        ("lease", |settings| settings.lease = Duration::MAX),
        ("lease_renewal", |settings| settings.lease_renewal = settings.lease),
        ("lease_renewal", |settings| settings.lease_renewal = Duration::ZERO),
    ];
    for (name, change) in changes {
        let mut settings = Settings::default();
        change(&mut settings);
        let error = Platform::builder().settings(settings).start().await.expect_err(name);
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.message().contains(name), "{error}");
    }
}
