//! What somebody changes at the ingress is put right.

use std::time::Duration;

use paas_core::memory::{MemoryAnswer, Script};
use paas_core::pipeline::RouteDrift;
use paas_core::{AppChanges, AppId, Context, Event, Generation, Host, Ingress, Route, Serving, Visibility};

use crate::world::{World, new_app};
use crate::{WITHIN, hello, host, is_served, told, told_so_far};

async fn serving(world: &World) -> Option<Serving> {
    world.ingress.serving(&Context::new(world.clock.clone()), &host()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_not_the_recorded_one_is_published_again() {
    let (world, platform) = hello().await;
    let route = serving(&world).await.unwrap().route.unwrap();
    let nowhere = Some(Route { targets: Vec::new(), ..route });
    // What is served then, by how much newer than the record, and what is told of it.
    let cases = [
        (None, RouteDrift::Missing),
        (Some((1, None)), RouteDrift::Missing),
        (Some((-1, nowhere.clone())), RouteDrift::Outdated),
        (Some((1, nowhere.clone())), RouteDrift::Elsewhere),
        (Some((0, nowhere)), RouteDrift::Elsewhere),
    ];
    for (tampered, drift) in &cases {
        let present = serving(&world).await.unwrap().generation.0;
        let tampered = tampered
            .clone()
            .map(|(by, route)| Serving { generation: Generation(present.saturating_add_signed(by)), route });
        world.ingress.tamper(&host(), tampered);
        assert!(!is_served(&world));
        tokio::time::sleep(WITHIN).await;
        assert!(is_served(&world), "{drift:?}");
        let status = platform.apps().get("hello").await.unwrap().status;
        assert_eq!(serving(&world).await.unwrap().generation, status.route);
    }
    // It is right now, and a deployment goes on as ever.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    world.push_page("two");
    platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    assert!(is_served(&world));
    assert_eq!(world.host.containers_begun(), 2);
    let told = told(&platform).await;
    let expected = cases.map(|(_, drift)| Event::RouteDriftFound { host: host(), drift });
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn the_route_of_a_stopped_app_is_put_right_too() {
    let (world, platform) = hello().await;
    platform.apps().stop("hello").await.unwrap().outcome().await.unwrap();
    world.ingress.tamper(&host(), None);
    tokio::time::sleep(WITHIN).await;
    assert!(matches!(world.ingress.request(&host()), MemoryAnswer::Stopped));
    let missing = Event::RouteDriftFound { host: host(), drift: RouteDrift::Missing };
    assert_eq!(told(&platform).await, [missing]);
}

#[tokio::test(start_paused = true)]
async fn the_route_of_an_app_that_is_gone_is_withdrawn_and_no_foreign_one() {
    let (world, platform) = hello().await;
    let served = serving(&world).await;
    platform.apps().delete("hello").await.unwrap().outcome().await.unwrap();
    // As if the proxy had been away, and came back with its last table.
    world.ingress.tamper(&host(), served);
    let foreign: Host = "foreign.localhost".parse().unwrap();
    let (app, targets) = (AppId::generate(world.ids.as_ref()), Vec::new());
    let route = Some(Route { host: foreign.clone(), app, targets });
    world.ingress.tamper(&foreign, Some(Serving { generation: Generation(1), route }));
    tokio::time::sleep(WITHIN).await;
    assert!(matches!(world.ingress.request(&host()), MemoryAnswer::Unknown));
    assert!(matches!(world.ingress.request(&foreign), MemoryAnswer::Stopped));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let unneeded = Event::RouteDriftFound { host: host(), drift: RouteDrift::Unneeded };
    assert_eq!(told(&platform).await, [unneeded]);
}

#[tokio::test(start_paused = true)]
async fn the_route_of_an_app_that_has_become_private_is_withdrawn() {
    let (world, platform) = hello().await;
    let served = serving(&world).await;
    let changes = AppChanges { visibility: Some(Visibility::Private), ..AppChanges::default() };
    let updated = platform.apps().update("hello", changes, None).await.unwrap();
    updated.deployment.unwrap().outcome().await.unwrap();
    world.ingress.tamper(&host(), served);
    tokio::time::sleep(WITHIN).await;
    assert!(matches!(world.ingress.request(&host()), MemoryAnswer::Unknown));
    let unneeded = Event::RouteDriftFound { host: host(), drift: RouteDrift::Unneeded };
    assert_eq!(told(&platform).await, [unneeded]);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_is_newer_than_the_store_is_left_alone_until_that_has_come_so_far() {
    let (world, platform) = hello().await;
    let mut served = serving(&world).await.unwrap();
    served.generation = Generation(served.generation.0 + 20);
    served.route.as_mut().unwrap().targets.clear();
    world.ingress.tamper(&host(), Some(served.clone()));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(serving(&world).await, Some(served));
    assert_eq!(told_so_far(&platform).await, []);
    // Many events, and no other route.
    let failure = paas_core::Error::new(paas_core::Kind::BuildFailed, "memory.build", "it does not build");
    let build_failure = Some(paas_core::Failure::from(&failure));
    world.push_scripted("two", Script { build_failure, ..Script::default() });
    for name in ["one", "two", "three"] {
        let created = platform.apps().create(new_app(name)).await.unwrap();
        created.deployment.unwrap().settled().await.unwrap();
    }
    tokio::time::sleep(WITHIN).await;
    assert!(is_served(&world));
    let elsewhere = Event::RouteDriftFound { host: host(), drift: RouteDrift::Elsewhere };
    assert_eq!(told(&platform).await, [elsewhere]);
}

#[tokio::test(start_paused = true)]
async fn an_ingress_that_loses_all_routes_while_the_server_is_away_is_told_them_without_an_event() {
    let (world, platform) = hello().await;
    platform.shutdown().await;
    world.ingress.tamper(&host(), None);
    let platform = world.platform().await;
    tokio::time::sleep(WITHIN).await;
    assert!(is_served(&world));
    assert_eq!(told(&platform).await, []);
}
