//! One seed: who asks for what, what breaks when, and whether the promises hold.

use std::sync::Arc;
use std::time::Duration;

use paas_core::memory::{MemoryIngress, Program, ProgramExit, Script};
use paas_core::testing::chaos::ChaosPlan;
use paas_core::{
    AppChanges, AppName, Apps, Clock, DeployOptions, Error, Failure, Fault, Generation, InstanceName, Kind,
    NewApp, OrgId, Platform, RandomIds, RecordSet, ReleaseNumber, Route, Secret, ServedRoute, Serving,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::check;
use crate::ledger::Ledger;
use crate::sabotage::Sabotage;
use crate::server::Server;
use crate::world::{REPOSITORY, World, url};

/// The apps: few, so that what happens to one happens at once.
pub(crate) const NAMES: [&str; 4] = ["one", "two", "three", "four"];
const SECOND: Duration = Duration::from_secs(1);
/// How much happens before it calms down.
const SCENES: usize = 40;
/// The most servers at once.
const SERVERS: usize = 3;
/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long everything may take to end after the last fault: a deployment's deadline, with room.
const QUIET_WITHIN: Duration = Duration::from_secs(2 * 60 * 60);

/// How long what drifted may stay so, with the time that an instance may take to end.
const DRIFT_WITHIN: Duration = Duration::from_secs(30 + 60);

/// How long images and networks that nobody needs may stay.
const LEFTOVERS_WITHIN: Duration = Duration::from_secs(10 * 60);

/// How a seed ended: the same every time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) events: u64,
    pub(crate) fingerprint: String,
}

pub(crate) fn orgs() -> [OrgId; 2] {
    [OrgId::default_org(), "org_00000000000000000000000002".parse().unwrap()]
}

/// What is on the host and not the platform's.
pub(crate) fn foreign() -> InstanceName {
    InstanceName::try_from("paas-foreign".to_owned()).unwrap()
}

/// Plays the story of a seed.
pub(crate) async fn play(seed: u64, sabotage: Sabotage, is_told: bool) -> Result<Ending, String> {
    let mut story = Story::begin(seed, sabotage, is_told).await;
    for _ in 0..SCENES {
        story.scene().await;
        let pause = story.pause();
        story.watch_for(pause, SECOND).await?;
    }
    story.calm_down().await?;
    check::in_the_end(&story.world, &story.reader, &story.ledger).await?;
    let (events, fingerprint) = check::fingerprint(&story.world).await;
    Ok(Ending { events, fingerprint })
}

struct Story {
    random: StdRng,
    world: World,
    /// What is looked at through it is not disturbed.
    reader: Platform,
    servers: Vec<Server>,
    started: u64,
    plan: ChaosPlan,
    sabotage: Sabotage,
    is_told: bool,
    ledger: Ledger,
    pushes: u32,
}

impl Story {
    async fn begin(seed: u64, sabotage: Sabotage, is_told: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        world.ids = Arc::new(RandomIds::seeded(world.clock.clone(), seed));
        world.ingress = Arc::new(MemoryIngress::before(world.host.clone()));
        world.host.take_name(foreign());
        let reader = world.asking().await;
        let plan = ChaosPlan {
            fail_before_percent: random.random_range(0..=6),
            lose_reply_percent: random.random_range(0..=6),
            delay_percent: random.random_range(0..=10),
            hang_percent: random.random_range(0..=1),
            longest_delay: Duration::from_secs(random.random_range(1..=30)),
            ..ChaosPlan::calm()
        };
        let ledger = Ledger::default();
        let servers = Vec::new();
        let mut story = Self {
            random,
            world,
            reader,
            servers,
            started: seed << 16,
            plan,
            sabotage,
            is_told,
            ledger,
            pushes: 0,
        };
        story.push();
        for _ in 0..story.random.random_range(1..=SERVERS) {
            story.start_server().await;
        }
        story
    }

