//! The state machine: properties of any history. The format of its events is in the golden journals.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use jiff::Timestamp;
use paas_core::pipeline::{Action, CancelReason, Event, Outcome, Output, Phase, Recorded, RetryPlan, State};
use paas_core::{
    AppId, DeploymentId, Failure, Generation, Image, Instance, InstanceName, InstanceState, OperationKind,
    OrgId, Port, Position, ReleaseNumber, Step, StreamId,
};
use proptest::prelude::*;

fn app() -> AppId {
    "app_00000000000000000000000001".parse().unwrap()
}

fn deployment() -> DeploymentId {
    "dpl_00000000000000000000000001".parse().unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn recorded(version: u64, event: Event) -> Recorded {
    let second = i64::try_from(version).unwrap();
    Recorded {
        stream: StreamId::from(&deployment()),
        version,
        position: Position(version * 10),
        at: at(second),
        event,
    }
}

fn failure() -> Failure {
    Failure::from(&paas_core::Error::new(paas_core::Kind::Timeout, "test.step", "it took too long"))
}

fn output(step: Step, serves: bool) -> Output {
    let generation = Generation(7);
    match step {
        Step::Fetch => {
            Output::Fetched { commit: "a".repeat(40).parse().unwrap(), tree: "b".repeat(40).parse().unwrap() }
        }
        Step::Plan => Output::Planned {
            recipe: "static".to_owned(),
            reasons: Vec::new(),
            key: paas_core::BuildKey("key".to_owned()),
            port: None,
        },
        Step::Build => {
            Output::Built { image: Image { digest: "sha256:1".to_owned(), port: None }, cached: false }
        }
        Step::Start => Output::Started {
            instance: Instance {
                name: InstanceName::of(&deployment(), 0),
                org: OrgId::default_org(),
                app: app(),
                deployment: deployment(),
                address: "10.181.0.2:8080".parse().unwrap(),
                state: InstanceState::Running,
                started_at: None,
                restarts: 0,
            },
            port: Port::DEFAULT,
        },
        Step::Verify => Output::Verified { probes: 1 },
        Step::Route if serves => Output::Routed { generation, release: ReleaseNumber(1), url: String::new() },
        Step::Route => Output::Withdrawn { generation },
        Step::Retire => Output::Retired { removed: Vec::new(), left: Vec::new() },
        Step::Purge => Output::Purged { images: 0 },
    }
}

/// What the world does to an operation at one point.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Succeed,
    FailForGood,
    FailAndRetry,
    /// The same try again, as after an outage.
    FailAndRepeat,
    /// Back to Start, as when an instance ended.
    FailBackToStart,
    /// The instance's name is something else's.
    LoseName,
    Cancel,
    Supersede,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        6 => Just(Turn::Succeed),
        1 => Just(Turn::FailForGood),
        2 => Just(Turn::FailAndRetry),
        2 => Just(Turn::FailAndRepeat),
        2 => Just(Turn::FailBackToStart),
        1 => Just(Turn::LoseName),
        1 => Just(Turn::Cancel),
        1 => Just(Turn::Supersede),
    ];
    prop::collection::vec(turn, 1..40)
}

fn kinds() -> impl Strategy<Value = OperationKind> {
    prop_oneof![
        Just(OperationKind::Deploy),
        Just(OperationKind::Restart),
        Just(OperationKind::Config),
        Just(OperationKind::Rollback),
        Just(OperationKind::Start),
        Just(OperationKind::Stop),
        Just(OperationKind::Delete),
    ]
}

fn failed(step: Step, attempt: u32, retry: RetryPlan) -> Event {
    Event::Failed { step, attempt, failure: failure(), retry: Some(retry), busy_millis: 1 }
}

