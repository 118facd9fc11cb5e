//! What happens to the log files: what survives, what leaves, and how places are found in many segments.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use paas_core::memory::MemoryLogStore;
use paas_core::{
    AppId, Clock, LogDirection, LogQuery, LogSource, LogStore, LogStream, NewLogLine, TestClock,
};
use paas_store::{FileLogOptions, FileLogStore};

fn app() -> AppId {
    "app_00000000000000000000000001".parse().unwrap()
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

async fn open(root: &Path, options: FileLogOptions) -> (FileLogStore, Arc<TestClock>) {
    let clock = Arc::new(TestClock::new());
    (FileLogStore::open_with(root, options, clock.clone()).await.unwrap(), clock)
}

async fn texts(store: &dyn LogStore) -> Vec<String> {
    let page = store.read(&LogQuery { limit: usize::MAX, ..LogQuery::of(app()) }).await.unwrap();
    page.lines.into_iter().map(|line| line.text).collect()
}

fn segments(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join(app().as_str())).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn small() -> FileLogOptions {
    FileLogOptions { segment_bytes: 10_000, ..FileLogOptions::default() }
}

/// Every bound, in both directions, gives what a plain list gives, however the lines lie in segments.
#[tokio::test]
async fn any_place_is_found_in_many_segments() {
    let folder = tempfile::tempdir().unwrap();
    let options = FileLogOptions { segment_bytes: 300_000, ..FileLogOptions::default() };
    let (files, clock) = open(folder.path(), options).await;
    let plain = MemoryLogStore::new(clock.clone());
    let start = clock.now() - SignedDuration::from_secs(10_000);
    let at = |number: i64| start + SignedDuration::from_nanos(number * 1_000);
    for batch in 0..30 {
        let lines: Vec<_> = (0..40)
            .map(|number| {
                let number = batch * 40 + number;
                let length = if number % 7 == 0 { 16_000 } else { (number * 37) % 600 };
                let text = format!("{number} {}", "x".repeat(usize::try_from(length).unwrap()));
                NewLogLine { at: Some(at(number)), ..line(text) }
            })
            .collect();
        files.append(&app(), lines.clone()).await.unwrap();
        plain.append(&app(), lines).await.unwrap();
    }
    assert!(segments(folder.path()).len() > 5);
    for number in (-1..1201).step_by(13) {
        for shift in [-1, 0, 1] {
            let edge = Some(at(number) + SignedDuration::from_nanos(shift));
            let query = LogQuery { limit: 3, ..LogQuery::of(app()) };
            for query in [
                LogQuery { from: edge, ..query.clone() },
                LogQuery { after: edge, ..query.clone() },
                LogQuery { to: edge, direction: LogDirection::Backward, ..query.clone() },
                LogQuery { before: edge, direction: LogDirection::Backward, ..query.clone() },
                LogQuery { to: edge, limit: 5_000, ..query.clone() },
                LogQuery { from: edge, limit: 5_000, direction: LogDirection::Backward, ..query },
            ] {
                let (found, expected) =
                    (files.read(&query).await.unwrap(), plain.read(&query).await.unwrap());
                assert!(found == expected, "{query:?}");
            }
        }
    }
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path(), small()).await;
    let lines: Vec<_> = (0..100).map(|number| line(format!("{number} {}", "x".repeat(500)))).collect();
    store.append(&app(), lines).await.unwrap();
    let before = texts(&store).await;
    drop(store);
    assert!(segments(folder.path()).len() > 4);
    // The new clock is behind: times go on increasing all the same.
    let (store, _) = open(folder.path(), small()).await;
    store.append(&app(), vec![line("last")]).await.unwrap();
    let page = store.read(&LogQuery { limit: usize::MAX, ..LogQuery::of(app()) }).await.unwrap();
    assert!(page.lines.is_sorted_by(|one, next| one.at < next.at && one.sequence + 1 == next.sequence));
    assert_eq!(texts(&store).await, [before, vec!["last".to_owned()]].concat());
}

#[tokio::test]
async fn a_torn_line_is_cut_off() {
    for torn in ["0", "01767225600000000000 3 A1 0 - - half a li", "\u{fffd}garbage"] {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(folder.path(), small()).await;
        store.append(&app(), vec![line("1"), line("2")]).await.unwrap();
        drop(store);
        let path = segments(folder.path()).pop().unwrap();
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(torn.as_bytes()).unwrap();
        let (store, _) = open(folder.path(), small()).await;
        assert_eq!(texts(&store).await, ["1", "2"]);
        store.append(&app(), vec![line("3")]).await.unwrap();
        assert_eq!(texts(&store).await, ["1", "2", "3"]);
        // A segment of which nothing is whole is nothing.
        drop(store);
        fs::write(path.with_file_name("09999999999999999999.log"), torn).unwrap();
        let (store, _) = open(folder.path(), small()).await;
        assert_eq!(texts(&store).await, ["1", "2", "3"]);
    }
}

