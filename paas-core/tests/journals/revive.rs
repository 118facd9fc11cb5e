//! The world as it was after some commits of a story, on a new machine: the images are there, containers and routes are
//! not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use paas_core::memory::{MemoryBuilder, MemoryRuntime};
use paas_core::pipeline::Output;
use paas_core::{
    Addressing, AppId, Batch, Clock, Context, DeploymentId, Event, ImageBuilder, LeaseChange, OrgId,
    RandomIds, Scope, StateStore, WorkClass,
};

use crate::golden::{Golden, StoredWrite};
use crate::shared::request;
use crate::world::World;

/// The records of one kind after some commits, by id.
pub(crate) fn records(golden: &Golden, commits: usize, wanted: &str) -> BTreeMap<String, serde_json::Value> {
    let mut records = BTreeMap::new();
    for write in golden.commits[..commits].iter().flat_map(|commit| &commit.writes) {
        match write {
            StoredWrite::Put { kind, id, body, .. } | StoredWrite::Update { kind, id, body, .. }
                if kind == wanted =>
            {
                records.insert(id.clone(), body.clone());
            }
            StoredWrite::Remove { kind, id, .. } if kind == wanted => drop(records.remove(id)),
            _ => {}
        }
    }
    records
}

/// The operations that were accepted within some commits.
pub(crate) fn operations(golden: &Golden, commits: usize) -> Vec<DeploymentId> {
    let appends = golden.commits[..commits].iter().flat_map(|commit| &commit.appends);
    let streams = appends.filter(|append| append.after == 0).map(|append| &append.stream);
    streams.filter_map(|stream| stream.parse().ok()).collect()
}

/// The world after some commits of a story.
pub(crate) async fn revive(golden: &Golden, commits: usize) -> World {
    let mut world = World::new();
    // Others than those that were given already.
    world.ids = Arc::new(RandomIds::seeded(world.clock.clone(), 2));
    if golden.chosen_addresses {
        let runtime = MemoryRuntime::new(world.host.clone()).with_addressing(Addressing::Runtime);
        world.runtime = Arc::new(runtime);
    }
    for page in &golden.pages {
        world.push_page(page);
    }
    let told = &golden.commits[..commits];
    for commit in told {
        world.store.commit(Batch::from(commit)).await.unwrap();
    }
    build_images(&world, golden, commits).await;
    let last = told.iter().flat_map(|commit| &commit.appends).map(|append| append.at).max();
    if let Some(last) = last {
        world.clock.jump(last.duration_since(world.clock.now()).as_secs() + 1);
    }
    for app in records(golden, commits, "app").keys() {
        let due = LeaseChange::Schedule {
            key: app.clone(),
            scope: Scope::Org(OrgId::default_org()),
            class: WorkClass::Light,
            after: Duration::ZERO,
        };
        world.store.commit(Batch { leases: vec![due], ..Batch::default() }).await.unwrap();
    }
    world
}

/// Builds what was built, under the same keys: the digests are the same then.
async fn build_images(world: &World, golden: &Golden, commits: usize) {
    let builder = MemoryBuilder::new(world.host.clone());
    let context = Context::new(world.clock.clone());
    let mut keys = BTreeMap::new();
    for append in golden.commits[..commits].iter().flat_map(|commit| &commit.appends) {
        for event in &append.events {
            match Event::decode(&serde_json::to_vec(event).unwrap()) {
                Event::Finished { output: Output::Planned { key, .. }, .. } => {
                    keys.insert(append.stream.clone(), key);
                }
                Event::Finished { output: Output::Built { image, cached: false }, .. } => {
                    let app = app_of(golden, &append.stream);
                    let request = paas_core::BuildRequest {
                        no_cache: true,
                        ..request(&OrgId::default_org(), &app, &append.stream)
                    };
                    let key = &keys[&append.stream];
                    while builder.build(&context, &request, key).await.unwrap().digest != image.digest {
                        assert!(world.host.builds_begun() < 100, "{} has another digest now", image.digest);
                    }
                }
                _ => {}
            }
        }
    }
}

fn app_of(golden: &Golden, operation: &str) -> AppId {
    let events = golden.commits.iter().flat_map(|commit| &commit.appends);
    let accepted = events.into_iter().find(|append| append.stream == operation && append.after == 0).unwrap();
    accepted.events[0]["app"].as_str().unwrap().parse().unwrap()
}
