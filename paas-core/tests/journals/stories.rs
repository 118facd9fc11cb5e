//! What is recorded: every kind of operation, and everything that can be told of one.

use std::sync::Arc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use paas_core::memory::{Program, ProgramExit, Script};
use paas_core::testing::chaos::{Chaos, ChaosPlan, Mischief};
use paas_core::{
    AppChanges, ContainerRuntime, Context, Crashes, DeployOptions, DeploymentId, DeploymentState, Env, Error,
    Fault, Generation, InstanceName, InstanceSpec, Kind, Placement, Platform, RecordSet, ReleaseNumber,
    Resources, Route, Serving, Step,
};

use crate::stage::{Stage, Story, reach};
use crate::world::{live, new_app, url};

/// Long enough for the warden to look.
const LOOK: Duration = Duration::from_secs(30);

pub(crate) const ALL: &[Story] = &[
    Story { name: "deployed", about: "A first deployment, and another of the same tree.", tell: deployed },
    Story { name: "retried", about: "The git server is out twice.", tell: retried },
    Story { name: "exited", about: "The second release's process ends at its start.", tell: exited },
    Story {
        name: "route_undone",
        about: "The proxy refuses the second release's route.",
        tell: route_undone,
    },
    Story { name: "route_left", about: "The proxy refuses any route, also the old one.", tell: route_left },
    Story { name: "name_taken", about: "Something foreign has the instance's name.", tell: name_taken },
    Story {
        name: "cancelled",
        about: "A build is cancelled, and a restart that waits for it.",
        tell: cancelled,
    },
    Story {
        name: "superseded",
        about: "A newer deployment, twice: before and in a build.",
        tell: superseded,
    },
    Story { name: "operations", about: "Every other kind, to the app's deletion.", tell: operations },
    Story {
        name: "drifted",
        about: "Containers that end, disappear, are cut off, lose their name, and should not be there.",
        tell: drifted,
    },
    Story { name: "collected", about: "More releases than images are kept.", tell: collected },
    Story { name: "revived", about: "A container and its image disappear.", tell: revived },
    Story { name: "moved", about: "A container that gets another address.", tell: moved },
    Story {
        name: "misrouted",
        about: "What the proxy serves is lost, older, led elsewhere, and of an app that is gone.",
        tell: misrouted,
    },
    Story { name: "renamed", about: "DNS records are removed and changed.", tell: renamed },
    Story { name: "abandoned", about: "What a later version wrote is given up.", tell: abandoned },
];

async fn deploy(platform: &Platform) -> paas_core::DeploymentHandle {
    platform.apps().deploy("hello", DeployOptions::default()).await.unwrap()
}

fn slow() -> Script {
    Script { build_time: Duration::from_secs(60), ..Script::default() }
}

fn deployed(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let platform = stage.platform().await;
        live(&platform, "hello").await;
        deploy(&platform).await.outcome().await.unwrap();
        platform.shutdown().await;
    })
}

fn retried(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let down = Error::new(Kind::Unavailable, "git.resolve", "it answers 503").fault(Fault::Upstream);
        stage.world.git.fail(&url(), &down, 2);
        let platform = stage.platform().await;
        live(&platform, "hello").await;
        platform.shutdown().await;
    })
}

fn exited(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let platform = stage.platform().await;
        live(&platform, "hello").await;
        let exit = ProgramExit { after: Duration::ZERO, code: 3, out_of_memory: false };
        let output = vec!["it can't start".to_owned()];
        stage.push_program("two", Program { exit: Some(exit), output, ..Program::default() });
        deploy(&platform).await.outcome().await.unwrap_err();
        platform.shutdown().await;
    })
}

/// A second deployment whose calls of the proxy to publish fail so often.
async fn refuse_routes(stage: &Stage, times: u64) {
    stage.push("one");
    let platform = stage.platform().await;
    live(&platform, "hello").await;
    platform.shutdown().await;
    // The first is the start's, which publishes what is live again.
    let nth = 2..2 + times;
    let plan =
        nth.fold(ChaosPlan::calm(), |plan, nth| plan.nth("ingress.publish", nth, Mischief::FailBefore));
    let ingress = Chaos::new(stage.world.ingress.clone(), stage.world.clock.clone(), 1, plan);
    let platform = stage.builder().ingress(Arc::new(ingress)).start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.push("two");
    deploy(&platform).await.outcome().await.unwrap_err();
    platform.shutdown().await;
}

fn route_undone(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(refuse_routes(stage, 5))
}

fn route_left(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(refuse_routes(stage, 100))
}

fn name_taken(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let asking = stage.asking().await;
        let created = asking.apps().create(new_app("hello")).await.unwrap();
        let id = created.first_deployment().unwrap().id().clone();
        asking.shutdown().await;
        stage.world.host.take_name(InstanceName::of(&id, 0));
        let platform = stage.platform().await;
        platform.apps().deployment(&id).await.unwrap().outcome().await.unwrap();
        platform.shutdown().await;
    })
}

fn cancelled(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let platform = stage.platform().await;
        live(&platform, "hello").await;
        stage.push_scripted("two", slow());
        let building = deploy(&platform).await;
        reach(&building, Step::Build).await;
        let waiting = platform.apps().restart("hello").await.unwrap();
        for handle in [waiting, building] {
            handle.cancel().await.unwrap();
            assert_eq!(handle.settled().await.unwrap().state, DeploymentState::Cancelled);
        }
        platform.shutdown().await;
    })
}

