//! What the disk keeps, what it loses, and what it may keep.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use fallible_disk::Disk;

const SEEDS: u64 = 40;

#[test]
fn disk_process() {
    fallible_disk::process();
}

fn sync(path: impl AsRef<Path>) {
    File::open(path).unwrap().sync_all().unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Does something on new disks, one for each seed, and answers what is found of it after a cut.
fn after_cuts<T: Ord>(act: impl Fn(&Disk), look: impl Fn(&Path) -> T) -> BTreeSet<T> {
    let after_cut = |seed| {
        let disk = Disk::mount().unwrap();
        act(&disk);
        disk.cut(seed);
        disk.restore();
        look(disk.path())
    };
    (0..SEEDS).map(after_cut).collect()
}

#[test]
fn it_is_a_file_system_as_others() {
    let disk = Disk::mount().unwrap();
    let folder = disk.path().join("folder");
    fs::create_dir(&folder).unwrap();
    assert_eq!(fs::create_dir(&folder).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    let text: Vec<u8> = (0..300_000_u32).flat_map(u32::to_be_bytes).collect();
    fs::write(folder.join("a"), &text).unwrap();
    fs::hard_link(folder.join("a"), folder.join("b")).unwrap();
    assert_eq!(folder.join("b").metadata().unwrap().nlink(), 2);
    assert!(fs::remove_dir(&folder).is_err(), "it is not empty");
    fs::rename(folder.join("a"), disk.path().join("c")).unwrap();
    fs::set_permissions(disk.path().join("c"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(folder.join("b").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(disk.path().join("c")).unwrap(), text);
    let file = OpenOptions::new().write(true).open(disk.path().join("c")).unwrap();
    file.set_len(10).unwrap();
    file.set_len(20).unwrap();
    assert_eq!(fs::read(folder.join("b")).unwrap(), [&text[..10], &[0; 10]].concat());
    for number in 0..3_000 {
        File::create(folder.join(format!("{number:04}"))).unwrap();
    }
    assert_eq!(names(&folder).len(), 3_001);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(names(disk.path()), ["c"]);
    let _socket = std::os::unix::net::UnixListener::bind(disk.path().join("socket")).unwrap();
    std::os::unix::net::UnixStream::connect(disk.path().join("socket")).unwrap();
}

#[test]
fn what_was_synced_with_its_name_is_always_there() {
    let act = |disk: &Disk| {
        let mut file = File::create(disk.path().join("a")).unwrap();
        file.write_all(b"kept").unwrap();
        file.sync_data().unwrap();
        sync(disk.path());
        file.write_all(b" or not").unwrap();
    };
    let found = after_cuts(act, |root| fs::read_to_string(root.join("a")).unwrap());
    assert_eq!(found, ["kept", "kept or not", "kept\0\0\0\0\0\0\0"].map(str::to_owned).into());
}

#[test]
fn without_a_sync_of_the_directory_a_name_may_be_missing() {
    let act = |disk: &Disk| {
        let mut file = File::create(disk.path().join("a")).unwrap();
        file.write_all(b"kept").unwrap();
        file.sync_all().unwrap();
    };
    let found = after_cuts(act, |root| fs::read_to_string(root.join("a")).ok());
    assert_eq!(found, [None, Some("kept".to_owned())].into());
}

#[test]
fn without_a_sync_of_the_file_its_bytes_may_be_missing() {
    let act = |disk: &Disk| {
        fs::write(disk.path().join("a"), [7; 2_000]).unwrap();
        sync(disk.path());
    };
    let found = after_cuts(act, |root| fs::read(root.join("a")).unwrap());
    assert!(found.contains(&vec![]) && found.contains(&vec![0; 2_000]), "nothing, or the length alone");
    let is_torn = |bytes: &Vec<u8>| {
        let sectors: BTreeSet<_> = bytes.chunks(512).map(|sector| sector[0]).collect();
        bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])) && sectors.len() == 2
    };
    assert!(found.iter().any(is_torn), "some sectors of it");
}

/// One of those that were in its place, never something in between: a sector is written whole.
#[test]
fn an_older_version_of_a_sector_may_be_there() {
    let act = |disk: &Disk| {
        let file = File::create(disk.path().join("a")).unwrap();
        file.write_all_at(b"1111", 0).unwrap();
        file.sync_all().unwrap();
        sync(disk.path());
        file.write_all_at(b"2222", 0).unwrap();
        file.write_all_at(b"33", 1).unwrap();
    };
    let found = after_cuts(act, |root| fs::read_to_string(root.join("a")).unwrap());
    assert_eq!(found, ["1111", "2222", "2332"].map(str::to_owned).into());
}

#[test]
fn a_renaming_is_durable_as_a_whole_or_not_at_all() {
    let act = |disk: &Disk| {
        for (name, text) in [("new", "new"), ("old", "old")] {
            let mut file = File::create(disk.path().join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.sync_all().unwrap();
        }
        sync(disk.path());
        fs::rename(disk.path().join("new"), disk.path().join("old")).unwrap();
    };
    let look = |root: &Path| (names(root).len(), fs::read_to_string(root.join("old")).unwrap());
    assert_eq!(after_cuts(act, look), [(1, "new".to_owned()), (2, "old".to_owned())].into());
}

#[test]
fn what_was_removed_may_be_back_until_the_directory_is_synced() {
    for is_synced in [false, true] {
        let act = |disk: &Disk| {
            fs::create_dir(disk.path().join("folder")).unwrap();
            fs::write(disk.path().join("folder/a"), "a").unwrap();
            sync(disk.path().join("folder"));
            sync(disk.path());
            fs::remove_dir_all(disk.path().join("folder")).unwrap();
            if is_synced {
                sync(disk.path());
            }
        };
        let found = after_cuts(act, |root| root.join("folder").exists());
        assert_eq!(found.contains(&true), !is_synced);
    }
}

#[test]
fn who_still_runs_changes_nothing() {
    let disk = Disk::mount().unwrap();
    let mut file = File::create(disk.path().join("a")).unwrap();
    file.sync_all().unwrap();
    sync(disk.path());
    let folder = File::open(disk.path()).unwrap();
    disk.cut(0);
    assert!(disk.is_cut());
    for is_back in [false, true] {
        assert!(file.write_all(b"late").is_err());
        assert!(file.sync_all().is_err());
        assert!(file.set_len(3).is_err());
        if !is_back {
            assert!(folder.sync_all().is_err());
            assert!(File::open(disk.path().join("a")).is_err());
            assert!(fs::write(disk.path().join("b"), "late").is_err());
            disk.restore();
        }
    }
    assert!(!disk.is_cut());
    assert_eq!(
        (names(disk.path()), fs::read(disk.path().join("a")).unwrap()),
        (vec!["a".to_owned()], vec![])
    );
}

#[test]
fn it_fails_after_as_many_changes_as_were_asked_for() {
    let disk = Disk::mount().unwrap();
    let mut file = File::create(disk.path().join("a")).unwrap();
    disk.cut_after(3, 0);
    file.write_all(b"1").unwrap();
    file.write_all(b"2").unwrap();
    file.sync_all().unwrap();
    assert!(!disk.is_cut());
    assert!(file.write_all(b"3").is_err());
    assert!(disk.is_cut());
}

/// As on Linux: what was to be written is called clean, whether it was written or not.
#[test]
fn after_a_failed_sync_another_one_does_not_help() {
    let act = |disk: &Disk| {
        let file = File::create(disk.path().join("a")).unwrap();
        sync(disk.path());
        file.write_all_at(&[1; 512], 0).unwrap();
        disk.fail_sync_after(0, 4);
        assert!(file.sync_all().is_err());
        file.sync_all().unwrap();
        file.write_all_at(&[2; 512], 512).unwrap();
        file.sync_all().unwrap();
    };
    let lost = [vec![0; 512], vec![2; 512]].concat();
    assert_eq!(after_cuts(act, |root| fs::read(root.join("a")).unwrap()), [lost].into());
}

#[test]
fn ignored_syncs_keep_nothing() {
    let act = |disk: &Disk| {
        disk.ignore_syncs();
        File::create(disk.path().join("a")).unwrap().sync_all().unwrap();
        sync(disk.path());
    };
    assert_eq!(after_cuts(act, |root| names(root).len()), [0, 1].into());
}

/// Set for the process that is to be killed.
const VICTIM: &str = "FALLIBLE_DISK_VICTIM";

/// Neither it nor the mount is left.
#[test]
fn a_killed_test_leaves_nothing_mounted() {
    if let Some(folder) = std::env::var_os(VICTIM) {
        let disk = Disk::mount_at(Path::new(&folder)).unwrap();
        let write = |number: usize| {
            let mut file = File::create(disk.path().join(number.to_string())).unwrap();
            loop {
                file.write_all(&[0; 100_000]).unwrap();
                file.set_len(0).unwrap();
                file.sync_all().unwrap();
            }
        };
        std::thread::scope(|scope| {
            for number in 0..4 {
                scope.spawn(move || write(number));
            }
            println!("writing");
        });
    }
    let folder = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_test_leaves_nothing_mounted", "--nocapture"])
        .env(VICTIM, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.into_iter().any(|line| line.contains("writing")));
    victim.kill().unwrap();
    victim.wait().unwrap();
    let is_mounted =
        || fs::read_to_string("/proc/self/mountinfo").unwrap().contains(folder.path().to_str().unwrap());
    // As long as it takes: nextest ends what takes for ever.
    while is_mounted() {
        std::thread::yield_now();
    }
    assert_eq!(names(folder.path()), [""; 0]);
}