    /// One thing that somebody asks for, or that breaks.
    async fn scene(&mut self) {
        match self.random.random_range(0..100) {
            0..69 => self.ask(),
            69..81 => self.push(),
            81..87 => self.kill_server(),
            87..92 => self.start_server().await,
            92..95 => self.pause_server(),
            95..96 => self.stop_engine(),
            96..97 => self.break_git(),
            97 if self.random.random_bool(0.5) => self.break_ingress(),
            97 => self.break_instance(),
            98 => match self.random.random_range(0..3) {
                0 => self.break_route(),
                1 => self.break_dns(),
                _ => self.lose_images(),
            },
            _ => self.jump(),
        }
    }

    /// A line for those who replay a seed.
    fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>10.3} {}", self.world.clock.elapsed().as_secs_f64(), what());
        }
    }

    /// A process crashes, or somebody removes its container.
    fn break_instance(&mut self) {
        let instances = self.world.host.instances();
        let Some(instance) = instances.choose(&mut self.random) else { return };
        let how = *["is removed", "crashes", "is cut off"].choose(&mut self.random).unwrap();
        self.tell(|| format!("{} {how}", instance.name));
        match how {
            "is removed" => self.world.host.remove(&instance.name),
            "crashes" => self.world.host.crash(&instance.name, 1),
            _ => self.world.host.cut_off(&instance.name),
        }
        self.ledger.entries().broken.insert(instance.name.clone());
    }

    /// Somebody removes a route from the proxy, or puts an old one there.
    fn break_route(&mut self) {
        let routes = self.world.ingress.routes();
        let Some(ServedRoute { route, .. }) = routes.choose(&mut self.random) else { return };
        let old = Route { targets: Vec::new(), ..route.clone() };
        let old = Serving { generation: Generation(1), route: Some(old) };
        let serving = self.random.random_bool(0.5).then_some(old);
        self.tell(|| format!("{} is tampered with: {serving:?}", route.host));
        self.world.ingress.tamper(&route.host, serving);
        self.ledger.entries().misrouted.insert(route.host.clone());
    }

    /// Somebody removes a DNS record, or changes it.
    fn break_dns(&mut self) {
        let records = self.world.dns.records();
        let Some(set) = records.choose(&mut self.random) else { return };
        let is_removed = self.random.random_bool(0.5);
        self.tell(|| format!("the DNS record of {} is changed; removed: {is_removed}", set.host));
        if is_removed {
            self.world.dns.take(&set.host, set.record_type);
        } else {
            self.world.dns.put(&RecordSet { ttl_seconds: set.ttl_seconds + 1, ..set.clone() });
        }
    }

    /// Somebody cleans up too much: an instance, and every image.
    fn lose_images(&mut self) {
        self.tell(|| "every image is removed".to_owned());
        self.world.host.forget_images();
        let instances = self.world.host.instances();
        let Some(instance) = instances.choose(&mut self.random) else { return };
        self.tell(|| format!("{} is removed", instance.name));
        self.world.host.remove(&instance.name);
        self.ledger.entries().broken.insert(instance.name.clone());
    }

    fn break_ingress(&mut self) {
        let calls = self.random.random_range(1..5);
        self.tell(|| format!("the ingress fails {calls} times"));
        self.world.ingress.fail_next(calls);
    }

    fn jump(&mut self) {
        let seconds = *[-86_400, -3_600, 3_600, 86_400].choose(&mut self.random).unwrap();
        self.tell(|| format!("the clock jumps by {seconds} s"));
        self.world.clock.jump(seconds);
    }

    fn pause(&mut self) -> Duration {
        let longest = [0, 0, 10, 100, 1_000, 5_000, 20_000].choose(&mut self.random).unwrap();
        Duration::from_millis(self.random.random_range(0..=*longest))
    }

    /// Lets time pass, and looks whether the promises hold every so often.
    async fn watch_for(&self, duration: Duration, look: Duration) -> Result<(), String> {
        let mut left = duration;
        loop {
            check::now(&self.world, &self.reader, &self.ledger).await?;
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(look)).await;
            left = left.saturating_sub(look);
        }
    }

    fn push(&mut self) {
        self.pushes += 1;
        let script = script(&mut self.random);
        self.tell(|| format!("page {} is pushed: {script:?}", self.pushes));
        self.world.push_scripted(&format!("page {}", self.pushes), script);
    }

    async fn start_server(&mut self) {
        if self.servers.len() < SERVERS {
            self.started += 1;
            self.tell(|| format!("server {} starts", self.started & 0xffff));
            let server = Server::start(&self.world, self.started, &self.plan, self.sabotage).await;
            self.servers.push(server);
        }
    }

    fn kill_server(&mut self) {
        if !self.servers.is_empty() {
            let index = self.random.random_range(0..self.servers.len());
            self.tell(|| format!("server {} is killed", self.servers[index].number & 0xffff));
            self.servers.swap_remove(index).process.kill();
        }
    }

    fn pause_server(&mut self) {
        let pause = Duration::from_secs(self.random.random_range(1..=90));
        let Some(server) = self.servers.choose(&mut self.random) else { return };
        self.tell(|| format!("server {} is paused for {pause:?}", server.number & 0xffff));
        let process = server.process.clone();
        process.pause();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            process.resume();
        });
    }

    fn stop_engine(&mut self) {
        let host = self.world.host.clone();
        let outage = Duration::from_secs(self.random.random_range(1..=600));
        self.tell(|| format!("the engine is out for {outage:?}"));
        host.stop_engine();
        tokio::spawn(async move {
            tokio::time::sleep(outage).await;
            host.start_engine();
        });
    }

    fn break_git(&mut self) {
        let down = Error::new(Kind::Unavailable, "git.resolve", "it answers 503").fault(Fault::Upstream);
        let times = self.random.random_range(1..=8);
        self.tell(|| format!("git fails {times} times"));
        self.world.git.fail(&url(), &down, times);
    }

    /// Somebody asks a server for something, and hears of it or not.
    fn ask(&mut self) {
        let Some(server) = self.servers.choose(&mut self.random) else { return };
        let org = orgs().choose(&mut self.random).unwrap().clone();
        let name: AppName = NAMES.choose(&mut self.random).unwrap().parse().unwrap();
        let request = Request::any(&mut self.random);
        self.tell(|| format!("{request:?} {name} of {org} is asked of {}", server.number & 0xffff));
        let user = User {
            apps: server.platform.org(&org),
            reader: self.reader.org(&org),
            ledger: self.ledger.clone(),
            name,
        };
        tokio::spawn(async move {
            // An error is an answer, too: what is true afterwards is in the ledger.
            let _ = tokio::time::timeout(PATIENCE, user.ask(request)).await;
        });
    }

    /// Nothing breaks any more: everything has to come to its end.
    async fn calm_down(&mut self) -> Result<(), String> {
        let survives = self.random.random_bool(0.5);
        self.tell(|| format!("it calms down; servers survive: {survives}"));
        for server in &self.servers {
            server.process.calm();
            server.process.resume();
            if !survives {
                server.process.kill();
            }
        }
        if !survives {
            self.servers.clear();
        }
        self.plan = ChaosPlan::calm();
        let none = Error::new(Kind::Unavailable, "git.resolve", "");
        self.world.git.fail(&url(), &none, 0);
        self.world.host.start_engine();
        self.world.ingress.fail_next(0);
        self.start_server().await;
        // Until the last user has gone, and every outage is over.
        self.watch_for(PATIENCE * 12, 10 * SECOND).await?;
        let began = tokio::time::Instant::now();
        while let Some(unrest) = check::unrest(&self.world, &self.reader).await {
            if began.elapsed() > QUIET_WITHIN {
                return Err(format!("it never comes to an end: {unrest}"));
            }
            self.watch_for(5 * SECOND, SECOND).await?;
        }
        // What was left over is found and removed.
        self.watch_for(DRIFT_WITHIN, 10 * SECOND).await?;
        self.watch_for(LEFTOVERS_WITHIN, 30 * SECOND).await?;
        for server in &self.servers {
            server.platform.shutdown().await;
        }
        Ok(())
    }
}

