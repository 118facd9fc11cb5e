//! What users were told: what must be true afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use paas_core::{AppId, AppName, DeploymentHandle, DeploymentId, Host, InstanceName, OrgId};

/// What was acknowledged, and what was asked for. Clones are the same ledger.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// The apps whose creation was acknowledged.
    pub(crate) created: BTreeMap<AppId, (OrgId, AppName)>,
    /// The operations that were accepted.
    pub(crate) accepted: BTreeMap<DeploymentId, OrgId>,
    /// Apps that somebody asked to stop or delete: they need not answer.
    pub(crate) leaving: BTreeSet<AppName>,
    /// Apps that somebody asked to delete: they need not be there.
    pub(crate) deleting: BTreeSet<(OrgId, AppName)>,
    /// Instances that broke: they need not answer until everything is quiet.
    pub(crate) broken: BTreeSet<InstanceName>,
    /// Hosts whose route somebody broke: they need not answer until everything is quiet.
    pub(crate) misrouted: BTreeSet<Host>,
    /// Apps that had a live release, as far as anybody looked.
    pub(crate) live: BTreeSet<AppName>,
}

impl Ledger {
    pub(crate) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap()
    }

    pub(crate) fn accepted(&self, org: &OrgId, handle: Option<&DeploymentHandle>) {
        if let Some(handle) = handle {
            self.entries().accepted.insert(handle.id().clone(), org.clone());
        }
    }
}
