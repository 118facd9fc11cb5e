//! Followed logs: when they end, and what they say when lines left before they were read.
#![cfg(feature = "testing")]

mod world;

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use paas_core::memory::{MemoryLogStore, Script};
use paas_core::{
    AppId, Clock, Error, Failure, Followed, Kind, LogQuery, LogSource, LogStore, LogStoreExt, LogStream,
    NewLogLine,
};

use world::{World, new_app};

fn line(text: String) -> NewLogLine {
    NewLogLine {
        at: None,
        source: LogSource::App,
        stream: LogStream::Stdout,
        instance: None,
        deployment: None,
        text,
    }
}

fn texts(followed: Vec<Followed>) -> Vec<String> {
    let text = |followed| match followed {
        Followed::Line(line) => Some(line.text),
        Followed::Gap { .. } => None,
    };
    followed.into_iter().filter_map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_deployment_ends_with_it_and_is_whole() {
    let world = World::new();
    let failure = Failure::from(&Error::new(Kind::BuildFailed, "docker.build", "no"));
    let output: Vec<_> = (0..2500).map(|number| format!("line {number}")).collect();
    for (page, build_failure) in [("good", None), ("bad", Some(failure))] {
        let build_time = Duration::from_secs(60);
        let script = Script { build_output: output.clone(), build_failure, build_time, ..Script::default() };
        world.push_scripted(page, script);
        let platform = world.platform().await;
        let created = platform.apps().create(new_app(page)).await.unwrap();
        let handle = created.deployment.unwrap();
        let query = || LogQuery { source: Some(LogSource::Build), ..LogQuery::of(created.app.id.clone()) };
        let followed = handle.follow_logs(query()).await.unwrap().try_collect().await.unwrap();
        assert_eq!(texts(followed), output, "{page}");
        assert!(handle.get().await.unwrap().state.is_settled());
        // Also for those who come afterwards.
        let again = handle.follow_logs(query()).await.unwrap().try_collect().await.unwrap();
        assert_eq!(texts(again), output);
        platform.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_of_an_app_ends_when_it_is_deleted() {
    let world = World::new();
    world.push_page("one");
    let platform = world.platform().await;
    let created = platform.apps().create(new_app("hello")).await.unwrap();
    created.deployment.unwrap().outcome().await.unwrap();
    let followed = platform.apps().follow_logs("hello", LogQuery::of(created.app.id)).await.unwrap();
    let (ended, deleted) = tokio::join!(followed.try_collect::<Vec<_>>(), async {
        platform.apps().delete("hello").await?.outcome().await
    });
    ended.unwrap();
    deleted.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_followed_log_ends_when_its_time_has_passed() {
    let world = World::new();
    let platform = world.platform().await;
    let created = platform.apps().create(new_app("hello").without_deploying()).await.unwrap();
    let app = created.app.id;
    world.logs.append(&app, vec![line("within".to_owned())]).await.unwrap();
    let minute = Duration::from_secs(60);
    let to = world.clock.now() + minute;
    let query = LogQuery { to: Some(to), ..LogQuery::of(app.clone()) };
    let followed = platform.apps().follow_logs("hello", query).await.unwrap();
    assert_eq!(texts(followed.try_collect().await.unwrap()), ["within"]);
    assert!(world.clock.now() > to);
    let past = LogQuery { to: Some(world.clock.now() - minute), ..LogQuery::of(app) };
    let followed = platform.apps().follow_logs("hello", past).await.unwrap();
    assert_eq!(texts(followed.try_collect().await.unwrap()), ["within"]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_retention_overtakes_is_told() {
    const LINES: usize = 10;
    let world = World::new();
    let app: AppId = "app_00000000000000000000000001".parse().unwrap();
    let append = async |numbers: std::ops::Range<usize>| {
        let lines = numbers.map(|number| line(number.to_string())).collect();
        world.logs.append(&app, lines).await.unwrap();
    };
    append(0..LINES).await;
    let all = LogQuery { limit: LogQuery::MAX_LIMIT, ..LogQuery::of(app.clone()) };
    let filtered = LogQuery { contains: Some("7".to_owned()), ..all.clone() };
    let mut followers = [world.logs.follow(all), world.logs.follow(filtered)];
    for (follower, seen) in followers.iter_mut().zip([LINES, 1]) {
        for _ in 0..seen {
            assert!(matches!(follower.next().await, Some(Ok(Followed::Line(_)))));
        }
    }
    append(LINES..LINES + MemoryLogStore::MAX_LINES + 5).await;
    let oldest = world.logs.read(&LogQuery { limit: 1, ..LogQuery::of(app.clone()) }).await.unwrap();
    let until = oldest.lines[0].at;
    for (follower, next) in followers.iter_mut().zip(["15", "17"]) {
        assert_eq!(follower.next().await.unwrap().unwrap(), Followed::Gap { until });
        let Followed::Line(line) = follower.next().await.unwrap().unwrap() else { panic!("a second gap") };
        assert_eq!(line.text, next);
    }
}
