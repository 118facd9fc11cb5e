//! What the runtime promises beyond its trait, on a real Docker engine.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code

mod shared;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bollard::models::{NetworkConnectRequest, NetworkDisconnectRequest};
use futures::StreamExt;
use paas_core::{
    ContainerRuntime, DeploymentId, Env, Fault, Image, ImageBuilder, InstanceName, InstanceSpec,
    InstanceState, Kind, LogStream, NewLogLine, OutputLine, OutputOptions, Placement, Port, Resources,
    Selector, Subnet,
};
use paas_docker::{DockerEngine, DockerRuntime};
use shared::{BASE, Bench, client, ids};

/// A runtime with images and a network of its own.
struct Stage {
    bench: Bench,
    runtime: DockerRuntime,
    subnet: Subnet,
}

impl Stage {
    async fn new() -> Self {
        let runtime = DockerRuntime::new(shared::engine().await);
        Self { bench: Bench::new().await, runtime, subnet: shared::subnet() }
    }

    async fn image(&self, command: &str) -> Image {
        let command = serde_json::to_string(&["/bin/sh", "-c", command]).unwrap();
        self.bench.build(&[], &format!("FROM {BASE}\nCMD {command}\n")).await.unwrap()
    }

    fn spec(&self, image: Image, host: u8) -> InstanceSpec {
        let deployment = DeploymentId::generate(&ids());
        let address = Ipv4Addr::from(u32::from(self.subnet.address) + u32::from(host));
        InstanceSpec {
            name: InstanceName::of(&deployment, 0),
            org: self.bench.org.clone(),
            app: self.bench.app.clone(),
            deployment,
            image,
            port: Port::DEFAULT,
            env: Env::default(),
            resources: Resources::default(),
            stop_grace: Duration::from_secs(1),
            placement: Placement::Fixed { subnet: self.subnet, address: IpAddr::V4(address) },
        }
    }

    async fn ended(&self, spec: &InstanceSpec) -> InstanceState {
        loop {
            let instance = self.runtime.inspect(&self.bench.context, &spec.name).await.unwrap().unwrap();
            if !instance.is_running() {
                return instance.state;
            }
            self.bench.context.sleep("test.wait", Duration::from_millis(20)).await.unwrap();
        }
    }

    async fn output(&self, spec: &InstanceSpec) -> Vec<OutputLine> {
        let options = OutputOptions { follow: true, ..OutputOptions::default() };
        let lines = self.runtime.output(&self.bench.context, &spec.name, &options).await.unwrap();
        lines.map(|line| line.unwrap()).collect().await
    }

    async fn clean(&self, specs: &[&InstanceSpec]) {
        for spec in specs {
            self.runtime.remove(&self.bench.context, &spec.name).await.unwrap();
        }
        self.runtime.remove_network(&self.bench.context, &self.bench.org).await.unwrap();
        self.bench.clean().await;
    }
}

#[tokio::test]
async fn a_container_is_hardened() {
    let stage = Stage::new().await;
    let spec = stage.spec(stage.image("sleep 1000000").await, 5);
    stage.runtime.ensure(&stage.bench.context, &spec).await.unwrap();
    let inspected = client().await.inspect_container(spec.name.as_str(), None).await.unwrap();
    let host = inspected.host_config.unwrap();
    assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    let kept = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "NET_BIND_SERVICE"];
    assert_eq!(host.cap_add.unwrap(), kept);
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true"]);
    assert_eq!(host.privileged, Some(false));
    assert_eq!(host.init, Some(true));
    assert_eq!(host.pids_limit, Some(256));
    assert_eq!((host.memory, host.memory_swap), (Some(512 * 1024 * 1024), Some(512 * 1024 * 1024)));
    assert_eq!((host.cpu_period, host.cpu_quota), (Some(100_000), Some(100_000)));
    let limits = host.ulimits.unwrap();
    assert_eq!(
        (limits[0].name.as_deref(), limits[0].soft, limits[0].hard),
        (Some("nofile"), Some(4096), Some(4096))
    );
    let log = host.log_config.unwrap();
    assert_eq!(log.typ.as_deref(), Some("json-file"));
    assert_eq!(
        log.config.unwrap(),
        [("max-size", "10m"), ("max-file", "3")].map(|(a, b)| (a.to_owned(), b.to_owned())).into()
    );
    assert_eq!(host.restart_policy.unwrap().name.unwrap().to_string(), "no");
    assert!(host.port_bindings.unwrap_or_default().is_empty());
    assert!(host.binds.unwrap_or_default().is_empty() && host.devices.unwrap_or_default().is_empty());
    assert!(inspected.mounts.unwrap_or_default().is_empty());
    let network = format!("paas-test-{}", spec.org.suffix());
    assert_eq!(host.network_mode.as_deref(), Some(network.as_str()));
    // And the kernel's word for it.
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", inspected.state.unwrap().pid.unwrap())).unwrap();
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(line("CapEff:"), "00000000000004cb");
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    stage.clean(&[&spec]).await;
}

