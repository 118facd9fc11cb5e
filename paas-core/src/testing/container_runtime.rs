//! What every [`ContainerRuntime`] promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::StreamExt;

use crate::clock::SystemClock;
use crate::context::Context;
use crate::domain::{
    AppId, DeploymentId, Env, Image, Instance, InstanceName, InstanceState, OrgId, Port, Resources,
};
use crate::error::{Fault, Kind};
use crate::ids::RandomIds;
use crate::runtime::{
    Addressing, ContainerRuntime, InstanceSpec, OutputLine, OutputOptions, Placement, Selector, Subnet,
};

/// What a test wants an image to run. Each writes `hello 1` to `hello 3` first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestProgram {
    /// It runs until it is asked to end.
    Runs,
    /// It runs on when it is asked to end.
    Stubborn,
    /// It ends with the code 3.
    Ends,
}

/// What the suite needs.
#[async_trait]
pub trait ContainerRuntimeHarness: Send + Sync {
    /// The runtime.
    fn runtime(&self) -> Arc<dyn ContainerRuntime>;

    /// An image that runs the program.
    async fn image(&self, program: TestProgram) -> Image;

    /// A subnet that no other harness has, where the platform chooses the addresses.
    fn subnet(&self) -> Subnet;

    /// Gives a name to something that is not the platform's.
    async fn take_name(&self, name: &InstanceName);

    /// True if what [`take_name`](Self::take_name) made is still as it was. It is removed now.
    async fn give_name_back(&self, name: &InstanceName) -> bool;
}

struct Scene {
    runtime: Arc<dyn ContainerRuntime>,
    context: Context,
    subnet: Subnet,
    org: OrgId,
    ids: RandomIds<SystemClock>,
}

fn scene(harness: &dyn ContainerRuntimeHarness) -> Scene {
    let ids = RandomIds::new(SystemClock::new());
    Scene {
        runtime: harness.runtime(),
        // Whatever a test waits for comes within this time, or the test fails.
        context: Context::new(Arc::new(SystemClock::new())).with_budget(Duration::from_secs(300)),
        subnet: harness.subnet(),
        org: OrgId::generate(&ids),
        ids,
    }
}

impl Scene {
    /// A spec with the `host`th address of the subnet.
    fn spec(&self, image: Image, host: u8) -> InstanceSpec {
        let deployment = DeploymentId::generate(&self.ids);
        let address = Ipv4Addr::from(u32::from(self.subnet.address) + u32::from(host));
        InstanceSpec {
            name: InstanceName::of(&deployment, 0),
            org: self.org.clone(),
            app: AppId::generate(&self.ids),
            deployment,
            image,
            port: Port::DEFAULT,
            env: Env::default(),
            resources: Resources::default(),
            stop_grace: Duration::from_secs(5),
            placement: match self.runtime.addressing() {
                Addressing::Platform => {
                    Placement::Fixed { subnet: self.subnet, address: IpAddr::V4(address) }
                }
                Addressing::Runtime => Placement::Chosen,
            },
        }
    }

    async fn ensured(&self, spec: &InstanceSpec) -> Instance {
        self.runtime.ensure(&self.context, spec).await.unwrap()
    }

    async fn inspected(&self, name: &InstanceName) -> Instance {
        self.runtime.inspect(&self.context, name).await.unwrap().expect("it is there")
    }

    async fn output(&self, name: &InstanceName, options: OutputOptions) -> Vec<OutputLine> {
        let lines = self.runtime.output(&self.context, name, &options).await.unwrap();
        lines.map(|line| line.unwrap()).collect().await
    }

    /// Waits until the program has written its lines.
    async fn written(&self, name: &InstanceName) -> Vec<OutputLine> {
        loop {
            let lines = self.output(name, OutputOptions::default()).await;
            if lines.len() >= 3 {
                return lines;
            }
            self.pause().await;
        }
    }

    async fn pause(&self) {
        self.context.sleep("test.wait", Duration::from_millis(20)).await.unwrap();
    }

    async fn clean(&self, specs: &[&InstanceSpec]) {
        for spec in specs {
            self.runtime.remove(&self.context, &spec.name).await.unwrap();
        }
        self.runtime.remove_network(&self.context, &self.org).await.unwrap();
    }
}

