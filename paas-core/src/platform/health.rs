//! Whether the platform can do its work, and if not, what is wrong.

use jiff::Timestamp;

use super::Platform;
use crate::domain::App;
use crate::engine::{PING_PATIENCE, StuckNote};
use crate::error::Result;
use crate::records::Versioned;
use crate::store::Scope;

/// The part of which operations are that can't go on.
pub(super) const STUCK: &str = "operations";
/// The most stuck apps that are named.
const NAMED: usize = 20;

/// Something that keeps the platform from doing its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The part: `store`, `engine`, `ingress` or one of its own that was added; `claiming` when no work can be taken up,
    /// `operations` when one can't go on.
    pub part: &'static str,
    /// What is wrong with it, for operators.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// When this process noticed it first.
    pub since: Timestamp,
    /// How many operations on this server wait for it. What waits in the queue of a store that does not answer is not
    /// known.
    pub waiting: usize,
}

/// Whether the platform can do its work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What is wrong; nothing when it is ready.
    pub problems: Vec<Problem>,
}

impl Health {
    /// True if nothing is wrong.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Platform {
    /// Asks every part whether it answers, for five seconds at most.
    pub async fn health(&self) -> Health {
        let services = self.services();
        let context = services.context().with_budget(PING_PATIENCE);
        // What they find out is noted.
        services.ping(&context).await;
        let mut problems: Vec<_> = services
            .outages
            .all()
            .into_iter()
            .map(|(part, outage)| Problem {
                part,
                message: outage.message,
                hint: outage.hint.unwrap_or_else(|| advice(part).to_owned()),
                since: outage.since,
                waiting: outage.waiting.len(),
            })
            .collect();
        match context.run("health.stuck", self.stuck()).await {
            Ok(stuck) => problems.extend(stuck),
            // Most likely the store is out, which is listed already.
            Err(error) => tracing::debug!(?error, "what is stuck can't be told now"),
        }
        Health { problems }
    }

    /// What is stuck on any server: each app and deployment, and why.
    async fn stuck(&self) -> Result<Vec<Problem>> {
        let records = self.records();
        let mut notes = StuckNote::all(&records).await?;
        let others = notes.split_off(notes.len().min(NAMED));
        let mut stuck = Vec::new();
        for note in notes {
            let app: Option<Versioned<App>> = records.get(&Scope::System, note.app.as_str()).await?;
            let name = app.map(|app| format!("{} ", app.value.name)).unwrap_or_default();
            let deployment = note.deployment.map(|id| format!(", {id}")).unwrap_or_default();
            stuck.push(Problem {
                part: STUCK,
                message: format!("{name}({}{deployment}) is stuck: {}", note.app, note.reason),
                hint: advice(STUCK).to_owned(),
                since: note.since,
                waiting: 1,
            });
        }
        stuck.extend(others.iter().map(|note| note.since).min().map(|since| Problem {
            part: STUCK,
            message: format!("{} more are stuck", others.len()),
            hint: advice(STUCK).to_owned(),
            since,
            waiting: others.len(),
        }));
        Ok(stuck)
    }
}

/// What to do about a part that does not say so itself.
fn advice(part: &str) -> &'static str {
    match part {
        "store" => "see that the database answers and its disk is not full; work goes on by itself then",
        "claiming" => "no work is taken up until the store answers; it goes on by itself then",
        "engine" => {
            "see that the container engine runs and may be reached; what waits goes on within a minute then"
        }
        "ingress" => "see that the proxy runs; starting the server again starts it if it does not",
        _ => {
            "start the newest version that worked on this store, or abandon the deployment; other apps are not held up"
        }
    }
}
