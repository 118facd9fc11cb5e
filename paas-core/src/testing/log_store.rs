//! The conformance suite of [`LogStore`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};

use crate::clock::{Clock, TestClock};
use crate::domain::{AppId, DeploymentId, InstanceName};
use crate::logs::{
    Followed, LogDirection, LogLine, LogPage, LogQuery, LogSource, LogStore, LogStoreExt, LogStream,
    NewLogLine,
};

/// An empty store, and the clock that gives lines their times.
pub struct Harness {
    store: Arc<dyn LogStore>,
    clock: Arc<TestClock>,
    _kept: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Harness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Harness").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Harness {
    /// A harness of an empty `store` that was made with `clock`; `kept` lives as long, such as the store's folder.
    pub fn new(store: Arc<dyn LogStore>, clock: Arc<TestClock>, kept: impl Any + Send + Sync) -> Self {
        Self { store, clock, _kept: Box::new(kept) }
    }

    async fn append(&self, texts: impl IntoIterator<Item = impl Into<String>>) {
        let lines = texts.into_iter().map(|text| line(text.into())).collect();
        self.store.append(&app(1), lines).await.unwrap();
    }

    async fn read(&self, query: LogQuery) -> LogPage {
        self.store.read(&query).await.unwrap()
    }

    async fn all(&self) -> Vec<LogLine> {
        self.read(all()).await.lines
    }

    fn at(&self, seconds: i64) -> Timestamp {
        self.clock.now() + SignedDuration::from_secs(seconds)
    }
}

fn app(number: u8) -> AppId {
    format!("app_{number:0>26}").parse().unwrap()
}

fn deployment(number: u8) -> DeploymentId {
    format!("dpl_{number:0>26}").parse().unwrap()
}

fn instance(number: u8) -> InstanceName {
    InstanceName::of(&deployment(number), 0)
}

fn line(text: impl Into<String>) -> NewLogLine {
    NewLogLine {
        at: None,
        source: LogSource::App,
        stream: LogStream::Stdout,
        instance: None,
        deployment: None,
        text: text.into(),
    }
}

fn all() -> LogQuery {
    LogQuery { limit: usize::MAX, ..LogQuery::of(app(1)) }
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it should have come")
}

/// Every field comes back, in the order of the append.
pub async fn lines_are_read_back_as_appended(harness: &Harness) {
    let full = NewLogLine {
        at: Some(harness.at(-5)),
        source: LogSource::Build,
        stream: LogStream::Stderr,
        instance: Some(instance(1)),
        deployment: Some(deployment(2)),
        text: " Grüße \\n\t\u{1f600} ".to_owned(),
    };
    let system = NewLogLine { source: LogSource::System, at: Some(harness.at(-4)), ..line("") };
    harness.store.append(&app(1), vec![full.clone(), system.clone()]).await.unwrap();
    let stored = |line: NewLogLine, sequence| LogLine {
        at: line.at.unwrap(),
        sequence,
        source: line.source,
        stream: line.stream,
        instance: line.instance,
        deployment: line.deployment,
        text: line.text,
    };
    assert_eq!(harness.all().await, [stored(full, 1), stored(system, 2)]);
}

/// Neither an error nor lines.
pub async fn an_unknown_app_has_no_lines(harness: &Harness) {
    assert_eq!(harness.read(all()).await, LogPage::default());
    assert_eq!(harness.store.last_of(&app(1), &instance(1)).await.unwrap(), None);
    harness.store.remove(&app(1)).await.unwrap();
    harness.store.append(&app(1), Vec::new()).await.unwrap();
    assert_eq!(harness.read(all()).await, LogPage::default());
}

/// Whatever times are given, each stored one is later than the one before it, and kept where it can be.
pub async fn times_strictly_increase(harness: &Harness) {
    let start = harness.at(-200);
    let given = [0, 10, 10, 5, 11, -100].map(|seconds| start + SignedDuration::from_secs(seconds));
    for at in given {
        let lines = vec![NewLogLine { at: Some(at), ..line("") }, NewLogLine { at: Some(at), ..line("") }];
        harness.store.append(&app(1), lines).await.unwrap();
    }
    harness.append(["now"]).await;
    let times: Vec<_> = harness.all().await.into_iter().map(|line| line.at).collect();
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
    let nanosecond = SignedDuration::from_nanos(1);
    assert_eq!(times[..3], [given[0], given[0] + nanosecond, given[1]]);
    assert_eq!(times[4], times[3] + nanosecond);
    assert_eq!(times[8], given[4]);
    assert!(times[12] > harness.at(-10));
}

