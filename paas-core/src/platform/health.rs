//! Whether the platform can do its work, and if not, what is wrong.

use super::Platform;

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
        let status = self.inner.engine.status();
        problems.extend(status.outage.map(|message| Problem { part: "operations", message }));
        for (app, reason) in status.stuck {
            problems.push(Problem { part: "operations", message: format!("{app} is stuck: {reason}") });
        }
        Health { problems }
    }
}
