//! What every [`ImageBuilder`] promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::SystemClock;
use crate::context::Context;
use crate::domain::{AppId, Image, OrgId};
use crate::error::{Fault, Kind};
use crate::ids::{Ids, RandomIds};
use crate::image::{BuildRequest, ImageBuilder};
use crate::logs::{LogSink, LogSource, LogWriter, NewLogLine};
use crate::runtime::Selector;

/// What a test wants of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestBuild {
    /// It writes `built` and a text, and succeeds. Another text is another tree.
    Succeeds(String),
    /// It writes `about to fail`, and its command fails.
    Fails,
    /// It writes `waiting`, and goes on for ever.
    Endless,
}

/// What the suite needs.
#[async_trait]
pub trait ImageBuilderHarness: Send + Sync {
    /// The builder.
    fn builder(&self) -> Arc<dyn ImageBuilder>;

    /// A request for a build of this kind, with the default limits.
    fn request(&self, org: &OrgId, app: &AppId, build: &TestBuild) -> BuildRequest;

    /// True if something of an endless build is running.
    async fn is_building(&self) -> bool;

    /// Makes a container that uses the image, until it is released.
    async fn hold(&self, image: &Image);

    /// Lets go of what [`hold`](Self::hold) made.
    async fn release(&self, image: &Image);
}

/// Keeps the lines that it is given.
#[derive(Debug, Default)]
struct Recorder(Mutex<Vec<NewLogLine>>);

impl LogWriter for Recorder {
    fn write(&self, line: NewLogLine) {
        self.0.lock().unwrap().push(line);
    }
}

impl Recorder {
    fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.source == LogSource::Build && line.text.contains(text))
    }
}

struct Scene {
    builder: Arc<dyn ImageBuilder>,
    context: Context,
    log: Arc<Recorder>,
    org: OrgId,
    app: AppId,
    ids: RandomIds<SystemClock>,
}

fn scene(harness: &dyn ImageBuilderHarness) -> Scene {
    let ids = RandomIds::new(SystemClock::new());
    let (log, org, app) = (Arc::new(Recorder::default()), OrgId::generate(&ids), AppId::generate(&ids));
    let context = Context::new(Arc::new(SystemClock::new())).with_log(LogSink::to(log.clone()));
    Scene { builder: harness.builder(), context, log, org, app, ids }
}

impl Scene {
    fn succeeding(&self, harness: &dyn ImageBuilderHarness) -> BuildRequest {
        harness.request(&self.org, &self.app, &TestBuild::Succeeds(self.text()))
    }

    /// A text that no other test has.
    fn text(&self) -> String {
        format!("text-{:032x}", self.ids.next())
    }

    async fn built(&self, request: &BuildRequest) -> Image {
        let key = self.builder.key(&self.context, request).await.unwrap();
        self.builder.build(&self.context, request, &key).await.unwrap()
    }

    /// The digests of an app's images.
    async fn listed(&self, org: &OrgId, app: &AppId) -> Vec<String> {
        let images = self.builder.list(&self.context, &Selector::of_app(org, app)).await.unwrap();
        assert!(images.iter().all(|image| (&image.org, &image.app) == (org, app)), "{images:?}");
        images.into_iter().map(|image| image.digest).collect()
    }

    async fn clean(&self, image: &Image) {
        self.builder.remove(&self.context, &image.digest).await.unwrap();
    }
}

/// The key is a function of org, app, tree and Dockerfile.
pub async fn keys_tell_requests_apart(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let request = scene.succeeding(harness);
    let key = scene.builder.key(&scene.context, &request).await.unwrap();
    assert_eq!(key, scene.builder.key(&scene.context, &request.clone()).await.unwrap());
    let mut others = vec![scene.succeeding(harness), request.clone(), request.clone(), request.clone()];
    others[1].org = OrgId::generate(&scene.ids);
    others[2].app = AppId::generate(&scene.ids);
    others[3].plan.dockerfile =
        crate::plan::Dockerfile::Generated { text: "FROM other".to_owned(), files: Default::default() };
    for other in others {
        assert_ne!(key, scene.builder.key(&scene.context, &other).await.unwrap());
    }
}

