//! The real server moves from its file to PostgreSQL, and survives a kill there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod installation;
#[path = "../../paas-store/tests/support/mod.rs"]
mod support;

use std::time::Duration;

use hyper::Method;
use installation::server::Machine;
use installation::visitor::{client, get};
use paas_core::memory::MemoryFiles;
use paas_http::ServerConfig;
use serde_json::Value;
use support::Database;

/// A page whose build takes a moment.
fn page(text: &str) -> MemoryFiles {
    let dockerfile = concat!(
        "FROM paas/static:1\nRUN [\"/bin/busybox\", \"sleep\", \"2\"]\nCOPY index.html /site/index.html\n",
        "CMD [\"/bin/busybox\", \"sh\", \"-c\", \"exec /bin/busybox httpd -f -p $PORT -h /site\"]\n"
    );
    MemoryFiles::from([("Dockerfile", dockerfile.to_owned()), ("index.html", text.to_owned())])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_moves_to_postgresql_and_survives_a_kill_there() {
    let mut machine = Machine::new().await;
    machine.git.commit("site", "main", page("one")).await.unwrap();
    let server = machine.start().await;
    let (app, first) = server.create("site", &machine.git.url("site")).await;
    assert_eq!(server.settle(&first).await["state"], "running");
    // Stopped in the hardest way.
    server.kill().await;

    let database = Database::new().await;
    let config = ServerConfig::parse(&format!("database_url = {:?}", database.url())).unwrap();
    let file = machine.folder.path().join("server/paas.db");
    let imported = paas_http::Server::import(&config, &file).await.unwrap();
    assert!(imported.records > 0 && imported.events > 0, "{imported:?}");
    let again = paas_http::Server::import(&config, &file).await.unwrap_err();
    assert!(again.to_string().contains("already"), "{again}");

    machine.database_url = Some(database.url());
    let server = machine.start().await;
    let visit = async || get(&client(), machine.proxy_port, "site", "/").await.unwrap();
    assert_eq!(visit().await, (200, "one".to_owned()));
    assert_eq!(server.deployment(&first).await["state"], "running", "its history came along");
    machine.git.commit("site", "main", page("two")).await.unwrap();
    let second = server.act(Method::POST, "/v1/apps/site/deployments").await;
    server.reach(&second, &["build"]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.kill().await;

    let server = machine.start().await;
    let deployment = server.settle(&second).await;
    assert_eq!(
        (&deployment["state"], &deployment["release"]),
        (&"running".into(), &2.into()),
        "{deployment}"
    );
    assert_eq!(visit().await, (200, "two".to_owned()));
    let status = server.call(Method::GET, "/v1/apps/site/status", Value::Null).await.1;
    assert_eq!(status["live_release"], 2, "{status}");
    let deletion = server.act(Method::DELETE, "/v1/apps/site").await;
    assert_eq!(server.settle(&deletion).await["state"], "deleted");
    assert_eq!(machine.containers(&app), [""; 0]);
    server.kill().await;
}
