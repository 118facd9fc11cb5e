//! Sealed secrets and the file with the master key.

use std::os::unix::fs::PermissionsExt;

use paas_core::{Keyring, Kind, Sealed, Secret};
use proptest::prelude::*;
use serde_json::Value;

/// A sealed secret with one of its fields changed.
fn altered(sealed: &Sealed, field: &str, change: impl Fn(&str) -> String) -> Sealed {
    let mut json = serde_json::to_value(sealed).unwrap();
    let value = json[field].as_str().map(change).unwrap();
    json[field] = Value::String(value);
    serde_json::from_value(json).unwrap()
}

/// The same text with the hexadecimal digit at `at` changed.
fn flipped(text: &str, at: usize) -> String {
    let digit = if &text[at..=at] == "0" { "1" } else { "0" };
    format!("{}{digit}{}", &text[..at], &text[at + 1..])
}

#[test]
fn what_was_sealed_for_a_purpose_opens_for_it() {
    let keyring = Keyring::ephemeral().unwrap();
    let sealed = keyring.seal("app_1/env", &Secret::from("hunter2")).unwrap();
    assert_eq!(keyring.open_sealed("app_1/env", &sealed).unwrap().expose(), "hunter2");
}

#[test]
fn it_opens_for_no_other_purpose() {
    let keyring = Keyring::ephemeral().unwrap();
    let sealed = keyring.seal("app_1/env", &Secret::from("hunter2")).unwrap();
    for purpose in ["app_2/env", "app_1/token", "app_1/en", ""] {
        let error = keyring.open_sealed(purpose, &sealed).expect_err(purpose);
        assert_eq!(error.kind(), Kind::Internal);
    }
}

#[test]
fn nothing_of_the_secret_is_in_the_sealed_form() {
    let keyring = Keyring::ephemeral().unwrap();
    let secret = Secret::from("hunter2-hunter2");
    let sealed = keyring.seal("p", &secret).unwrap();
    let hexadecimal: String = secret.expose().bytes().map(|byte| format!("{byte:02x}")).collect();
    for text in [serde_json::to_string(&sealed).unwrap(), format!("{sealed:?}"), format!("{keyring:?}")] {
        assert!(!text.contains("hunter2") && !text.contains(&hexadecimal), "{text}");
    }
    assert_ne!(sealed, keyring.seal("p", &secret).unwrap(), "sealing twice shows that it is the same");
}

#[test]
fn a_changed_digit_is_noticed_wherever_it_is() {
    let keyring = Keyring::ephemeral().unwrap();
    let sealed = keyring.seal("p", &Secret::from("hunter2")).unwrap();
    let length = serde_json::to_value(&sealed).unwrap()["data"].as_str().unwrap().len();
    for at in 0..length {
        let changed = altered(&sealed, "data", |data| flipped(data, at));
        assert!(keyring.open_sealed("p", &changed).is_err(), "digit {at}");
    }
}

#[test]
fn malformed_data_is_an_error_and_not_a_panic() {
    let keyring = Keyring::ephemeral().unwrap();
    let sealed = keyring.seal("p", &Secret::from("hunter2")).unwrap();
    for data in ["", "0", "zz", "+f+f", "üü", &"0".repeat(48), &"0".repeat(79), &"0".repeat(80)] {
        let changed = altered(&sealed, "data", |_| data.to_owned());
        let error = keyring.open_sealed("p", &changed).expect_err(data);
        assert!(error.hinted().unwrap().contains("backup"), "{error:?}");
    }
}

#[test]
fn a_missing_key_is_told_apart_from_damage() {
    let sealed = Keyring::ephemeral().unwrap().seal("p", &Secret::from("hunter2")).unwrap();
    let error = Keyring::ephemeral().unwrap().open_sealed("p", &sealed).unwrap_err();
    assert!(error.hinted().unwrap().contains("master key"), "{error:?}");
}

#[test]
fn the_first_start_makes_a_file_that_only_its_owner_reads() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    let sealed = Keyring::open(&path).unwrap().seal("p", &Secret::from("hunter2")).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let files: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["master.key"], "nothing else is left behind");
    // The next start reads the same key.
    assert_eq!(Keyring::open(&path).unwrap().open_sealed("p", &sealed).unwrap().expose(), "hunter2");
}

#[test]
fn first_starts_at_the_same_moment_agree_on_one_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    let sealed: Vec<Sealed> = std::thread::scope(|scope| {
        let start = || Keyring::open(&path).unwrap().seal("p", &Secret::from("hunter2")).unwrap();
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let keyring = Keyring::open(&path).unwrap();
    for sealed in sealed {
        assert_eq!(keyring.open_sealed("p", &sealed).unwrap().expose(), "hunter2");
    }
}

#[test]
fn a_file_that_others_may_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    Keyring::open(&path).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o660] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = Keyring::open(&path).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{mode:o}");
        assert!(error.hinted().unwrap().contains("chmod 600"), "{error:?}");
    }
}

#[test]
fn a_file_with_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    let short = "0".repeat(63);
    let signed = "+f".repeat(32);
    for text in ["", "\n", "not a key", &short, &signed] {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let error = Keyring::open(&path).expect_err(text);
        assert_eq!(error.kind(), Kind::Invalid, "{text:?}");
        assert!(text.trim().is_empty() || !format!("{error:?}").contains(text.trim()), "{error:?}");
    }
    assert!(std::fs::read_to_string(&path).unwrap() == signed, "a refused file is left as it is");
}

#[test]
fn a_new_key_in_front_seals_and_the_old_one_still_opens() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    let old = Keyring::open(&path).unwrap().seal("p", &Secret::from("hunter2")).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{}\n{text}", "ab".repeat(32))).unwrap();

    let both = Keyring::open(&path).unwrap();
    assert_eq!(both.open_sealed("p", &old).unwrap().expose(), "hunter2");
    let new = both.seal("p", &Secret::from("hunter2")).unwrap();
    std::fs::write(&path, text).unwrap();
    assert!(Keyring::open(&path).unwrap().open_sealed("p", &new).is_err(), "it was sealed with the new key");
}

proptest! {
    #[test]
    fn every_text_comes_back(text in any::<String>(), purpose in any::<String>()) {
        let keyring = Keyring::ephemeral().unwrap();
        let sealed = keyring.seal(&purpose, &Secret::from(text.as_str())).unwrap();
        let stored = serde_json::to_vec(&sealed).unwrap();
        let sealed: Sealed = serde_json::from_slice(&stored).unwrap();
        let opened = keyring.open_sealed(&purpose, &sealed).unwrap();
        prop_assert_eq!(opened.expose(), text);
    }
}
