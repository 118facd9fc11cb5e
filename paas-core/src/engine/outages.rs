//! Which parts of the platform do not answer: since when, and who waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::domain::AppId;
use crate::error::{Error, Kind, Result};

/// That a part does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    /// What it said last.
    pub message: String,
    /// What to do, if it said so.
    pub hint: Option<String>,
    /// When it was noticed.
    pub since: Timestamp,
    /// The apps whose operation waits for it.
    pub waiting: BTreeSet<AppId>,
}

/// The outages of this moment, as they were noticed by whoever asked a part for something.
#[derive(Debug, Default)]
pub(crate) struct Outages(Mutex<BTreeMap<&'static str, Outage>>);

impl Outages {
    /// Takes note of what a part answered; that somebody gave up asking tells nothing.
    pub(crate) fn note<T>(&self, part: &'static str, now: Timestamp, answer: &Result<T>) {
        let mut outages = self.locked();
        match answer {
            Ok(_) => drop(outages.remove(part)),
            Err(error) if error.kind() == Kind::Cancelled => {}
            Err(error) => {
                let (message, hint) = told(error);
                let outage = outages.entry(part).or_insert_with(|| Outage {
                    message: String::new(),
                    hint: None,
                    since: now,
                    waiting: BTreeSet::new(),
                });
                (outage.message, outage.hint) = (message, hint);
            }
        }
    }

    /// An app's operation waits until everything answers.
    pub(crate) fn wait(&self, app: &AppId) {
        for outage in self.locked().values_mut() {
            outage.waiting.insert(app.clone());
        }
    }

    /// An app's operation does not wait any more.
    pub(crate) fn go_on(&self, app: &AppId) {
        for outage in self.locked().values_mut() {
            outage.waiting.remove(app);
        }
    }

    /// All of them, by part.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, Outage> {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<&'static str, Outage>> {
        // Nothing that panics runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(error: &Error) -> (String, Option<String>) {
    (error.message().to_owned(), error.hinted().map(str::to_owned))
}
