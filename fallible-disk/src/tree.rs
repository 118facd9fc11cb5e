//! Directories and files: what programs see, and what of it is on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use fuser::Errno;

use crate::lot::Lot;
use crate::sectors::Sectors;

/// The number of the root, whatever happens.
pub(crate) const ROOT: u64 = 1;

type Entries = BTreeMap<OsString, u64>;
type Result<T, E = Errno> = std::result::Result<T, E>;

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: BTreeMap<u64, Node>,
    /// The number of the next node: none is given twice, so that files that were opened before a cut stay dead.
    next: u64,
    /// Changes of names that are not durable, oldest first.
    unsynced: Vec<Change>,
    /// Counts changes: the time that files show.
    pub(crate) changes: u64,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) content: Content,
    pub(crate) owner: Owner,
    pub(crate) links: u32,
    pub(crate) changed: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) permissions: u16,
}

#[derive(Debug)]
pub(crate) enum Content {
    File(Sectors),
    Directory { entries: Entries, durable: Entries },
    Socket,
}

impl Content {
    pub(crate) fn empty_directory() -> Self {
        Self::Directory { entries: Entries::new(), durable: Entries::new() }
    }
}

/// Names that change together.
#[derive(Debug)]
struct Change(Vec<Edit>);

#[derive(Debug)]
struct Edit {
    directory: u64,
    name: OsString,
    /// Where the name leads from then on.
    to: Option<u64>,
}