/// What building a tree does, and then its program.
fn script(random: &mut StdRng) -> Script {
    let build_time = Duration::from_millis(random.random_range(0..60_000));
    let answers_after = Duration::from_millis(random.random_range(0..5_000));
    let program = Program { answers_after, ..Program::default() };
    match random.random_range(0..10) {
        0..=3 => Script { build_time, program, ..Script::default() },
        4..=5 => Script::default(),
        6 => {
            let failure = Failure::from(&Error::new(Kind::BuildFailed, "build", "it does not build"));
            Script { build_time, build_failure: Some(failure), ..Script::default() }
        }
        7 => {
            let after = Duration::from_millis(random.random_range(0..2_000));
            let exit = ProgramExit { after, code: 1, out_of_memory: false };
            let answers_after = Duration::from_secs(60 * 60);
            Script { program: Program { exit: Some(exit), answers_after, ..program }, ..Script::default() }
        }
        8 => {
            let answers_after = Duration::from_secs(60 * 60);
            Script { program: Program { answers_after, ..program }, ..Script::default() }
        }
        _ => Script { program: Program { ignores_stop: true, ..program }, ..Script::default() },
    }
}

#[derive(Clone, Copy, Debug)]
enum Request {
    Create,
    Deploy,
    Restart,
    Stop,
    Start,
    Rollback(u64),
    Configure(u32),
    Delete,
    Cancel,
}