/// From 1, over all appends.
pub async fn numbers_have_no_gaps(harness: &Harness) {
    for count in [1, 3, 2] {
        harness.append(vec!["x"; count]).await;
    }
    let numbers: Vec<_> = harness.all().await.iter().map(|line| line.sequence).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

/// Forward and backward, with the last time as the mark: neither repeats nor gaps, whatever the page's size.
pub async fn pages_neither_repeat_nor_lose(harness: &Harness) {
    for number in 0..25 {
        harness.append([number.to_string()]).await;
    }
    for limit in [1, 2, 7, 24, 25, 26] {
        for direction in [LogDirection::Forward, LogDirection::Backward] {
            let mut query = LogQuery { limit, direction, ..all() };
            let mut found = Vec::new();
            loop {
                let page = harness.read(query.clone()).await;
                assert!(page.lines.len() <= limit);
                let Some(last) = page.lines.last().map(|line| line.at) else { break };
                match direction {
                    LogDirection::Forward => query.after = Some(last),
                    LogDirection::Backward => query.before = Some(last),
                }
                found.extend(page.lines.into_iter().map(|line| line.text));
                assert_eq!(page.has_more, found.len() < 25);
            }
            let mut expected: Vec<_> = (0..25).map(|number| number.to_string()).collect();
            if direction == LogDirection::Backward {
                expected.reverse();
            }
            assert_eq!(found, expected, "{limit} {direction:?}");
        }
    }
}

/// `from` and `to` include their times, `after` and `before` do not.
pub async fn bounds_are_kept_to_the_nanosecond(harness: &Harness) {
    let start = harness.at(-100);
    let at = |number: i64| start + SignedDuration::from_nanos(number);
    let lines = (0..10).map(|number| NewLogLine { at: Some(at(number)), ..line(number.to_string()) });
    harness.store.append(&app(1), lines.collect()).await.unwrap();
    for (query, expected) in [
        (LogQuery { from: Some(at(7)), ..all() }, "789"),
        (LogQuery { after: Some(at(7)), ..all() }, "89"),
        (LogQuery { to: Some(at(2)), ..all() }, "012"),
        (LogQuery { before: Some(at(2)), ..all() }, "01"),
        (
            LogQuery { from: Some(at(3)), after: Some(at(4)), to: Some(at(8)), before: Some(at(8)), ..all() },
            "567",
        ),
        (LogQuery { from: Some(at(5)), to: Some(at(5)), ..all() }, "5"),
        (LogQuery { from: Some(at(6)), to: Some(at(5)), ..all() }, ""),
        (LogQuery { from: Some(at(100)), ..all() }, ""),
        (LogQuery { to: Some(at(-1)), ..all() }, ""),
        (LogQuery { from: Some(Timestamp::MIN), to: Some(Timestamp::MAX), ..all() }, "0123456789"),
    ] {
        assert_eq!(texts(&harness.read(query.clone()).await.lines).concat(), expected, "{query:?}");
        let page = harness.read(LogQuery { direction: LogDirection::Backward, ..query }).await;
        let backward: String = texts(&page.lines).concat().chars().rev().collect();
        assert_eq!(backward, expected);
    }
}

/// Source, deployment, instance and text, alone and together, also for paging.
pub async fn filters_pass_what_matches_them_all(harness: &Harness) {
    let mut lines = Vec::new();
    for source in [LogSource::App, LogSource::Build] {
        for number in 0..6_u8 {
            lines.push(NewLogLine {
                source,
                instance: (number % 2 == 1).then(|| instance(number % 3)),
                deployment: (number % 3 > 0).then(|| deployment(number % 2)),
                ..line(format!("{source:?} {number}"))
            });
        }
    }
    harness.store.append(&app(1), lines).await.unwrap();
    let kept = harness.all().await;
    let mut queries = Vec::new();
    for source in [None, Some(LogSource::App), Some(LogSource::System)] {
        for deployment in [None, Some(deployment(1)), Some(deployment(9))] {
            for instance in [None, Some(instance(0)), Some(instance(1))] {
                for contains in [None, Some("3"), Some("pp"), Some("Build 5"), Some("App"), Some("")] {
                    let contains = contains.map(str::to_owned);
                    let (deployment, instance) = (deployment.clone(), instance.clone());
                    queries.push(LogQuery { source, deployment, instance, contains, ..all() });
                }
            }
        }
    }
    for mut query in queries {
        let expected: Vec<_> = kept.iter().filter(|line| query.matches(line)).cloned().collect();
        assert_eq!(harness.read(query.clone()).await.lines, expected, "{query:?}");
        query.limit = 1;
        let page = harness.read(query).await;
        assert_eq!(
            (page.lines.as_slice(), page.has_more),
            (&expected[..expected.len().min(1)], expected.len() > 1)
        );
    }
}

/// However many are asked for.
pub async fn a_page_has_at_most_5000_lines(harness: &Harness) {
    harness.append(vec!["x"; 5_001]).await;
    let page = harness.read(all()).await;
    assert_eq!((page.lines.len(), page.has_more), (5_000, true));
    assert_eq!(harness.read(LogQuery { limit: 0, ..all() }).await.lines, []);
}

/// No text breaks a line in two; all else is for the frontends to escape.
pub async fn a_line_stays_one_record(harness: &Harness) {
    harness.append(["a\nb\r\nc\r", "\u{1b}[31m<script>\0", "\u{2028}\u{85}\u{b}"]).await;
    let lines = harness.all().await;
    assert_eq!(texts(&lines), ["a\\nb\\r\\nc\\r", "\u{1b}[31m<script>\0", "\u{2028}\u{85}\u{b}"]);
}

/// What is too long is cut between characters, and says so.
pub async fn an_overlong_line_is_cut_and_marked(harness: &Harness) {
    let longest = "x".repeat(NewLogLine::MAX_TEXT_BYTES);
    harness
        .append([longest.clone(), format!("{longest}x"), "ü".repeat(1_000_000), "\n".repeat(10_000)])
        .await;
    let lines = harness.all().await;
    assert_eq!(lines[0].text, longest);
    for (line, start, mark) in [(1, "xxx", "16385"), (2, "üüü", "2000000"), (3, "\\n\\n", "20000")] {
        let text = &lines[line].text;
        assert!(text.len() <= NewLogLine::MAX_TEXT_BYTES && text.len() > NewLogLine::MAX_TEXT_BYTES - 100);
        assert!(
            text.starts_with(start) && text.ends_with(&format!("… [cut: {mark} bytes in all]")),
            "{text}"
        );
    }
}

/// Neither lines nor numbers nor times of one app touch another's.
pub async fn apps_are_apart(harness: &Harness) {
    for number in [1, 2, 1] {
        harness.store.append(&app(number), vec![line(number.to_string())]).await.unwrap();
    }
    assert_eq!(texts(&harness.all().await), ["1", "1"]);
    let other = harness.read(LogQuery::of(app(2))).await.lines;
    assert_eq!((texts(&other), other[0].sequence), (vec!["2"], 1));
    harness.store.remove(&app(1)).await.unwrap();
    assert_eq!(harness.read(LogQuery::of(app(2))).await.lines, other);
}

/// By the engine's clock: not the stored time, which may have been moved.
pub async fn the_last_of_an_instance_is_the_engines_time(harness: &Harness) {
    let of = |number, seconds| NewLogLine {
        at: Some(harness.at(seconds)),
        instance: Some(instance(number)),
        ..line("x")
    };
    let (newest, late, other) = (of(1, -50), of(1, -60), of(2, -10));
    let unknown = NewLogLine { at: None, ..of(1, 0) };
    let lines = vec![of(1, -70), other.clone(), newest.clone(), late, unknown, line("x")];
    harness.store.append(&app(1), lines).await.unwrap();
    assert_eq!(harness.store.last_of(&app(1), &instance(1)).await.unwrap(), newest.at);
    assert_eq!(harness.store.last_of(&app(1), &instance(2)).await.unwrap(), other.at);
    assert_eq!(harness.store.last_of(&app(1), &instance(3)).await.unwrap(), None);
    assert_eq!(harness.store.last_of(&app(2), &instance(1)).await.unwrap(), None);
}

/// At once if there is a newer line; else when one comes to this app.
pub async fn wait_returns_with_a_newer_line(harness: &Harness) {
    let store = Arc::clone(&harness.store);
    let first = tokio::spawn(async move { store.wait(&app(1), None).await });
    harness.store.append(&app(2), vec![line("other")]).await.unwrap();
    harness.clock.sleep(Duration::from_millis(20)).await;
    assert!(!first.is_finished());
    harness.append(["1"]).await;
    soon(first).await.unwrap().unwrap();
    soon(harness.store.wait(&app(1), None)).await.unwrap();
    let last = harness.all().await[0].at;
    soon(harness.store.wait(&app(1), Some(last - SignedDuration::from_nanos(1)))).await.unwrap();
    let store = Arc::clone(&harness.store);
    let second = tokio::spawn(async move { store.wait(&app(1), Some(last)).await });
    harness.clock.sleep(Duration::from_millis(20)).await;
    assert!(!second.is_finished());
    harness.append(["2"]).await;
    soon(second).await.unwrap().unwrap();
}

/// First what is there, then what comes, filtered.
pub async fn follow_goes_on_with_new_lines(harness: &Harness) {
    let text =
        |number: u32| if number.is_multiple_of(2) { format!("even {number}") } else { "odd".to_owned() };
    harness.append((0..10).map(text)).await;
    let store = Arc::clone(&harness.store);
    let writer = tokio::spawn(async move {
        for number in 10..200 {
            store.append(&app(1), vec![line(text(number))]).await.unwrap();
            if number % 10 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let query = LogQuery { contains: Some("even".to_owned()), limit: 3, ..all() };
    let followed =
        harness.store.follow(query).take(100).map(|line| text_of(line.unwrap())).collect::<Vec<_>>();
    let expected: Vec<_> = (0..100).map(|number| format!("even {}", 2 * number)).collect();
    assert_eq!(soon(followed).await, expected);
    writer.await.unwrap();
}

/// Also when the last lines before it match no filter, and when none follow.
pub async fn follow_ends_behind_to(harness: &Harness) {
    let start = harness.at(-100);
    let at = |number: i64| Some(start + SignedDuration::from_secs(number));
    let lines = (0..5).map(|number| NewLogLine { at: at(number), ..line(number.to_string()) });
    harness.store.append(&app(1), lines.collect()).await.unwrap();
    for (to, contains, expected) in [(at(3), None, "0123"), (at(3), Some("1"), "1"), (at(-9), None, "")] {
        let query = LogQuery { to, contains: contains.map(str::to_owned), limit: 2, ..all() };
        let followed = harness.store.follow(query).map(|line| text_of(line.unwrap())).collect::<Vec<_>>();
        assert_eq!(soon(followed).await.concat(), expected);
    }
    let mut open = harness.store.follow(LogQuery { from: at(4), to: at(4), ..all() });
    assert_eq!(text_of(soon(open.next()).await.unwrap().unwrap()), "4");
    harness.append(["later"]).await;
    assert!(soon(open.next()).await.is_none());
}

fn text_of(followed: Followed) -> String {
    match followed {
        Followed::Line(line) => line.text,
        gap @ Followed::Gap { .. } => panic!("{gap:?}"),
    }
}

/// Nothing is left, and the app can begin anew.
pub async fn a_removed_app_has_no_lines(harness: &Harness) {
    harness.append(["1", "2"]).await;
    harness.store.remove(&app(1)).await.unwrap();
    assert_eq!(harness.read(all()).await, LogPage::default());
    harness.store.remove(&app(1)).await.unwrap();
    harness.append(["3"]).await;
    assert_eq!(texts(&harness.all().await), ["3"]);
}

/// Many writers on few apps: every line is kept once, each batch in one piece and in its order.
pub async fn concurrent_appends_all_take_effect(harness: &Harness) {
    let writers = (0..32_u8).map(|writer| {
        let store = Arc::clone(&harness.store);
        tokio::spawn(async move {
            for round in 0..10 {
                let lines = (0..5).map(|number| line(format!("{writer}-{round}-{number}"))).collect();
                store.append(&app(writer % 4), lines).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    for number in 0..4 {
        let lines = harness.read(LogQuery { limit: usize::MAX, ..LogQuery::of(app(number)) }).await.lines;
        assert_eq!(lines.len(), 8 * 10 * 5);
        assert!(lines.is_sorted_by(|one, next| one.at < next.at && one.sequence + 1 == next.sequence));
        for batch in lines.chunks(5) {
            let (start, _) = batch[0].text.rsplit_once('-').unwrap();
            let expected: Vec<_> = (0..5).map(|number| format!("{start}-{number}")).collect();
            assert_eq!(texts(batch), expected);
        }
    }
}

/// One test for each promise of [`LogStore`].
#[macro_export]
macro_rules! conformance_log_store {
    ($harness:expr) => {
        $crate::conformance_tests!(
            log_store,
            $harness,
            [
                lines_are_read_back_as_appended,
                an_unknown_app_has_no_lines,
                times_strictly_increase,
                numbers_have_no_gaps,
                pages_neither_repeat_nor_lose,
                bounds_are_kept_to_the_nanosecond,
                filters_pass_what_matches_them_all,
                a_page_has_at_most_5000_lines,
                a_line_stays_one_record,
                an_overlong_line_is_cut_and_marked,
                apps_are_apart,
                the_last_of_an_instance_is_the_engines_time,
                wait_returns_with_a_newer_line,
                follow_goes_on_with_new_lines,
                follow_ends_behind_to,
                a_removed_app_has_no_lines,
                concurrent_appends_all_take_effect,
            ]
        );
    };
}
