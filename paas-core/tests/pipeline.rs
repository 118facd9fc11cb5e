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
        let state = State::replay(&journal).expect("a legal journal");
        let next = u64::try_from(journal.len()).unwrap() + 1;
        let event = match state.decide(Timestamp::MAX) {
            Action::Idle => return journal,
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

    /// A worker that reads any prefix after a crash decides as the one that wrote it did: what that one recorded next
    /// is what this one would do.
    #[test]
    fn every_prefix_can_be_gone_on_with(kind in kinds(), turns in turns()) {
        let journal = play(kind, &turns);
        let mut written = State::default();
        for (entry, next) in journal.iter().zip(&journal[1..]) {
            written = written.apply(entry).unwrap();
            let read = State::replay(&journal[..usize::try_from(entry.version).unwrap()]).unwrap();
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
        let state = State::replay(&journal).unwrap();
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
    let name: paas_core::AppName = "hello".parse().unwrap();
    let told = r#"{"kind":"timeout","fault":"platform","retryable":true,"operation":"test.step","message":"it took too long"}"#;
    let (app_id, id) = ("app_00000000000000000000000001", "dpl_00000000000000000000000001");
    let retry = RetryPlan { from: Step::Start, attempt: 2, at: at(60) };
    let failed = |retry, busy_millis| Event::Failed {
        step: Step::Fetch,
        attempt: 2,
        failure: failure(),
        retry,
        busy_millis,
    };
    let ended = |outcome| Event::Ended { outcome };
    let cases = [
        (
            Event::Accepted { kind: OperationKind::Deploy, app: app() },
            format!(r#"{{"type":"accepted","kind":"deploy","app":"{app_id}"}}"#),
        ),
        (
            Event::Started { step: Step::Fetch, attempt: 1 },
            r#"{"type":"started","step":"fetch","attempt":1}"#.to_owned(),
        ),
        (failed(None, 0), format!(r#"{{"type":"failed","step":"fetch","attempt":2,"failure":{told}}}"#)),
        (
            failed(Some(retry), 1500),
            format!(
                r#"{{"type":"failed","step":"fetch","attempt":2,"failure":{told},"retry":{{"from":"start","attempt":2,"at":"2026-01-01T00:01:00Z"}},"busy_millis":1500}}"#
            ),
        ),
        (Event::NameTaken { fallback: 1 }, r#"{"type":"name_taken","fallback":1}"#.to_owned()),
        (
            Event::CancelRequested { reason: CancelReason::Requested },
            r#"{"type":"cancel_requested","reason":{"type":"requested"}}"#.to_owned(),
        ),
        (
            Event::CancelRequested { reason: CancelReason::Superseded { by: deployment() } },
            format!(r#"{{"type":"cancel_requested","reason":{{"type":"superseded","by":"{id}"}}}}"#),
        ),
        (Event::UndoStarted { step: Step::Route }, r#"{"type":"undo_started","step":"route"}"#.to_owned()),
        (Event::UndoFinished { step: Step::Start }, r#"{"type":"undo_finished","step":"start"}"#.to_owned()),
        (
            Event::UndoFailed { step: Step::Start, failure: failure() },
            format!(r#"{{"type":"undo_failed","step":"start","failure":{told}}}"#),
        ),
        (ended(Outcome::Succeeded), r#"{"type":"ended","outcome":{"type":"succeeded"}}"#.to_owned()),
        (ended(Outcome::Cancelled), r#"{"type":"ended","outcome":{"type":"cancelled"}}"#.to_owned()),
        (
            ended(Outcome::Superseded { by: deployment() }),
            format!(r#"{{"type":"ended","outcome":{{"type":"superseded","by":"{id}"}}}}"#),
        ),
        (
            ended(Outcome::Failed { step: Step::Verify, failure: failure() }),
            format!(r#"{{"type":"ended","outcome":{{"type":"failed","step":"verify","failure":{told}}}}}"#),
        ),
        (Event::AppCreated { name: name.clone() }, r#"{"type":"app_created","name":"hello"}"#.to_owned()),
        (
            Event::AppChanged { fields: vec!["env".to_owned()] },
            r#"{"type":"app_changed","fields":["env"]}"#.to_owned(),
        ),
        (Event::AppDeleted { name }, r#"{"type":"app_deleted","name":"hello"}"#.to_owned()),
    ];
    for (event, text) in cases {
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}

/// The same of what comes of the steps, and of journals from before steps said how long they worked.
#[test]
fn the_format_of_outputs_stands() {
    let (commit, tree) = ("a".repeat(40), "b".repeat(40));
    let cases = [
        (Step::Fetch, true, format!(r#"{{"type":"fetched","commit":"{commit}","tree":"{tree}"}}"#)),
        (Step::Plan, true, r#"{"type":"planned","recipe":"static","reasons":[],"key":"key"}"#.to_owned()),
        (Step::Build, true, r#"{"type":"built","image":{"digest":"sha256:1"},"cached":false}"#.to_owned()),
        (
            Step::Start,
            true,
            format!(
                r#"{{"type":"started","instance":{},"port":8080}}"#,
                concat!(
                    r#"{"name":"paas-00000000000000000000000001","org":"org_00000000000000000000000000","#,
                    r#""app":"app_00000000000000000000000001","deployment":"dpl_00000000000000000000000001","#,
                    r#""address":"10.181.0.2:8080","state":{"state":"running"},"started_at":null,"restarts":0}"#
                )
            ),
        ),
        (Step::Verify, true, r#"{"type":"verified","probes":1}"#.to_owned()),
        (Step::Route, true, r#"{"type":"routed","generation":7,"release":1,"url":""}"#.to_owned()),
        (Step::Route, false, r#"{"type":"withdrawn","generation":7}"#.to_owned()),
        (Step::Retire, true, r#"{"type":"retired","removed":[],"left":[]}"#.to_owned()),
        (Step::Purge, false, r#"{"type":"purged","images":0}"#.to_owned()),
    ];
    for (step, serves, text) in cases {
        let output = output(step, serves);
        assert_eq!(serde_json::to_string(&output).unwrap(), text);
        let step_name = serde_json::to_string(&step).unwrap();
        let finished = format!(r#"{{"type":"finished","step":{step_name},"output":{text}}}"#);
        let event = Event::Finished { step, output, busy_millis: 0 };
        assert_eq!(serde_json::from_str::<Event>(&finished).unwrap(), event);
        assert_eq!(serde_json::to_string(&event).unwrap(), finished);
    }
}
