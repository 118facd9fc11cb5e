//! Containers that are removed, stopped, renamed, squatted and cut off under a running server, many at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hyper::Method;

use crate::from_environment;
use crate::installation::docker;
use crate::installation::server::{Machine, Server};
use crate::installation::visitor::{client, get};

/// How many drifts a plain test run makes: each kind twice.
const DRIFTS: usize = 10;
/// The most apps that drift at once.
const AT_ONCE: usize = 50;
/// The contract's.
const WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Removed,
    Stopped,
    Renamed,
    Squatted,
    CutOff,
}

const KINDS: [Kind; 5] = [Kind::Removed, Kind::Stopped, Kind::Renamed, Kind::Squatted, Kind::CutOff];

/// A container of an app, as the engine lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Container {
    id: String,
    name: String,
    is_running: bool,
}

struct Site {
    name: String,
    app: String,
}

impl Site {
    async fn create(machine: &Machine, server: &Server, number: usize) -> (Self, String) {
        let name = format!("drift-{number}");
        machine.git.commit(&name, "main", [("index.html", name.clone())]).await.unwrap();
        let (app, deployment) = server.create(&name, &machine.git.url(&name)).await;
        (Self { name, app }, deployment)
    }

    fn containers(&self) -> Vec<Container> {
        let label = format!("label=paas.app={}", self.app);
        let format = "{{.ID}} {{.Names}} {{.State}}";
        let lines = docker(&["ps", "--all", "--no-trunc", "--filter", &label, "--format", format]);
        let container = |line: &String| {
            let [id, name, state] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            Container { id: id.to_owned(), name: name.to_owned(), is_running: state == "running" }
        };
        // A nameless one is as good as removed, see `remove`.
        lines.iter().filter(|line| !line.ends_with(" removing")).map(container).collect()
    }

    fn container(&self) -> Container {
        let mut containers = self.containers();
        assert_eq!(containers.len(), 1, "{}: {containers:?}", self.name);
        containers.remove(0)
    }

    /// True when its one container runs, as it should be after that drift, and it answers.
    async fn is_right(&self, machine: &Machine, kind: Kind, before: &Container) -> bool {
        let containers = self.containers();
        let [Container { id, name, is_running: true }] = &containers[..] else { return false };
        let is_same = *id == before.id;
        let is_named = match kind {
            Kind::Squatted => *name == format!("{}-1", before.name),
            _ => *name == before.name,
        };
        let is_adopted = is_same == matches!(kind, Kind::Renamed | Kind::CutOff);
        let answer = get(&client(), machine.proxy_port, &self.name, "/").await;
        is_named && is_adopted && answer == Ok((200, self.name.clone()))
    }
}

/// Removes a container. The engine itself can fail at it when it writes one of its files at that moment; it then lists the
/// container as being removed, without a name, until its own next start (<https://github.com/moby/moby/issues/52161>).
fn remove(name: &str) {
    let removed = std::process::Command::new("docker").args(["rm", "--force", name]).output().unwrap();
    let said = String::from_utf8_lossy(&removed.stderr);
    assert!(removed.status.success() || said.contains("directory not empty"), "{name}: {said}");
}

/// Makes it drift; answers the foreign container that has its name then.
fn disturb(kind: Kind, container: &Container) -> Option<String> {
    let name = container.name.as_str();
    let away = format!("away-{}", &container.id[..12]);
    match kind {
        Kind::Removed => remove(name),
        Kind::Stopped => drop(docker(&["kill", name])),
        Kind::Renamed => drop(docker(&["rename", name, &away])),
        Kind::Squatted => {
            docker(&["rename", name, &away]);
            let squatter = docker(&["create", "--name", name, "paas/static:1", "/bin/busybox", "true"]);
            remove(&away);
            return squatter.into_iter().next();
        }
        Kind::CutOff => {
            let network = docker(&["inspect", "--format", "{{.HostConfig.NetworkMode}}", name]).remove(0);
            docker(&["network", "disconnect", "--force", &network, name]);
        }
    }
    None
}

/// Containers that are nobody's business but the test's: gone when it ends.
struct Foreign(Vec<String>);

impl Drop for Foreign {
    fn drop(&mut self) {
        let ids = self.0.iter().map(String::as_str);
        let arguments: Vec<_> = ["rm", "--force"].into_iter().chain(ids).collect();
        let _ = std::process::Command::new("docker").args(arguments).output();
    }
}

impl Foreign {
    /// What the engine says of them: when they were made and started, what they are called.
    fn state(&self) -> Vec<String> {
        let format = "{{.Id}} {{.Name}} {{.Created}} {{.State.Status}} {{.State.StartedAt}}";
        let ids = self.0.iter().map(String::as_str);
        docker(&["inspect", "--format", format].into_iter().chain(ids).collect::<Vec<_>>())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drifts_is_put_right_in_time() {
    let drifts = from_environment("TORTURE_DRIFTS").map_or(DRIFTS, |count| usize::try_from(count).unwrap());
    let machine = Machine::new().await;
    let server = machine.start().await;
    let mut sites = Vec::new();
    for number in 0..drifts.min(AT_ONCE) {
        let (site, deployment) = Site::create(&machine, &server, number).await;
        assert_eq!(server.settle(&deployment).await["state"], "running");
        sites.push(site);
    }
    let bystander =
        docker(&["run", "--detach", "--network", "none", "paas/static:1", "/bin/busybox", "sleep", "100000"]);
    let mut foreign = Foreign(bystander);
    let mut longest: BTreeMap<Kind, (usize, Duration)> = BTreeMap::new();
    for round in 0..drifts.div_ceil(AT_ONCE) {
        // Whose process ended often waits for longer: they begin anew.
        let mut restarts = Vec::new();
        for site in sites.iter().filter(|_| round > 0) {
            restarts.push(server.act(Method::POST, &format!("/v1/apps/{}/actions/restart", site.name)).await);
        }
        for restart in restarts {
            assert_eq!(server.settle(&restart).await["state"], "running");
        }
        for site in &sites {
            // The replaced one may still be ending.
            while site.containers().len() > 1 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        let mut drifted = Vec::new();
        for (number, site) in sites.iter().enumerate() {
            let (kind, before) = (KINDS[(number + round) % KINDS.len()], site.container());
            let at = Instant::now();
            foreign.0.extend(disturb(kind, &before));
            drifted.push((site, kind, before, at));
        }
        let untouched = foreign.state();
        while !drifted.is_empty() {
            let mut wrong = Vec::new();
            for (site, kind, before, at) in drifted {
                let took = at.elapsed();
                if site.is_right(&machine, kind, &before).await {
                    let (count, longest) = longest.entry(kind).or_default();
                    (*count, *longest) = (*count + 1, took.max(*longest));
                } else {
                    assert!(took < WITHIN, "{}: {kind:?}: {:?}", site.name, site.containers());
                    wrong.push((site, kind, before, at));
                }
            }
            drifted = wrong;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(foreign.state(), untouched, "what is foreign was touched");
    }
    println!("\n| drift | times | longest until it was right |\n|---|---|---|");
    for (kind, (count, longest)) in longest {
        println!("| {kind:?} | {count} | {:.1} s |", longest.as_secs_f64());
    }
    for site in &sites {
        let deletion = server.act(Method::DELETE, &format!("/v1/apps/{}", site.name)).await;
        assert_eq!(server.settle(&deletion).await["state"], "deleted");
    }
    server.kill().await;
}
