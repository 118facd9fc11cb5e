//! Identifiers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use paas_core::{AppId, DeploymentId, Ids, Kind, OrgId, RandomIds, TestClock};
use proptest::prelude::*;

#[test]
fn a_malformed_id_is_not_found() {
    let good = AppId::generate(&RandomIds::seeded(TestClock::new(), 1)).to_string();
    let bad = [
        "",
        "app_",
        "%2f",
        "%00",
        "..;/",
        "../../etc/passwd",
        "app_%2f",
        "app_0000000000000000000000000\0",
        "app_0000000000000000000000000I",
        &good.to_uppercase(),
        &good[..good.len() - 1],
        &format!("{good}0"),
        &format!(" {good}"),
        &good.replace("app_", "dpl_"),
        &good.replace("app_", "app-"),
    ];
    for text in bad {
        let error = text.parse::<AppId>().expect_err(text);
        // As for one that does not exist, and without a word of the input.
        assert_eq!((error.kind(), error.message()), (Kind::NotFound, "there is no such app"), "{text:?}");
    }
}

#[test]
fn an_id_is_of_one_type() {
    let ids = RandomIds::seeded(TestClock::new(), 1);
    let id = DeploymentId::generate(&ids);
    assert_eq!(id.as_str().parse::<DeploymentId>().unwrap(), id);
    assert!(id.as_str().parse::<AppId>().is_err());
    assert!(id.as_str().parse::<OrgId>().is_err());
    assert_eq!(format!("dpl_{}", id.suffix()), id.to_string());
}

#[test]
fn the_default_org_is_always_the_same() {
    assert_eq!(OrgId::default_org(), OrgId::default_org());
    assert!(OrgId::default_org().as_str().parse::<OrgId>().is_ok());
}

#[test]
fn the_same_seed_gives_the_same_ids() {
    let some = |seed| {
        let ids = RandomIds::seeded(TestClock::new(), seed);
        // Real time may pass between two of them: only the random part is the seed's.
        (0..10).map(|_| ids.random()).collect::<Vec<_>>()
    };
    assert_eq!(some(1), some(1));
    assert_ne!(some(1), some(2));
}

#[tokio::test(start_paused = true)]
async fn ids_are_unique_and_sort_by_their_making() {
    let clock = Arc::new(TestClock::new());
    let ids = RandomIds::seeded(clock.clone(), 7);
    let mut made = Vec::new();
    for round in 0..5 {
        // More than fit in a millisecond's sequence.
        made.extend((0..10_000).map(|_| AppId::generate(&ids)));
        tokio::time::advance(Duration::from_millis(round)).await;
        // Somebody sets the clock back.
        clock.jump(-3600);
    }
    assert!(made.is_sorted(), "later ids sort after earlier ones, whatever the clock does");
    assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), made.len());
}

#[tokio::test(start_paused = true)]
async fn an_id_has_the_layout_of_uuid_7() {
    let ids = RandomIds::seeded(TestClock::new(), 7);
    let id = ids.next();
    assert_eq!(id >> 80, 1_767_225_600_000, "milliseconds of 2026-01-01");
    assert_eq!((id >> 76) & 0xf, 7);
    assert_eq!((id >> 62) & 0b11, 0b10);
}

proptest! {
    #[test]
    fn parsing_never_panics(text in any::<String>()) {
        let _ = text.parse::<AppId>();
    }

    #[test]
    fn what_is_accepted_comes_back_as_it_was(text in "app_[0-9a-z]{26}") {
        if let Ok(id) = text.parse::<AppId>() {
            prop_assert_eq!(id.as_str(), &text);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<AppId>(&json).unwrap(), id);
        }
    }
}
