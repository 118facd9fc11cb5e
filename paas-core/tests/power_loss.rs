//! The master key is on stable storage before anything is sealed with it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use fallible_disk::Disk;
use paas_core::{Keyring, Sealed, Secret};

const PURPOSE: &str = "test";

#[test]
fn disk_process() {
    fallible_disk::process();
}

fn sealed(path: &Path) -> Option<Sealed> {
    Keyring::open(path).ok()?.seal(PURPOSE, &Secret::from("kept")).ok()
}

fn assert_opens(path: &Path, sealed: &Sealed) {
    let secret = Keyring::open(path).unwrap().open_sealed(PURPOSE, sealed).unwrap();
    assert_eq!(secret.expose(), "kept");
}

/// However often the power is cut while it is made, no half key is found, and what was sealed opens.
#[test]
fn a_key_that_sealed_something_survives() {
    let mut made = 0;
    for seed in 0..100 {
        let disk = Disk::mount().unwrap();
        let path = disk.path().join("master.key");
        disk.cut_after(seed % 10, seed);
        let sealed = sealed(&path);
        disk.cut(seed);
        disk.restore();
        match sealed {
            Some(sealed) => {
                made += 1;
                assert_opens(&path, &sealed);
            }
            None => assert!(Keyring::open(&path).is_ok(), "the next start makes one, or finds it whole"),
        }
    }
    assert!((10..90).contains(&made), "{made}");
}

/// A start that was killed before it had synced the directory leaves a key that the next one finds.
#[test]
fn a_key_that_was_found_and_sealed_something_survives() {
    for seed in 0..20 {
        let disk = Disk::mount().unwrap();
        let path = disk.path().join("master.key");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        std::io::Write::write_all(&mut file, format!("{}\n", "5".repeat(64)).as_bytes()).unwrap();
        drop(file);
        let sealed = sealed(&path).unwrap();
        disk.cut(seed);
        disk.restore();
        assert_opens(&path, &sealed);
    }
}