/// Does what `decide` says, with these turns, as a worker would; answers the journal.
fn play(kind: OperationKind, turns: &[Turn]) -> Vec<Recorded> {
    let mut journal = vec![recorded(1, Event::Accepted { kind, app: app() })];
    let mut turns = turns.iter().copied();
    loop {
        let state = State::replay(&journal);
        assert!(!state.is_stuck(), "{:?}", state.phase);
        let next = u64::try_from(journal.len()).unwrap() + 1;
        let event = match state.decide(Timestamp::MAX) {
            Action::Idle => return journal,
            Action::Wait { by } => panic!("a journal that can't be read: {by}"),
            Action::Sleep { .. } => panic!("nothing is later than the end of time"),
            Action::Finish { outcome } => Event::Ended { outcome },
            Action::Undo { step } if state.phase == (Phase::Undoing { step: Some(step) }) => {
                match turns.next().unwrap_or(Turn::Succeed) {
                    Turn::FailForGood => Event::UndoFailed { step, failure: failure() },
                    _ => Event::UndoFinished { step },
                }
            }
            Action::Undo { step } => Event::UndoStarted { step },
            Action::Do { step, attempt } if !matches!(state.phase, Phase::Running { .. }) => {
                Event::Started { step, attempt }
            }
            Action::Do { step, attempt } => match turns.next().unwrap_or(Turn::Succeed) {
                _ if state.cancel.is_some() && !state.is_committed() => {
                    Event::Failed { step, attempt, failure: failure(), retry: None, busy_millis: 0 }
                }
                Turn::Cancel if !state.is_committed() => {
                    Event::CancelRequested { reason: CancelReason::Requested }
                }
                Turn::Supersede if !state.is_committed() => {
                    Event::CancelRequested { reason: CancelReason::Superseded { by: deployment() } }
                }
                Turn::FailForGood => {
                    Event::Failed { step, attempt, failure: failure(), retry: None, busy_millis: 0 }
                }
                Turn::FailAndRetry => {
                    failed(step, attempt, RetryPlan { from: step, attempt: attempt + 1, at: at(1000) })
                }
                Turn::FailAndRepeat => failed(step, attempt, RetryPlan { from: step, attempt, at: at(1000) }),
                Turn::FailBackToStart
                    if matches!(step, Step::Start | Step::Verify | Step::Route) && kind.serves() =>
                {
                    let attempt_of_start = state.attempts[&Step::Start] + 1;
                    let retry = RetryPlan { from: Step::Start, attempt: attempt_of_start, at: at(1000) };
                    failed(step, attempt, retry)
                }
                Turn::LoseName if step == Step::Start => Event::NameTaken { fallback: state.fallback + 1 },
                _ => Event::Finished { step, output: output(step, kind.serves()), busy_millis: 0 },
            },
        };
        journal.push(recorded(next, event));
        assert!(journal.len() < 1000, "it never ends");
    }
}

