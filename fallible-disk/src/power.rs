//! The power: on, cut, or about to be.

use fuser::Errno;

use crate::lot::Lot;
use crate::tree::Tree;

type Result<T, E = Errno> = std::result::Result<T, E>;

#[derive(Debug)]
pub(crate) struct Power {
    tree: Tree,
    /// What was seen before the last cut. A process that maps one of its files into memory still reads it: it would be
    /// killed otherwise, and its memory goes with the power anyhow.
    gone: Option<Tree>,
    is_cut: bool,
    cut: Option<Countdown>,
    failing_sync: Option<Countdown>,
    ignores_syncs: bool,
}

#[derive(Clone, Copy, Debug)]
struct Countdown {
    left: u64,
    seed: u64,
}

impl Countdown {
    /// The seed, when it is time.
    fn tick(this: &mut Option<Self>) -> Option<u64> {
        match this {
            Some(Self { left: 0, .. }) => this.take().map(|countdown| countdown.seed),
            Some(countdown) => {
                countdown.left -= 1;
                None
            }
            None => None,
        }
    }
}

impl Power {
    pub(crate) fn on() -> Self {
        Self {
            tree: Tree::new(),
            gone: None,
            is_cut: false,
            cut: None,
            failing_sync: None,
            ignores_syncs: false,
        }
    }

    pub(crate) fn cut(&mut self, seed: u64) {
        if !self.is_cut {
            let after = self.tree.after_power_loss(&mut Lot::new(seed));
            self.gone = Some(std::mem::replace(&mut self.tree, after));
            self.is_cut = true;
        }
    }

    pub(crate) fn cut_after(&mut self, count: u64, seed: u64) {
        self.cut = Some(Countdown { left: count, seed });
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(crate) fn restore(&mut self) {
        self.is_cut = false;
        self.cut = None;
        self.failing_sync = None;
    }

    pub(crate) fn fail_sync_after(&mut self, count: u64, seed: u64) {
        self.failing_sync = Some(Countdown { left: count, seed });
    }

    pub(crate) fn ignore_syncs(&mut self) {
        self.ignores_syncs = true;
    }

    pub(crate) fn look(&self) -> Result<&Tree> {
        if self.is_cut { Err(Errno::EIO) } else { Ok(&self.tree) }
    }

    pub(crate) fn read(&self, number: u64, offset: usize, length: usize) -> Result<&[u8]> {
        let seen = self.look().and_then(|tree| tree.file(number));
        let seen = seen.or_else(|error| self.gone.as_ref().ok_or(error)?.file(number));
        Ok(seen?.read(offset, length))
    }

    /// Makes a change. The power may fail right after it, before it is answered.
    pub(crate) fn change<T>(&mut self, change: impl FnOnce(&mut Tree) -> Result<T>) -> Result<T> {
        self.look()?;
        let result = change(&mut self.tree);
        match Countdown::tick(&mut self.cut) {
            Some(seed) => {
                self.cut(seed);
                Err(Errno::EIO)
            }
            None => result,
        }
    }

    /// The power may fail in the middle of it: some of it is done then.
    fn begin_sync(&mut self) -> Result<()> {
        if let Some(seed) = Countdown::tick(&mut self.cut) {
            self.cut(seed);
        }
        self.look().map(drop)
    }

    pub(crate) fn sync_file(&mut self, number: u64) -> Result<()> {
        self.begin_sync()?;
        let failing = Countdown::tick(&mut self.failing_sync);
        let is_ignored = self.ignores_syncs;
        let file = self.tree.file_mut(number)?;
        match failing {
            Some(seed) => {
                file.fail_sync(&mut Lot::new(seed));
                return Err(Errno::EIO);
            }
            None if is_ignored => {}
            None => file.sync(),
        }
        Ok(())
    }

    pub(crate) fn sync_directory(&mut self, number: u64) -> Result<()> {
        self.begin_sync()?;
        if self.ignores_syncs { Ok(()) } else { self.tree.sync_directory(number) }
    }
}
