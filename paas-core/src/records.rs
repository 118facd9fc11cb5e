//! Typed documents over the store's records, once for every store.

use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::{
    App, AppId, AppStatus, Deployment, DeploymentId, DeploymentSpec, Generation, OrgId, Release,
    ReleaseNumber, Route,
};
use crate::error::{self, Result};
use crate::pipeline::{Event, Recorded};
use crate::store::{
    Append, Cursor, Expect, IndexRange, Keys, Page, Position, Record, Scan, Scope, StateStore, StoredEvent,
    StreamId, UniqueReach, Write,
};

/// What is kept as a record.
pub(crate) trait Document: Serialize + DeserializeOwned + Send + Sync {
    const KIND: &'static str;

    fn scope(&self) -> Scope;
    fn id(&self) -> String;
    fn keys(&self) -> Keys;
}

/// A document and the version of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The version: one more at every change.
    pub version: u64,
    /// The document.
    pub value: T,
}

/// The route of an app, as it was published last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RouteRecord {
    pub org: OrgId,
    pub route: Route,
    pub generation: Generation,
}

/// The network of an org.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkRecord {
    pub org: OrgId,
    /// The number of its subnet within the installation's address pool.
    pub number: u32,
}

/// An address that an operation's instance has, or had until not long ago.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AddressRecord {
    pub org: OrgId,
    pub app: AppId,
    pub address: std::net::Ipv4Addr,
    pub deployment: DeploymentId,
    /// Since when it rests before it is given again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freed_at: Option<Timestamp>,
}

impl Document for App {
    const KIND: &'static str = "app";

    fn scope(&self) -> Scope {
        Scope::Org(self.org.clone())
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn keys(&self) -> Keys {
        Keys {
            unique: vec![("name", self.name.to_string(), UniqueReach::Store)],
            index: vec![("id", self.id.to_string())],
            expires_at: None,
        }
    }
}

impl Document for AppStatus {
    const KIND: &'static str = "app_status";

    fn scope(&self) -> Scope {
        Scope::Org(self.org.clone())
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn keys(&self) -> Keys {
        Keys { index: vec![("id", self.id.to_string())], ..Keys::default() }
    }
}

impl Document for Deployment {
    const KIND: &'static str = "deployment";

    fn scope(&self) -> Scope {
        Scope::Org(self.org.clone())
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn keys(&self) -> Keys {
        Keys { index: vec![("app", format!("{}/{}", self.app, self.id))], ..Keys::default() }
    }
}

impl Document for DeploymentSpec {
    const KIND: &'static str = "deployment_spec";

    fn scope(&self) -> Scope {
        Scope::Org(self.org.clone())
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn keys(&self) -> Keys {
        Keys::default()
    }
}

/// The id of a release's record: sorts by number.
pub(crate) fn release_id(app: &AppId, number: ReleaseNumber) -> String {
    format!("{app}/{:010}", number.0)
}

impl Document for Release {
    const KIND: &'static str = "release";

    fn scope(&self) -> Scope {
        Scope::Org(self.org.clone())
    }

    fn id(&self) -> String {
        release_id(&self.app, self.number)
    }

    fn keys(&self) -> Keys {
        Keys { index: vec![("app", self.id())], ..Keys::default() }
    }
}

impl Document for RouteRecord {
    const KIND: &'static str = "route";

    fn scope(&self) -> Scope {
        Scope::Org(self.org.clone())
    }

    fn id(&self) -> String {
        self.route.host.to_string()
    }

    fn keys(&self) -> Keys {
        Keys { index: vec![("host", self.id())], ..Keys::default() }
    }
}

impl Document for NetworkRecord {
    const KIND: &'static str = "network";

    fn scope(&self) -> Scope {
        Scope::Org(self.org.clone())
    }

    fn id(&self) -> String {
        self.org.to_string()
    }

    fn keys(&self) -> Keys {
        let number = format!("{:08}", self.number);
        Keys {
            unique: vec![("number", number.clone(), UniqueReach::Store)],
            index: vec![("number", number)],
            expires_at: None,
        }
    }
}

impl Document for AddressRecord {
    const KIND: &'static str = "address";

    fn scope(&self) -> Scope {
        Scope::Org(self.org.clone())
    }

    fn id(&self) -> String {
        self.address.to_string()
    }

    fn keys(&self) -> Keys {
        let unique = match self.freed_at {
            None => vec![("deployment", self.deployment.to_string(), UniqueReach::Store)],
            Some(_) => Vec::new(),
        };
        let octets = self.address.octets().map(|octet| format!("{octet:03}")).join(".");
        Keys { unique, index: vec![("org", format!("{}/{octets}", self.org))], expires_at: None }
    }
}

/// Typed access to a store.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    store: Arc<dyn StateStore>,
}

impl Records {
    pub(crate) fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store }
    }

    pub(crate) async fn get<T: Document>(&self, scope: &Scope, id: &str) -> Result<Option<Versioned<T>>> {
        self.store.get(scope, T::KIND, id).await?.map(decode).transpose()
    }

    pub(crate) async fn find<T: Document>(
        &self,
        scope: &Scope,
        key: &'static str,
        value: &str,
    ) -> Result<Option<Versioned<T>>> {
        self.store.find(scope, T::KIND, key, value).await?.map(decode).transpose()
    }

    pub(crate) async fn scan<T: Document>(
        &self,
        scope: &Scope,
        index: &'static str,
        range: IndexRange,
        options: PageOptions,
    ) -> Result<Page<Versioned<T>>> {
        let PageOptions { descending, limit, cursor } = options;
        let scan = Scan { scope: scope.clone(), kind: T::KIND, index, range, descending, limit, cursor };
        let page = self.store.scan(&scan).await?;
        let items = page.items.into_iter().map(decode).collect::<Result<_>>()?;
        Ok(Page { items, next: page.next })
    }

