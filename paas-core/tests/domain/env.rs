//! Environment variables.

use paas_core::{Env, EnvName, Kind, Secret};
use proptest::prelude::*;

fn name(text: &str) -> EnvName {
    text.parse().unwrap()
}

#[test]
fn a_name_that_no_shell_could_set_is_invalid() {
    let too_long = "A".repeat(10_000);
    for text in ["", "A=B", "A\nB", "A\0", "1A", "A-B", "A B", "Ä", "$(id)", "A\u{202e}", &too_long] {
        let error = text.parse::<EnvName>().expect_err(text);
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.message().len() < 500, "a long name is not repeated whole");
        assert!(!error.message().contains(['\n', '\0', '\u{202e}']), "{:?}", error.message());
    }
}

#[test]
fn a_value_typed_into_the_name_is_not_repeated() {
    let error = "PASSWORD=hunter2".parse::<EnvName>().unwrap_err();
    assert!(error.message().contains("PASSWORD") && !format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn the_port_is_set_by_the_platform() {
    let error = "PORT".parse::<EnvName>().unwrap_err();
    assert!(error.hinted().unwrap().contains("port"), "{error:?}");
    assert!("PORTS".parse::<EnvName>().is_ok());
}

#[test]
fn a_name_has_at_most_256_characters() {
    assert!("A".repeat(256).parse::<EnvName>().is_ok());
    assert!("A".repeat(257).parse::<EnvName>().is_err());
}

#[test]
fn a_value_is_kept_byte_for_byte() {
    let mut env = Env::default();
    for (at, value) in ["", "a\nb", "\"'`", "$(id)", "${X}", "\r\n\t\u{1b}[31m", "ü🦀"].iter().enumerate()
    {
        let key = name(&format!("V{at}"));
        env.set(key.clone(), Secret::from(*value)).unwrap();
        let kept = env.iter().find(|(name, _)| **name == key).unwrap().1;
        assert_eq!(kept.expose(), *value);
    }
}

#[test]
fn a_value_with_nul_is_invalid_and_not_repeated() {
    let error = Env::default().set(name("A"), Secret::from("hunter2\0")).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn a_value_has_at_most_32_kib() {
    let mut env = Env::default();
    env.set(name("A"), Secret::from("x".repeat(32 * 1024))).unwrap();
    assert_eq!(
        env.set(name("B"), Secret::from("x".repeat(32 * 1024 + 1))).unwrap_err().kind(),
        Kind::Invalid
    );
}

#[test]
fn there_are_at_most_a_thousand() {
    let mut env = Env::default();
    for at in 0..1000 {
        env.set(name(&format!("V{at}")), Secret::from("x")).unwrap();
    }
    assert_eq!(env.set(name("ONE_MORE"), Secret::from("x")).unwrap_err().kind(), Kind::Invalid);
    env.set(name("V7"), Secret::from("changed")).expect("one that is there can still change");
    assert_eq!(env.len(), 1000);
    env.remove(&name("V7"));
    env.set(name("ONE_MORE"), Secret::from("x")).expect("there is a place again");
}

#[test]
fn together_they_have_at_most_256_kib() {
    let mut env = Env::default();
    // Eight names of two bytes, and what is left of 256 KiB.
    for at in 0..8 {
        env.set(name(&format!("V{at}")), Secret::from("x".repeat(32 * 1024 - 2))).unwrap();
    }
    assert_eq!(env.set(name("W"), Secret::from("")).unwrap_err().kind(), Kind::Invalid);
    env.set(name("V0"), Secret::from("y".repeat(32 * 1024 - 2))).expect("a replaced value does not count");
    env.set(name("V0"), Secret::from("")).unwrap();
    env.set(name("W"), Secret::from("x")).expect("there is room again");
}

#[test]
fn values_are_not_printed() {
    let mut env = Env::default();
    env.set(name("TOKEN"), Secret::from("hunter2")).unwrap();
    let printed = format!("{env:?}");
    assert!(printed.contains("TOKEN") && !printed.contains("hunter2"), "{printed}");
}

proptest! {
    #[test]
    fn parsing_a_name_never_panics(text in any::<String>()) {
        if let Ok(name) = text.parse::<EnvName>() {
            prop_assert!(name.as_str().bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()));
        }
    }

    #[test]
    fn every_identifier_is_a_name(text in "[A-Za-z_][A-Za-z0-9_]{0,255}") {
        prop_assume!(text != "PORT");
        let name = text.parse::<EnvName>().unwrap();
        prop_assert_eq!(name.as_str(), text);
    }
}
