//! What is in the golden journals is read, and means what it meant.

use std::collections::{BTreeMap, BTreeSet};

use paas_core::pipeline::{CancelReason, DnsDrift, Drift, Outcome, Output, RouteDrift, State, project};
use paas_core::{AppStatus, Deployment, Event, OperationKind, Position, Recorded, StreamId};
use serde_json::Value;

use crate::golden::{Commit, Golden, StoredWrite};
use crate::{FUTURE_NAME, all, variants};

/// The store as it was after some commits.
#[derive(Default)]
struct Told {
    records: BTreeMap<(String, String), Value>,
    journals: BTreeMap<String, Vec<Recorded>>,
    position: u64,
}

impl Told {
    fn record<T: serde::de::DeserializeOwned>(&self, kind: &str, id: &str) -> Option<T> {
        let body = self.records.get(&(kind.to_owned(), id.to_owned()))?;
        Some(serde_json::from_value(body.clone()).unwrap())
    }

    /// Reads the events of a commit, each of which is written again as it is.
    fn read(&mut self, commit: &Commit) -> Vec<Recorded> {
        let mut read = Vec::new();
        for append in &commit.appends {
            for (version, stored) in (append.after + 1..).zip(&append.events) {
                self.position += 1;
                let event = Event::decode(&serde_json::to_vec(stored).unwrap());
                match &event {
                    Event::Unknown { name } => assert_eq!(name, FUTURE_NAME, "{stored}"),
                    event => assert_eq!(serde_json::to_value(event).unwrap(), *stored),
                }
                let stream = StreamId::new(append.stream.as_str());
                let recorded =
                    Recorded { stream, version, position: Position(self.position), at: append.at, event };
                let journal = self.journals.entry(append.stream.clone()).or_default();
                assert_eq!(journal.len() as u64 + 1, version, "{}: a gap", append.stream);
                journal.push(recorded.clone());
                read.push(recorded);
            }
        }
        read
    }

    fn keep(&mut self, commit: &Commit) {
        for write in &commit.writes {
            match write {
                StoredWrite::Put { kind, id, body, .. } | StoredWrite::Update { kind, id, body, .. } => {
                    self.records.insert((kind.clone(), id.clone()), body.clone());
                }
                StoredWrite::Remove { kind, id, .. } => {
                    self.records.remove(&(kind.clone(), id.clone()));
                }
            }
        }
    }
}

/// What a worker's events mean for the records is what was committed with them.
fn check_projection(told: &Told, commit: &Commit, events: &[Recorded]) {
    let is_accepted = events.iter().any(|recorded| matches!(recorded.event, Event::Accepted { .. }));
    for append in commit.appends.iter().filter(|append| append.stream.starts_with("dpl_")) {
        let id = append.stream.as_str();
        let written = |kind: &str, id: &str| {
            commit.writes.iter().find_map(|write| match write {
                StoredWrite::Put { kind: of, id: named, body, .. }
                | StoredWrite::Update { kind: of, id: named, body, .. }
                    if of == kind && named == id =>
                {
                    Some(body.clone())
                }
                _ => None,
            })
        };
        // Who accepts an operation changes the records for it as well; who asks for something changes none.
        let Some(shown) = written("deployment", id).filter(|_| !is_accepted) else { continue };
        let Some(mut deployment) = told.record::<Deployment>("deployment", id) else { continue };
        let mut status: AppStatus = told.record("app_status", deployment.app.as_str()).unwrap();
        let journal = &told.journals[id];
        let before = usize::try_from(append.after).unwrap();
        let mut state = State::replay(&journal[..before]);
        for recorded in &journal[before..before + append.events.len()] {
            state = state.apply(recorded).unwrap();
            project(&state, recorded, &mut deployment, &mut status);
        }
        assert_eq!(serde_json::to_value(&deployment).unwrap(), shown, "{id}");
        if let Some(shown) = written("app_status", deployment.app.as_str()) {
            assert_eq!(serde_json::to_value(&status).unwrap(), shown, "{id}");
        }
    }
}

/// True if a value holds everything that `part` does: what a later version adds is no difference.
fn holds(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Object(value), Value::Object(part)) => {
            part.iter().all(|(key, part)| value.get(key).is_some_and(|value| holds(value, part)))
        }
        _ => value == part,
    }
}

fn tell(golden: &Golden) -> Told {
    let mut told = Told::default();
    for commit in &golden.commits {
        let events = told.read(commit);
        check_projection(&told, commit, &events);
        told.keep(commit);
    }
    told
}

#[test]
fn every_golden_journal_means_what_it_meant() {
    for (name, golden) in all() {
        let told = tell(&golden);
        let operations = told.journals.iter().filter(|(stream, _)| stream.starts_with("dpl_"));
        let mut count = 0;
        for (stream, journal) in operations {
            let is_known = !journal.iter().any(|recorded| matches!(recorded.event, Event::Unknown { .. }));
            let state = State::replay(journal);
            if is_known {
                let legal = journal.iter().try_fold(State::default(), State::apply);
                assert_eq!(legal.as_ref(), Ok(&state), "{name}: {stream}");
            }
            assert!(state.is_ended(), "{name}: {stream} has not ended: {:?}", state.phase);
            let shown = serde_json::to_value(&state).unwrap();
            assert!(holds(&shown, &golden.ends[stream]), "{name}: {stream} is {shown}");
            count += 1;
        }
        assert_eq!(count, golden.ends.len(), "{name}");
    }
}

#[test]
fn everything_that_can_be_told_is_in_them() {
    let (mut told, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for (_, golden) in all() {
        for event in
            golden.commits.iter().flat_map(|commit| &commit.appends).flat_map(|append| &append.events)
        {
            let word =
                |name: &str, value: &Value| Some((name.to_owned(), value["type"].as_str()?.to_owned()));
            told.extend(word("event", event));
            for field in ["output", "outcome", "reason"] {
                told.extend(event.get(field).and_then(|value| word(field, value)));
            }
            // Of several events, each with words of its own.
            told.extend(event.get("drift").and_then(|value| word(event["type"].as_str()?, value)));
            kinds.extend(event.get("kind").map(ToString::to_string));
        }
    }
    let known = [
        ("event", variants::of::<Event>()),
        ("output", variants::of::<Output>()),
        ("outcome", variants::of::<Outcome>()),
        ("reason", variants::of::<CancelReason>()),
        ("drift_found", variants::of::<Drift>()),
        ("route_drift_found", variants::of::<RouteDrift>()),
        ("dns_drift_found", variants::of::<DnsDrift>()),
    ];
    for (name, words) in known {
        let told: BTreeSet<_> = told
            .iter()
            .filter(|(of, word)| of == name && word != FUTURE_NAME)
            .map(|(_, word)| word.clone())
            .collect();
        assert_eq!(told, words, "every {name} belongs into a golden journal, and every one in them is known");
    }
    for kind in [
        OperationKind::Deploy,
        OperationKind::Restart,
        OperationKind::Config,
        OperationKind::Rollback,
        OperationKind::Stop,
        OperationKind::Start,
        OperationKind::Delete,
    ] {
        assert!(kinds.contains(&serde_json::to_string(&kind).unwrap()), "{kind:?}");
    }
}
