//! Gives every org a subnet and every instance an address in it.
//!
//! The platform does this itself because an engine gives a freed address to the next container at once: requests
//! of a route that is a moment old would reach another app.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clock::Clock;
use crate::domain::{AppId, DeploymentId, OrgId};
use crate::error::{Error, Kind, Result, Retry};
use crate::records::{self, AddressRecord, NetworkRecord, Records, Versioned};
use crate::runtime::{Placement, Subnet};
use crate::settings::Settings;
use crate::store::{Batch, Expect, IndexRange, Scope, StateStore};

/// How often an allocation is tried anew when another one was faster.
const TRIES: usize = 50;

/// Allocates subnets and addresses.
#[derive(Debug)]
pub(crate) struct Addresses {
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    settings: Arc<Settings>,
}

impl Addresses {
    pub(crate) fn new(store: Arc<dyn StateStore>, clock: Arc<dyn Clock>, settings: Arc<Settings>) -> Self {
        Self { store, clock, settings }
    }

    fn records(&self) -> Records {
        Records::new(self.store.clone())
    }

    /// The address of an operation's instance: the one it has, or a new one.
    pub(crate) async fn allocate(
        &self,
        org: &OrgId,
        app: &AppId,
        deployment: &DeploymentId,
    ) -> Result<Placement> {
        let subnet = self.subnet(org).await?;
        for _ in 0..TRIES {
            let held: Option<Versioned<AddressRecord>> =
                self.records().find(&Scope::System, "deployment", deployment.as_str()).await?;
            if let Some(held) = held {
                return Ok(Placement::Fixed { subnet, address: held.value.address.into() });
            }
            let Some((record, expect)) = self.free_address(org, app, deployment, subnet).await? else {
                return Err(Error::new(
                    Kind::Unavailable,
                    "addresses.allocate",
                    "the org's network has no free address",
                )
                .hint("delete apps that are not needed, or set a larger subnet")
                .retry(Retry::Permanent));
            };
            let batch = Batch { writes: vec![records::put(&record, expect)?], ..Batch::default() };
            match self.store.commit(batch).await {
                Ok(_) => return Ok(Placement::Fixed { subnet, address: record.address.into() }),
                Err(error) if is_race(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(Kind::Unavailable, "addresses.allocate", "too many instances start at once"))
    }

    /// Lets an operation's address rest, so that it can be given again later.
    pub(crate) async fn free(&self, deployment: &DeploymentId) -> Result<()> {
        let held: Option<Versioned<AddressRecord>> =
            self.records().find(&Scope::System, "deployment", deployment.as_str()).await?;
        match held {
            Some(held) => self.rest(held).await,
            None => Ok(()),
        }
    }

    /// Lets every address of an app rest but those of `kept`: also one whose instance is gone without anybody having
    /// freed it.
    pub(crate) async fn free_all(
        &self,
        org: &OrgId,
        app: &AppId,
        kept: &BTreeSet<DeploymentId>,
    ) -> Result<()> {
        let scope = Scope::Org(org.clone());
        let known: Vec<Versioned<AddressRecord>> =
            self.records().all(&scope, "org", IndexRange::starting_with(format!("{org}/"))).await?;
        let is_unused = |address: &Versioned<AddressRecord>| {
            let address = &address.value;
            address.app == *app && address.freed_at.is_none() && !kept.contains(&address.deployment)
        };
        for address in known.into_iter().filter(is_unused) {
            self.rest(address).await?;
        }
        Ok(())
    }

    async fn rest(&self, held: Versioned<AddressRecord>) -> Result<()> {
        let freed = AddressRecord { freed_at: Some(self.clock.now()), ..held.value };
        let write = records::put(&freed, Expect::Version(held.version))?;
        match self.store.commit(Batch { writes: vec![write], ..Batch::default() }).await {
            Ok(_) => Ok(()),
            // Whoever was faster freed it too.
            Err(error) if is_race(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The org's subnet: the one it has, or a new one. It stays the org's: an instance that is just starting may hold
    /// an address in it.
    async fn subnet(&self, org: &OrgId) -> Result<Subnet> {
        let pool = self.settings.address_pool;
        let scope = Scope::Org(org.clone());
        for _ in 0..TRIES {
            if let Some(network) = self.records().get::<NetworkRecord>(&scope, org.as_str()).await? {
                return pool.subnet(network.value.number).ok_or_else(|| {
                    Error::invalid("addresses.subnet", "the org's subnet is outside the address pool")
                        .hint("set the address pool back to what it was when the org's first app started")
                });
            }
            let taken: Vec<Versioned<NetworkRecord>> =
                self.records().all(&Scope::System, "number", IndexRange::all()).await?;
            let taken: BTreeSet<u32> = taken.into_iter().map(|network| network.value.number).collect();
            let Some(number) = (0..pool.subnets()).find(|number| !taken.contains(number)) else {
                return Err(Error::new(
                    Kind::Unavailable,
                    "addresses.subnet",
                    "the address pool has no free subnet",
                )
                .hint("set a larger address pool")
                .retry(Retry::Permanent));
            };
            let record = NetworkRecord { org: org.clone(), number };
            let batch = Batch { writes: vec![records::put(&record, Expect::Absent)?], ..Batch::default() };
            match self.store.commit(batch).await {
                Ok(_) => {}
                Err(error) if is_race(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(Kind::Unavailable, "addresses.subnet", "too many orgs start at once"))
    }

    /// An address that nobody has: a new one, or else the one that has rested longest.
    async fn free_address(
        &self,
        org: &OrgId,
        app: &AppId,
        deployment: &DeploymentId,
        subnet: Subnet,
    ) -> Result<Option<(AddressRecord, Expect)>> {
        let scope = Scope::Org(org.clone());
        let known: Vec<Versioned<AddressRecord>> =
            self.records().all(&scope, "org", IndexRange::starting_with(format!("{org}/"))).await?;
        let record = |address| AddressRecord {
            org: org.clone(),
            app: app.clone(),
            address,
            deployment: deployment.clone(),
            freed_at: None,
        };
        let used: BTreeSet<_> = known.iter().map(|known| known.value.address).collect();
        if let Some(address) = subnet.hosts().find(|address| !used.contains(address)) {
            return Ok(Some((record(address), Expect::Absent)));
        }
        let now = self.clock.now();
        let has_rested = |known: &&Versioned<AddressRecord>| {
            known.value.freed_at.is_some_and(|freed_at| {
                now.duration_since(freed_at)
                    >= jiff::SignedDuration::try_from(self.settings.address_rest).unwrap_or_default()
            })
        };
        let rested = known.iter().filter(has_rested).min_by_key(|known| known.value.freed_at);
        Ok(rested.map(|known| (record(known.value.address), Expect::Version(known.version))))
    }
}

fn is_race(error: &Error) -> bool {
    matches!(error.kind(), Kind::Conflict | Kind::AlreadyExists)
}
