//! One file of lines in the order of their times.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use paas_core::LogDirection;

use super::line::{TIME_DIGITS, time_of};

/// How much is read at once: several times the longest line.
const BLOCK_BYTES: u64 = 128 * 1024;
/// How far the search by halving goes before lines are read one by one.
const NEAR_BYTES: u64 = 64 * 1024;
const EXTENSION: &str = "log";

/// A segment: all lines of an app from one time to the next segment's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The time of its first line, which is also its name.
    pub(super) first: u64,
    /// Its length: what is behind was never answered for.
    pub(super) bytes: u64,
}

impl Segment {
    pub(super) fn path(self, folder: &Path) -> PathBuf {
        folder.join(format!("{:020}.{EXTENSION}", self.first))
    }

    /// The time that a file's name says.
    pub(super) fn first_of(path: &Path) -> Option<u64> {
        let stem = path.file_stem()?.as_encoded_bytes();
        (path.extension()? == EXTENSION && stem.len() == TIME_DIGITS).then(|| time_of(stem)).flatten()
    }
}

/// Reads a segment's whole lines.
pub(super) struct Reader {
    file: File,
    bytes: u64,
    block: Vec<u8>,
}

impl Reader {
    /// `None` if the file is gone: retention took it.
    pub(super) fn open(path: &Path, bytes: u64) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self { file, bytes, block: Vec::new() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands each line between `from` and `to`, both of which are line starts, to `visit`, until it answers false;
    /// then the answer is false too. Nothing behind a line that is longer than a block is read: it is not ours.
    pub(super) fn lines(
        &mut self,
        direction: LogDirection,
        from: u64,
        to: u64,
        mut visit: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<bool> {
        let (mut from, mut to) = (from, to.min(self.bytes));
        while from < to {
            let lines = match direction {
                LogDirection::Forward => {
                    self.load(from, to.min(from + BLOCK_BYTES))?;
                    // A file that ends within a line was torn: that line does not count.
                    let Some(end) = memchr::memrchr(b'\n', &self.block) else { return Ok(true) };
                    from += end as u64 + 1;
                    &self.block[..end]
                }
                LogDirection::Backward => {
                    let start = from.max(to.saturating_sub(BLOCK_BYTES));
                    self.load(start, to)?;
                    let skipped = match start == from {
                        true => 0,
                        false => match memchr::memchr(b'\n', &self.block) {
                            Some(end) => end + 1,
                            None => return Ok(true),
                        },
                    };
                    if skipped == self.block.len() {
                        return Ok(true);
                    }
                    to = start + skipped as u64;
                    self.block[skipped..].strip_suffix(b"\n").unwrap_or_default()
                }
            };
            let goes_on = match direction {
                LogDirection::Forward => Lines(Some(lines)).all(&mut visit),
                LogDirection::Backward => LinesBackward(Some(lines)).all(&mut visit),
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where the first line of `time` or later begins; the segment's length if there is none.
    pub(super) fn seek(&mut self, time: u64) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.bytes);
        // The line at `low` is earlier than `time`, or the first one; those behind `high` are not.
        while high - low > NEAR_BYTES {
            let middle = low + (high - low) / 2;
            self.load(middle, high.min(middle + NEAR_BYTES / 2))?;
            let start = memchr::memchr(b'\n', &self.block).map(|end| end + 1);
            // Without a line's start in reach it is not our writing: go on line by line.
            let Some((start, found)) = start.and_then(|start| Some((start, time_of(&self.block[start..])?)))
            else {
                break;
            };
            if found < time {
                low = middle + start as u64;
            } else {
                high = middle;
            }
        }
        let mut place = low;
        self.lines(LogDirection::Forward, low, self.bytes, |line| {
            let is_earlier = time_of(line).is_none_or(|found| found < time);
            if is_earlier {
                place += line.len() as u64 + 1;
            }
            is_earlier
        })?;
        Ok(place)
    }

    /// The length up to the end of the last whole line that reached the disk, as all those before it did.
    pub(super) fn whole_bytes(&mut self) -> io::Result<u64> {
        let mut end = self.first_zero()?.unwrap_or(self.bytes);
        while end > 0 {
            let start = end.saturating_sub(BLOCK_BYTES);
            self.load(start, end)?;
            if let Some(last) = memchr::memrchr(b'\n', &self.block) {
                return Ok(start + last as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }

    fn first_zero(&mut self) -> io::Result<Option<u64>> {
        let mut from = 0;
        while from < self.bytes {
            let to = self.bytes.min(from + BLOCK_BYTES);
            self.load(from, to)?;
            if let Some(place) = memchr::memchr(0, &self.block) {
                return Ok(Some(from + place as u64));
            }
            from = to;
        }
        Ok(None)
    }

    fn load(&mut self, from: u64, to: u64) -> io::Result<()> {
        self.block.resize(usize::try_from(to - from).unwrap_or_default(), 0);
        self.file.read_exact_at(&mut self.block, from)
    }
}

struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        match memchr::memchr(b'\n', rest) {
            Some(end) => {
                self.0 = Some(&rest[end + 1..]);
                Some(&rest[..end])
            }
            None => self.0.take(),
        }
    }
}

struct LinesBackward<'a>(Option<&'a [u8]>);

impl<'a> Iterator for LinesBackward<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        match memchr::memrchr(b'\n', rest) {
            Some(end) => {
                self.0 = Some(&rest[..end]);
                Some(&rest[end + 1..])
            }
            None => self.0.take(),
        }
    }
}
