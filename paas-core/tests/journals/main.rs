//! Golden journals: what each version committed to its store, kept under version control. Every later version reads all
//! of it, and goes on from any point of it.
//!
//! `RECORD_JOURNALS=1 cargo nextest run -p paas-core --test journals this_version` records those of a new version, and
//! refuses to touch what is there. Once a version is released its journals are never changed: whatever can newly be told
//! belongs to the next minor version, and has to be in a story.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod golden;
mod read;
mod resume;
mod revive;
#[path = "../shared/mod.rs"]
mod shared;
mod stage;
mod stories;
mod stuck;
mod variants;
#[path = "../world/mod.rs"]
mod world;

use golden::Golden;

/// What a later version writes and this one does not know.
const FUTURE: &str = r#"{"type":"from_the_future","of":"a later version"}"#;
const FUTURE_NAME: &str = "from_the_future";

#[tokio::test(start_paused = true)]
async fn this_version_has_its_journals() {
    let folder = golden::folder_of_this_version();
    if std::env::var_os("RECORD_JOURNALS").is_some() {
        assert!(!folder.exists(), "{} is there: what was recorded is never changed", folder.display());
        std::fs::create_dir_all(&folder).unwrap();
        for story in stories::ALL {
            let golden = stage::record(story).await;
            golden.save(&folder.join(format!("{}.json", story.name)));
        }
    }
    for story in stories::ALL {
        let path = folder.join(format!("{}.json", story.name));
        assert!(path.exists(), "{} is not recorded: see the top of this file", path.display());
    }
}

/// Every golden journal of every version, with its name for messages.
fn all() -> Vec<(String, Golden)> {
    let goldens = golden::load_all();
    assert!(goldens.len() >= stories::ALL.len());
    goldens
}
