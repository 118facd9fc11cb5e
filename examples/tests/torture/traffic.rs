//! Twenty apps that are asked all the time while they are deployed again and again, one time in five with something that
//! is not healthy.

use std::time::{Duration, Instant};

use futures::future::join_all;
use hyper::Method;
use paas_core::memory::MemoryFiles;
use serde_json::{Value, json};

use crate::from_environment;
use crate::installation::server::{Machine, Server};
use crate::installation::visitor::{Hammer, client, get};
use crate::victim::page;

/// How many deployments a plain test run does.
const DEPLOYMENTS: usize = 10;
/// The most apps.
const APPS: usize = 20;
/// Every app is asked so often: twenty of them 200 times a second.
const PERIOD: Duration = Duration::from_millis(100);
/// How many times in a row an app is deployed, the last time with something that is not healthy.
const OF_AN_APP: usize = 5;

/// What can be wrong with a program that starts.
fn unhealthy(number: usize) -> MemoryFiles {
    match number % 3 {
        // It ends.
        0 => page(0, "", "exit 1; "),
        // It never listens.
        1 => page(0, "", "sleep 1000; "),
        // It listens and answers no request.
        _ => page(0, "", "exec /bin/busybox nc -l -p $PORT -e /bin/busybox sleep 1000; "),
    }
}

async fn deploy(machine: &Machine, server: &Server, number: usize) {
    let name = format!("traffic-{number}");
    let push = async |files| machine.git.commit(&name, "main", files).await.unwrap();
    for round in 1..=OF_AN_APP {
        let is_healthy = round < OF_AN_APP;
        let version = u32::try_from(round).unwrap();
        push(if is_healthy { page(version, "", "") } else { unhealthy(number) }).await;
        let deployment = server.act(Method::POST, &format!("/v1/apps/{name}/deployments")).await;
        let settled = server.settle(&deployment).await;
        let expected = if is_healthy { "running" } else { "failed" };
        assert_eq!(settled["state"], expected, "{name}: {settled}");
        let shown = version.min(u32::try_from(OF_AN_APP).unwrap() - 1).to_string();
        let (status, body) = get(&client(), machine.proxy_port, &name, "/").await.unwrap();
        assert_eq!((status, body.trim()), (200, shown.as_str()), "{name}: {settled}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_apps_are_deployed_healthy_or_not() {
    let deployments =
        from_environment("TORTURE_TRAFFIC").map_or(DEPLOYMENTS, |count| usize::try_from(count).unwrap());
    let machine = Machine::new().await;
    let server = machine.start().await;
    let mut hammers = Vec::new();
    let apps = (deployments / OF_AN_APP).clamp(1, APPS);
    for number in 0..apps {
        let name = format!("traffic-{number}");
        machine.git.commit(&name, "main", page(0, "", "")).await.unwrap();
        let wanted = json!({
            "name": name,
            "repository": machine.git.url(&name).as_str(),
            "health_check": { "timeout_seconds": 2, "grace_seconds": 10 },
        });
        let (status, app) = server.call(Method::POST, "/v1/apps", wanted).await;
        assert_eq!(status, 201, "{app}");
        assert_eq!(server.settle(app["deployment"]["id"].as_str().unwrap()).await["state"], "running");
        hammers.push(Hammer::every(PERIOD, machine.proxy_port, &name, 1));
    }
    let began = Instant::now();
    join_all((0..apps).map(|number| deploy(&machine, &server, number))).await;
    let took = began.elapsed().as_secs_f64();
    let (mut answered, mut failures) = (0, Vec::new());
    for hammer in hammers {
        let (count, failed) = hammer.stop().await;
        answered += count;
        failures.extend(failed);
    }
    assert_eq!(failures, [""; 0], "of {answered}");
    println!(
        "{apps} apps, {} deployments in {took:.0} s: {answered} requests, also before, none failed",
        apps * OF_AN_APP
    );
    for number in 0..apps {
        let path = format!("/v1/apps/traffic-{number}");
        let app = server.call(Method::GET, &path, Value::Null).await.1;
        assert_eq!(machine.containers(app["id"].as_str().unwrap()).len(), 1, "{app}");
        let deletion = server.act(Method::DELETE, &path).await;
        assert_eq!(server.settle(&deletion).await["state"], "deleted");
    }
    assert!(server.stop().await.0.success());
}