#[tokio::test]
async fn the_environment_arrives_byte_for_byte() {
    let stage = Stage::new().await;
    let values = [
        ("PLAIN", "1"),
        ("LINES", "a\nb\r\n\n"),
        ("QUOTES", "'\"`$(id) ${X} \\n"),
        ("SIGNS", "ä 漢 🦀"),
        ("EMPTY", ""),
    ];
    let mut spec = stage.spec(stage.image("cat /proc/self/environ").await, 5);
    for (name, value) in values {
        spec.env.set(name.parse().unwrap(), value.into()).unwrap();
    }
    stage.runtime.ensure(&stage.bench.context, &spec).await.unwrap();
    let output: Vec<String> = stage.output(&spec).await.into_iter().map(|line| line.text).collect();
    // Lines lose their `\r`; so the raw text is compared without them.
    let output = output.join("\n");
    for (name, value) in values.into_iter().chain([("PORT", "8080")]) {
        let entry = format!("{name}={}\0", value.replace('\r', ""));
        assert!(output.contains(&entry), "{name}: {output:?}");
    }
    let inspected = client().await.inspect_container(spec.name.as_str(), None).await.unwrap();
    assert!(inspected.config.unwrap().env.unwrap().contains(&"LINES=a\nb\r\n\n".to_owned()));
    stage.clean(&[&spec]).await;
}

#[tokio::test]
async fn a_renamed_container_gets_its_name_back() {
    let stage = Stage::new().await;
    let spec = stage.spec(stage.image("sleep 1000000").await, 5);
    let before = stage.runtime.ensure(&stage.bench.context, &spec).await.unwrap();
    let options = bollard::query_parameters::RenameContainerOptionsBuilder::new().name("somebody-s").build();
    client().await.rename_container(spec.name.as_str(), options).await.unwrap();
    assert_eq!(stage.runtime.inspect(&stage.bench.context, &spec.name).await.unwrap(), None);
    let after = stage.runtime.ensure(&stage.bench.context, &spec).await.unwrap();
    assert_eq!((after.name, after.started_at), (before.name, before.started_at), "it ran on");
    stage.clean(&[&spec]).await;
}

#[tokio::test]
async fn restarted_containers_keep_their_addresses() {
    let stage = Stage::new().await;
    let image = stage.image("sleep 1000000").await;
    let specs = [stage.spec(image.clone(), 5), stage.spec(image, 6)];
    let mut addresses = Vec::new();
    for spec in &specs {
        addresses.push(stage.runtime.ensure(&stage.bench.context, spec).await.unwrap().address);
    }
    for spec in &specs {
        client()
            .await
            .stop_container(
                spec.name.as_str(),
                Some(bollard::query_parameters::StopContainerOptionsBuilder::new().t(0).build()),
            )
            .await
            .unwrap();
    }
    // In the other order, so that engine-chosen addresses would be swapped.
    for spec in specs.iter().rev() {
        client().await.start_container(spec.name.as_str(), None).await.unwrap();
    }
    for (spec, address) in specs.iter().zip(addresses) {
        let inspected = client().await.inspect_container(spec.name.as_str(), None).await.unwrap();
        let networks = inspected.network_settings.unwrap().networks.unwrap();
        let real = networks.values().next().unwrap().ip_address.clone().unwrap();
        assert_eq!(real, address.ip().to_string());
        let seen = stage.runtime.inspect(&stage.bench.context, &spec.name).await.unwrap().unwrap();
        assert_eq!(seen.address, address);
    }
    stage.clean(&specs.each_ref()).await;
}

#[tokio::test]
async fn running_out_of_memory_is_seen() {
    let stage = Stage::new().await;
    let mut spec = stage.spec(stage.image("exec tail /dev/zero").await, 5);
    spec.resources.memory_bytes = 16 * 1024 * 1024;
    stage.runtime.ensure(&stage.bench.context, &spec).await.unwrap();
    // The engine may learn of it after the exit; it restarts the program, which runs out again.
    while stage.ended(&spec).await != (InstanceState::Exited { code: 137, out_of_memory: true }) {
        stage.bench.context.sleep("test.wait", Duration::from_millis(20)).await.unwrap();
    }
    stage.clean(&[&spec]).await;
}

