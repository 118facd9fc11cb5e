//! The files: what was committed, commit by commit, as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use paas_core::{Append, Batch, Expect, Keys, Scope, StreamId, UniqueReach, Write};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A story as it was recorded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Golden {
    /// What happens in it.
    pub(crate) about: String,
    /// The pages that were pushed, in order: one commit each.
    pub(crate) pages: Vec<String>,
    /// True if the runtime chose the addresses.
    pub(crate) chosen_addresses: bool,
    /// What was committed.
    pub(crate) commits: Vec<Commit>,
    /// The state of each operation at the end.
    pub(crate) ends: BTreeMap<String, Value>,
}

/// What went into the store at once. Leases are left out: whoever had them is gone.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Commit {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) writes: Vec<StoredWrite>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) appends: Vec<StoredAppend>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "write", rename_all = "snake_case")]
pub(crate) enum StoredWrite {
    Put {
        kind: String,
        id: String,
        scope: String,
        /// Name, value, and whether it is unique in the whole store.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unique: Vec<(String, String, bool)>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        index: Vec<(String, String)>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
        body: Value,
    },
    Update {
        kind: String,
        id: String,
        scope: String,
        body: Value,
    },
    Remove {
        kind: String,
        id: String,
        scope: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredAppend {
    pub(crate) stream: String,
    pub(crate) scope: String,
    /// How many events were there before.
    pub(crate) after: u64,
    pub(crate) at: Timestamp,
    pub(crate) events: Vec<Value>,
}

fn journals() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals")
}

/// Versions that differ in their last number only write the same.
pub(crate) fn folder_of_this_version() -> PathBuf {
    let version = format!("{}.{}", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    journals().join(version)
}

pub(crate) fn load_all() -> Vec<(String, Golden)> {
    let mut goldens = Vec::new();
    for folder in entries(&journals()).into_iter().filter(|path| path.is_dir()) {
        for file in entries(&folder) {
            let name = file.strip_prefix(journals()).unwrap().display().to_string();
            let golden = serde_json::from_slice(&std::fs::read(&file).unwrap());
            goldens.push((name.clone(), golden.unwrap_or_else(|error| panic!("{name}: {error}"))));
        }
    }
    goldens
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

impl Golden {
    /// Writes it with a line for each commit.
    pub(crate) fn save(&self, path: &Path) {
        let commits: Vec<_> = self.commits.iter().map(json).collect();
        let ends: Vec<_> =
            self.ends.iter().map(|(stream, state)| format!("{}: {}", json(stream), json(state))).collect();
        let file = format!(
            "{{\n\"about\": {},\n\"pages\": {},\n\"chosen_addresses\": {},\n\"commits\": [\n{}\n],\n\"ends\": {{\n{}\n}}\n}}\n",
            json(&self.about),
            json(&self.pages),
            self.chosen_addresses,
            commits.join(",\n"),
            ends.join(",\n"),
        );
        std::fs::write(path, file).unwrap();
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap()
}

impl From<&Batch> for Commit {
    fn from(batch: &Batch) -> Self {
        let parsed = |body: &[u8]| serde_json::from_slice(body).unwrap();
        let text = |text: &str| text.to_owned();
        let write = |write: &Write| match write {
            Write::Put { scope, kind, id, keys, body, .. } => StoredWrite::Put {
                kind: text(kind),
                id: id.clone(),
                scope: text(scope.as_str()),
                unique: keys
                    .unique
                    .iter()
                    .map(|(name, value, reach)| (text(name), value.clone(), *reach == UniqueReach::Store))
                    .collect(),
                index: keys.index.iter().map(|(name, value)| (text(name), value.clone())).collect(),
                expires_at: keys.expires_at,
                body: parsed(body),
            },
            Write::Update { scope, kind, id, body, .. } => StoredWrite::Update {
                kind: text(kind),
                id: id.clone(),
                scope: text(scope.as_str()),
                body: parsed(body),
            },
            Write::Remove { scope, kind, id, .. } => {
                StoredWrite::Remove { kind: text(kind), id: id.clone(), scope: text(scope.as_str()) }
            }
        };
        let append = |append: &Append| StoredAppend {
            stream: append.stream.to_string(),
            scope: text(append.scope.as_str()),
            after: append.expect,
            at: append.at,
            events: append.events.iter().map(|event| parsed(event)).collect(),
        };
        Self {
            writes: batch.writes.iter().map(write).collect(),
            appends: batch.appends.iter().map(append).collect(),
        }
    }
}

impl From<&Commit> for Batch {
    fn from(commit: &Commit) -> Self {
        let bytes = |body: &Value| serde_json::to_vec(body).unwrap();
        let expect = Expect::Any;
        let write = |write: &StoredWrite| match write {
            StoredWrite::Put { kind, id, scope, unique, index, expires_at, body } => {
                let reach = |in_store| if in_store { UniqueReach::Store } else { UniqueReach::Org };
                let unique = unique.iter();
                let keys = Keys {
                    unique: unique
                        .map(|(name, value, in_store)| (lasting(name), value.clone(), reach(*in_store)))
                        .collect(),
                    index: index.iter().map(|(name, value)| (lasting(name), value.clone())).collect(),
                    expires_at: *expires_at,
                };
                let (kind, id, body) = (lasting(kind), id.clone(), bytes(body));
                Write::Put { scope: scope_of(scope), kind, id, expect, keys, body }
            }
            StoredWrite::Update { kind, id, scope, body } => {
                let (kind, id, body) = (lasting(kind), id.clone(), bytes(body));
                Write::Update { scope: scope_of(scope), kind, id, expect, body }
            }
            StoredWrite::Remove { kind, id, scope } => {
                Write::Remove { scope: scope_of(scope), kind: lasting(kind), id: id.clone(), expect }
            }
        };
        let append = |append: &StoredAppend| Append {
            scope: scope_of(&append.scope),
            stream: StreamId::new(append.stream.as_str()),
            expect: append.after,
            at: append.at,
            events: append.events.iter().map(bytes).collect(),
        };
        Self {
            writes: commit.writes.iter().map(write).collect(),
            appends: commit.appends.iter().map(append).collect(),
            ..Self::default()
        }
    }
}

fn scope_of(text: &str) -> Scope {
    if text == Scope::System.as_str() { Scope::System } else { Scope::Org(text.parse().unwrap()) }
}

/// The names of kinds and keys live as long as the program; here they are a few.
fn lasting(text: &str) -> &'static str {
    use std::sync::{Mutex, PoisonError};
    static KNOWN: Mutex<BTreeMap<String, &'static str>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry(text.to_owned()).or_insert_with(|| Box::leak(text.to_owned().into_boxed_str()))
}
