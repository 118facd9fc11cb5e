//! After a loss of power log lines are missing at the end only, and none is garbled.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fallible_disk::Disk;
use paas_core::{AppId, LogLine, LogQuery, LogSource, LogStore, LogStream, NewLogLine, TestClock};
use paas_store::{FileLogOptions, FileLogStore};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SEGMENT_BYTES: u64 = 20_000;

#[test]
fn disk_process() {
    fallible_disk::process();
}

fn app() -> AppId {
    "app_00000000000000000000000001".parse().unwrap()
}

fn line(text: &str) -> NewLogLine {
    NewLogLine {
        at: None,
        source: LogSource::App,
        stream: LogStream::Stdout,
        instance: None,
        deployment: None,
        text: text.to_owned(),
    }
}

async fn open(disk: &Disk) -> FileLogStore {
    let options = FileLogOptions { segment_bytes: SEGMENT_BYTES, ..FileLogOptions::default() };
    FileLogStore::open_with(disk.path().join("logs"), options, Arc::new(TestClock::new())).await.unwrap()
}

async fn lines(store: &FileLogStore) -> paas_core::Result<Vec<LogLine>> {
    let mut query = LogQuery { limit: usize::MAX, ..LogQuery::of(app()) };
    let mut lines = Vec::new();
    loop {
        let page = store.read(&query).await?;
        lines.extend(page.lines);
        if !page.has_more {
            return Ok(lines);
        }
        query.after = lines.last().map(|line| line.at);
    }
}

/// A text that no other line has, in which every part tells where it is from. Now and then there are zeros in it.
fn text(number: usize, random: &mut StdRng) -> String {
    let word = if random.random_bool(0.1) { "\0" } else { "." };
    let words: Vec<_> =
        (0..random.random_range(0..300)).map(|part| format!("{number}{word}{part}")).collect();
    format!("{number}: {}", words.join(" "))
}

fn segments(disk: &Disk) -> Vec<PathBuf> {
    let entries = fs::read_dir(disk.path().join("logs").join(app().as_str())).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn count(path: &Path) -> usize {
    fs::read(path).unwrap().iter().filter(|byte| **byte == b'\n').count()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_leave_from_the_end_only_and_the_rest_is_whole() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..60 {
        let (disk, mut random) = (Disk::mount().unwrap(), StdRng::seed_from_u64(seed));
        let mut appended: Vec<String> = Vec::new();
        // How many of them are in full segments.
        let mut durable = 0;
        for round in 0..8 {
            let store = open(&disk).await;
            if random.random_bool(0.2) {
                // In the middle of cutting off what was torn.
                disk.cut_after(random.random_range(0..3), random.random());
            }
            let mut number_of_segments = 0;
            if let Ok(found) = lines(&store).await {
                let (texts, numbers): (Vec<_>, Vec<_>) =
                    found.iter().map(|line| (line.text.clone(), line.sequence)).unzip();
                assert!(appended.starts_with(&texts), "seed {seed}, round {round}: garbled");
                assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
                assert!(found.is_sorted_by(|line, next| line.at < next.at));
                assert!(texts.len() >= durable, "seed {seed}, round {round}: {} < {durable}", texts.len());
                lost += appended.len() - texts.len();
                kept += texts.len();
                appended.truncate(texts.len());
                // Within a segment, too: what was cut off of it must not come back in the middle of new lines.
                let most = if random.random_bool(0.5) { 10 } else { 150 };
                disk.cut_after(random.random_range(1..most), random.random());
                loop {
                    let batch: Vec<_> = (0..random.random_range(1..6))
                        .map(|number| text(appended.len() + number, &mut random))
                        .collect();
                    appended.extend(batch.clone());
                    if store.append(&app(), batch.iter().map(|text| line(text)).collect()).await.is_err() {
                        break;
                    }
                    if let Ok(segments) = fs::read_dir(disk.path()).map(|_| segments(&disk))
                        && segments.len() > number_of_segments
                    {
                        number_of_segments = segments.len();
                        let (_, full) = segments.split_last().unwrap();
                        durable = full.iter().map(|path| count(path)).sum();
                    }
                }
            }
            assert!(disk.is_cut());
            drop(store);
            disk.restore();
        }
    }
    println!("{kept} lines kept, {lost} lost");
    assert!(kept > 1_000 && lost > 100, "{kept}, {lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_stays_removed() {
    for seed in 0..10 {
        let disk = Disk::mount().unwrap();
        let store = open(&disk).await;
        for number in 0..100 {
            store.append(&app(), vec![line(&format!("{number} {}", "x".repeat(1_000)))]).await.unwrap();
        }
        assert!(segments(&disk).len() > 3);
        store.remove(&app()).await.unwrap();
        disk.cut(seed);
        disk.restore();
        assert_eq!(fs::read_dir(disk.path().join("logs")).unwrap().count(), 0);
    }
}