/// An image is found by its key once it was built, and not before.
pub async fn an_image_is_found_once_it_was_built(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let request = scene.succeeding(harness);
    let key = scene.builder.key(&scene.context, &request).await.unwrap();
    assert_eq!(scene.builder.find(&scene.context, &key).await.unwrap(), None);
    let image = scene.builder.build(&scene.context, &request, &key).await.unwrap();
    assert!(image.digest.starts_with("sha256:"), "{}", image.digest);
    assert_eq!(scene.builder.find(&scene.context, &key).await.unwrap(), Some(image.clone()));
    scene.clean(&image).await;
}

/// What the steps write is in the log.
pub async fn output_goes_to_the_log(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let text = scene.text();
    let image =
        scene.built(&harness.request(&scene.org, &scene.app, &TestBuild::Succeeds(text.clone()))).await;
    assert!(scene.log.has(&format!("built {text}")));
    scene.clean(&image).await;
}

/// Building what is there builds nothing.
pub async fn a_second_build_answers_what_is_there(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let request = scene.succeeding(harness);
    let image = scene.built(&request).await;
    let again = self::scene(harness);
    let key = again.builder.key(&again.context, &request).await.unwrap();
    assert_eq!(again.builder.build(&again.context, &request, &key).await.unwrap(), image);
    assert!(again.log.0.lock().unwrap().is_empty());
    scene.clean(&image).await;
}

/// `no_cache` runs the steps again.
pub async fn no_cache_runs_the_steps_again(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let mut request = scene.succeeding(harness);
    let first = scene.built(&request).await;
    request.no_cache = true;
    let again = self::scene(harness);
    let key = again.builder.key(&again.context, &request).await.unwrap();
    let second = again.builder.build(&again.context, &request, &key).await.unwrap();
    assert!(again.log.has("built"));
    assert_eq!(again.builder.find(&again.context, &key).await.unwrap(), Some(second.clone()));
    scene.clean(&first).await;
    scene.clean(&second).await;
}

/// A command that fails is the user's fault, with its last lines; nothing is found afterwards.
pub async fn a_failed_build_is_the_users(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let request = harness.request(&scene.org, &scene.app, &TestBuild::Fails);
    let key = scene.builder.key(&scene.context, &request).await.unwrap();
    let error = scene.builder.build(&scene.context, &request, &key).await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::BuildFailed, Fault::User), "{error:?}");
    assert!(!error.is_transient());
    assert!(error.evidence_lines().iter().any(|line| line.contains("about to fail")), "{error:?}");
    assert_eq!(scene.builder.find(&scene.context, &key).await.unwrap(), None);
}

/// When a cancelled build returns, nothing of it runs.
pub async fn a_cancelled_build_is_gone_when_it_returns(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let request = harness.request(&scene.org, &scene.app, &TestBuild::Endless);
    let key = scene.builder.key(&scene.context, &request).await.unwrap();
    let mut build = pin!(scene.builder.build(&scene.context, &request, &key));
    let waiting = async {
        while !scene.log.has("waiting") || !harness.is_building().await {
            scene.context.sleep("test.wait", Duration::from_millis(20)).await.unwrap();
        }
    };
    tokio::select! {
        result = &mut build => panic!("it ended before it was cancelled: {result:?}"),
        () = waiting => {}
    }
    scene.context.cancel();
    let result = build.await;
    assert!(!harness.is_building().await);
    assert_eq!(result.unwrap_err().kind(), Kind::Cancelled);
}

/// A build that takes longer than it may is ended, and says so.
pub async fn a_build_over_its_time_is_ended(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let mut request = harness.request(&scene.org, &scene.app, &TestBuild::Endless);
    request.limits.total = Duration::from_secs(3);
    let key = scene.builder.key(&scene.context, &request).await.unwrap();
    let error = scene.builder.build(&scene.context, &request, &key).await.unwrap_err();
    assert!(!harness.is_building().await);
    assert_eq!((error.kind(), error.reason()), (Kind::BuildFailed, Some("build_limit")), "{error:?}");
    assert_eq!(error.whose(), Fault::User);
}

