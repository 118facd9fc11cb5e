//! Notes of what can't go on, for those who ask: they hold for every server, and disappear by themselves.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::services::Services;
use super::supervisor::PARKED;
use crate::domain::{AppId, AppStatus, DeploymentId, OrgId};
use crate::error::{Error, Result};
use crate::records::{self, Document, Records, Versioned};
use crate::store::{Expect, IndexRange, Keys, Lease, Scope, StreamId, Write};

/// That an app's operation can't go on, and why.
///
/// A worker that gives up on an app notes it, every time that it looks again. Nobody needs to take the note back: it is
/// void once the journal goes on, and expires when nobody writes it anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StuckNote {
    org: OrgId,
    /// The app.
    pub app: AppId,
    /// The operation, if that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentId>,
    /// How many events its journal had.
    version: u64,
    /// Why, for operators.
    pub reason: String,
    /// When it was noticed first.
    pub since: Timestamp,
}

impl Document for StuckNote {
    const KIND: &'static str = "stuck";

    fn scope(&self) -> Scope {
        Scope::Org(self.org.clone())
    }

    fn id(&self) -> String {
        self.app.to_string()
    }

    fn keys(&self) -> Keys {
        Keys { index: vec![("app", self.id())], ..Keys::default() }
    }
}

impl StuckNote {
    /// The write of a note on a leased app.
    pub(super) async fn write(services: &Services, lease: &Lease, error: &Error) -> Result<Write> {
        let app: AppId = lease.key.parse()?;
        let Scope::Org(org) = lease.scope.clone() else {
            return Err(Error::internal("stuck.write", "an app of no org"));
        };
        let records = services.records();
        // The status itself may be what can't be read: then it is the app alone that is noted.
        let status: Option<Versioned<AppStatus>> =
            records.get(&lease.scope, app.as_str()).await.unwrap_or_default();
        let deployment = status.and_then(|status| status.value.next_operation().cloned());
        let version = match &deployment {
            Some(id) => records.count_events(&lease.scope, &StreamId::from(id)).await?,
            None => 0,
        };
        let now = services.clock.now();
        let before: Option<Versioned<Self>> = records.get(&lease.scope, app.as_str()).await?;
        let since = before
            .filter(|before| (&before.value.deployment, before.value.version) == (&deployment, version))
            .map_or(now, |before| before.value.since);
        let note = Self { org, app, deployment, version, reason: error.message().to_owned(), since };
        records::put_expiring(&note, Expect::Any, now + 2 * PARKED)
    }

    /// Every note that holds.
    pub(crate) async fn all(records: &Records) -> Result<Vec<Self>> {
        let notes: Vec<Versioned<Self>> = records.all(&Scope::System, "app", IndexRange::all()).await?;
        let mut holding = Vec::new();
        for note in notes.into_iter().map(|note| note.value) {
            if note.holds(records).await? {
                holding.push(note);
            }
        }
        Ok(holding)
    }

    /// True if there is a note on an operation that holds.
    pub(crate) async fn is_on(
        records: &Records,
        scope: &Scope,
        app: &AppId,
        operation: &DeploymentId,
    ) -> Result<bool> {
        let note: Option<Versioned<Self>> = records.get(scope, app.as_str()).await?;
        match note.filter(|note| note.value.deployment.as_ref() == Some(operation)) {
            Some(note) => note.value.holds(records).await,
            None => Ok(false),
        }
    }

    /// True unless the journal went on since: another version understood it, or it was given up.
    async fn holds(&self, records: &Records) -> Result<bool> {
        let Some(id) = &self.deployment else { return Ok(true) };
        let went_on = records.has_event(&self.scope(), &StreamId::from(id), self.version + 1).await?;
        Ok(!went_on)
    }
}