fn texts(lines: &[OutputLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

/// An ensured instance runs, at its address, and says whose it is.
pub async fn an_ensured_instance_runs(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let spec = scene.spec(harness.image(TestProgram::Runs).await, 10);
    let instance = scene.ensured(&spec).await;
    assert!(instance.is_running());
    assert_eq!((&instance.name, &instance.org), (&spec.name, &spec.org));
    assert_eq!((&instance.app, &instance.deployment), (&spec.app, &spec.deployment));
    match spec.placement {
        Placement::Fixed { address, .. } => {
            assert_eq!(instance.address, (address, spec.port.number()).into());
        }
        Placement::Chosen => assert_ne!(instance.address.port(), 0),
    }
    assert!(instance.started_at.is_some());
    assert_eq!(scene.inspected(&spec.name).await, instance);
    scene.clean(&[&spec]).await;
}

/// Ensuring what runs changes nothing.
pub async fn ensuring_twice_is_ensuring_once(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let spec = scene.spec(harness.image(TestProgram::Runs).await, 10);
    let first = scene.ensured(&spec).await;
    assert_eq!(scene.ensured(&spec).await, first);
    assert_eq!(scene.runtime.list(&scene.context, &of_org(&scene)).await.unwrap().len(), 1);
    scene.clean(&[&spec]).await;
}

/// Other settings under the same name replace the container.
pub async fn other_settings_replace_it(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let mut spec = scene.spec(harness.image(TestProgram::Runs).await, 10);
    let first = scene.ensured(&spec).await;
    spec.env.set("A".parse().unwrap(), "1".into()).unwrap();
    let second = scene.ensured(&spec).await;
    assert!(second.is_running());
    assert_ne!(first.started_at, second.started_at);
    assert_eq!(scene.runtime.list(&scene.context, &of_org(&scene)).await.unwrap().len(), 1);
    scene.clean(&[&spec]).await;
}

/// A stopped instance stays there with its output until it is ensured again, which replaces it.
pub async fn a_stopped_instance_is_replaced(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let spec = scene.spec(harness.image(TestProgram::Runs).await, 10);
    scene.ensured(&spec).await;
    let written = scene.written(&spec.name).await;
    for _ in 0..2 {
        scene.runtime.stop(&scene.context, &spec.name, Duration::from_secs(5)).await.unwrap();
        assert!(!scene.inspected(&spec.name).await.is_running());
    }
    assert_eq!(scene.output(&spec.name, OutputOptions::default()).await, written);
    assert!(scene.ensured(&spec).await.is_running());
    scene.clean(&[&spec]).await;
}

/// A process that does not end by itself is ended after the grace.
pub async fn a_stubborn_process_is_ended_after_the_grace(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let spec = scene.spec(harness.image(TestProgram::Stubborn).await, 10);
    scene.ensured(&spec).await;
    scene.written(&spec.name).await;
    scene.runtime.stop(&scene.context, &spec.name, Duration::from_secs(1)).await.unwrap();
    let state = scene.inspected(&spec.name).await.state;
    assert_eq!(state, InstanceState::Exited { code: 137, out_of_memory: false });
    scene.clean(&[&spec]).await;
}

/// A program that ended by itself is seen with its code, and its output can be read.
pub async fn a_program_that_ended_shows_its_code(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let spec = scene.spec(harness.image(TestProgram::Ends).await, 10);
    scene.ensured(&spec).await;
    while scene.inspected(&spec.name).await.is_running() {
        scene.pause().await;
    }
    let state = scene.inspected(&spec.name).await.state;
    // The engine may have restarted it meanwhile; then it ends again.
    if state != InstanceState::Running {
        assert_eq!(state, InstanceState::Exited { code: 3, out_of_memory: false });
    }
    assert_eq!(texts(&scene.written(&spec.name).await)[..3], ["hello 1", "hello 2", "hello 3"]);
    scene.clean(&[&spec]).await;
}

/// What is not there is not there: removing it succeeds, and its output is not found.
pub async fn what_is_absent_is_absent(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let name = InstanceName::of(&DeploymentId::generate(&scene.ids), 0);
    assert_eq!(scene.runtime.inspect(&scene.context, &name).await.unwrap(), None);
    scene.runtime.stop(&scene.context, &name, Duration::ZERO).await.unwrap();
    scene.runtime.remove(&scene.context, &name).await.unwrap();
    scene.runtime.remove_network(&scene.context, &scene.org).await.unwrap();
    let output = scene.runtime.output(&scene.context, &name, &OutputOptions::default()).await;
    assert_eq!(output.err().unwrap().kind(), Kind::NotFound);
}

/// A removed container is gone when the call returns, and its address can be given again.
pub async fn a_removed_instance_frees_its_address(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let image = harness.image(TestProgram::Runs).await;
    let (spec, next) = (scene.spec(image.clone(), 10), scene.spec(image, 10));
    scene.ensured(&spec).await;
    scene.runtime.remove(&scene.context, &spec.name).await.unwrap();
    assert_eq!(scene.runtime.inspect(&scene.context, &spec.name).await.unwrap(), None);
    assert!(scene.ensured(&next).await.is_running());
    scene.clean(&[&next]).await;
}

/// Two instances never share an address: the second is refused, and leaves nothing.
pub async fn an_address_is_given_once(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let image = harness.image(TestProgram::Runs).await;
    let (spec, rival) = (scene.spec(image.clone(), 10), scene.spec(image, 10));
    let first = scene.ensured(&spec).await;
    match scene.runtime.addressing() {
        Addressing::Platform => {
            let error = scene.runtime.ensure(&scene.context, &rival).await.unwrap_err();
            assert_eq!((error.kind(), error.reason()), (Kind::Conflict, Some("address_taken")), "{error:?}");
            assert!(error.is_transient());
            assert_eq!(scene.runtime.inspect(&scene.context, &rival.name).await.unwrap(), None);
        }
        Addressing::Runtime => assert_ne!(scene.ensured(&rival).await.address, first.address),
    }
    assert_eq!(scene.inspected(&spec.name).await, first);
    scene.clean(&[&spec, &rival]).await;
}

/// The list is in the order of the names, and has what the selector asks for.
pub async fn the_list_is_ordered_and_selected(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let image = harness.image(TestProgram::Runs).await;
    let specs = [scene.spec(image.clone(), 10), scene.spec(image.clone(), 11), scene.spec(image, 12)];
    for spec in specs.iter().rev() {
        scene.ensured(spec).await;
    }
    let listed = scene.runtime.list(&scene.context, &of_org(&scene)).await.unwrap();
    let names: Vec<_> = listed.iter().map(|instance| instance.name.clone()).collect();
    assert_eq!(names, specs.each_ref().map(|spec| spec.name.clone()));
    assert!(listed.iter().all(Instance::is_running));
    for (instance, spec) in listed.iter().zip(&specs) {
        assert_eq!(instance.address, scene.inspected(&spec.name).await.address);
    }
    let one = Selector { app: Some(specs[1].app.clone()), ..of_org(&scene) };
    let listed = scene.runtime.list(&scene.context, &one).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].app, specs[1].app);
    let nobody = Selector { org: Some(OrgId::generate(&scene.ids)), app: None };
    assert_eq!(scene.runtime.list(&scene.context, &nobody).await.unwrap(), []);
    scene.clean(&specs.each_ref()).await;
}