    /// Every record in a range.
    pub(crate) async fn all<T: Document>(
        &self,
        scope: &Scope,
        index: &'static str,
        range: IndexRange,
    ) -> Result<Vec<Versioned<T>>> {
        const PAGE: usize = 500;
        self.pages(scope, index, range, PAGE).try_concat().await
    }

    /// Every record in a range, `limit` at a time, for those that are too many or too large to hold at once. A page may
    /// be removed before the next one is read.
    pub(crate) fn pages<T: Document>(
        &self,
        scope: &Scope,
        index: &'static str,
        range: IndexRange,
        limit: usize,
    ) -> BoxStream<'static, Result<Vec<Versioned<T>>>> {
        let (records, scope) = (self.clone(), scope.clone());
        let pages = futures::stream::try_unfold(Some(None), move |cursor| {
            let (records, scope, range) = (records.clone(), scope.clone(), range.clone());
            async move {
                let Some(cursor) = cursor else { return Ok(None) };
                let options = PageOptions { descending: false, limit, cursor };
                let page = records.scan(&scope, index, range, options).await?;
                Ok(Some((page.items, page.next.map(Some))))
            }
        });
        pages.boxed()
    }

    /// The events of a stream after `after`.
    pub(crate) async fn events(&self, scope: &Scope, stream: &StreamId, after: u64) -> Result<Vec<Recorded>> {
        const PAGE: usize = 1000;
        let mut events = Vec::new();
        let mut after = after;
        loop {
            let page = self.store.events(scope, stream, after, PAGE).await?;
            let is_last = page.len() < PAGE;
            for stored in page {
                after = stored.version;
                events.push(decode_event(stored));
            }
            if is_last {
                return Ok(events);
            }
        }
    }

    /// How many events a stream has, without reading them all.
    pub(crate) async fn count_events(&self, scope: &Scope, stream: &StreamId) -> Result<u64> {
        let (mut there, mut missing) = (0, 1);
        while self.has_event(scope, stream, missing).await? {
            (there, missing) = (missing, missing * 2);
        }
        while missing - there > 1 {
            let middle = there.midpoint(missing);
            if self.has_event(scope, stream, middle).await? {
                there = middle;
            } else {
                missing = middle;
            }
        }
        Ok(there)
    }

    /// The position of the newest event, without reading them all: 0 if there is none.
    pub(crate) async fn newest_position(&self) -> Result<Position> {
        let (mut there, mut missing) = (0, 1);
        while self.has_position(missing).await? {
            (there, missing) = (missing, missing * 2);
        }
        while missing - there > 1 {
            let middle = there.midpoint(missing);
            if self.has_position(middle).await? {
                there = middle;
            } else {
                missing = middle;
            }
        }
        Ok(Position(there))
    }

    /// True if there is an event at or behind a position.
    pub(crate) async fn has_position(&self, position: u64) -> Result<bool> {
        let before = Position(position.saturating_sub(1));
        Ok(!self.store.feed(&Scope::System, before, 1).await?.is_empty())
    }

    /// True if a stream has an event of this version.
    pub(crate) async fn has_event(&self, scope: &Scope, stream: &StreamId, version: u64) -> Result<bool> {
        Ok(!self.store.events(scope, stream, version - 1, 1).await?.is_empty())
    }
}

/// Which page of a scan.
#[derive(Clone, Debug)]
pub(crate) struct PageOptions {
    pub descending: bool,
    pub limit: usize,
    pub cursor: Option<Cursor>,
}

fn decode<T: Document>(record: Record) -> Result<Versioned<T>> {
    let value = serde_json::from_slice(&record.body).map_err(error::map("records.decode"))?;
    Ok(Versioned { version: record.version, value })
}

pub(crate) fn decode_event(stored: StoredEvent) -> Recorded {
    Recorded {
        stream: stored.stream,
        version: stored.version,
        position: stored.position,
        at: stored.at,
        event: Event::decode(&stored.body),
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(error::map("records.encode"))
}

/// Makes or replaces a document's record.
pub(crate) fn put<T: Document>(value: &T, expect: Expect) -> Result<Write> {
    Ok(Write::Put {
        scope: value.scope(),
        kind: T::KIND,
        id: value.id(),
        expect,
        keys: value.keys(),
        body: encode(value)?,
    })
}

/// Replaces a document, and lets it disappear by itself at `expires_at`.
pub(crate) fn put_expiring<T: Document>(value: &T, expect: Expect, expires_at: Timestamp) -> Result<Write> {
    Ok(Write::Put {
        scope: value.scope(),
        kind: T::KIND,
        id: value.id(),
        expect,
        keys: Keys { expires_at: Some(expires_at), ..value.keys() },
        body: encode(value)?,
    })
}

/// Replaces a document's body; its keys must be the same.
pub(crate) fn update<T: Document>(value: &T, expect: Expect) -> Result<Write> {
    Ok(Write::Update { scope: value.scope(), kind: T::KIND, id: value.id(), expect, body: encode(value)? })
}

/// Removes a document's record.
pub(crate) fn remove<T: Document>(value: &T, expect: Expect) -> Write {
    Write::Remove { scope: value.scope(), kind: T::KIND, id: value.id(), expect }
}

/// Appends events to a stream.
pub(crate) fn append(
    scope: Scope,
    stream: StreamId,
    expect: u64,
    at: Timestamp,
    events: &[Event],
) -> Result<Append> {
    let events = events.iter().map(encode).collect::<Result<_>>()?;
    Ok(Append { scope, stream, expect, at, events })
}
