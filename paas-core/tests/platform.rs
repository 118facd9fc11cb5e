//! The platform's promises, on in-memory adapters and paused time.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod world;

use std::time::Duration;

use paas_core::memory::{Program, ProgramExit, Script};
use paas_core::pipeline::{CancelReason, Outcome};
use paas_core::{
    AppChanges, AppState, DeployOptions, DeploymentState, Error, Event, Failure, Fault, Kind, ReleaseNumber,
    Retry, Step, WaitFor,
};
use world::{World, history, live, new_app, url};

fn steps(events: &[paas_core::Recorded]) -> Vec<Step> {
    events
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::Finished { step, .. } => Some(*step),
            _ => None,
        })
        .collect()
}

fn crashing(code: i64) -> Script {
    let exit = ProgramExit { after: Duration::ZERO, code, out_of_memory: false };
    let output = vec!["Traceback (most recent call last):".to_owned(), "ImportError: no module".to_owned()];
    Script { program: Program { exit: Some(exit), output, ..Program::default() }, ..Script::default() }
}

#[tokio::test(start_paused = true)]
async fn a_new_app_becomes_a_live_url() {
    let world = World::new();
    let commit = world.push_page("hello");
    let platform = world.platform().await;
    let created = platform.apps().create(new_app("hello")).await.unwrap();
    let handle = created.deployment.unwrap();
    let deployment = handle.outcome().await.unwrap();
    assert_eq!(deployment.state, DeploymentState::Running);
    assert_eq!(deployment.release, Some(ReleaseNumber(1)));
    assert_eq!(deployment.commit, Some(commit));
    let view = platform.apps().get("hello").await.unwrap();
    assert_eq!(view.state, AppState::Running);
    assert!(view.status.url.is_some());
    let events = history(&handle).await;
    let all = [Step::Fetch, Step::Plan, Step::Build, Step::Start, Step::Verify, Step::Route, Step::Retire];
    assert_eq!(steps(&events), all);
    assert_eq!(events.last().unwrap().event, Event::Ended { outcome: Outcome::Succeeded });
    assert_eq!(world.host.instances().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_same_tree_is_not_built_again() {
    let world = World::new();
    world.push_page("hello");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    let again = platform.deploy("hello").await.unwrap();
    let deployment = again.outcome().await.unwrap();
    assert_eq!(deployment.cached, Some(true));
    assert_eq!(world.host.builds_begun(), 1);
    let forced = platform.apps().deploy("hello", DeployOptions { no_cache: true }).await.unwrap();
    assert_eq!(forced.outcome().await.unwrap().cached, Some(false));
    assert_eq!(world.host.builds_begun(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_build_is_the_users_and_the_old_release_serves_on() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    let before = platform.apps().get("hello").await.unwrap().status;
    let failure = Failure::from(
        &Error::new(Kind::BuildFailed, "docker.build", "the command `pip install` ended with code 1")
            .evidence(["ERROR: No matching distribution".to_owned()])
            .hint("check requirements.txt"),
    );
    world.push_scripted("two", Script { build_failure: Some(failure.clone()), ..Script::default() });
    let handle = platform.deploy("hello").await.unwrap();
    let error = handle.outcome().await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::BuildFailed, Fault::User));
    assert_eq!(error.evidence_lines(), ["ERROR: No matching distribution"]);
    let deployment = handle.get().await.unwrap();
    assert_eq!((deployment.state, deployment.step), (DeploymentState::Failed, Some(Step::Build)));
    history(&handle).await;
    let after = platform.apps().get("hello").await.unwrap();
    assert_eq!(after.state, AppState::Running);
    assert_eq!((after.status.live, after.status.instance), (before.live, before.instance));
}

#[tokio::test(start_paused = true)]
async fn a_program_that_dies_at_start_is_tried_four_times_and_leaves_nothing() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    world.push_scripted("two", crashing(3));
    let handle = platform.deploy("hello").await.unwrap();
    let error = handle.outcome().await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::Unhealthy, Fault::User));
    assert!(error.message().contains("code 3"), "{error}");
    assert_eq!(error.evidence_lines().last().unwrap(), "ImportError: no module");
    assert!(error.hinted().is_some());
    let events = history(&handle).await;
    let starts =
        events.iter().filter(|recorded| matches!(recorded.event, Event::Started { step: Step::Start, .. }));
    assert_eq!(starts.count(), 4);
    assert_eq!(world.host.instances().len(), 1);
    assert_eq!(platform.apps().get("hello").await.unwrap().state, AppState::Running);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_fails_for_a_while_is_retried() {
    let world = World::new();
    world.push_page("one");
    let down = Error::new(Kind::Unavailable, "git.resolve", "the git server answers 503")
        .fault(Fault::Upstream)
        .retry(Retry::Transient { after: None });
    world.git.fail(&url(), &down, 3);
    let platform = world.platform().await;
    let created = platform.apps().create(new_app("hello")).await.unwrap();
    let handle = created.deployment.unwrap();
    handle.outcome().await.unwrap();
    let failures: Vec<_> = history(&handle)
        .await
        .into_iter()
        .filter_map(|recorded| match recorded.event {
            Event::Failed { failure, retry, .. } => Some((failure.fault, retry.is_some())),
            _ => None,
        })
        .collect();
    assert_eq!(failures, [(Fault::Upstream, true); 3]);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_stays_down_ends_failed() {
    let world = World::new();
    world.push_page("one");
    let down =
        Error::new(Kind::Unavailable, "git.resolve", "the git server answers 503").fault(Fault::Upstream);
    world.git.fail(&url(), &down, 1000);
    let platform = world.platform().await;
    let created = platform.apps().create(new_app("hello")).await.unwrap();
    let error = created.deployment.unwrap().outcome().await.unwrap_err();
    assert_eq!(error.whose(), Fault::Upstream);
    assert_eq!(platform.apps().get("hello").await.unwrap().state, AppState::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_missing_branch_is_never_retried() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let created = platform.apps().create(new_app("hello").branch("mian").unwrap()).await.unwrap();
    let handle = created.deployment.unwrap();
    let error = handle.outcome().await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::NotFound, Fault::User));
    let starts =
        history(&handle).await.into_iter().filter(|recorded| matches!(recorded.event, Event::Started { .. }));
    assert_eq!(starts.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn cancelling_a_build_ends_it_and_proves_it() {
    let world = World::new();
    world.push_scripted("slow", Script { build_time: Duration::from_secs(600), ..Script::default() });
    let platform = world.platform().await;
    let created = platform.apps().create(new_app("hello")).await.unwrap();
    let handle = created.deployment.unwrap();
    while world.host.builds_running() == 0 {
        tokio::task::yield_now().await;
    }
    handle.cancel().await.unwrap();
    let waited = handle.wait(WaitFor::Settled, Duration::from_secs(5)).await.unwrap();
    assert_eq!(waited.deployment.state, DeploymentState::Cancelled);
    assert_eq!(world.host.builds_running(), 0);
    assert!(world.host.instances().is_empty());
    assert_eq!(platform.apps().get("hello").await.unwrap().state, AppState::Pending);
    assert_eq!(handle.cancel().await.unwrap().state, DeploymentState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn cancelling_what_is_live_is_a_conflict() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let created = platform.apps().create(new_app("hello")).await.unwrap();
    let handle = created.deployment.unwrap();
    handle.outcome().await.unwrap();
    assert_eq!(handle.cancel().await.unwrap_err().kind(), Kind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn the_newest_deployment_wins() {
    let world = World::new();
    world.push_scripted("slow", Script { build_time: Duration::from_secs(600), ..Script::default() });
    let platform = world.platform().await;
    let first = platform.apps().create(new_app("hello")).await.unwrap().deployment.unwrap();
    while world.host.builds_running() == 0 {
        tokio::task::yield_now().await;
    }
    let second = platform.deploy("hello").await.unwrap();
    world.push_page("fast");
    let third = platform.deploy("hello").await.unwrap();
    third.outcome().await.unwrap();
    for older in [&first, &second] {
        let older = older.settled().await.unwrap();
        assert_eq!(older.state, DeploymentState::Superseded);
        assert!(older.superseded_by.is_some());
    }
    assert_eq!(world.host.builds_running(), 0);
    let events = history(&second).await;
    assert!(
        matches!(&events[1].event, Event::CancelRequested { reason: CancelReason::Superseded { by } } if by == third.id())
    );
}

#[tokio::test(start_paused = true)]
async fn config_restart_stop_start_and_rollback_are_operations() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    live(&platform, "hello").await;
    let apps = platform.apps();

    let changes = AppChanges {
        env: [("GREETING".parse().unwrap(), Some("Hello $(id)\n".into()))].into(),
        ..AppChanges::default()
    };
    let updated = apps.update("hello", changes.clone(), None).await.unwrap();
    let deployment = updated.deployment.unwrap().outcome().await.unwrap();
    assert_eq!(deployment.release, Some(ReleaseNumber(2)));
    assert!(apps.update("hello", changes, None).await.unwrap().deployment.is_none(), "nothing changed");

    let restarted = apps.restart("hello").await.unwrap().outcome().await.unwrap();
    assert_eq!(restarted.release, Some(ReleaseNumber(2)), "the same release runs again");

    let stopped = apps.stop("hello").await.unwrap().outcome().await.unwrap();
    assert_eq!(stopped.state, DeploymentState::Stopped);
    let view = apps.get("hello").await.unwrap();
    assert_eq!((view.state, view.status.url), (AppState::Stopped, None));
    assert!(world.host.instances().is_empty());
    assert_eq!(apps.stop("hello").await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(apps.restart("hello").await.unwrap_err().kind(), Kind::Conflict);

    apps.start("hello").await.unwrap().outcome().await.unwrap();
    assert_eq!(apps.get("hello").await.unwrap().state, AppState::Running);
    assert_eq!(apps.start("hello").await.unwrap_err().kind(), Kind::Conflict);

    let rolled = apps.rollback("hello", ReleaseNumber(1)).await.unwrap().outcome().await.unwrap();
    assert_eq!(rolled.release, Some(ReleaseNumber(3)));
    let view = apps.get("hello").await.unwrap();
    assert!(view.app.config.env_names.is_empty(), "the configuration came back too");
    assert_eq!(apps.rollback("hello", ReleaseNumber(9)).await.unwrap_err().kind(), Kind::NotFound);
    let releases = apps.releases("hello", 10, None).await.unwrap().items;
    assert_eq!(releases.iter().map(|release| release.number.0).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(world.host.instances().len(), 1);
    assert_eq!(world.host.builds_begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn deleting_what_is_being_deleted_is_the_same_operation() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let app = live(&platform, "hello").await;
    let deletion = platform.apps().delete("hello").await.unwrap();
    let again = platform.apps().delete(&app).await.unwrap();
    assert_eq!(deletion.id(), again.id());
    assert_eq!(deletion.outcome().await.unwrap().state, DeploymentState::Deleted);
    assert_eq!(platform.apps().get("hello").await.unwrap_err().kind(), Kind::NotFound);
    assert!(platform.apps().check_name("hello").await.unwrap().is_available);
}

#[tokio::test(start_paused = true)]
async fn two_with_one_name_get_one_app() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let apps = platform.apps();
    let (one, two) = tokio::join!(apps.create(new_app("hello")), apps.create(new_app("hello")));
    let errors: Vec<_> = [one, two].into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].kind(), errors[0].reason()), (Kind::AlreadyExists, Some("name_taken")));
    let check = apps.check_name("hello").await.unwrap();
    assert!(!check.is_available);
    assert_eq!(check.suggestions[0].as_str(), "hello-2");
}

#[tokio::test(start_paused = true)]
async fn another_orgs_app_does_not_exist() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let app = live(&platform, "hello").await;
    let stranger: paas_core::OrgId = "org_00000000000000000000000001".parse().unwrap();
    let theirs = platform.org(&stranger);
    let missing = theirs.get("nothing-here").await.unwrap_err();
    for error in [
        theirs.get("hello").await.unwrap_err(),
        theirs.get(&app).await.unwrap_err(),
        theirs.delete(&app).await.unwrap_err(),
        theirs.restart("hello").await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.message()), (missing.kind(), missing.message()));
    }
    assert!(theirs.list(10, None).await.unwrap().items.is_empty());
    assert!(!theirs.check_name("hello").await.unwrap().is_available);
}

