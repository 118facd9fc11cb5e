//! Resources, ports and health checks.

use paas_core::{HealthCheck, HealthCheckKind, Kind, Port, Resources};
use serde_json::json;

const MIB: u64 = 1024 * 1024;

fn accepts(resources: serde_json::Value) -> bool {
    // As a frontend does: what does not parse is as invalid as what does not hold.
    serde_json::from_value::<Resources>(resources).is_ok_and(|resources| resources.validate().is_ok())
}

#[test]
fn memory_that_no_container_has_is_invalid() {
    for memory in
        [json!(0), json!(-1), json!(1_u64 << 63), json!(u64::MAX), json!(1.5), json!("512m"), json!(null)]
    {
        assert!(!accepts(json!({ "memory_bytes": memory })), "{memory}");
    }
    assert!(!accepts(json!({ "memory_bytes": 16 * MIB - 1 })));
    assert!(accepts(json!({ "memory_bytes": 16 * MIB })));
    assert!(accepts(json!({ "memory_bytes": 1024 * 1024 * MIB })));
    assert!(!accepts(json!({ "memory_bytes": 1024 * 1024 * MIB + 1 })));
}

#[test]
fn cpu_that_is_no_number_of_cores_is_invalid() {
    // JSON has no NaN: it arrives as null, as text, or not at all.
    for cpu in [json!(0), json!(9), json!(-1), json!(256_001), json!(0.5), json!("NaN"), json!(f64::NAN)] {
        assert!(!accepts(json!({ "cpu_millis": cpu })), "{cpu}");
    }
    assert!(serde_json::from_str::<Resources>(r#"{"cpu_millis": NaN}"#).is_err());
    assert!(accepts(json!({ "cpu_millis": 10 })) && accepts(json!({ "cpu_millis": 256_000 })));
}

#[test]
fn too_few_or_too_many_processes_are_invalid() {
    assert!(!accepts(json!({ "pids": 7 })) && !accepts(json!({ "pids": 65_537 })));
    assert!(accepts(json!({ "pids": 8 })) && accepts(json!({ "pids": 65_536 })));
}

#[test]
fn an_unknown_limit_is_invalid() {
    assert!(!accepts(json!({ "privileged": true })));
}

#[test]
fn a_limit_that_is_not_given_is_the_contract_s() {
    let resources = serde_json::from_value::<Resources>(json!({})).unwrap();
    assert_eq!((resources.memory_bytes, resources.cpu_millis, resources.pids), (512 * MIB, 1000, 256));
    assert!(resources.validate().is_ok());
}

#[test]
fn a_refused_limit_is_named() {
    let error = Resources { memory_bytes: 0, ..Resources::default() }.validate().unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.message().contains("memory"), "{error}");
}

#[test]
fn a_port_is_between_1_and_65535() {
    for port in [json!(0), json!(-1), json!(65_536), json!(4_294_967_296_u64), json!("80"), json!(80.5)] {
        assert!(serde_json::from_value::<Port>(port.clone()).is_err(), "{port}");
    }
    for port in [1_u16, 8080, 65_535] {
        assert_eq!(serde_json::from_value::<Port>(json!(port)).unwrap().number(), port);
    }
}

#[test]
fn a_health_check_s_path_is_visible_and_absolute() {
    let checked = |path: &str| {
        let check = HealthCheckKind::Http { path: path.to_owned(), status: None };
        HealthCheck { check, ..HealthCheck::default() }.validate()
    };
    for path in [
        "",
        "health",
        "http://other/",
        "/a b",
        "/a\r\nHost: other",
        "/\0",
        "/ü",
        &format!("/{}", "a".repeat(1024)),
    ] {
        assert_eq!(checked(path).expect_err(path).kind(), Kind::Invalid);
    }
    assert!(checked("/").is_ok() && checked("/health?deep=1").is_ok());
}

#[test]
fn a_health_check_has_bounds() {
    let valid =
        |json| serde_json::from_value::<HealthCheck>(json).is_ok_and(|check| check.validate().is_ok());
    assert!(valid(json!({})));
    assert!(valid(json!({ "check": { "type": "tcp" } })));
    assert!(valid(json!({ "check": { "type": "http", "path": "/", "status": 204 } })));
    assert!(!valid(json!({ "check": { "type": "http", "path": "/", "status": 99 } })));
    assert!(!valid(json!({ "check": { "type": "http", "path": "/", "status": 600 } })));
    assert!(!valid(json!({ "check": { "type": "exec", "command": "id" } })));
    assert!(!valid(json!({ "timeout_seconds": 0 })) && !valid(json!({ "timeout_seconds": 61 })));
    assert!(!valid(json!({ "grace_seconds": 0 })) && !valid(json!({ "grace_seconds": 901 })));
}