/// A call that was cancelled before it began does nothing.
pub async fn a_call_cancelled_before_it_began_does_nothing(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let request = scene.succeeding(harness);
    let key = scene.builder.key(&scene.context, &request).await.unwrap();
    let cancelled = scene.context.child();
    cancelled.cancel();
    let error = scene.builder.build(&cancelled, &request, &key).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    assert_eq!(scene.builder.find(&scene.context, &key).await.unwrap(), None);
}

/// The list has an app's own images, and no other's.
pub async fn the_list_has_an_apps_own_images(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let image = scene.built(&scene.succeeding(harness)).await;
    let other = AppId::generate(&scene.ids);
    let theirs = scene.built(&harness.request(&scene.org, &other, &TestBuild::Succeeds(scene.text()))).await;
    assert_eq!(scene.listed(&scene.org, &scene.app).await, std::slice::from_ref(&image.digest));
    let stranger = OrgId::generate(&scene.ids);
    assert_eq!(scene.listed(&stranger, &scene.app).await, [""; 0]);
    let all = scene.builder.list(&scene.context, &Selector::default()).await.unwrap();
    for (app, image) in [(&scene.app, &image), (&other, &theirs)] {
        assert!(all.iter().any(|one| one.app == *app && one.digest == image.digest), "{all:?}");
    }
    scene.clean(&image).await;
    scene.clean(&theirs).await;
}

/// Two apps with the same tree have an image each: removing the one's leaves the other's.
pub async fn removing_one_apps_image_leaves_anothers(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let (build, other) = (TestBuild::Succeeds(scene.text()), AppId::generate(&scene.ids));
    let mine = scene.built(&harness.request(&scene.org, &scene.app, &build)).await;
    let theirs = scene.built(&harness.request(&scene.org, &other, &build)).await;
    scene.clean(&mine).await;
    assert_eq!(scene.listed(&scene.org, &other).await, std::slice::from_ref(&theirs.digest));
    scene.clean(&theirs).await;
}

/// A removed image is found no more, and removing it again succeeds.
pub async fn a_removed_image_is_gone(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let request = scene.succeeding(harness);
    let image = scene.built(&request).await;
    let key = scene.builder.key(&scene.context, &request).await.unwrap();
    scene.builder.remove(&scene.context, &image.digest).await.unwrap();
    scene.builder.remove(&scene.context, &image.digest).await.unwrap();
    assert_eq!(scene.builder.find(&scene.context, &key).await.unwrap(), None);
    assert_eq!(scene.listed(&scene.org, &scene.app).await, [""; 0]);
}

/// An image that a container uses stays.
pub async fn an_image_in_use_is_not_removed(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let image = scene.built(&scene.succeeding(harness)).await;
    harness.hold(&image).await;
    let error = scene.builder.remove(&scene.context, &image.digest).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Conflict, Some("in_use")), "{error:?}");
    assert_eq!(scene.listed(&scene.org, &scene.app).await, std::slice::from_ref(&image.digest));
    harness.release(&image).await;
    scene.clean(&image).await;
}

/// What builds keep can be bounded; images are not part of it.
pub async fn pruning_leaves_images(harness: &dyn ImageBuilderHarness) {
    let scene = scene(harness);
    let image = scene.built(&scene.succeeding(harness)).await;
    // So much that nothing of others goes.
    assert_eq!(scene.builder.prune(&scene.context, 1 << 50).await.unwrap(), 0);
    assert_eq!(scene.listed(&scene.org, &scene.app).await, std::slice::from_ref(&image.digest));
    scene.clean(&image).await;
}

/// The suite for an expression that makes an [`ImageBuilderHarness`].
#[macro_export]
macro_rules! conformance_image_builder {
    ($harness:expr) => {
        $crate::conformance_tests!(
            image_builder,
            $harness,
            [
                keys_tell_requests_apart,
                an_image_is_found_once_it_was_built,
                output_goes_to_the_log,
                a_second_build_answers_what_is_there,
                no_cache_runs_the_steps_again,
                a_failed_build_is_the_users,
                a_cancelled_build_is_gone_when_it_returns,
                a_build_over_its_time_is_ended,
                a_call_cancelled_before_it_began_does_nothing,
                the_list_has_an_apps_own_images,
                removing_one_apps_image_leaves_anothers,
                a_removed_image_is_gone,
                an_image_in_use_is_not_removed,
                pruning_leaves_images,
            ]
        );
    };
}
