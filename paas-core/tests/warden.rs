//! What is there drifts from what should be, and is put right; nothing else is touched.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

#[path = "warden/dns.rs"]
mod dns;
#[path = "warden/routes.rs"]
mod routes;
mod world;

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use paas_core::memory::{MemoryAnswer, MemoryFiles, MemoryRuntime, Program, ProgramExit, Script};
use paas_core::pipeline::Drift;
use paas_core::testing::chaos::{Chaos, ChaosPlan, Mischief};
use paas_core::{
    Addressing, AppChanges, AppState, Batch, ConditionKind, ContainerRuntime, Context, Crashes, DeploymentId,
    DeploymentState, Event, Expect, Host, InstanceName, InstanceSpec, OperationKind, Platform, Position,
    Recorded, ReleaseNumber, Scope, Secret, StateStore, Write,
};
use world::{World, live};

/// The contract's: what has drifted is put right within 30 s.
const WITHIN: Duration = Duration::from_secs(30);

async fn hello() -> (World, Platform) {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    (world, platform)
}

fn host() -> Host {
    "hello.localhost".parse().unwrap()
}

/// True if a request reaches the live instance.
fn is_served(world: &World) -> bool {
    let live = world.host.instances().remove(0).name;
    matches!(world.ingress.request(&host()), MemoryAnswer::Instance(request) if request.target().instance == live)
}

/// What was told about instances and routes.
async fn told(platform: &Platform) -> Vec<Event> {
    platform.shutdown().await;
    told_so_far(platform).await
}

async fn told_so_far(platform: &Platform) -> Vec<Event> {
    let mut feed = platform.events(Position(0));
    let mut events: Vec<Recorded> = Vec::new();
    // Those to come are nobody's business here.
    while let Ok(next) = tokio::time::timeout(Duration::from_secs(1), feed.try_next()).await {
        let Some(recorded) = next.unwrap() else { break };
        events.push(recorded);
    }
    let is_about_one = |event: &Event| {
        matches!(
            event,
            Event::DriftFound { .. }
                | Event::InstanceRenamed { .. }
                | Event::InstanceRestored { .. }
                | Event::InstanceSteady { .. }
                | Event::RouteDriftFound { .. }
                | Event::ImageGone { .. }
                | Event::DnsDriftFound { .. }
                | Event::DnsRestored { .. }
        )
    };
    events.into_iter().map(|recorded| recorded.event).filter(is_about_one).collect()
}

async fn operations(platform: &Platform, kind: OperationKind) -> usize {
    let page = platform.apps().deployments("hello", 100, None).await.unwrap();
    page.items.iter().filter(|deployment| deployment.kind == kind).count()
}