#[tokio::test]
async fn outputs_are_told_apart_and_long_lines_are_cut() {
    let stage = Stage::new().await;
    let command = "echo one; echo two >&2; head -c 100000 /dev/zero | tr '\\0' x; echo; printf 'end\\r\\n'; printf rest";
    let spec = stage.spec(stage.image(command).await, 5);
    stage.runtime.ensure(&stage.bench.context, &spec).await.unwrap();
    let lines = stage.output(&spec).await;
    let errors: Vec<_> =
        lines.iter().filter(|line| line.stream == LogStream::Stderr).map(|line| &line.text).collect();
    assert_eq!(errors, ["two"]);
    let texts: Vec<_> =
        lines.iter().filter(|line| line.stream == LogStream::Stdout).map(|line| &line.text).collect();
    assert_eq!(texts.len(), 4, "{texts:?}");
    assert_eq!((texts[0].as_str(), texts[2].as_str(), texts[3].as_str()), ("one", "end", "rest"));
    assert!(texts[1].len() <= NewLogLine::MAX_TEXT_BYTES && texts[1].ends_with("… [cut]"));
    stage.clean(&[&spec]).await;
}

/// The init starts first, and says it in the output.
#[tokio::test]
async fn a_program_that_is_not_there_ends_at_once() {
    let stage = Stage::new().await;
    let image = stage.bench.build(&[], &format!("FROM {BASE}\nCMD [\"/no/such/program\"]\n")).await.unwrap();
    let spec = stage.spec(image, 5);
    stage.runtime.ensure(&stage.bench.context, &spec).await.unwrap();
    assert_eq!(stage.ended(&spec).await, InstanceState::Exited { code: 127, out_of_memory: false });
    stage.clean(&[&spec]).await;
}

#[tokio::test]
async fn an_image_that_cannot_be_run_is_the_users_fault() {
    let stage = Stage::new().await;
    let run = "CMD [\"sleep\", \"1000000\"]";
    for dockerfile in [
        "FROM scratch\nCOPY a /a\n".to_owned(),
        format!("FROM {BASE}\nUSER ghost\n{run}\n"),
        format!("FROM {BASE}\nUSER 1:ghosts\n{run}\n"),
        format!("FROM {BASE}\nUSER 99999999999\n{run}\n"),
        format!("FROM {BASE}\nWORKDIR /w/x\nRUN rm -r /w && touch /w\n{run}\n"),
        format!("FROM {BASE}\nRUN touch /f\nVOLUME /f\n{run}\n"),
        format!("FROM {BASE}\nVOLUME /proc\n{run}\n"),
    ] {
        let spec = stage.spec(stage.bench.build(&[("a", "b")], &dockerfile).await.unwrap(), 5);
        let error = stage.runtime.ensure(&stage.bench.context, &spec).await.unwrap_err();
        assert_eq!((error.kind(), error.whose()), (Kind::Unhealthy, Fault::User), "{dockerfile}: {error:?}");
        assert!(!error.is_transient() && error.hinted().is_some(), "{error:?}");
        assert!(!error.message().contains("/var/lib"), "{error}");
        assert_eq!(stage.runtime.inspect(&stage.bench.context, &spec.name).await.unwrap(), None);
    }
    stage.clean(&[]).await;
}

#[tokio::test]
async fn labels_of_an_image_change_nothing() {
    let stage = Stage::new().await;
    let labels = "LABEL paas.address=169.254.169.254 paas.port=80 paas.installation=x paas.org=x paas.app=x \
                  paas.deployment=x paas.spec=x paas.build-key=x";
    let image = stage
        .bench
        .build(&[], &format!("FROM {BASE}\n{labels}\nCMD [\"sleep\", \"1000000\"]\n"))
        .await
        .unwrap();
    let bench = &stage.bench;
    let of_app = Selector::of_app(&bench.org, &bench.app);
    let images = bench.builder.list(&bench.context, &of_app).await.unwrap();
    assert_eq!(images.iter().map(|image| &image.digest).collect::<Vec<_>>(), [&image.digest]);
    let fixed = stage.spec(image.clone(), 5);
    let instance = stage.runtime.ensure(&bench.context, &fixed).await.unwrap();
    let Placement::Fixed { address, .. } = fixed.placement else { panic!("fixed") };
    assert_eq!(instance.address, (address, 8080).into());
    let chosen = InstanceSpec { placement: Placement::Chosen, ..stage.spec(image, 6) };
    let on_loopback = stage.runtime.clone().on_loopback();
    let instance = on_loopback.ensure(&bench.context, &chosen).await.unwrap();
    assert!(instance.address.ip().is_loopback());
    let selector = Selector::of_app(&bench.org, &bench.app);
    let listed = stage.runtime.list(&bench.context, &selector).await.unwrap();
    assert!(listed.iter().any(|one| one.address == instance.address), "{listed:?}");
    assert_eq!(listed.len(), 2);
    stage.clean(&[&fixed, &chosen]).await;
}