impl Change {
    fn touches(&self, directories: &BTreeSet<u64>) -> bool {
        self.0.iter().any(|edit| directories.contains(&edit.directory))
    }
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self::with_root(
            ROOT + 1,
            Owner { user: effective_user(), group: effective_group(), permissions: 0o755 },
        )
    }

    fn with_root(next: u64, owner: Owner) -> Self {
        let root = Node { content: Content::empty_directory(), owner, links: 1, changed: 0 };
        Self { nodes: [(ROOT, root)].into(), next, unsynced: Vec::new(), changes: 0 }
    }

    pub(crate) fn node(&self, number: u64) -> Result<&Node> {
        self.nodes.get(&number).ok_or(Errno::EIO)
    }

    pub(crate) fn node_mut(&mut self, number: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&number).ok_or(Errno::EIO)
    }

    pub(crate) fn entries(&self, directory: u64) -> Result<&Entries> {
        match &self.node(directory)?.content {
            Content::Directory { entries, .. } => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub(crate) fn look_up(&self, directory: u64, name: &OsStr) -> Result<u64> {
        self.entries(directory)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(crate) fn file(&self, number: u64) -> Result<&Sectors> {
        match &self.node(number)?.content {
            Content::File(sectors) => Ok(sectors),
            _ => Err(Errno::EISDIR),
        }
    }

    pub(crate) fn file_mut(&mut self, number: u64) -> Result<&mut Sectors> {
        self.changes += 1;
        let changed = self.changes;
        let node = self.node_mut(number)?;
        node.changed = changed;
        match &mut node.content {
            Content::File(sectors) => Ok(sectors),
            _ => Err(Errno::EISDIR),
        }
    }

    pub(crate) fn make(
        &mut self,
        directory: u64,
        name: &OsStr,
        content: Content,
        owner: Owner,
    ) -> Result<u64> {
        if self.entries(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let number = self.add(content, owner);
        self.edit(vec![(directory, name, Some(number))])?;
        Ok(number)
    }

    fn add(&mut self, content: Content, owner: Owner) -> u64 {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, Node { content, owner, links: 0, changed: self.changes });
        number
    }

    pub(crate) fn link(&mut self, number: u64, directory: u64, name: &OsStr) -> Result<()> {
        if self.entries(directory)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.edit(vec![(directory, name, Some(number))])
    }

    pub(crate) fn remove(&mut self, directory: u64, name: &OsStr) -> Result<()> {
        let number = self.look_up(directory, name)?;
        if self.entries(number).is_ok_and(|entries| !entries.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.edit(vec![(directory, name, None)])
    }

    pub(crate) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), replaces: bool) -> Result<()> {
        let number = self.look_up(from.0, from.1)?;
        match self.look_up(to.0, to.1) {
            Ok(_) if !replaces => return Err(Errno::EEXIST),
            // Two names of one file: nothing happens.
            Ok(there) if there == number => return Ok(()),
            Ok(there) if self.entries(there).is_ok_and(|entries| !entries.is_empty()) => {
                return Err(Errno::ENOTEMPTY);
            }
            _ => {}
        }
        self.edit(vec![(from.0, from.1, None), (to.0, to.1, Some(number))])
    }

    fn edit(&mut self, edits: Vec<(u64, &OsStr, Option<u64>)>) -> Result<()> {
        self.changes += 1;
        let mut change = Vec::new();
        for (directory, name, to) in edits {
            let changes = self.changes;
            let node = self.node_mut(directory)?;
            let Content::Directory { entries, .. } = &mut node.content else { return Err(Errno::ENOTDIR) };
            node.changed = changes;
            let before = match to {
                Some(number) => entries.insert(name.to_owned(), number),
                None => entries.remove(name),
            };
            if let Some(number) = before {
                self.node_mut(number)?.links -= 1;
            }
            if let Some(number) = to {
                self.node_mut(number)?.links += 1;
            }
            change.push(Edit { directory, name: name.to_owned(), to });
        }
        self.unsynced.push(Change(change));
        Ok(())
    }

    /// Makes every change of a directory's names durable, with all those that came before one of them where it reaches
    /// into another directory: the order stays.
    pub(crate) fn sync_directory(&mut self, directory: u64) -> Result<()> {
        self.entries(directory)?;
        let mut reached = BTreeSet::from([directory]);
        let (mut durable, mut left) = (Vec::new(), Vec::new());
        for change in std::mem::take(&mut self.unsynced).into_iter().rev() {
            if change.touches(&reached) {
                reached.extend(change.0.iter().map(|edit| edit.directory));
                durable.push(change);
            } else {
                left.push(change);
            }
        }
        left.reverse();
        self.unsynced = left;
        for edit in durable.into_iter().rev().flat_map(|change| change.0) {
            if let Content::Directory { durable, .. } = &mut self.node_mut(edit.directory)?.content {
                apply(durable, &edit);
            }
        }
        Ok(())
    }

    /// What is found when the power is back.
    pub(crate) fn after_power_loss(&self, lot: &mut Lot) -> Self {
        let mut names: BTreeMap<u64, Entries> = BTreeMap::new();
        for (number, node) in &self.nodes {
            if let Content::Directory { durable, .. } = &node.content {
                names.insert(*number, durable.clone());
            }
        }
        for change in self.unsynced.iter().filter(|_| lot.arrives()) {
            for edit in &change.0 {
                apply(names.entry(edit.directory).or_default(), edit);
            }
        }
        let mut after = Self::with_root(self.next, self.nodes[&ROOT].owner);
        let mut known = BTreeMap::from([(ROOT, ROOT)]);
        let mut directories = vec![ROOT];
        while let Some(directory) = directories.pop() {
            let mut entries = Entries::new();
            for (name, number) in names.remove(&directory).unwrap_or_default() {
                let new = known.get(&number).copied().unwrap_or_else(|| {
                    let node = &self.nodes[&number];
                    let content = match &node.content {
                        Content::File(sectors) => {
                            Content::File(Sectors::durable(sectors.after_power_loss(lot)))
                        }
                        Content::Directory { .. } => {
                            directories.push(number);
                            Content::empty_directory()
                        }
                        Content::Socket => Content::Socket,
                    };
                    let new = after.add(content, node.owner);
                    known.insert(number, new);
                    new
                });
                if let Some(node) = after.nodes.get_mut(&new) {
                    node.links += 1;
                }
                entries.insert(name, new);
            }
            let durable = entries.clone();
            if let Some(node) = after.nodes.get_mut(&known[&directory]) {
                node.content = Content::Directory { entries, durable };
            }
        }
        after
    }
}

fn apply(entries: &mut Entries, edit: &Edit) {
    match edit.to {
        Some(number) => entries.insert(edit.name.clone(), number),
        None => entries.remove(&edit.name),
    };
}

fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn effective_group() -> u32 {
    rustix::process::getegid().as_raw()
}