#[tokio::test]
async fn damaged_lines_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path(), small()).await;
    store.append(&app(), vec![line("1"), line("damaged"), line("3")]).await.unwrap();
    drop(store);
    let path = segments(folder.path()).pop().unwrap();
    let content = fs::read_to_string(&path).unwrap();
    let place = content.lines().next().unwrap().len() + 1;
    let mut bytes = content.into_bytes();
    bytes[place..place + 25].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let (store, _) = open(folder.path(), small()).await;
    assert_eq!(texts(&store).await, ["1", "3"]);
    assert!(segments(folder.path()).iter().all(|path| path.extension().is_some_and(|found| found == "log")));
    // Something that is all one line ends neither in a loop nor in an error.
    fs::write(&path, [vec![b'x'; 1_000_000], b"\n".to_vec()].concat()).unwrap();
    let (store, _) = open(folder.path(), small()).await;
    assert_eq!(texts(&store).await, [""; 0]);
    let backward = LogQuery { direction: LogDirection::Backward, ..LogQuery::of(app()) };
    assert!(store.read(&backward).await.unwrap().lines.is_empty());
    let kept = segments(folder.path()).pop().unwrap();
    assert_eq!(kept.metadata().unwrap().len(), 1_000_001, "somebody may want to look at it");
}

/// The first write of a new segment finds the disk full: nothing of it comes back at the next start.
#[tokio::test]
async fn an_append_on_a_full_disk_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = FileLogOptions { segment_bytes: 1, ..FileLogOptions::default() };
    let (store, clock) = open(folder.path(), options.clone()).await;
    store.append(&app(), vec![line("1")]).await.unwrap();
    let at = clock.now() + SignedDuration::from_secs(1);
    clock.jump(60);
    let next = folder.path().join(app().as_str()).join(format!("{:020}.log", at.as_nanosecond()));
    std::os::unix::fs::symlink("/dev/full", &next).unwrap();
    let error = store.append(&app(), vec![NewLogLine { at: Some(at), ..line("lost") }]).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(texts(&store).await, ["1"]);
    assert_eq!(segments(folder.path()).len(), 1);
    drop(store);
    let (store, _) = open(folder.path(), options).await;
    store.append(&app(), vec![line("2")]).await.unwrap();
    let page = store.read(&LogQuery { limit: usize::MAX, ..LogQuery::of(app()) }).await.unwrap();
    assert_eq!(page.lines.iter().map(|line| line.sequence).collect::<Vec<_>>(), [1, 2]);
}

/// A file that lost its end gets no gap of zeros in the middle.
#[tokio::test]
async fn a_file_that_was_cut_goes_on_where_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path(), small()).await;
    store.append(&app(), vec![line("1"), line("2")]).await.unwrap();
    let path = segments(folder.path()).pop().unwrap();
    let length = path.metadata().unwrap().len();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 3).unwrap();
    store.append(&app(), vec![line("3")]).await.unwrap();
    assert_eq!(texts(&store).await, ["1", "3"]);
    assert!(!fs::read(&path).unwrap().contains(&0));
}

/// Nobody waits for the removal to end, and the app goes on all the same.
#[tokio::test]
async fn a_dropped_removal_hinders_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(folder.path(), small()).await;
    store.append(&app(), vec![line("1")]).await.unwrap();
    {
        let removed_app = app();
        let mut removal = store.remove(&removed_app);
        assert!(futures::poll!(&mut removal).is_pending(), "the files are being removed");
    }
    let app = app();
    let append = store.append(&app, vec![line("2")]);
    tokio::time::timeout(Duration::from_secs(30), append).await.expect("it goes on").unwrap();
    assert_eq!(texts(&store).await, ["2"]);
}

/// They share a file with lines that are kept, and are left out all the same.
#[tokio::test]
async fn lines_beyond_retention_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let options = FileLogOptions { max_age: Duration::from_secs(1_000), ..FileLogOptions::default() };
    let (store, clock) = open(folder.path(), options).await;
    store.append(&app(), vec![line("old")]).await.unwrap();
    clock.jump(600);
    store.append(&app(), vec![line("new")]).await.unwrap();
    assert_eq!(texts(&store).await, ["old", "new"]);
    clock.jump(600);
    assert_eq!(texts(&store).await, ["new"]);
}