proptest! {
    /// Every history that follows `decide` is legal and ends, and nothing fits behind its end.
    #[test]
    fn every_history_ends(kind in kinds(), turns in turns()) {
        let journal = play(kind, &turns);
        let state = State::replay(&journal);
        prop_assert!(state.is_ended());
        let next = u64::try_from(journal.len()).unwrap() + 1;
        for event in [
            Event::CancelRequested { reason: CancelReason::Requested },
            Event::Started { step: Step::Fetch, attempt: 1 },
            Event::Ended { outcome: Outcome::Succeeded },
        ] {
            prop_assert!(state.clone().apply(&recorded(next, event)).is_err());
        }
    }

    /// What began and was not committed is undone: nothing is left behind a failure before the end of Route.
    #[test]
    fn a_failure_undoes_what_began(kind in kinds(), turns in turns()) {
        let journal = play(kind, &turns);
        let state = State::replay(&journal);
        let Phase::Ended { outcome } = &state.phase else { panic!("it ended") };
        let went_live = journal.iter().any(|entry| matches!(&entry.event, Event::Finished { step: Step::Route, .. }));
        if went_live {
            prop_assert!(state.undone.is_empty(), "nothing is undone after Route");
        } else {
            prop_assert_ne!(outcome, &Outcome::Succeeded);
            for step in [Step::Start, Step::Route] {
                prop_assert_eq!(state.attempts.contains_key(&step), state.undone.contains(&step));
            }
        }
    }

    /// A worker that reads any prefix after a crash decides as the one that wrote it did: what that one recorded next
    /// is what this one would do.
    #[test]
    fn every_prefix_can_be_gone_on_with(kind in kinds(), turns in turns()) {
        let journal = play(kind, &turns);
        let mut written = State::default();
        for (entry, next) in journal.iter().zip(&journal[1..]) {
            written = written.apply(entry).unwrap();
            let read = State::replay(&journal[..usize::try_from(entry.version).unwrap()]);
            prop_assert_eq!(&read, &written);
            let is_decided = match (read.decide(Timestamp::MAX), &next.event) {
                (Action::Do { step, attempt }, Event::Started { step: begun, attempt: tried }) => {
                    (step, attempt) == (*begun, *tried)
                }
                (Action::Do { step, .. }, Event::Finished { step: ended, .. } | Event::Failed { step: ended, .. }) => {
                    step == *ended
                }
                (Action::Do { .. }, Event::NameTaken { .. } | Event::CancelRequested { .. }) => true,
                (
                    Action::Undo { step },
                    Event::UndoStarted { step: undone } | Event::UndoFinished { step: undone } | Event::UndoFailed { step: undone, .. },
                ) => step == *undone,
                (Action::Finish { outcome }, Event::Ended { outcome: ended }) => outcome == *ended,
                _ => false,
            };
            prop_assert!(is_decided, "{:?} is not followed by {:?}", read.decide(Timestamp::MAX), next.event);
        }
    }

    /// What could not be undone is never called cancelled, and always named.
    #[test]
    fn leftovers_end_failed(kind in kinds(), turns in turns()) {
        let journal = play(kind, &turns);
        let state = State::replay(&journal);
        let Phase::Ended { outcome } = &state.phase else { panic!("it ended") };
        if !state.leftovers.is_empty() {
            let Outcome::Failed { failure: told, .. } = outcome else { panic!("it was left: {outcome:?}") };
            prop_assert!(told.message.contains(&failure().message));
        }
    }

    /// A gap or a repetition in the numbers is never taken.
    #[test]
    fn a_gap_is_refused(kind in kinds(), turns in turns(), at in 1_usize..100) {
        let journal = play(kind, &turns);
        let at = at % journal.len();
        let mut without = journal.clone();
        without.remove(at);
        if at + 1 < journal.len() {
            prop_assert!(without.iter().try_fold(State::default(), State::apply).is_err());
        }
        let mut twice = journal.clone();
        twice.insert(at, journal[at].clone());
        prop_assert!(twice.iter().try_fold(State::default(), State::apply).is_err());
    }

    /// What nobody understands stays so, whatever follows it, until it is given up: then the route is put back, and nothing
    /// but what it was given up with is said of it.
    #[test]
    fn what_is_not_understood_is_stuck_until_it_is_given_up(
        kind in kinds(), turns in turns(), at in 1_usize..100,
    ) {
        let mut journal = play(kind, &turns);
        let end = journal.pop().unwrap();
        let at = 1 + at % journal.len();
        journal.insert(at, recorded(0, Event::Unknown { name: "new".to_owned() }));
        for (version, entry) in (1..).zip(&mut journal) {
            entry.version = version;
        }
        let state = State::replay(&journal);
        let unknown = u64::try_from(at).unwrap() + 1;
        let Action::Wait { by } = state.decide(Timestamp::MAX) else { panic!("it is not stuck: {state:?}") };
        prop_assert_eq!((by.version, by.unknown.as_deref()), (unknown, Some("new")));
        prop_assert!(state.is_committed(), "nobody cancels it");
        let whoever_knows_it = recorded(state.version + 1, end.event);
        prop_assert!(state.clone().apply(&whoever_knows_it).unwrap().is_ended());
        let outcome = Outcome::Failed { step: Step::Fetch, failure: failure() };
        let next = |event| recorded(u64::try_from(journal.len()).unwrap() + 1, event);
        let mut state = state.apply(&next(Event::Abandoned { outcome: outcome.clone() })).unwrap();
        for event in [Event::UndoStarted { step: Step::Route }, Event::UndoFinished { step: Step::Route }] {
            prop_assert_eq!(state.decide(Timestamp::MAX), Action::Undo { step: Step::Route });
            prop_assert!(state.is_committed(), "nobody cancels it");
            state = state.clone().apply(&recorded(state.version + 1, event)).unwrap();
        }
        prop_assert_eq!(state.decide(Timestamp::MAX), Action::Finish { outcome });
    }

    /// The persisted form of every event reads back as what was written.
    #[test]
    fn events_read_back(kind in kinds(), turns in turns()) {
        for entry in play(kind, &turns) {
            let text = serde_json::to_string(&entry).unwrap();
            prop_assert_eq!(serde_json::from_str::<Recorded>(&text).unwrap(), entry);
        }
    }
}
