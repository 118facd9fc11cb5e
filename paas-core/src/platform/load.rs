//! How much work there is.

use super::Platform;
use crate::error::Result;
use crate::store::WorkClass;

/// How much work is due or under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Operations that wait for a worker or have one.
    pub operations: u64,
    /// Operations that wait for a build slot or have one.
    pub builds: u64,
}

impl Platform {
    /// How much work is due or under way, in all orgs.
    ///
    /// # Errors
    /// The store's.
    pub async fn load(&self) -> Result<Load> {
        let store = &self.services().store;
        let operations = store.count(WorkClass::Light, None).await?;
        let builds = store.count(WorkClass::Build, None).await?;
        Ok(Load { operations, builds })
    }
}