#[tokio::test]
async fn ports_on_loopback_are_kept_over_restarts() {
    let stage = Stage::new().await;
    let runtime = stage.runtime.clone().on_loopback();
    let image = stage.image("sleep 1000000").await;
    let specs =
        [5, 6].map(|host| InstanceSpec { placement: Placement::Chosen, ..stage.spec(image.clone(), host) });
    let mut addresses = Vec::new();
    for spec in &specs {
        addresses.push(runtime.ensure(&stage.bench.context, spec).await.unwrap().address);
    }
    assert_ne!(addresses[0], addresses[1]);
    let at_once = bollard::query_parameters::StopContainerOptionsBuilder::new().t(0).build();
    for spec in &specs {
        client().await.stop_container(spec.name.as_str(), Some(at_once.clone())).await.unwrap();
    }
    for spec in specs.iter().rev() {
        client().await.start_container(spec.name.as_str(), None).await.unwrap();
    }
    for (spec, address) in specs.iter().zip(addresses) {
        let inspected = client().await.inspect_container(spec.name.as_str(), None).await.unwrap();
        let ports = inspected.network_settings.unwrap().ports.unwrap();
        let binding = ports["8080/tcp"].as_ref().unwrap()[0].clone();
        assert_eq!(binding.host_port.unwrap(), address.port().to_string());
        assert_eq!(binding.host_ip.unwrap(), "127.0.0.1");
        let seen = runtime.inspect(&stage.bench.context, &spec.name).await.unwrap().unwrap();
        assert_eq!(seen.address, address);
    }
    stage.clean(&specs.each_ref()).await;
}

#[tokio::test]
async fn orgs_do_not_reach_each_other() {
    let server = "mkdir /www; echo hello > /www/index.html; exec busybox httpd -f -p 8080 -h /www";
    let (theirs, mine) = (Stage::new().await, Stage::new().await);
    let their = theirs.spec(theirs.image(server).await, 5);
    let address = theirs.runtime.ensure(&theirs.bench.context, &their).await.unwrap().address;
    let ask = format!(
        "for i in 1 2 3; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {} {} && break; sleep 1; done; echo asked",
        address.ip(),
        address.port()
    );
    let asked = |lines: Vec<OutputLine>| lines.into_iter().map(|line| line.text).find(|text| text == "hello");
    // A neighbour of the same org is answered, so it serves.
    let neighbour = theirs.spec(theirs.image(&ask).await, 6);
    theirs.runtime.ensure(&theirs.bench.context, &neighbour).await.unwrap();
    assert!(asked(theirs.output(&neighbour).await).is_some());
    let stranger = mine.spec(mine.image(&ask).await, 5);
    mine.runtime.ensure(&mine.bench.context, &stranger).await.unwrap();
    let lines = mine.output(&stranger).await;
    assert_eq!(lines.last().unwrap().text, "asked");
    assert_eq!(asked(lines), None);
    theirs.clean(&[&their, &neighbour]).await;
    mine.clean(&[&stranger]).await;
}

#[tokio::test]
async fn a_subnet_that_another_network_has_is_named() {
    let (first, mut second) = (Stage::new().await, Stage::new().await);
    second.subnet = first.subnet;
    let spec = first.spec(first.image("sleep 1000000").await, 5);
    first.runtime.ensure(&first.bench.context, &spec).await.unwrap();
    let rival = second.spec(second.image("sleep 1000000").await, 6);
    let error = second.runtime.ensure(&second.bench.context, &rival).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Conflict, Some("subnet_taken")), "{error:?}");
    assert!(error.message().contains(&first.subnet.to_string()) && error.hinted().is_some(), "{error:?}");
    assert_eq!(second.runtime.inspect(&second.bench.context, &rival.name).await.unwrap(), None);
    first.clean(&[&spec]).await;
    second.clean(&[&rival]).await;
}