/// After a restart an instance's last line is found again, and stays right while lines come.
#[tokio::test]
async fn an_instances_last_line_is_known_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let (store, clock) = open(folder.path(), small()).await;
    let names = ["paas-one", "paas-two"].map(|name| serde_json::from_value(name.into()).unwrap());
    let [one, two]: [paas_core::InstanceName; 2] = names;
    let start = clock.now();
    let of = |instance: &paas_core::InstanceName, seconds: i64| NewLogLine {
        at: Some(start + SignedDuration::from_secs(seconds)),
        instance: Some(instance.clone()),
        ..line("x")
    };
    store.append(&app(), vec![of(&one, -9), of(&one, -7), of(&one, -8)]).await.unwrap();
    for is_restarted in [false, true] {
        let store = if is_restarted { &open(folder.path(), small()).await.0 } else { &store };
        let last = async |instance| store.last_of(&app(), instance).await.unwrap();
        assert_eq!(last(&one).await, of(&one, -7).at);
        assert_eq!(last(&two).await, None);
        if is_restarted {
            store.append(&app(), vec![of(&two, -5), of(&one, -6)]).await.unwrap();
            assert_eq!((last(&one).await, last(&two).await), (of(&one, -6).at, of(&two, -5).at));
        }
    }
}

#[test]
fn the_defaults_are_those_that_are_promised() {
    let options = FileLogOptions::default();
    assert_eq!((options.max_bytes, options.max_age), (200 << 20, Duration::from_secs(30 * 86_400)));
}

#[tokio::test]
async fn the_oldest_lines_leave_when_there_are_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let options = FileLogOptions { max_bytes: 50_000, ..small() };
    let (store, _) = open(folder.path(), options).await;
    for number in 0..1_000 {
        store.append(&app(), vec![line(format!("{number} {}", "x".repeat(200)))]).await.unwrap();
    }
    let bytes: u64 = segments(folder.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!((40_000..=60_000).contains(&bytes), "{bytes}");
    let page = store.read(&LogQuery { limit: usize::MAX, ..LogQuery::of(app()) }).await.unwrap();
    assert_eq!(page.lines.last().unwrap().sequence, 1_000);
    let first = 1_000 - page.lines.len() as u64 + 1;
    assert!(first > 1 && page.lines[0].sequence == first);
}

#[tokio::test]
async fn lines_leave_when_they_are_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let options = FileLogOptions { max_age: Duration::from_secs(1_000), ..small() };
    let (store, clock) = open(folder.path(), options).await;
    for text in ["old", "middle", "new"] {
        let lines = (0..30).map(|_| line(format!("{text} {}", "x".repeat(500)))).collect();
        store.append(&app(), lines).await.unwrap();
        clock.jump(600);
    }
    clock.jump(-600);
    store.append(&app(), vec![line("last")]).await.unwrap();
    let texts = texts(&store).await;
    let count = |start| texts.iter().filter(|text| text.starts_with(start)).count();
    // Only the rest of a segment that holds newer lines too may stay.
    assert!(count("old") < 20, "{}", count("old"));
    assert_eq!((count("middle"), count("new"), count("last")), (30, 30, 1));
}

#[tokio::test]
async fn an_apps_folder_is_private_and_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("logs");
    let (store, _) = open(&root, small()).await;
    store.read(&LogQuery::of(app())).await.unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "reading makes nothing");
    store.append(&app(), vec![line("1")]).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&root), mode(&root.join(app().as_str()))), (0o700, 0o700));
    assert_eq!(mode(&segments(&root)[0]), 0o600);
    store.remove(&app()).await.unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

/// Set for the process that is to be killed: where its logs are.
const VICTIM: &str = "PAAS_LOGS_VICTIM";

#[tokio::test]
async fn a_killed_writer_loses_nothing_that_was_answered() {
    if let Some(root) = std::env::var_os(VICTIM) {
        let (store, _) = open(Path::new(&root), small()).await;
        for number in 0..u64::MAX {
            store.append(&app(), vec![line(format!("{number}"))]).await.unwrap();
            println!("answered {number}.");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_writer_loses_nothing_that_was_answered", "--nocapture"])
        .env(VICTIM, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answered = 0;
    for line in BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if let Some(number) = line.strip_prefix("answered ").and_then(|rest| rest.strip_suffix('.')) {
            answered = number.parse().unwrap();
        }
        if answered == 500 {
            // What it still prints before it dies counts too.
            victim.kill().unwrap();
        }
    }
    victim.wait().unwrap();
    assert!(answered >= 500);
    let (store, _) = open(folder.path(), small()).await;
    let expected: Vec<_> = (0..=answered).map(|number: u64| number.to_string()).collect();
    let page = LogQuery { limit: usize::MAX, ..LogQuery::of(app()) };
    let mut found = Vec::new();
    let mut query = page;
    loop {
        let page = store.read(&query).await.unwrap();
        let Some(last) = page.lines.last() else { break };
        query.after = Some(last.at);
        found.extend(page.lines.into_iter().map(|line| line.text));
    }
    assert!(found.starts_with(&expected));
}
