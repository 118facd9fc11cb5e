//! The app that things are done to, and what it should be.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper::Method;
use paas_core::memory::MemoryFiles;
use serde_json::{Value, json};

use crate::act::Act;
use crate::installation::api::Request;
use crate::installation::server::{Machine, Server};
use crate::installation::visitor::{client, get};

const NAME: &str = "victim";
/// How long a replaced container may take to go.
const RETIRED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Victim<'a> {
    machine: &'a Machine,
    /// `None` while there is no such app.
    app: Option<String>,
    is_stopped: bool,
    /// What its page says: its commit's text and its variable.
    shown: (u32, String),
    /// What the page of each release says.
    releases: BTreeMap<u64, (u32, String)>,
    /// The number of the newest commit, and of the newest request.
    commits: u32,
    requests: u32,
    /// What the page says when what was asked for has come true.
    wanted: (u32, String),
    /// The deployment that is to be cancelled.
    cancelled: Option<String>,
}

/// A page that says which commit and which variable it was made from.
pub(crate) fn page(number: u32, build: &str, run: &str) -> MemoryFiles {
    let dockerfile = format!(
        "FROM paas/static:1\nCOPY text /site/text\n{build}CMD [\"/bin/busybox\", \"sh\", \"-c\", \"{run}mkdir /tmp/www; \
         echo $(cat /site/text) $GREETING > /tmp/www/index.html; exec /bin/busybox httpd -f -p $PORT -h /tmp/www\"]\n"
    );
    MemoryFiles::from([("Dockerfile", dockerfile), ("text", number.to_string())])
}

impl<'a> Victim<'a> {
    pub(crate) fn new(machine: &'a Machine) -> Self {
        Self {
            machine,
            app: None,
            is_stopped: false,
            shown: (0, String::new()),
            releases: BTreeMap::new(),
            commits: 0,
            requests: 0,
            wanted: (0, String::new()),
            cancelled: None,
        }
    }

    /// Brings it to where the act makes sense.
    pub(crate) async fn prepare(&mut self, server: &Server, act: Act) {
        if act == Act::Create {
            if self.app.is_some() {
                self.perform(server, Act::Delete).await;
            }
            return;
        }
        if self.app.is_none() {
            self.perform(server, Act::Create).await;
        }
        if act == Act::Start && !self.is_stopped {
            self.perform(server, Act::Stop).await;
        }
        if act != Act::Start && self.is_stopped {
            self.perform(server, Act::Start).await;
        }
        if act == Act::Rollback && self.releases.len() < 2 {
            self.perform(server, Act::Deploy).await;
        }
    }

    /// Does it without a kill.
    pub(crate) async fn perform(&mut self, server: &Server, act: Act) {
        let request = self.request(server, act).await;
        let answer = server.ask(&request).await.expect("the server answers");
        self.check(server, act, answer).await;
    }

    async fn push(&mut self, build: &str, run: &str) -> u32 {
        self.commits += 1;
        self.machine.git.commit(NAME, "main", page(self.commits, build, run)).await.unwrap();
        self.commits
    }

    /// The request that asks for it; what it builds from is pushed.
    pub(crate) async fn request(&mut self, server: &Server, act: Act) -> Request {
        self.requests += 1;
        self.wanted = self.shown.clone();
        let url = self.machine.git.url(NAME);
        let (method, path, body) = match act {
            Act::Create => {
                self.wanted = (self.push("", "").await, String::new());
                (Method::POST, String::new(), json!({ "name": NAME, "repository": url.as_str() }))
            }
            Act::Deploy => {
                self.wanted.0 = self.push("", "").await;
                (Method::POST, "/deployments".to_owned(), json!({}))
            }
            Act::Break => {
                self.push("", "exit 3; ").await;
                (Method::POST, "/deployments".to_owned(), json!({}))
            }
            Act::Configure => {
                self.wanted.1 = format!("greeting-{}", self.requests);
                (Method::PATCH, String::new(), json!({ "env": { "GREETING": self.wanted.1 } }))
            }
            Act::Rollback => {
                // The images of the newest five are kept; of these, one that says something else.
                let mut newest = self.releases.iter().rev().take(3);
                let (release, shown) = newest.next_back().expect("there are releases");
                self.wanted = shown.clone();
                (Method::POST, "/rollbacks".to_owned(), json!({ "release": release }))
            }
            Act::Restart => (Method::POST, "/actions/restart".to_owned(), json!({})),
            Act::Cancel => {
                self.wanted.0 = self.push("RUN [\"/bin/busybox\", \"sleep\", \"5\"]\n", "").await;
                let deployment = server.act(Method::POST, &format!("/v1/apps/{NAME}/deployments")).await;
                server.reach(&deployment, &["build"]).await;
                let path = format!("/v1/deployments/{deployment}/actions/cancel");
                self.cancelled = Some(deployment);
                return Request { method: Method::POST, path, body: json!({}), key: self.requests };
            }
            Act::Stop => (Method::POST, "/actions/stop".to_owned(), json!({})),
            Act::Start => (Method::POST, "/actions/start".to_owned(), json!({})),
            Act::Delete => (Method::DELETE, String::new(), json!({})),
        };
        let app = if act == Act::Create { String::new() } else { format!("/{NAME}") };
        Request { method, path: format!("/v1/apps{app}{path}"), body, key: self.requests }
    }

