//! Requests that may come twice: the same key has one effect.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::Platform;
use crate::domain::{AppId, DeploymentId, IdempotencyKey, OrgId, Secret};
use crate::error::{Error, Result};
use crate::fingerprint::Fingerprint;
use crate::records::{self, Document, Versioned};
use crate::seal::Sealed;
use crate::store::{Expect, Keys, Scope, Write};

/// How long a key is remembered.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// A request that may be repeated.
#[derive(Clone, Debug)]
pub(super) struct Repeatable {
    key: IdempotencyKey,
    /// A digest of what is asked.
    asked: String,
}

/// What a key was used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdempotencyRecord {
    org: OrgId,
    /// A digest of the key: it may be longer than an id.
    key: String,
    /// Sealed: what is asked may hold a secret, which a digest would let guess.
    asked: Sealed,
    /// What it was done to, or what it made.
    pub app: AppId,
    /// The operation that was accepted.
    pub deployment: Option<DeploymentId>,
}

impl Document for IdempotencyRecord {
    const KIND: &'static str = "idempotency";

    fn scope(&self) -> Scope {
        Scope::Org(self.org.clone())
    }

    fn id(&self) -> String {
        id(&self.org, &self.key)
    }

    fn keys(&self) -> Keys {
        Keys::default()
    }
}

fn id(org: &OrgId, key: &str) -> String {
    format!("{org}/{key}")
}

impl Repeatable {
    pub(super) fn new(key: IdempotencyKey, asked: &[&str]) -> Self {
        let mut fingerprint = Fingerprint::new("request/1");
        for part in asked {
            fingerprint.text(part);
        }
        Self { key, asked: fingerprint.finish() }
    }

    /// The key as it is kept.
    fn digest(&self) -> String {
        let mut fingerprint = Fingerprint::new("idempotency-key/1");
        fingerprint.text(self.key.as_str());
        fingerprint.finish()
    }

    fn purpose(&self, org: &OrgId) -> String {
        format!("{org}/idempotency/{}", self.digest())
    }
}

impl Platform {
    /// What the request did when it came before.
    ///
    /// # Errors
    /// `Invalid` with the code `idempotency_key_reused` when it was another request.
    pub(super) async fn done_before(
        &self,
        org: &OrgId,
        request: Option<&Repeatable>,
    ) -> Result<Option<IdempotencyRecord>> {
        let Some(request) = request else { return Ok(None) };
        let (scope, id) = (Scope::Org(org.clone()), id(org, &request.digest()));
        let known: Option<Versioned<IdempotencyRecord>> = self.records().get(&scope, &id).await?;
        let Some(known) = known else { return Ok(None) };
        let asked = self.services().keyring.open_sealed(&request.purpose(org), &known.value.asked)?;
        if asked.expose() != request.asked {
            return Err(Error::invalid(
                "platform.repeat",
                "this idempotency key was used for another request",
            )
            .code("idempotency_key_reused")
            .hint("give every new request a new key, and repeat one only as it was"));
        }
        Ok(Some(known.value))
    }

    /// Remembers, in the commit that does it, what the request does.
    pub(super) fn remember(
        &self,
        org: &OrgId,
        request: Option<&Repeatable>,
        app: &AppId,
        deployment: Option<&DeploymentId>,
    ) -> Result<Option<Write>> {
        let Some(request) = request else { return Ok(None) };
        let services = self.services();
        let asked = services.keyring.seal(&request.purpose(org), &Secret::from(request.asked.as_str()))?;
        let record = IdempotencyRecord {
            org: org.clone(),
            key: request.digest(),
            asked,
            app: app.clone(),
            deployment: deployment.cloned(),
        };
        let expires_at = services.clock.now() + KEPT;
        records::put_expiring(&record, Expect::Absent, expires_at).map(Some)
    }
}