fn superseded(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push_scripted("one", slow());
        let asking = stage.asking().await;
        asking.apps().create(new_app("hello")).await.unwrap();
        let building = deploy(&asking).await;
        asking.shutdown().await;
        let platform = stage.platform().await;
        let building = platform.apps().deployment(building.id()).await.unwrap();
        reach(&building, Step::Build).await;
        stage.push("two");
        deploy(&platform).await.outcome().await.unwrap();
        assert_eq!(building.settled().await.unwrap().state, DeploymentState::Superseded);
        platform.shutdown().await;
    })
}

fn operations(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let platform = stage.platform().await;
        let apps = platform.apps();
        live(&platform, "hello").await;
        apps.restart("hello").await.unwrap().outcome().await.unwrap();
        let changes = AppChanges { port: Some(Some(9000.try_into().unwrap())), ..AppChanges::default() };
        let changed = apps.update("hello", changes, None).await.unwrap();
        changed.deployment.unwrap().outcome().await.unwrap();
        apps.rollback("hello", ReleaseNumber(1)).await.unwrap().outcome().await.unwrap();
        apps.stop("hello").await.unwrap().outcome().await.unwrap();
        apps.start("hello").await.unwrap().outcome().await.unwrap();
        apps.delete("hello").await.unwrap().outcome().await.unwrap();
        platform.shutdown().await;
    })
}

fn drifted(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let platform = stage.platform().await;
        let app = live(&platform, "hello").await;
        let (host, ids) = (&stage.world.host, &stage.world.ids);
        let instance = host.instances().remove(0).name;
        host.remove(&instance);
        tokio::time::sleep(LOOK).await;
        host.crash(&instance, 137);
        tokio::time::sleep(Crashes::STEADY + LOOK).await;
        let deployment = DeploymentId::generate(ids.as_ref());
        let stray = InstanceSpec {
            name: InstanceName::of(&deployment, 0),
            org: app.org,
            app: app.id,
            deployment,
            image: host.images().remove(0),
            port: 8080.try_into().unwrap(),
            env: Env::default(),
            resources: Resources::default(),
            stop_grace: Duration::from_secs(1),
            placement: Placement::Chosen,
        };
        stage.world.runtime.ensure(&Context::new(stage.world.clock.clone()), &stray).await.unwrap();
        tokio::time::sleep(LOOK).await;
        host.cut_off(&instance);
        tokio::time::sleep(LOOK).await;
        host.remove(&instance);
        host.take_name(instance);
        tokio::time::sleep(LOOK).await;
        platform.shutdown().await;
    })
}

fn collected(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let platform = stage.platform().await;
        live(&platform, "hello").await;
        for number in 2..=6 {
            stage.push(&format!("page {number}"));
            deploy(&platform).await.outcome().await.unwrap();
        }
        tokio::time::sleep(10 * LOOK + LOOK).await;
        platform.shutdown().await;
    })
}

fn revived(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let platform = stage.platform().await;
        live(&platform, "hello").await;
        let host = &stage.world.host;
        host.forget_images();
        host.remove(&host.instances()[0].name.clone());
        tokio::time::sleep(LOOK).await;
        platform.shutdown().await;
    })
}

fn moved(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let platform = stage.choosing().await;
        live(&platform, "hello").await;
        let instance = stage.world.host.instances().remove(0).name;
        stage.world.host.remove(&instance);
        tokio::time::sleep(LOOK).await;
        platform.shutdown().await;
    })
}

fn misrouted(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let platform = stage.platform().await;
        live(&platform, "hello").await;
        let ingress = &stage.world.ingress;
        let host = "hello.localhost".parse().unwrap();
        let served = ingress.routes().remove(0);
        let nowhere = |generation| {
            let route = Some(Route { targets: Vec::new(), ..served.route.clone() });
            Some(Serving { generation, route })
        };
        for tampered in [None, nowhere(Generation(1)), nowhere(served.generation)] {
            ingress.tamper(&host, tampered);
            tokio::time::sleep(LOOK).await;
        }
        platform.apps().delete("hello").await.unwrap().outcome().await.unwrap();
        ingress.tamper(&host, nowhere(Generation(1)));
        tokio::time::sleep(LOOK).await;
        platform.shutdown().await;
    })
}

fn renamed(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let platform = stage.platform().await;
        live(&platform, "hello").await;
        let dns = &stage.world.dns;
        let own = dns.records().remove(0);
        dns.take(&own.host, own.record_type);
        tokio::time::sleep(LOOK).await;
        dns.put(&RecordSet { ttl_seconds: 1, ..own });
        tokio::time::sleep(LOOK).await;
        platform.shutdown().await;
    })
}

fn abandoned(stage: &Stage) -> LocalBoxFuture<'_, ()> {
    Box::pin(async {
        stage.push("one");
        let platform = stage.platform().await;
        live(&platform, "hello").await;
        stage.push_scripted("two", slow());
        let building = deploy(&platform).await;
        reach(&building, Step::Build).await;
        stage.append_unknown(&building).await;
        assert_eq!(building.settled().await.unwrap().state, DeploymentState::Stuck);
        building.abandon().await.unwrap();
        assert_eq!(building.settled().await.unwrap().state, DeploymentState::Failed);
        platform.shutdown().await;
    })
}
