//! The real server, killed with SIGKILL in the middle of every step: the next start finishes the deployment, with one
//! container and one route, and running apps answer every request meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod installation;

use std::time::Duration;

use hyper::Method;
use installation::server::Machine;
use installation::visitor::{Hammer, client, get};
use paas_core::memory::MemoryFiles;
use paas_git::testing::GitFault;
use rustix::process::Signal;
use serde_json::Value;

/// A page from a program that takes a moment to listen, built by a step that takes a moment. `/cgi-bin/slow` answers
/// piece by piece, for five seconds.
fn slow_app(text: &str) -> MemoryFiles {
    let dockerfile = concat!(
        "FROM paas/static:1\nRUN [\"/bin/busybox\", \"sleep\", \"2\"]\nCOPY index.html /site/index.html\n",
        "COPY slow /site/cgi-bin/slow\nRUN [\"/bin/busybox\", \"chmod\", \"755\", \"/site/cgi-bin/slow\"]\n",
        "CMD [\"/bin/busybox\", \"sh\", \"-c\", \"sleep 1; exec /bin/busybox httpd -f -p $PORT -h /site\"]\n"
    );
    let slow = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nfor n in 1 2 3 4 5; do echo $n; sleep 1; done\n";
    MemoryFiles::from([
        ("Dockerfile", dockerfile.to_owned()),
        ("index.html", text.to_owned()),
        ("slow", slow.to_owned()),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_goes_on_where_it_was() {
    let machine = Machine::new().await;
    machine.git.commit("steady", "main", [("index.html", "steady")]).await.unwrap();
    let mut server = machine.start().await;
    let (steady, first) = server.create("steady", &machine.git.url("steady")).await;
    assert_eq!(server.settle(&first).await["state"], "running");
    let hammer = Hammer::start(machine.proxy_port, "steady", 4);

    for steps in [&["fetch"][..], &["build"], &["start", "verify"]] {
        let name = format!("in-{}", steps[0]);
        machine.git.commit(&name, "main", slow_app(&name)).await.unwrap();
        if steps == ["fetch"] {
            let slow = GitFault::Slow { bytes: 64, pause: Duration::from_millis(50) };
            machine.git.fault(&name, slow);
        }
        let (app, id) = server.create(&name, &machine.git.url(&name)).await;
        server.reach(&id, steps).await;
        if steps == ["build"] {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        server.kill().await;
        machine.git.fault(&name, None);
        server = machine.start().await;
        let deployment = server.settle(&id).await;
        assert_eq!(deployment["state"], "running", "killed in {steps:?}: {deployment}");
        assert_eq!(machine.containers(&app).len(), 1, "killed in {steps:?}");
        let (status, body) = get(&client(), machine.proxy_port, &name, "/").await.unwrap();
        assert_eq!((status, body.as_str()), (200, name.as_str()), "killed in {steps:?}");
    }

    // While the old release still answers somebody, a replacement is on its way from Route to Retire.
    let (name, port) = ("in-build", machine.proxy_port);
    machine.git.commit(name, "main", slow_app("replaced")).await.unwrap();
    let visitor = tokio::spawn(async move { get(&client(), port, name, "/cgi-bin/slow").await });
    let deployment = server.act(Method::POST, "/v1/apps/in-build/deployments").await;
    server.reach(&deployment, &["verify"]).await;
    let late = tokio::spawn(async move { get(&client(), port, name, "/cgi-bin/slow").await });
    server.reach(&deployment, &["route", "retire"]).await;
    server.kill().await;
    server = machine.start().await;
    assert_eq!(server.settle(&deployment).await["state"], "running");
    for answered in [visitor, late] {
        assert_eq!(answered.await.unwrap().unwrap(), (200, "1\n2\n3\n4\n5\n".to_owned()));
    }
    assert_eq!(get(&client(), port, name, "/").await.unwrap(), (200, "replaced".to_owned()));
    let app = server.call(Method::GET, "/v1/apps/in-build", Value::Null).await.1;
    // It runs from Route on; what it replaces is retired behind that.
    while machine.containers(app["id"].as_str().unwrap()).len() > 1 {
        assert_eq!(server.deployment(&deployment).await["step"], "retire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // The proxy is held: so is Route, until the server is gone.
    machine.signal_proxy(Signal::STOP);
    let stop = server.act(Method::POST, "/v1/apps/in-fetch/actions/stop").await;
    server.reach(&stop, &["route"]).await;
    server.kill().await;
    machine.signal_proxy(Signal::CONT);
    server = machine.start().await;
    assert_eq!(server.settle(&stop).await["state"], "stopped");
    assert_eq!(get(&client(), port, "in-fetch", "/").await.unwrap().0, 503);

    let (answered, failures) = hammer.stop().await;
    assert!(
        failures.is_empty(),
        "{} of {answered} failed: {:?}",
        failures.len(),
        &failures[..failures.len().min(3)]
    );
    assert!(answered > 100, "only {answered} requests were answered");
    assert_eq!(machine.containers(&steady).len(), 1);

    for name in ["steady", "in-fetch", "in-build", "in-start"] {
        let deletion = server.act(Method::DELETE, &format!("/v1/apps/{name}")).await;
        assert_eq!(server.settle(&deletion).await["state"], "deleted");
    }
    server.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_stop_hands_over_in_time() {
    let machine = Machine::new().await;
    machine.git.commit("site", "main", [("index.html", "site")]).await.unwrap();
    let slow = GitFault::Slow { bytes: 1, pause: Duration::from_secs(1) };
    machine.git.fault("site", slow);
    let server = machine.start().await;
    let (app, id) = server.create("site", &machine.git.url("site")).await;
    server.reach(&id, &["fetch"]).await;
    let (status, took) = server.stop().await;
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(30), "it took {took:?}");
    machine.git.fault("site", None);
    let server = machine.start().await;
    let deployment = server.settle(&id).await;
    assert_eq!(deployment["state"], "running");
    assert_eq!(machine.containers(&app).len(), 1);
    let deletion = server.act(Method::DELETE, "/v1/apps/site").await;
    assert_eq!(server.settle(&deletion).await["state"], "deleted");
    assert!(server.stop().await.0.success());
}
