//! Apps that nothing is done to, and that are asked all the time.

use std::time::Duration;

use hyper::Method;

use crate::installation::server::{Machine, Server};
use crate::installation::visitor::Hammer;

const NAMES: [&str; 2] = ["steady", "steadfast"];

/// How often each is asked.
const PERIOD: Duration = Duration::from_millis(25);

pub(crate) struct Steady(Vec<(&'static str, String, Hammer)>);

impl Steady {
    pub(crate) async fn start(machine: &Machine, server: &Server) -> Self {
        let mut apps = Vec::new();
        for name in NAMES {
            machine.git.commit(name, "main", [("index.html", name)]).await.unwrap();
            let (app, deployment) = server.create(name, &machine.git.url(name)).await;
            assert_eq!(server.settle(&deployment).await["state"], "running");
            apps.push((name, app, Hammer::every(PERIOD, machine.proxy_port, name, 1)));
        }
        Self(apps)
    }

    /// Every request was answered, and each app still has its one container. Then they are deleted.
    pub(crate) async fn finish(self, machine: &Machine, server: &Server) {
        for (name, app, hammer) in self.0 {
            let (answered, failures) = hammer.stop().await;
            assert!(failures.is_empty(), "{name}: {} failed: {:?}", failures.len(), failures.first());
            assert!(answered > 100, "{name}: only {answered} requests were answered");
            println!("{name}: {answered} requests, none failed");
            assert_eq!(machine.containers(&app).len(), 1, "{name}");
            let deletion = server.act(Method::DELETE, &format!("/v1/apps/{name}")).await;
            assert_eq!(server.settle(&deletion).await["state"], "deleted");
        }
    }
}
