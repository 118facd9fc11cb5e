//! What makes an operation durable.

use jiff::Timestamp;

use super::Services;
use crate::domain::{Deployment, DeploymentSpec, DeploymentState};
use crate::error::Result;
use crate::pipeline::Event;
use crate::records;
use crate::store::{Append, Expect, Scope, StreamId, Write};

/// The records of a new operation and the first event of its journal. In the same commit it gets its place in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Acceptance {
    pub deployment: Deployment,
    pub writes: Vec<Write>,
    pub append: Append,
}

impl Acceptance {
    pub(crate) fn of(services: &Services, spec: &DeploymentSpec, now: Timestamp) -> Result<Self> {
        let deployment = Deployment {
            id: spec.id.clone(),
            org: spec.org.clone(),
            app: spec.app.clone(),
            kind: spec.kind,
            state: DeploymentState::Queued,
            step: None,
            commit: None,
            cached: None,
            release: None,
            superseded_by: None,
            failure: None,
            created_at: now,
            settled_at: None,
            deadline_seconds: services.settings.retry.deadline.as_secs(),
        };
        let writes = vec![records::put(spec, Expect::Absent)?, records::put(&deployment, Expect::Absent)?];
        let (scope, stream) = (Scope::Org(spec.org.clone()), StreamId::from(&spec.id));
        let event = Event::Accepted { kind: spec.kind, app: spec.app.clone() };
        let append = records::append(scope, stream, 0, now, &[event])?;
        Ok(Self { deployment, writes, append })
    }
}