    /// Waits until it has come to its end, and looks whether it came true.
    pub(crate) async fn check(&mut self, server: &Server, act: Act, (status, answer): (u16, Value)) {
        let told = |what: &str| format!("{act:?}: {what}: {status} {answer}");
        let operation = match act {
            Act::Create => answer["deployment"]["id"].as_str().map(str::to_owned),
            // One that was made before the kill changes nothing the second time.
            Act::Configure => Some(match answer["deployment"]["id"].as_str() {
                Some(id) => id.to_owned(),
                None => server.newest_deployment(NAME).await,
            }),
            Act::Cancel => self.cancelled.take(),
            // Deleted before the kill.
            Act::Delete if status == 404 => None,
            _ => answer["id"].as_str().map(str::to_owned),
        };
        assert!(operation.is_some() || act == Act::Delete, "{}", told("no operation"));
        let state = match &operation {
            Some(operation) => server.settle(operation).await,
            None => json!({ "state": "deleted" }),
        };
        let told = |what: &str| format!("{what}: {act:?} {status} {answer} {state}");
        let expected: &[&str] = match act {
            Act::Break => &["failed"],
            Act::Stop => &["stopped"],
            Act::Delete => &["deleted"],
            // The request may come after it went live.
            Act::Cancel => &["cancelled", "running"],
            _ => &["running"],
        };
        assert!(expected.contains(&state["state"].as_str().unwrap_or_default()), "{}", told("the end"));
        match act {
            Act::Delete => {
                let app = self.app.take().expect("it is there");
                (self.releases, self.is_stopped) = (BTreeMap::new(), false);
                assert_eq!(self.visit().await.0, 421, "{}", told("it is still routed"));
                assert_eq!(self.machine.containers(&app), [""; 0], "{}", told("containers are left"));
                return;
            }
            Act::Create => self.app = Some(answer["id"].as_str().expect("an id").to_owned()),
            Act::Stop => self.is_stopped = true,
            Act::Start => self.is_stopped = false,
            _ => {}
        }
        if state["state"] == "running" {
            self.shown = self.wanted.clone();
            let release = state["release"].as_u64().unwrap_or_else(|| panic!("{}", told("no release")));
            self.releases.insert(release, self.shown.clone());
        }
        let expected = if self.is_stopped {
            503
        } else {
            let page = format!("{} {}", self.shown.0, self.shown.1);
            let (status, body) = self.visit().await;
            assert_eq!((status, body.trim()), (200, page.trim()), "{}", told("the page"));
            200
        };
        assert_eq!(self.visit().await.0, expected, "{}", told("the host"));
        self.has_one_container(&told("containers")).await;
    }

    /// One when it runs, none when it is stopped: what was replaced is gone soon.
    async fn has_one_container(&self, told: &str) {
        let app = self.app.as_ref().expect("it is there");
        let until = Instant::now() + RETIRED_WITHIN;
        loop {
            let containers = self.machine.containers(app);
            if containers.len() == usize::from(!self.is_stopped) {
                return;
            }
            assert!(Instant::now() < until, "{told}: {containers:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn visit(&self) -> (u16, String) {
        get(&client(), self.machine.proxy_port, NAME, "/").await.unwrap()
    }
}
