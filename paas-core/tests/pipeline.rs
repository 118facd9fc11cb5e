//! The state machine: properties of any history, and the format of its events.

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
    Cancel,
    Supersede,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        6 => Just(Turn::Succeed),
        1 => Just(Turn::FailForGood),
        2 => Just(Turn::FailAndRetry),
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

/// Does what `decide` says, with these turns, as a worker would; answers the journal.
fn play(kind: OperationKind, turns: &[Turn]) -> Vec<Recorded> {
    let mut journal = vec![recorded(1, Event::Accepted { kind, app: app() })];
    let mut turns = turns.iter().copied();
    loop {
        let state = State::replay(&journal).expect("a legal journal");
        let next = u64::try_from(journal.len()).unwrap() + 1;
        let event = match state.decide(Timestamp::MAX) {
            Action::Idle => return journal,
            Action::Sleep { .. } => panic!("nothing is later than the end of time"),
            Action::Finish { outcome } => Event::Ended { outcome },
            Action::Undo { step } if state.phase == (Phase::Undoing { step: Some(step) }) => {
                Event::UndoFinished { step }
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
                    let retry = RetryPlan { from: step, attempt: attempt + 1, at: at(1000) };
                    Event::Failed { step, attempt, failure: failure(), retry: Some(retry), busy_millis: 0 }
                }
                Turn::Succeed | Turn::Cancel | Turn::Supersede => {
                    Event::Finished { step, output: output(step, kind.serves()), busy_millis: 0 }
                }
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
        let state = State::replay(&journal).unwrap();
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
        let state = State::replay(&journal).unwrap();
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

    /// A worker that reads any prefix after a crash decides as the one that wrote it did.
    #[test]
    fn every_prefix_can_be_gone_on_with(kind in kinds(), turns in turns()) {
        let journal = play(kind, &turns);
        for length in 1..journal.len() {
            let state = State::replay(&journal[..length]).unwrap();
            prop_assert!(!matches!(state.decide(Timestamp::MAX), Action::Idle));
            let steps_back = journal[..length - 1].iter().try_fold(State::default(), State::apply).unwrap();
            prop_assert!(steps_back.version < state.version);
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
            prop_assert!(State::replay(&without).is_err());
        }
        let mut twice = journal.clone();
        twice.insert(at, journal[at].clone());
        prop_assert!(State::replay(&twice).is_err());
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

/// The names in the journals never change: later versions read what this one wrote.
#[test]
fn the_format_of_events_stands() {
    let written = |event: Event| serde_json::to_string(&event).unwrap();
    assert_eq!(
        written(Event::Accepted { kind: OperationKind::Deploy, app: app() }),
        r#"{"type":"accepted","kind":"deploy","app":"app_00000000000000000000000001"}"#
    );
    assert_eq!(
        written(Event::Started { step: Step::Fetch, attempt: 1 }),
        r#"{"type":"started","step":"fetch","attempt":1}"#
    );
    assert_eq!(
        written(Event::Finished { step: Step::Build, output: output(Step::Build, true), busy_millis: 0 }),
        r#"{"type":"finished","step":"build","output":{"type":"built","image":{"digest":"sha256:1"},"cached":false}}"#
    );
    assert_eq!(
        written(Event::CancelRequested { reason: CancelReason::Superseded { by: deployment() } }),
        r#"{"type":"cancel_requested","reason":{"type":"superseded","by":"dpl_00000000000000000000000001"}}"#
    );
    assert_eq!(
        written(Event::Ended { outcome: Outcome::Cancelled }),
        r#"{"type":"ended","outcome":{"type":"cancelled"}}"#
    );
    assert_eq!(
        written(Event::Failed {
            step: Step::Fetch,
            attempt: 2,
            failure: failure(),
            retry: None,
            busy_millis: 0
        }),
        concat!(
            r#"{"type":"failed","step":"fetch","attempt":2,"failure":{"kind":"timeout","fault":"platform","#,
            r#""retryable":true,"operation":"test.step","message":"it took too long"}}"#
        )
    );
}