/// A name that something else has is left alone by every verb, and the next name works.
pub async fn a_foreign_name_is_left_alone(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let mut spec = scene.spec(harness.image(TestProgram::Runs).await, 10);
    let foreign = spec.name.clone();
    harness.take_name(&foreign).await;
    let error = scene.runtime.ensure(&scene.context, &spec).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::AlreadyExists, Some("foreign_name")), "{error:?}");
    assert_eq!(scene.runtime.inspect(&scene.context, &foreign).await.unwrap(), None);
    scene.runtime.stop(&scene.context, &foreign, Duration::ZERO).await.unwrap();
    scene.runtime.remove(&scene.context, &foreign).await.unwrap();
    spec.name = InstanceName::of(&spec.deployment, 1);
    assert_eq!(scene.ensured(&spec).await.name, spec.name);
    assert_eq!(scene.runtime.list(&scene.context, &of_org(&scene)).await.unwrap().len(), 1);
    scene.clean(&[&spec]).await;
    assert!(harness.give_name_back(&foreign).await);
}

/// Without its image an instance cannot start, and the error says that it is the image.
pub async fn a_missing_image_is_named(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let image = Image { digest: format!("sha256:{}", "0".repeat(64)), port: None };
    let spec = scene.spec(image, 10);
    let error = scene.runtime.ensure(&scene.context, &spec).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::NotFound, Some("image_missing")), "{error:?}");
    assert_eq!(error.whose(), Fault::Platform);
    assert_eq!(scene.runtime.inspect(&scene.context, &spec.name).await.unwrap(), None);
}

/// Output comes oldest first; `after` excludes the line of its own time; `tail` takes the last ones.
pub async fn output_is_read_by_time_and_from_the_end(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let spec = scene.spec(harness.image(TestProgram::Runs).await, 10);
    scene.ensured(&spec).await;
    let all = scene.written(&spec.name).await;
    assert_eq!(texts(&all), ["hello 1", "hello 2", "hello 3"]);
    assert!(all.is_sorted_by_key(|line| line.at));
    let after = OutputOptions { after: Some(all[0].at), ..OutputOptions::default() };
    assert_eq!(scene.output(&spec.name, after).await, all[1..]);
    let behind = OutputOptions { after: Some(all[2].at), ..OutputOptions::default() };
    assert_eq!(scene.output(&spec.name, behind).await, []);
    let tail = OutputOptions { tail: Some(2), ..OutputOptions::default() };
    assert_eq!(scene.output(&spec.name, tail).await, all[1..]);
    scene.clean(&[&spec]).await;
}

