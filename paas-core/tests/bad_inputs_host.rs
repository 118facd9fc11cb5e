//! The contract's bad inputs for host names.
#![cfg(feature = "testing")]

use paas_core::{AppName, Host, Kind};
use proptest::prelude::*;

#[test]
fn what_is_not_a_host_name_is_refused() {
    let label = "a".repeat(64);
    let name = format!("{}.example", "a.".repeat(124));
    for text in [
        "",
        ".",
        "..",
        "a..",
        ".a",
        "a..b",
        "*.com",
        "a b",
        "a\n",
        "a\r\nHost: b",
        "a\0",
        "a/b",
        "a\\b",
        "a:80",
        "user@a",
        "-a",
        "a-",
        "a.-b",
        "caf\u{e9}.example",
        "a;id",
        "$(id)",
        "<script>",
        "127.0.0.1",
        "1.2.3.4.",
        "2130706433",
        "0x7f000001",
        "127.0x1",
        "::1",
        "[::1]",
        &label,
        &name,
    ] {
        let error = text.parse::<Host>().expect_err(text);
        assert_eq!(error.kind(), Kind::Invalid, "{text:?}");
    }
}

#[test]
fn case_and_the_dot_of_the_root_make_no_difference() {
    for text in ["hello.localhost", "HELLO.LocalHost", "hello.localhost."] {
        assert_eq!(text.parse::<Host>().unwrap().as_str(), "hello.localhost", "{text:?}");
    }
}

#[test]
fn an_apps_host_fits_or_is_refused() {
    let name: AppName = "a".repeat(63).parse().unwrap();
    let fits: Host = format!("{}example", "b.".repeat(91)).parse().unwrap();
    assert_eq!(Host::of_app(&name, &fits).unwrap().as_str().len(), 253);
    let too_long: Host = format!("{}examples", "b.".repeat(91)).parse().unwrap();
    assert_eq!(Host::of_app(&name, &too_long).unwrap_err().kind(), Kind::Invalid);
}

proptest! {
    #[test]
    fn whatever_is_taken_is_a_plain_name(text in any::<String>()) {
        if let Ok(host) = text.parse::<Host>() {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
            prop_assert!(host.as_str().bytes().all(plain));
            prop_assert_eq!(host.as_str().parse::<Host>().unwrap(), host);
        }
    }

    #[test]
    fn names_of_labels_are_taken(text in "([a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\\.){0,5}[a-z]{2,10}\\.?") {
        prop_assert!(text.parse::<Host>().is_ok());
    }
}