#[tokio::test(start_paused = true)]
async fn twenty_apps_at_once_all_run() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let apps = platform.apps();
    let deployments = (0..20).map(|number| apps.create(new_app(&format!("app-{number}"))));
    for created in futures::future::join_all(deployments).await {
        created.unwrap().deployment.unwrap().outcome().await.unwrap();
    }
    let page = apps.list(100, None).await.unwrap();
    assert_eq!(page.items.len(), 20);
    assert!(page.items.iter().all(|view| view.state == AppState::Running));
    let mut addresses: Vec<_> =
        world.host.instances().into_iter().map(|instance| instance.address.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_taken_container_name_ends_in_the_journaled_substitute() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let created = platform.apps().create(new_app("hello").without_deploying()).await.unwrap();
    assert!(created.deployment.is_none());
    world.push_scripted("slow", Script { build_time: Duration::from_secs(10), ..Script::default() });
    let handle = platform.deploy(&created.app).await.unwrap();
    world.host.take_name(paas_core::InstanceName::of(handle.id(), 0));
    handle.outcome().await.unwrap();
    assert!(history(&handle).await.iter().any(|recorded| recorded.event == Event::NameTaken { fallback: 1 }));
    assert_eq!(world.host.instances()[0].name, paas_core::InstanceName::of(handle.id(), 1));
    assert_eq!(world.host.foreign_names().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_platform_on_the_same_store_goes_on() {
    let world = World::new();
    world.push_scripted("slow", Script { build_time: Duration::from_secs(60), ..Script::default() });
    let platform = world.platform().await;
    let created = platform.apps().create(new_app("hello")).await.unwrap();
    let id = created.deployment.unwrap().id().clone();
    while world.host.builds_running() == 0 {
        tokio::task::yield_now().await;
    }
    platform.shutdown().await;
    drop(platform);
    let platform = world.platform().await;
    let handle = platform.apps().deployment(&id).await.unwrap();
    handle.outcome().await.unwrap();
    let events = history(&handle).await;
    let builds =
        events.iter().filter(|recorded| matches!(recorded.event, Event::Started { step: Step::Build, .. }));
    assert_eq!(builds.count(), 1, "the step is repeated under the same attempt");
    assert_eq!(world.host.instances().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_answers_when_the_time_is_up() {
    let world = World::new();
    world.push_scripted("slow", Script { build_time: Duration::from_secs(600), ..Script::default() });
    let platform = world.platform().await;
    let handle = platform.apps().create(new_app("hello")).await.unwrap().deployment.unwrap();
    let waited = handle.wait(WaitFor::Settled, Duration::from_secs(5)).await.unwrap();
    assert!(!waited.reached);
    assert_eq!(waited.deployment.state, DeploymentState::Building);
    assert!(handle.wait(WaitFor::Success, Duration::from_secs(3600)).await.unwrap().reached);
}

#[tokio::test(start_paused = true)]
async fn a_deployments_log_tells_what_happened_and_outlives_it() {
    let world = World::new();
    let script = Script {
        build_output: vec!["step 1/2: COPY".to_owned()],
        program: Program { output: vec!["listening".to_owned()], ..Program::default() },
        ..Script::default()
    };
    world.push_scripted("one", script);
    let platform = world.platform().await;
    let app = live(&platform, "hello").await;
    let page = platform.apps().logs("hello", paas_core::LogQuery::of(app.id.clone())).await.unwrap();
    let texts: Vec<_> = page.lines.iter().map(|line| line.text.as_str()).collect();
    for expected in ["step 1/2: COPY", "listening"] {
        assert!(texts.contains(&expected), "{expected} is not in {texts:?}");
    }
    let times: Vec<_> = page.lines.iter().map(|line| line.at).collect();
    assert!(times.is_sorted_by(|earlier, later| earlier < later));
}

/// True if any record, event or log line holds a text. The store prints bodies as numbers.
fn is_anywhere(world: &World, text: &str) -> bool {
    let stored = format!("{:?}{:?}", world.store, world.logs);
    let numbers = format!("{:?}", text.as_bytes());
    stored.contains(text) || stored.contains(numbers.trim_matches(['[', ']']))
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_sealed_in_every_record_event_log_and_error() {
    let world = World::new();
    let output = vec!["listening".to_owned()];
    world.push_scripted(
        "one",
        Script { program: Program { output, ..Program::default() }, ..Script::default() },
    );
    world.git.require_token(&url(), "canary-token");
    let platform = world.platform().await;
    let new = new_app("hello").token("canary-token").env("KEY", "canary-value").unwrap();
    let created = platform.apps().create(new).await.unwrap();
    let handle = created.deployment.unwrap();
    handle.outcome().await.unwrap();
    // What fails is told with all that is known of it.
    let changes = AppChanges { token: Some(Some("canary-wrong".into())), ..AppChanges::default() };
    let wrong = platform.apps().update("hello", changes, None).await.unwrap().deployment.unwrap();
    let error = wrong.outcome().await.unwrap_err();
    let changes = AppChanges {
        env: [("KEY".parse().unwrap(), Some("canary-other\0".into()))].into(),
        ..AppChanges::default()
    };
    let refused = platform.apps().update("hello", changes, None).await.unwrap_err();
    let view = platform.apps().get("hello").await.unwrap();
    let told = [
        serde_json::to_string(&history(&handle).await).unwrap(),
        serde_json::to_string(&history(&wrong).await).unwrap(),
        serde_json::to_string(&view.app).unwrap(),
        serde_json::to_string(&wrong.get().await.unwrap()).unwrap(),
        format!("{view:?} {error:?} {refused:?}"),
    ];
    for text in told {
        assert!(!text.contains("canary"), "{text}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for seen in ["git.example.com", "listening"] {
        assert!(is_anywhere(&world, seen), "{seen}: this test looks in the wrong place");
    }
    assert!(!is_anywhere(&world, "canary"));
}