/// Followed output ends when the instance does.
pub async fn followed_output_ends_with_the_instance(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let spec = scene.spec(harness.image(TestProgram::Runs).await, 10);
    scene.ensured(&spec).await;
    let following = scene.output(&spec.name, OutputOptions { follow: true, ..OutputOptions::default() });
    let stopping = async {
        scene.written(&spec.name).await;
        scene.runtime.stop(&scene.context, &spec.name, Duration::from_secs(5)).await.unwrap();
    };
    let (lines, ()) = futures::join!(following, stopping);
    assert_eq!(texts(&lines), ["hello 1", "hello 2", "hello 3"]);
    scene.clean(&[&spec]).await;
}

/// A network goes when nothing is on it, and not before.
pub async fn a_network_in_use_is_not_removed(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let spec = scene.spec(harness.image(TestProgram::Runs).await, 10);
    let instance = scene.ensured(&spec).await;
    let error = scene.runtime.remove_network(&scene.context, &scene.org).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Conflict, Some("in_use")), "{error:?}");
    assert_eq!(scene.inspected(&spec.name).await, instance);
    assert!(scene.runtime.networks(&scene.context).await.unwrap().contains(&scene.org));
    scene.clean(&[&spec]).await;
    assert!(!scene.runtime.networks(&scene.context).await.unwrap().contains(&scene.org));
    scene.runtime.remove_network(&scene.context, &scene.org).await.unwrap();
    // And it is made again when it is needed.
    assert!(scene.ensured(&spec).await.is_running());
    scene.clean(&[&spec]).await;
}

/// A call that was cancelled before it began does nothing.
pub async fn a_call_cancelled_before_it_began_does_nothing(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let spec = scene.spec(harness.image(TestProgram::Runs).await, 10);
    let cancelled = scene.context.child();
    cancelled.cancel();
    let error = scene.runtime.ensure(&cancelled, &spec).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    assert_eq!(scene.runtime.inspect(&scene.context, &spec.name).await.unwrap(), None);
    scene.clean(&[]).await;
}

/// A hint may be lost, but not every one.
pub async fn endings_are_hinted_at(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    let mut endings = scene.runtime.endings(&scene.context).await.unwrap();
    let image = harness.image(TestProgram::Runs).await;
    let end_one = async || {
        let spec = scene.spec(image.clone(), 5);
        scene.ensured(&spec).await;
        scene.context.sleep("test.wait", Duration::from_millis(100)).await.unwrap();
        scene.runtime.remove(&scene.context, &spec.name).await.unwrap();
    };
    let many = async {
        for _ in 0..10 {
            end_one().await;
        }
    };
    let (hint, ()) = futures::join!(endings.next(), many);
    assert_eq!(hint, Some(()));
    scene.runtime.remove_network(&scene.context, &scene.org).await.unwrap();
}

/// It answers.
pub async fn it_answers(harness: &dyn ContainerRuntimeHarness) {
    let scene = scene(harness);
    scene.runtime.ping(&scene.context).await.unwrap();
}

fn of_org(scene: &Scene) -> Selector {
    Selector { org: Some(scene.org.clone()), app: None }
}

/// The suite for an expression that makes a [`ContainerRuntimeHarness`].
#[macro_export]
macro_rules! conformance_container_runtime {
    ($harness:expr) => {
        $crate::conformance_tests!(
            container_runtime,
            $harness,
            [
                an_ensured_instance_runs,
                ensuring_twice_is_ensuring_once,
                other_settings_replace_it,
                a_stopped_instance_is_replaced,
                a_stubborn_process_is_ended_after_the_grace,
                a_program_that_ended_shows_its_code,
                what_is_absent_is_absent,
                a_removed_instance_frees_its_address,
                an_address_is_given_once,
                the_list_is_ordered_and_selected,
                a_foreign_name_is_left_alone,
                a_missing_image_is_named,
                output_is_read_by_time_and_from_the_end,
                followed_output_ends_with_the_instance,
                a_network_in_use_is_not_removed,
                a_call_cancelled_before_it_began_does_nothing,
                endings_are_hinted_at,
                it_answers,
            ]
        );
    };
}
