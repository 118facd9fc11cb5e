//! Which addresses the platform calls for a user.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use paas_core::{EgressPolicy, Kind};
use proptest::prelude::*;
use url::Url;

fn allows_address(address: &str) -> bool {
    EgressPolicy::default().check_address(address.parse().expect(address)).is_ok()
}

fn allows(policy: &EgressPolicy, url: &str) -> bool {
    policy.check(&Url::parse(url).expect(url)).is_ok()
}

/// First and last address of each range that is not for the public, with its neighbours where those are.
#[test]
fn every_special_range_of_ipv4_is_denied_to_its_edges() {
    let ranges = [
        (None, "0.0.0.0", "0.255.255.255", Some("1.0.0.0")),
        (Some("9.255.255.255"), "10.0.0.0", "10.255.255.255", Some("11.0.0.0")),
        (Some("100.63.255.255"), "100.64.0.0", "100.127.255.255", Some("100.128.0.0")),
        (Some("126.255.255.255"), "127.0.0.0", "127.255.255.255", Some("128.0.0.0")),
        (Some("169.253.255.255"), "169.254.0.0", "169.254.255.255", Some("169.255.0.0")),
        (Some("172.15.255.255"), "172.16.0.0", "172.31.255.255", Some("172.32.0.0")),
        (Some("191.255.255.255"), "192.0.0.0", "192.0.0.255", Some("192.0.1.0")),
        (Some("192.0.1.255"), "192.0.2.0", "192.0.2.255", Some("192.0.3.0")),
        (Some("192.88.98.255"), "192.88.99.0", "192.88.99.255", Some("192.88.100.0")),
        (Some("192.167.255.255"), "192.168.0.0", "192.168.255.255", Some("192.169.0.0")),
        (Some("198.17.255.255"), "198.18.0.0", "198.19.255.255", Some("198.20.0.0")),
        (Some("198.51.99.255"), "198.51.100.0", "198.51.100.255", Some("198.51.101.0")),
        (Some("203.0.112.255"), "203.0.113.0", "203.0.113.255", Some("203.0.114.0")),
        (Some("223.255.255.255"), "224.0.0.0", "255.255.255.255", None),
    ];
    for (before, first, last, after) in ranges {
        assert!(!allows_address(first), "{first}");
        assert!(!allows_address(last), "{last}");
        for neighbour in [before, after].into_iter().flatten() {
            assert!(allows_address(neighbour), "{neighbour}");
        }
    }
}

