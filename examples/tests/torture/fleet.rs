//! Three servers on one PostgreSQL database, killed and paused at any moment while they deploy.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use hyper::Method;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::from_environment;
use crate::installation::api::{Api, Request};
use crate::installation::server::{Machine, Server};
use crate::installation::visitor::{client, get};
use crate::steady::Steady;
use crate::support::Database;
use crate::victim::page;

const NAMES: [&str; 3] = ["server", "second", "third"];
/// How many deployments a plain test run does.
const DEPLOYMENTS: usize = 24;
/// The most deployments of one app.
const OF_AN_APP: usize = 20;
/// How long a request may take before another server is asked.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a deployment may take, with every server away more often than not.
const PATIENCE: Duration = Duration::from_secs(600);

/// The servers as their users see them.
struct Fleet<'a> {
    machine: &'a Machine,
    /// Those that are not known to be away.
    up: Mutex<Vec<(&'static str, Api)>>,
    requests: AtomicU32,
}

impl Fleet<'_> {
    fn joins(&self, name: &'static str, server: &Server) {
        self.up.lock().unwrap().push((name, server.api()));
    }

    fn leaves(&self, name: &'static str) {
        self.up.lock().unwrap().retain(|(up, _)| *up != name);
    }

    /// Asks one after the other until one answers: it is one and the same request.
    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let key = self.requests.fetch_add(1, Ordering::Relaxed);
        let request = Request { method, path: path.to_owned(), body, key };
        let until = Instant::now() + PATIENCE;
        loop {
            let server = self.up.lock().unwrap().choose(&mut rand::rng()).cloned();
            if let Some((_, api)) = server
                && let Ok(Some(answer)) = tokio::time::timeout(ANSWER, api.ask(&request)).await
                && answer.0 != 503
            {
                return answer;
            }
            assert!(Instant::now() < until, "nobody answers {path}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn settled(&self, deployment: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, answer) =
                self.ask(Method::GET, &format!("/v1/deployments/{deployment}"), json!({})).await;
            if !answer["settled_at"].is_null() {
                return answer;
            }
            assert!(Instant::now() < until, "it never ends: {answer}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Deploys an app again and again, each time with another commit or another variable.
    async fn deploy(&self, name: &str, deployments: usize) {
        let push = async |number: u32| {
            self.machine.git.commit(name, "main", page(number, "", "")).await.unwrap();
        };
        push(1).await;
        let url = self.machine.git.url(name);
        let wanted = json!({ "name": name, "repository": url.as_str() });
        let (status, app) = self.ask(Method::POST, "/v1/apps", wanted).await;
        assert_eq!(status, 201, "{app}");
        let mut shown = (1, String::new());
        let mut operation = app["deployment"]["id"].clone();
        let mut releases = BTreeSet::new();
        for number in 1..=deployments {
            let id = operation.as_str().unwrap_or_else(|| panic!("{name}: no operation"));
            let settled = self.settled(id).await;
            assert_eq!(settled["state"], "running", "{name}: {settled}");
            assert!(releases.insert(settled["release"].as_u64()), "{name}: twice: {settled}");
            let answer = get(&client(), self.machine.proxy_port, name, "/").await.unwrap();
            let expected = format!("{} {}", shown.0, shown.1);
            assert_eq!((answer.0, answer.1.trim()), (200, expected.trim()), "{name}: {settled}");
            if number == deployments {
                break;
            }
            let path = format!("/v1/apps/{name}");
            operation = if number % 2 == 0 {
                shown.1 = format!("greeting-{number}");
                let change = json!({ "env": { "GREETING": shown.1 } });
                self.ask(Method::PATCH, &path, change).await;
                // An answer that got lost can't be had again: the second time, nothing changes.
                let newest = format!("{path}/deployments?limit=1");
                self.ask(Method::GET, &newest, json!({})).await.1["items"][0]["id"].clone()
            } else {
                shown.0 += 1;
                push(shown.0).await;
                self.ask(Method::POST, &format!("{path}/deployments"), json!({})).await.1["id"].clone()
            };
        }
        let app = app["id"].as_str().unwrap();
        let until = Instant::now() + PATIENCE;
        while self.machine.containers(app).len() != 1 {
            assert!(Instant::now() < until, "{name}: {:?}", self.machine.containers(app));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let (status, deletion) = self.ask(Method::DELETE, &format!("/v1/apps/{name}"), json!({})).await;
        // It may have been deleted by a request whose answer got lost.
        if status != 404 {
            assert_eq!(status, 202, "{deletion}");
            let deletion = self.settled(deletion["id"].as_str().unwrap()).await;
            assert_eq!(deletion["state"], "deleted", "{name}: {deletion}");
        }
        assert_eq!(self.machine.containers(app), [""; 0], "{name}");
    }

    /// Kills or pauses a server again and again, and brings it back.
    async fn disturb(&self, name: &'static str, mut server: Server, mut random: StdRng, count: &AtomicU32) {
        loop {
            tokio::time::sleep(Duration::from_millis(random.random_range(1_000..20_000))).await;
            let is_killed = random.random_bool(0.5);
            // A lease lasts for 15 s: some come back in time, others find their work taken over.
            let away = Duration::from_millis(random.random_range(200..25_000));
            self.leaves(name);
            if is_killed {
                server.kill().await;
                tokio::time::sleep(away / 5).await;
                server = if name == NAMES[0] {
                    self.machine.start().await
                } else {
                    self.machine.start_beside(name).await
                };
            } else {
                server.signal(Signal::STOP);
                tokio::time::sleep(away).await;
                server.signal(Signal::CONT);
            }
            count.fetch_add(1, Ordering::Relaxed);
            self.joins(name, &server);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_that_are_killed_and_paused_do_everything_once() {
    let deployments =
        from_environment("TORTURE_DEPLOYMENTS").map_or(DEPLOYMENTS, |count| usize::try_from(count).unwrap());
    let seed = from_environment("TORTURE_SEED").unwrap_or(1);
    let database = Database::new().await;
    let mut machine = Machine::new().await;
    machine.database_url = Some(database.url());
    let first = machine.start().await;
    let steady = Steady::start(&machine, &first).await;
    let fleet = Fleet { machine: &machine, up: Mutex::default(), requests: AtomicU32::new(0) };
    let mut servers = vec![first];
    for name in &NAMES[1..] {
        servers.push(machine.start_beside(name).await);
    }
    let counts = NAMES.map(|_| AtomicU32::new(0));
    let disturbing =
        NAMES.iter().zip(servers).zip(&counts).enumerate().map(|(number, ((name, server), count))| {
            fleet.joins(name, &server);
            let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
            fleet.disturb(name, server, random, count)
        });
    let apps = deployments.div_ceil(OF_AN_APP).max(6);
    let names: Vec<_> = (0..apps).map(|number| format!("fleet-{number}")).collect();
    let deploying = names.iter().map(|name| fleet.deploy(name, deployments.div_ceil(apps)));
    let began = Instant::now();
    tokio::select! {
        _ = join_all(disturbing) => unreachable!("it goes on for ever"),
        _ = join_all(deploying) => {}
    }
    let counts = counts.map(AtomicU32::into_inner);
    println!(
        "{} deployments of {apps} apps by {} servers in {:.0} s, killed or paused {counts:?} times",
        deployments.div_ceil(apps) * apps,
        NAMES.len(),
        began.elapsed().as_secs_f64()
    );
    // Beside those: they are being killed, and the first may still hold its data.
    let server = machine.start_beside("last").await;
    steady.finish(&machine, &server).await;
    server.kill().await;
}
