//! App names.

use paas_core::{AppName, Host, Kind};
use proptest::prelude::*;

#[test]
fn a_name_that_is_no_dns_label_is_invalid() {
    let too_long = "a".repeat(64);
    let bad = [
        "",
        "a;id",
        "a/b",
        "..",
        ".",
        "a.b",
        "A",
        "Hello",
        "a_b",
        "a b",
        " a",
        "a\n",
        "a\0",
        "-a",
        "a-",
        "1a",
        "-",
        "é",
        "a\u{301}",
        "ａ",
        "xn--80ak6aa92e",
        "ab--c",
        "a`id`",
        "$(id)",
        "%2e",
        "a\u{202e}b",
        &too_long,
    ];
    for name in bad {
        let error = name.parse::<AppName>().expect_err(name);
        assert_eq!(error.kind(), Kind::Invalid, "{name:?}");
        assert!(error.hinted().is_some(), "{name:?}");
    }
}

#[test]
fn a_reserved_name_is_invalid() {
    for name in ["api", "www", "admin", "localhost", "status", "login"] {
        assert_eq!(name.parse::<AppName>().expect_err(name).kind(), Kind::Invalid);
    }
}

#[test]
fn a_dns_label_is_a_name() {
    let longest = "a".repeat(63);
    for name in ["a", "a1", "hello-world", "a-b-c-d", "api2", "abc--d", &longest] {
        assert_eq!(name.parse::<AppName>().expect(name).as_str(), name);
    }
}

#[test]
fn a_bad_name_does_not_come_in_through_json() {
    assert!(serde_json::from_str::<AppName>(r#""a;id""#).is_err());
    assert!(serde_json::from_str::<AppName>("7").is_err());
    assert_eq!(serde_json::from_str::<AppName>(r#""hello""#).unwrap().as_str(), "hello");
}

proptest! {
    #[test]
    fn parsing_never_panics(text in any::<String>()) {
        let _ = text.parse::<AppName>();
    }

    #[test]
    fn what_is_accepted_is_a_label_of_a_host(text in "[a-zA-Z0-9.-]{0,70}") {
        if let Ok(name) = text.parse::<AppName>() {
            prop_assert_eq!(name.as_str(), &text);
            let domain: Host = "example.com".parse().unwrap();
            let host = Host::of_app(&name, &domain).unwrap();
            prop_assert_eq!(host.as_str(), format!("{text}.example.com"));
            // A URL keeps it as it is: it is no spelling of an address or of an encoded name.
            let url = url::Url::parse(&format!("http://{text}.localhost/")).unwrap();
            prop_assert_eq!(url.host_str().unwrap(), format!("{text}.localhost"));
        }
    }

    #[test]
    fn every_simple_label_is_accepted_or_reserved(text in "[a-z][a-z0-9]{0,62}") {
        if let Err(error) = text.parse::<AppName>() {
            prop_assert_eq!(error.message(), "the name is reserved");
        }
    }
}

#[test]
fn only_the_name_of_an_instance_is_read_as_one() {
    let deployment: paas_core::DeploymentId = "dpl_00000000000000000000000001".parse().unwrap();
    for fallback in [0, 1, 5] {
        let name = paas_core::InstanceName::of(&deployment, fallback);
        let text = serde_json::to_string(&name).unwrap();
        assert_eq!(serde_json::from_str::<paas_core::InstanceName>(&text).unwrap(), name);
    }
    for text in ["", "paas-", "nginx", "paas-../x", "paas-A", "paas-a-", "paas-a-b", "paas-a-1-2", "paas-a\n"]
    {
        let text = serde_json::to_string(text).unwrap();
        assert!(serde_json::from_str::<paas_core::InstanceName>(&text).is_err(), "{text}");
    }
}