impl Request {
    fn any(random: &mut StdRng) -> Self {
        match random.random_range(0..100) {
            0..25 => Self::Create,
            25..55 => Self::Deploy,
            55..62 => Self::Restart,
            62..67 => Self::Stop,
            67..73 => Self::Start,
            73..79 => Self::Rollback(random.random_range(1..4)),
            79..86 => Self::Configure(random.random_range(0..5)),
            86..90 => Self::Delete,
            _ => Self::Cancel,
        }
    }
}

struct User {
    apps: Apps,
    reader: Apps,
    ledger: Ledger,
    name: AppName,
}

impl User {
    async fn ask(&self, request: Request) -> paas_core::Result<()> {
        let Self { apps, reader, ledger, name } = self;
        // Before it is asked: whether it was heard may never be known.
        if matches!(request, Request::Stop | Request::Delete) {
            ledger.entries().leaving.insert(name.clone());
        }
        if matches!(request, Request::Delete) {
            ledger.entries().deleting.insert((apps.org().clone(), name.clone()));
        }
        let handle = match request {
            Request::Create => {
                let created = apps.create(NewApp::new(name.as_str(), REPOSITORY)?).await?;
                let id = created.app.id.clone();
                ledger.entries().created.insert(id, (apps.org().clone(), name.clone()));
                created.deployment
            }
            Request::Deploy => Some(apps.deploy(name.clone(), DeployOptions::default()).await?),
            Request::Restart => Some(apps.restart(name.clone()).await?),
            Request::Stop => Some(apps.stop(name.clone()).await?),
            Request::Start => Some(apps.start(name.clone()).await?),
            Request::Rollback(number) => Some(apps.rollback(name.clone(), ReleaseNumber(number)).await?),
            Request::Configure(value) => {
                let env = [("LEVEL".parse()?, Some(Secret::from(value.to_string())))].into();
                apps.update(name.clone(), AppChanges { env, ..AppChanges::default() }, None).await?.deployment
            }
            Request::Delete => Some(apps.delete(name.clone()).await?),
            Request::Cancel => {
                let newest = reader.deployments(name.clone(), 1, None).await?.items;
                if let Some(newest) = newest.first() {
                    apps.deployment(&newest.id).await?.cancel().await?;
                }
                None
            }
        };
        ledger.accepted(apps.org(), handle.as_ref());
        Ok(())
    }
}