#[tokio::test]
async fn first_starts_of_one_org_at_once_share_its_network() {
    let stage = Stage::new().await;
    let image = stage.image("sleep 1000000").await;
    let specs: Vec<_> = (3..9).map(|host| stage.spec(image.clone(), host)).collect();
    let starts = specs.iter().map(|spec| stage.runtime.ensure(&stage.bench.context, spec));
    for started in futures::future::join_all(starts).await {
        assert!(started.unwrap().is_running());
    }
    let name = format!("paas-test-{}", stage.bench.org.suffix());
    let filters = std::collections::HashMap::from([("name".to_owned(), vec![name])]);
    let options = bollard::query_parameters::ListNetworksOptionsBuilder::new().filters(&filters).build();
    assert_eq!(client().await.list_networks(Some(options)).await.unwrap().len(), 1);
    stage.clean(&specs.iter().collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_network_that_is_removed_while_containers_start_is_no_lasting_failure() {
    let stage = Stage::new().await;
    let image = stage.image("sleep 1000000").await;
    for _ in 0..5 {
        let spec = stage.spec(image.clone(), 5);
        let (started, removed) = futures::join!(
            stage.runtime.ensure(&stage.bench.context, &spec),
            stage.runtime.remove_network(&stage.bench.context, &stage.bench.org)
        );
        if let Err(error) = started {
            assert!(error.is_transient(), "{error:?}");
        }
        if let Err(error) = removed {
            assert_eq!(error.reason(), Some("in_use"), "{error:?}");
        }
        stage.runtime.remove(&stage.bench.context, &spec.name).await.unwrap();
    }
    stage.clean(&[]).await;
}

#[tokio::test]
async fn installations_do_not_see_each_other() {
    let stage = Stage::new().await;
    let spec = stage.spec(stage.image("sleep 1000000").await, 5);
    stage.runtime.ensure(&stage.bench.context, &spec).await.unwrap();
    let other = DockerRuntime::new(DockerEngine::connect(&stage.bench.context, "test-other").await.unwrap());
    assert_eq!(other.inspect(&stage.bench.context, &spec.name).await.unwrap(), None);
    other.remove(&stage.bench.context, &spec.name).await.unwrap();
    assert_eq!(other.ensure(&stage.bench.context, &spec).await.unwrap_err().reason(), Some("foreign_name"));
    assert!(stage.runtime.inspect(&stage.bench.context, &spec.name).await.unwrap().unwrap().is_running());
    stage.clean(&[&spec]).await;
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_the_platforms_fault() {
    let context = shared::context();
    for host in ["unix:///no/such/socket", "tcp://127.0.0.1:1"] {
        let error = DockerEngine::connect_to(&context, host, "test").await.unwrap_err();
        assert_eq!((error.kind(), error.whose()), (Kind::Unavailable, Fault::Platform));
        assert!(error.is_transient() && error.hinted().is_some(), "{error:?}");
    }
    let error = DockerEngine::connect_to(&context, "unix:///x", "Not A Name").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

#[tokio::test]
async fn a_container_that_was_cut_off_is_connected_again_as_it_is() {
    let stage = Stage::new().await;
    let spec = stage.spec(stage.image("exec sleep 1000").await, 7);
    let before = stage.runtime.ensure(&stage.bench.context, &spec).await.unwrap();
    let org = Selector { org: Some(stage.bench.org.clone()), app: None };
    let docker = client().await;
    let inspected = docker.inspect_container(spec.name.as_str(), None).await.unwrap();
    let network = inspected.host_config.unwrap().network_mode.unwrap();
    for is_elsewhere in [false, true] {
        let away = NetworkDisconnectRequest { container: spec.name.to_string(), force: Some(true) };
        docker.disconnect_network(&network, away).await.unwrap();
        if is_elsewhere {
            let request = NetworkConnectRequest { container: spec.name.to_string(), endpoint_config: None };
            docker.connect_network(&network, request).await.unwrap();
        }
        let seen = stage.runtime.inspect(&stage.bench.context, &spec.name).await.unwrap().unwrap();
        let listed = stage.runtime.list(&stage.bench.context, &org).await.unwrap();
        assert_eq!((&seen.state, &listed[0].state), (&InstanceState::CutOff, &InstanceState::CutOff));
        let after = stage.runtime.ensure(&stage.bench.context, &spec).await.unwrap();
        assert_eq!(after, before, "it is the same one, at its address");
    }
    stage.clean(&[&spec]).await;
}
