//! Whether the platform can do its work, and if not, what is wrong.

use super::Platform;
use crate::domain::App;
use crate::engine::StuckNote;
use crate::error::Result;
use crate::records::Versioned;
use crate::store::Scope;

/// Something that keeps the platform from doing its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The part: `store`, `engine`, `ingress`, `operations`.
    pub part: &'static str,
    /// What is wrong with it, for operators.
    pub message: String,
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
    /// Asks every part whether it answers.
    pub async fn health(&self) -> Health {
        let services = self.services();
        let mut problems = Vec::new();
        for (part, answer) in services.ping(&services.context()).await {
            if let Err(error) = answer {
                problems.push(Problem { part, message: error.message().to_owned() });
            }
        }
        let outage = self.inner.engine.outage();
        problems.extend(outage.map(|message| Problem { part: "operations", message }));
        match self.stuck().await {
            Ok(stuck) => problems.extend(stuck),
            // Most likely the store is out, which is listed already.
            Err(error) => tracing::debug!(?error, "what is stuck can't be told now"),
        }
        Health { problems }
    }

    /// What is stuck on any server: each app and deployment, and why.
    async fn stuck(&self) -> Result<Vec<Problem>> {
        let records = self.records();
        let mut stuck = Vec::new();
        for note in StuckNote::all(&records).await? {
            let app: Option<Versioned<App>> = records.get(&Scope::System, note.app.as_str()).await?;
            let name = app.map(|app| format!("{} ", app.value.name)).unwrap_or_default();
            let deployment = note.deployment.map(|id| format!(", {id}")).unwrap_or_default();
            let message = format!("{name}({}{deployment}) is stuck: {}", note.app, note.reason);
            stuck.push(Problem { part: "operations", message });
        }
        Ok(stuck)
    }
}