#[test]
fn every_special_range_of_ipv6_is_denied_to_its_edges() {
    let denied = [
        "::",
        "::1",
        "::7f00:1",
        "::ffff:0:127.0.0.1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:db8::1",
        "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        "3fff::1",
        "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fdff:ffff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ];
    for address in denied {
        assert!(!allows_address(address), "{address}");
    }
    for address in
        ["2000::1", "2001:200::1", "2001:db7::1", "2001:db9::1", "2606:4700::1111", "3fff:1000::1", "3ffe::1"]
    {
        assert!(allows_address(address), "{address}");
    }
}

proptest! {
    #[test]
    fn an_ipv4_address_within_ipv6_decides(bits in any::<u32>()) {
        let plain = Ipv4Addr::from_bits(bits);
        let [high, low] = [(bits >> 16) as u16, bits as u16];
        let forms = [
            plain.to_ipv6_mapped(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        ];
        let expected = EgressPolicy::default().check_address(plain.into()).is_ok();
        for form in forms {
            let allowed = EgressPolicy::default().check_address(form.into()).is_ok();
            prop_assert_eq!(allowed, expected, "{} for {}", form, plain);
        }
        // The compatible form is no longer in use at all.
        let compatible = Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low);
        prop_assert!(EgressPolicy::default().check_address(compatible.into()).is_err());
    }

    #[test]
    fn what_the_standard_library_calls_private_is_denied(bits in any::<u32>(), wide in any::<u128>()) {
        let four = Ipv4Addr::from_bits(bits);
        let is_special = four.is_private() || four.is_loopback() || four.is_link_local() || four.is_multicast()
            || four.is_broadcast() || four.is_documentation() || four.is_unspecified();
        let six = Ipv6Addr::from_bits(wide);
        let is_special_too = six.is_loopback() || six.is_unspecified() || six.is_multicast()
            || six.is_unique_local() || six.is_unicast_link_local();
        let allowed = |address: IpAddr| EgressPolicy::default().check_address(address).is_ok();
        prop_assert!(!(is_special && allowed(four.into())), "{}", four);
        prop_assert!(!(is_special_too && allowed(six.into())), "{}", six);
    }
}

#[test]
fn an_address_is_seen_through_every_spelling() {
    let spellings = [
        "https://127.0.0.1/r",
        "https://127.1/r",
        "https://2130706433/r",
        "https://0x7f000001/r",
        "https://0x7f.0.0.1/r",
        "https://0177.0.0.1/r",
        "https://017700000001/r",
        "https://127.0.0.1./r",
        "https://%31%32%37.0.0.1/r",
        "https://１２７.0.0.1/r",
        "https://127。0。0。1/r",
        "https://[::1]/r",
        "https://[0:0:0:0:0:0:0:1]/r",
        "https://[::ffff:127.0.0.1]/r",
        "https://[::ffff:7f00:1]/r",
        "https://[64:ff9b::169.254.169.254]/r",
        "https://[2002:a9fe:a9fe::1]/r",
        "https://169.254.169.254/latest/meta-data",
        "https://0xa9fea9fe/latest/meta-data",
        "https://2852039166/latest/meta-data",
        "https://0/r",
        "https://0.0.0.0/r",
        "https://10.1/r",
    ];
    for url in spellings {
        let error = EgressPolicy::default().check(&Url::parse(url).expect(url)).expect_err(url);
        assert_eq!((error.kind(), error.reason()), (Kind::PermissionDenied, Some("egress_denied")), "{url}");
    }
}

#[test]
fn a_name_of_this_machine_is_denied() {
    let names = [
        "localhost",
        "localhost.",
        "LOCALHOST",
        "a.localhost",
        "a.b.localhost.",
        "metadata.google.internal",
        "x.internal.",
    ];
    for name in names {
        assert!(!allows(&EgressPolicy::default(), &format!("https://{name}/r")), "{name}");
    }
    for name in ["github.com", "localhost.example.com", "mylocalhost", "internal.example.com", "1.1.1.1"] {
        assert!(allows(&EgressPolicy::default(), &format!("https://{name}/r")), "{name}");
    }
}

#[test]
fn only_https_is_allowed_by_default() {
    for scheme in ["http", "git", "ftp", "ssh", "file"] {
        let error = EgressPolicy::default()
            .check(&Url::parse(&format!("{scheme}://example.com/r")).unwrap())
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{scheme}");
    }
}

#[test]
fn the_operator_allows_a_host_with_its_port_or_with_every_port() {
    let one_port = EgressPolicy::default().allowing("127.0.0.1:3000");
    assert!(allows(&one_port, "http://127.0.0.1:3000/r"));
    assert!(allows(&one_port, "http://2130706433:3000/r"), "it is the same address");
    assert!(!allows(&one_port, "http://127.0.0.1:3001/r"));
    assert!(!allows(&one_port, "http://127.0.0.1/r"));
    assert!(!allows(&one_port, "http://127.0.0.2:3000/r"));

    let every_port = EgressPolicy::default().allowing("Git.Lan").allowing("[::1]");
    for url in ["http://git.lan/r", "https://GIT.LAN:8443/r", "http://git.lan.:80/r", "http://[::1]:3000/r"] {
        assert!(allows(&every_port, url), "{url}");
    }
    for url in ["http://evil.git.lan/r", "http://git.lan.evil/r", "http://xgit.lan/r", "https://[::2]/r"] {
        assert!(!allows(&every_port, url), "{url}");
    }
    let default_port = EgressPolicy::default().allowing("git.lan:443");
    assert!(allows(&default_port, "https://git.lan/r"));
    assert!(!allows(&default_port, "http://git.lan/r"));
}

#[test]
fn an_empty_entry_allows_nothing() {
    let policy = EgressPolicy::default().allowing("").allowing(":0");
    for url in ["file:///etc/passwd", "https://127.0.0.1/r", "data:x"] {
        assert!(!allows(&policy, url), "{url}");
    }
}

#[test]
fn a_refusal_does_not_say_what_is_there() {
    let error = EgressPolicy::default().check_address(Ipv4Addr::LOCALHOST.into()).unwrap_err();
    assert!(!format!("{error:?}").contains("127.0.0.1"), "{error:?}");
}