#[tokio::test(start_paused = true)]
async fn what_is_right_is_left_alone() {
    let (world, platform) = hello().await;
    let before = world.host.instances();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.host.instances(), before);
    assert_eq!(world.host.containers_begun(), 1);
    assert_eq!(told(&platform).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_removed_container_is_made_again_under_its_name_at_its_address() {
    let (world, platform) = hello().await;
    let before = world.host.instances().remove(0);
    world.host.remove(&before.name);
    tokio::time::sleep(WITHIN).await;
    let after = world.host.instances().remove(0);
    assert_eq!((&after.name, after.address, after.is_running()), (&before.name, before.address, true));
    let status = platform.apps().get("hello").await.unwrap().status;
    assert_eq!((status.state, status.crashes.unwrap().is_down), (AppState::Running, false));
    let instance = before.name;
    let drift = Event::DriftFound { instance: instance.clone(), drift: Drift::Missing };
    assert_eq!(told(&platform).await, [drift, Event::InstanceRestored { instance }]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_was_cut_off_from_its_network_is_connected_again() {
    let (world, platform) = hello().await;
    let before = world.host.instances().remove(0);
    world.host.cut_off(&before.name);
    tokio::time::sleep(WITHIN).await;
    assert_eq!(world.host.instances(), std::slice::from_ref(&before), "it is the same one");
    assert_eq!(world.host.containers_begun(), 1);
    let instance = before.name;
    let drift = Event::DriftFound { instance: instance.clone(), drift: Drift::CutOff };
    assert_eq!(told(&platform).await, [drift, Event::InstanceRestored { instance }]);
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_name_was_taken_is_made_again_under_another() {
    let (world, platform) = hello().await;
    let before = world.host.instances().remove(0);
    let names = (0..3).map(|number| InstanceName::of(&before.deployment, number)).collect::<Vec<_>>();
    world.host.remove(&before.name);
    world.host.take_name(names[0].clone());
    world.host.take_name(names[1].clone());
    tokio::time::sleep(WITHIN).await;
    let after = world.host.instances().remove(0);
    assert_eq!((&after.name, after.address, after.is_running()), (&names[2], before.address, true));
    assert_eq!(world.host.foreign_names(), names[..2]);
    let MemoryAnswer::Instance(request) = world.ingress.request(&"hello.localhost".parse().unwrap()) else {
        panic!("it is not routed");
    };
    assert_eq!(request.target().instance, names[2]);
    drop(request);
    let status = platform.apps().get("hello").await.unwrap().status;
    assert_eq!(status.instance.unwrap().name, names[2]);
    // It stays so, and goes with the next deployment.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.host.containers_begun(), 2);
    world.push_page("two");
    platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    assert_eq!(world.host.instances().len(), 1);
    let renamed = |from: &InstanceName, to: &InstanceName| Event::InstanceRenamed {
        instance: from.clone(),
        to: to.clone(),
    };
    assert_eq!(
        told(&platform).await,
        [
            Event::DriftFound { instance: before.name, drift: Drift::Missing },
            renamed(&names[0], &names[1]),
            renamed(&names[1], &names[2]),
            Event::InstanceRestored { instance: names[2].clone() },
            Event::InstanceSteady { instance: names[2].clone() },
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_live_instance_does_not_run_its_host_says_so() {
    let (world, platform) = hello().await;
    let host = "hello.localhost".parse().unwrap();
    let name = world.host.instances().remove(0).name;
    // The second time it is started again after two seconds.
    for wait in [1, 2] {
        world.host.crash(&name, 1);
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(matches!(world.ingress.request(&host), MemoryAnswer::Stopped), "{wait}");
        tokio::time::sleep(Duration::from_secs(wait)).await;
        let MemoryAnswer::Instance(request) = world.ingress.request(&host) else {
            panic!("it is not routed again");
        };
        assert_eq!(request.target().instance, name);
    }
    // Nor at the next start.
    world.host.crash(&name, 1);
    tokio::time::sleep(Duration::from_millis(600)).await;
    platform.shutdown().await;
    let platform = world.platform().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(matches!(world.ingress.request(&host), MemoryAnswer::Stopped));
    tokio::time::sleep(WITHIN).await;
    assert!(matches!(world.ingress.request(&host), MemoryAnswer::Instance(_)));
    // A deployment goes on as ever.
    world.push_page("two");
    platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    assert!(matches!(world.ingress.request(&host), MemoryAnswer::Instance(_)));
}

#[tokio::test(start_paused = true)]
async fn images_of_the_newest_releases_are_kept() {
    let (world, platform) = hello().await;
    for number in 2..=8 {
        world.push_page(&format!("page {number}"));
        platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    }
    assert_eq!(world.host.images().len(), 8);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.host.images().len(), 5);
    let apps = platform.apps();
    let rollback = |number| apps.rollback("hello", ReleaseNumber(number));
    assert!(rollback(3).await.unwrap_err().hinted().unwrap().contains("deploy its commit again"));
    assert_eq!(rollback(4).await.unwrap().outcome().await.unwrap().state, DeploymentState::Running);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.host.images().len(), 5, "the live one is kept");
    let feed = platform.events(Position(0));
    platform.shutdown().await;
    let events: Vec<Recorded> = feed.try_collect().await.unwrap();
    let collected = events.iter().filter_map(|recorded| match &recorded.event {
        Event::ImagesCollected { images } => Some(images.len()),
        _ => None,
    });
    assert_eq!(collected.collect::<Vec<_>>(), [3], "told once");
}

#[tokio::test(start_paused = true)]
async fn what_an_app_left_is_found_when_it_is_gone() {
    let (world, platform) = hello().await;
    let image = world.host.images().remove(0);
    platform.apps().delete("hello").await.unwrap().outcome().await.unwrap();
    assert_eq!((world.host.images().len(), world.host.networks().len()), (0, 0));
    // As if a call of a paused server came through late.
    world.push_page("one");
    live(&platform, "hello").await;
    let spec = platform.apps().get("hello").await.unwrap();
    platform.apps().delete("hello").await.unwrap().outcome().await.unwrap();
    world.host.put_image(&spec.app.org, &spec.app.id, &image);
    world.host.put_network(&spec.app.org);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((world.host.images().len(), world.host.networks().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_network_that_something_foreign_is_on_is_removed_when_it_is_free() {
    let (world, platform) = hello().await;
    let app = platform.apps().get("hello").await.unwrap().app;
    world.host.share_network(&app.org, true);
    let deletion = platform.apps().delete("hello").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), deletion.outcome()).await.unwrap().unwrap();
    assert_eq!(ended.state, DeploymentState::Deleted, "it does not wait for what is not the app's");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.host.networks().len(), 1);
    world.host.share_network(&app.org, false);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.host.networks().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_the_runtime_chooses_addresses_the_route_follows() {
    let world = World::new();
    world.push_page("one");
    let runtime = MemoryRuntime::new(world.host.clone()).with_addressing(Addressing::Runtime);
    let platform = world.builder().runtime(Arc::new(runtime)).start().await.unwrap();
    live(&platform, "hello").await;
    let before = world.host.instances().remove(0);
    world.host.remove(&before.name);
    tokio::time::sleep(WITHIN).await;
    let after = world.host.instances().remove(0);
    assert_ne!(after.address, before.address);
    let MemoryAnswer::Instance(request) = world.ingress.request(&"hello.localhost".parse().unwrap()) else {
        panic!("it is not routed");
    };
    assert_eq!(request.target().address, after.address);
    drop(request);
    let status = platform.apps().get("hello").await.unwrap().status;
    assert_eq!(status.instance.unwrap().address, after.address);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.host.containers_begun(), 2, "it is right now");
    world.push_page("two");
    platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    let moved = Event::DriftFound { instance: before.name, drift: Drift::Moved };
    assert_eq!(told(&platform).await.into_iter().filter(|event| *event == moved).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_process_is_started_again() {
    let (world, platform) = hello().await;
    let instance = world.host.instances().remove(0).name;
    world.host.crash(&instance, 137);
    tokio::time::sleep(WITHIN).await;
    assert!(world.host.instances()[0].is_running());
    assert_eq!(operations(&platform, OperationKind::Restart).await, 0);
    // After a long run it counts as steady again.
    tokio::time::sleep(Crashes::STEADY + WITHIN).await;
    assert_eq!(platform.apps().get("hello").await.unwrap().status.crashes, None);
    let ended = Drift::Ended { code: 137, out_of_memory: false };
    assert_eq!(
        told(&platform).await,
        [
            Event::DriftFound { instance: instance.clone(), drift: ended },
            Event::InstanceRestored { instance: instance.clone() },
            Event::InstanceSteady { instance },
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_process_that_keeps_ending_is_started_ever_less_often_and_called_crashed() {
    let world = World::new();
    let exit = ProgramExit { after: Duration::from_secs(5), code: 3, out_of_memory: true };
    world.push_scripted(
        "one",
        Script { program: Program { exit: Some(exit), ..Program::default() }, ..Script::default() },
    );
    let platform = world.platform().await;
    live(&platform, "hello").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let status = platform.apps().get("hello").await.unwrap().status;
    assert_eq!(status.state, AppState::Crashed);
    let crashes = status.crashes.unwrap();
    assert_eq!(crashes.drift, Drift::Ended { code: 3, out_of_memory: true });
    let begun = world.host.containers_begun();
    assert!((12..30).contains(&begun), "{begun}");
    // Whoever mends it gets a fresh start.
    world.push_page("two");
    platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    let status = platform.apps().get("hello").await.unwrap().status;
    assert_eq!((status.state, status.crashes), (AppState::Running, None));
}

#[tokio::test(start_paused = true)]
async fn what_died_with_the_host_is_started_at_the_next_start_though_another_app_is_broken() {
    let (world, platform) = hello().await;
    let broken = live(&platform, "broken").await;
    platform.shutdown().await;
    for instance in world.host.instances() {
        world.host.crash(&instance.name, 137);
    }
    let broken = Write::Update {
        scope: Scope::Org(broken.org.clone()),
        kind: "app",
        id: broken.id.to_string(),
        expect: Expect::Any,
        body: b"{}".to_vec(),
    };
    world.store.commit(Batch { writes: vec![broken], ..Batch::default() }).await.unwrap();
    let platform = world.platform().await;
    tokio::time::sleep(WITHIN).await;
    let live = platform.apps().get("hello").await.unwrap().status.instance.unwrap().name;
    assert!(world.host.instances().iter().any(|instance| instance.name == live && instance.is_running()));
}

/// Every image is gone, and the live container too, as on a new machine.
fn lose_everything(world: &World) {
    world.host.forget_images();
    for instance in world.host.instances() {
        world.host.remove(&instance.name);
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_image_is_gone_is_deployed_anew_as_it_was() {
    let (world, platform) = hello().await;
    let apps = platform.apps();
    let built = apps.deployments("hello", 1, None).await.unwrap().items.remove(0);
    let env = [("LEVEL".parse().unwrap(), Some(Secret::from("7")))].into();
    let updated = apps.update("hello", AppChanges { env, ..AppChanges::default() }, None).await.unwrap();
    updated.deployment.unwrap().outcome().await.unwrap();
    // What is new in the repository stays there until somebody deploys it.
    world.push_page("two");
    for times in 1..=2 {
        let live = world.host.instances().remove(0).name;
        let image = world.host.images().remove(0).digest;
        lose_everything(&world);
        tokio::time::sleep(WITHIN).await;
        assert!(is_served(&world));
        let view = apps.get("hello").await.unwrap();
        let newest = apps.deployments("hello", 1, None).await.unwrap().items.remove(0);
        assert_eq!((newest.kind, &newest.commit), (OperationKind::Deploy, &built.commit));
        assert_eq!(view.status.instance.as_ref().unwrap().deployment, newest.id);
        assert_eq!((&view.status.revival, view.status.state), (&None, AppState::Running));
        assert!(view.status.conditions.iter().all(|condition| condition.holds), "{view:?}");
        let release = apps.releases("hello", 1, None).await.unwrap().items.remove(0);
        assert_eq!(release.config, view.app.config);
        assert_eq!(operations(&platform, OperationKind::Deploy).await, 1 + times);
        let told = told_so_far(&platform).await;
        let missing = Event::DriftFound { instance: live, drift: Drift::Missing };
        assert_eq!(told[told.len() - 2..], [missing, Event::ImageGone { image, deployment: newest.id }]);
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(operations(&platform, OperationKind::Deploy).await, 3, "it is right now");
    platform.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_deployed_anew_is_tried_once_and_then_a_persons() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    let failure =
        paas_core::Error::new(paas_core::Kind::BuildFailed, "memory.build", "the build ended with code 1");
    let build_failure = Some(paas_core::Failure::from(&failure));
    world.push_scripted("one", Script { build_failure, ..Script::default() });
    lose_everything(&world);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(matches!(world.ingress.request(&host()), MemoryAnswer::Stopped));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(operations(&platform, OperationKind::Deploy).await, 2);
    let status = platform.apps().get("hello").await.unwrap().status;
    let image = status.conditions.iter().find(|condition| condition.kind == ConditionKind::ImageBuilt);
    let image = image.unwrap();
    assert!(!image.holds && image.reason.ends_with("the build ended with code 1"), "{image:?}");
    // Also at the next start.
    platform.shutdown().await;
    let platform = world.platform().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(operations(&platform, OperationKind::Deploy).await, 2);
    // Whoever mends it has it again, with everything that is seen to.
    world.push_page("two");
    platform.deploy("hello").await.unwrap().outcome().await.unwrap();
    assert!(is_served(&world));
    lose_everything(&world);
    tokio::time::sleep(WITHIN).await;
    assert!(is_served(&world));
    assert_eq!(operations(&platform, OperationKind::Deploy).await, 4);
    platform.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_can_not_be_looked_up_is_not_gone() {
    let (world, platform) = hello().await;
    let plan =
        (1..=100).fold(ChaosPlan::calm(), |plan, nth| plan.nth("runtime.ensure", nth, Mischief::FailBefore));
    platform.shutdown().await;
    let runtime = Chaos::new(world.runtime.clone(), world.clock.clone(), 1, plan);
    let platform = world.builder().runtime(Arc::new(runtime)).start().await.unwrap();
    world.host.remove(&world.host.instances()[0].name.clone());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(is_served(&world));
    assert_eq!(operations(&platform, OperationKind::Deploy).await, 1);
    platform.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_goes_before_the_warden() {
    let (world, platform) = hello().await;
    let first = world.host.instances().remove(0).name;
    let failure =
        paas_core::Error::new(paas_core::Kind::BuildFailed, "memory.build", "the build ended with code 1");
    let (build_failure, build_time) = (Some(paas_core::Failure::from(&failure)), Duration::from_secs(60));
    world.push_scripted("two", Script { build_failure, build_time, ..Script::default() });
    let deployment = platform.deploy("hello").await.unwrap();
    world.host.crash(&first, 137);
    assert_eq!(deployment.settled().await.unwrap().state, DeploymentState::Failed);
    tokio::time::sleep(WITHIN).await;
    assert!(world.host.instances()[0].is_running());
    assert_eq!(world.host.instances()[0].name, first);
}

/// A container with the platform's label that no record knows, as a late call of a dead server makes one.
async fn stray(world: &World, platform: &Platform) -> InstanceName {
    let app = platform.apps().get("hello").await.unwrap().app;
    let deployment = DeploymentId::generate(world.ids.as_ref());
    let spec = InstanceSpec {
        name: InstanceName::of(&deployment, 0),
        org: app.org,
        app: app.id,
        deployment,
        image: world.host.images().remove(0),
        port: 8080_u32.try_into().unwrap(),
        env: paas_core::Env::default(),
        resources: paas_core::Resources::default(),
        stop_grace: Duration::from_secs(1),
        placement: paas_core::Placement::Chosen,
    };
    let context = Context::new(world.clock.clone());
    world.runtime.ensure(&context, &spec).await.unwrap().name
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_nobody_needs_is_removed_and_nothing_foreign() {
    let (world, platform) = hello().await;
    let foreign = InstanceName::try_from("paas-somebody".to_owned()).unwrap();
    world.host.take_name(foreign.clone());
    let stray = stray(&world, &platform).await;
    tokio::time::sleep(WITHIN).await;
    assert_eq!(world.host.instances().len(), 1);
    assert_eq!(world.host.foreign_names(), [foreign]);
    assert_eq!(told(&platform).await, [Event::DriftFound { instance: stray, drift: Drift::Unneeded }]);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_app_stays_stopped() {
    let (world, platform) = hello().await;
    platform.apps().stop("hello").await.unwrap().outcome().await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(world.host.instances().is_empty());
    assert_eq!(told(&platform).await, []);
}

#[tokio::test(start_paused = true)]
async fn what_drifts_while_the_engine_is_out_is_put_right_soon_after() {
    let (world, platform) = hello().await;
    world.host.stop_engine();
    world.host.remove(&world.host.instances()[0].name.clone());
    tokio::time::sleep(Duration::from_secs(1800)).await;
    world.host.start_engine();
    tokio::time::sleep(WITHIN).await;
    assert!(world.host.instances()[0].is_running());
    platform.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn two_servers_put_it_right_once() {
    let (world, platform) = hello().await;
    let other = world.platform().await;
    world.push(MemoryFiles::from([("index.html", "two")]));
    world.host.crash(&world.host.instances()[0].name.clone(), 1);
    tokio::time::sleep(2 * WITHIN).await;
    assert_eq!(world.host.containers_begun(), 2);
    other.shutdown().await;
    assert_eq!(told(&platform).await.len(), 2);
}
