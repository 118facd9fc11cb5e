//! The conformance suite of [`StateStore`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod concurrency;
mod leases;
mod records;
mod scans;
mod streams;

pub use concurrency::*;
pub use leases::*;
pub use records::*;
pub use scans::*;
pub use streams::*;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::{Clock, TestClock};
use crate::error::{Error, Kind, Result};
use crate::store::{
    Append, Batch, Committed, Expect, Keys, Record, Scope, StateStore, StreamId, UniqueReach, Write,
};

/// An empty store, and the clock that it expires leases and records by.
pub struct Harness {
    store: Arc<dyn StateStore>,
    clock: Arc<TestClock>,
    _kept: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Harness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Harness").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Harness {
    /// A harness of an empty `store` that was made with `clock`; `kept` lives as long, such as the store's folder.
    pub fn new(store: Arc<dyn StateStore>, clock: Arc<TestClock>, kept: impl Any + Send + Sync) -> Self {
        Self { store, clock, _kept: Box::new(kept) }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time `seconds` from now.
    fn after(&self, seconds: i64) -> Timestamp {
        self.now() + jiff::SignedDuration::from_secs(seconds)
    }

    /// Lets time pass for the store.
    fn advance(&self, duration: Duration) {
        self.clock.jump(i64::try_from(duration.as_secs()).expect("a short time"));
    }

    /// Lets no time pass, but sets the clock back by so much.
    fn set_back(&self, duration: Duration) {
        self.clock.jump(-i64::try_from(duration.as_secs()).expect("a short time"));
    }

    async fn write(&self, write: Write) -> Result<u64> {
        let batch = Batch { writes: vec![write], ..Batch::default() };
        Ok(self.store.commit(batch).await?.versions[0])
    }

    async fn get(&self, id: &str) -> Option<Record> {
        self.store.get(&Scope::System, "thing", id).await.expect("a read")
    }

    async fn find(&self, scope: &Scope, name: &str) -> Option<Record> {
        self.store.find(scope, "thing", "name", name).await.expect("a read")
    }

    async fn append(&self, append: Append) -> Result<Committed> {
        self.store.commit(Batch { appends: vec![append], ..Batch::default() }).await
    }
}

fn org(number: u8) -> Scope {
    Scope::Org(format!("org_{number:0>26}").parse().expect("an id"))
}

fn put(id: &str, expect: Expect, body: &str) -> Write {
    put_with(&org(1), id, expect, Keys::default(), body)
}

fn put_with(scope: &Scope, id: &str, expect: Expect, keys: Keys, body: &str) -> Write {
    Write::Put { scope: scope.clone(), kind: "thing", id: id.to_owned(), expect, keys, body: body.into() }
}

fn update(id: &str, expect: Expect, body: &str) -> Write {
    Write::Update { scope: org(1), kind: "thing", id: id.to_owned(), expect, body: body.into() }
}

fn remove(id: &str, expect: Expect) -> Write {
    Write::Remove { scope: org(1), kind: "thing", id: id.to_owned(), expect }
}

fn named(name: &str, reach: UniqueReach) -> Keys {
    Keys { unique: vec![("name", name.to_owned(), reach)], ..Keys::default() }
}

fn append(stream: &str, expect: u64, at: Timestamp, events: &[&str]) -> Append {
    Append {
        scope: org(1),
        stream: StreamId::new(stream),
        expect,
        at,
        events: events.iter().map(|event| event.as_bytes().to_vec()).collect(),
    }
}

/// Asserts the kind of a failure and answers the error.
#[track_caller]
fn refused<T: fmt::Debug>(result: Result<T>, kind: Kind) -> Error {
    let error = result.expect_err("it should have been refused");
    assert_eq!(error.kind(), kind, "{error:?}");
    error
}

/// One test for each promise of [`StateStore`].
#[macro_export]
macro_rules! conformance_state_store {
    ($harness:expr) => {
        $crate::conformance_tests!(
            state_store,
            $harness,
            [
                a_record_is_read_back_as_written,
                a_missing_record_is_none,
                ids_are_unique_within_a_kind,
                versions_count_the_changes,
                absent_refuses_an_existing_record,
                a_stale_version_is_a_conflict,
                an_expected_version_never_makes_a_record,
                any_makes_or_replaces,
                an_update_keeps_the_keys,
                an_update_of_nothing_is_not_found,
                a_put_replaces_all_keys,
                a_removed_record_is_gone_with_its_keys,
                removing_what_is_absent_succeeds,
                an_owner_never_changes,
                a_failed_batch_changes_nothing,
                a_part_of_a_batch_sees_those_before_it,
                a_unique_key_is_held_once_in_the_store,
                a_unique_key_is_held_once_in_an_org,
                a_unique_key_can_change_hands_within_a_batch,
                an_expired_record_is_gone,
                an_expired_record_makes_room,
                sweep_removes_what_expired,
                what_is_too_large_is_invalid,
                foreign_records_are_invisible,
                the_system_sees_every_record,
                a_scan_orders_by_value_and_id,
                a_scan_orders_values_byte_by_byte,
                a_scan_keeps_to_its_range,
                a_scan_pages_without_gaps_or_repeats,
                a_scan_pages_within_an_org,
                a_scan_goes_on_where_records_were_removed,
                events_are_read_back_as_written,
                events_are_paged_by_version,
                an_append_expects_the_exact_version,
                an_append_without_events_checks_the_version,
                a_stream_has_one_owner,
                a_failed_append_leaves_no_gap,
                positions_are_the_feed,
                the_feed_is_paged_by_position,
                the_feed_of_an_org_is_its_own,
                new_events_are_hinted_at,
                new_work_is_hinted_at,
                due_work_is_claimed_once,
                work_is_claimed_when_it_is_due,
                the_earliest_due_time_wins,
                an_earlier_due_time_brings_its_class,
                what_is_due_as_both_is_light,
                a_clock_set_back_makes_no_wait_longer,
                a_released_key_is_forgotten,
                a_released_key_is_due_as_it_says,
                a_schedule_during_a_claim_is_not_lost,
                a_schedule_during_a_claim_survives_its_expiry,
                a_lost_lease_writes_nothing,
                an_expired_lease_goes_to_another,
                an_expired_lease_is_lost_to_its_holder,
                a_renewed_lease_lasts,
                fences_grow,
                a_failed_batch_keeps_the_lease,
                slots_bound_all_workers_together,
                limits_are_by_class,
                orgs_take_turns,
                a_busy_org_comes_behind_an_idle_one,
                the_longest_waiting_comes_first,
                count_gives_queue_positions,
                the_backlog_says_how_much_waits_and_since_when,
                concurrent_commits_all_take_effect,
                one_writer_wins_each_version,
                one_writer_wins_a_unique_key,
                one_worker_wins_each_key,
                a_feed_reader_misses_nothing,
                reads_see_what_was_answered,
                ping_answers,
            ]
        );
    };
}
