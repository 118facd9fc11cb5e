//! The files of one app's lines.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use paas_core::{InstanceName, LogDirection, LogPage, LogQuery, NewLogLine};
use tokio::sync::watch;

use super::FileLogOptions;
use super::line::{Filter, Names, RawLine, encode, nanoseconds};
use super::segment::{Reader, Segment};

/// How many instances' last lines are remembered.
const MAX_INSTANCES: usize = 4096;

/// One app's lines. One append at a time; reads go on beside it.
#[derive(Debug)]
pub(super) struct AppLog {
    folder: PathBuf,
    options: FileLogOptions,
    /// What was answered for. Locked for moments only, never while a file is read or written.
    index: Mutex<Index>,
    /// The time of the newest line.
    newest: watch::Sender<Option<Timestamp>>,
    /// Held by whoever appends or removes.
    pub(super) writing: Arc<tokio::sync::Mutex<Writing>>,
}

/// Whether the app's files may still be written.
#[derive(Debug, Default)]
pub(super) struct Writing {
    /// The app was removed: a later append begins anew.
    pub(super) is_removed: bool,
}

#[derive(Debug, Default)]
struct Index {
    segments: Vec<Segment>,
    last: Option<(Timestamp, u64)>,
    /// The engine's time of each instance's last line, once somebody asked: for that everything has to be read.
    by_instance: Option<BTreeMap<InstanceName, Timestamp>>,
}

impl Index {
    /// Takes in what an instance printed; of very many the latest stay.
    fn note(&mut self, printed: impl IntoIterator<Item = (InstanceName, Timestamp)>) {
        let Some(known) = &mut self.by_instance else { return };
        for (instance, at) in printed {
            let last = known.entry(instance).or_insert(at);
            *last = at.max(*last);
        }
        if known.len() > MAX_INSTANCES {
            let mut times: Vec<_> = known.values().copied().collect();
            let (_, median, _) = times.select_nth_unstable(known.len() / 2);
            known.retain(|_, at| *at > *median);
        }
    }
}

impl AppLog {
    /// Finds what is there. What a crash tore is cut off, with all that is behind it.
    pub(super) fn load(folder: PathBuf, options: FileLogOptions) -> io::Result<Self> {
        let mut segments = Vec::new();
        match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if let Some(first) = Segment::first_of(&entry.path()) {
                        segments.push(Segment { first, bytes: entry.metadata()?.len() });
                    }
                }
            }
        }
        segments.sort_unstable_by_key(|segment| segment.first);
        let mut last = None;
        while let Some(segment) = segments.last_mut() {
            last = mend(segment, &folder)?;
            if last.is_some() {
                break;
            }
            set_aside(segment, &folder)?;
            segments.pop();
        }
        let newest = watch::Sender::new(last.map(|(at, _)| at));
        let index = Mutex::new(Index { segments, last, by_instance: None });
        Ok(Self { folder, options, index, newest, writing: Arc::default() })
    }

    /// Tells when there is a newer line.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Timestamp>> {
        self.newest.subscribe()
    }

    /// Appends while `writing` is held.
    pub(super) fn append(&self, lines: Vec<NewLogLine>, now: Timestamp) -> io::Result<()> {
        let (mut segments, mut last) = {
            let index = self.locked();
            (index.segments.clone(), index.last)
        };
        let printed: Vec<(InstanceName, Timestamp)> =
            lines.iter().filter_map(|line| Some((line.instance.clone()?, line.at?))).collect();
        let known = segments.clone();
        if let Err(cause) = self.write(&mut segments, &mut last, lines, now) {
            // What began with this append was never answered for: it would come back at the next start.
            for begun in
                segments.iter().filter(|segment| known.iter().all(|known| known.first != segment.first))
            {
                let _ = fs::remove_file(begun.path(&self.folder));
            }
            return Err(cause);
        }
        let outdated = self.outdated(&segments, now);
        let removed: Vec<Segment> = segments.drain(..outdated).collect();
        {
            let mut index = self.locked();
            (index.segments, index.last) = (segments, last);
            index.note(printed);
        }
        self.newest.send_replace(last.map(|(at, _)| at));
        for segment in removed {
            // The lines are stored all the same; a file that is left over is found at the next start.
            if let Err(cause) = fs::remove_file(segment.path(&self.folder)) {
                tracing::warn!(%cause, folder = %self.folder.display(), "old log lines can't be removed");
            }
        }
        Ok(())
    }

    fn write(
        &self,
        segments: &mut Vec<Segment>,
        last: &mut Option<(Timestamp, u64)>,
        lines: Vec<NewLogLine>,
        now: Timestamp,
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        for line in lines {
            let by_engine = line.at;
            let line = line.into_stored(*last, now);
            *last = Some((line.at, line.sequence));
            let is_full = segments
                .last()
                .is_none_or(|segment| segment.bytes + buffer.len() as u64 >= self.options.segment_bytes);
            if is_full {
                self.flush(segments, &mut buffer)?;
                segments.push(Segment { first: nanoseconds(line.at), bytes: 0 });
            }
            encode(&mut buffer, &line, by_engine);
        }
        self.flush(segments, &mut buffer)
    }

    fn flush(&self, segments: &mut [Segment], buffer: &mut Vec<u8>) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let Some((segment, earlier)) = segments.split_last_mut() else { return Ok(()) };
        if segment.bytes == 0 {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            if let Some(full) = earlier.last() {
                self.sync(*full)?;
            }
        }
        let path = segment.path(&self.folder);
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        match file.metadata()?.len() {
            // What a failed append left behind was never answered for.
            length if length > segment.bytes => cut(&file, segment.bytes)?,
            // Somebody cut it: what is left of it stays.
            length if length < segment.bytes => {
                segment.bytes = length;
                mend(segment, &self.folder)?;
            }
            _ => {}
        }
        file.write_all(buffer)?;
        segment.bytes += buffer.len() as u64;
        buffer.clear();
        Ok(())
    }

    /// Puts a full segment on stable storage before the next one begins: a loss of power takes from the end only.
    fn sync(&self, full: Segment) -> io::Result<()> {
        match File::open(full.path(&self.folder)) {
            // Somebody took it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => opened?.sync_data()?,
        }
        File::open(&self.folder)?.sync_all()?;
        self.folder.parent().map_or(Ok(()), |root| File::open(root)?.sync_all())
    }

    /// When the oldest lines are from that are kept.
    fn oldest(&self, now: Timestamp) -> u64 {
        let age = SignedDuration::try_from(self.options.max_age).unwrap_or(SignedDuration::MAX);
        now.checked_sub(age).map_or(0, nanoseconds)
    }

    /// How many of the oldest segments are beyond retention; the newest never is.
    fn outdated(&self, segments: &[Segment], now: Timestamp) -> usize {
        let oldest = self.oldest(now);
        let mut total: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let mut outdated = 0;
        for pair in segments.windows(2) {
            // Where the next one begins, this one has ended.
            if total <= self.options.max_bytes && pair[1].first >= oldest {
                break;
            }
            total -= pair[0].bytes;
            outdated += 1;
        }
        outdated
    }

    /// Reads what is not beyond retention at `now`, until it is stopped.
    pub(super) fn read(
        &self,
        query: &LogQuery,
        now: Timestamp,
        is_stopped: &AtomicBool,
    ) -> io::Result<LogPage> {
        let limit = query.limit.min(LogQuery::MAX_LIMIT);
        let mut page = LogPage::default();
        let Some(filter) = Filter::new(query) else { return Ok(page) };
        let mut names = Names::default();
        self.scan(query.direction, filter.from.max(self.oldest(now)), filter.to, |line| {
            if is_stopped.load(Ordering::Relaxed) {
                return false;
            }
            if let Some(line) = RawLine::parse(line).filter(|line| filter.passes(line)) {
                if page.lines.len() == limit {
                    page.has_more = true;
                    return false;
                }
                page.lines.extend(line.into_line(&mut names));
            }
            true
        })?;
        Ok(page)
    }

    /// The engine's time of an instance's last line, while `writing` is held. The first time everything is read.
    pub(super) fn last_of(&self, instance: &InstanceName) -> io::Result<Option<Timestamp>> {
        if let Some(known) = &self.locked().by_instance {
            return Ok(known.get(instance).copied());
        }
        let mut found = Index { by_instance: Some(BTreeMap::new()), ..Index::default() };
        let mut names = Names::default();
        self.scan(LogDirection::Forward, 0, u64::MAX, |line| {
            found.note(
                RawLine::parse(line)
                    .and_then(|line| Some((names.instance(line.instance()?)?, line.by_engine()?))),
            );
            true
        })?;
        let last = found.by_instance.as_ref().and_then(|known| known.get(instance).copied());
        self.locked().by_instance = found.by_instance;
        Ok(last)
    }

    /// Removes everything while `writing` is held.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => {
                removed?;
                // Nobody would remove what a loss of power brings back.
                self.folder.parent().map_or(Ok(()), |root| File::open(root)?.sync_all())?;
            }
        }
        *self.locked() = Index::default();
        Ok(())
    }

    /// Hands the lines between two times, both included, to `visit`, until it answers false.
    fn scan(
        &self,
        direction: LogDirection,
        from: u64,
        to: u64,
        mut visit: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<()> {
        let mut segments = self.locked().segments.clone();
        segments.truncate(segments.partition_point(|segment| segment.first <= to));
        // The segment before the first later one may reach into the range.
        segments.drain(..segments.partition_point(|segment| segment.first <= from).saturating_sub(1));
        if direction == LogDirection::Backward {
            segments.reverse();
        }
        for segment in segments {
            let Some(mut reader) = Reader::open(&segment.path(&self.folder), segment.bytes)? else {
                continue;
            };
            let start = if segment.first >= from { 0 } else { reader.seek(from)? };
            let end = to.checked_add(1).map_or(Ok(segment.bytes), |next| reader.seek(next))?;
            if !reader.lines(direction, start, end, &mut visit)? {
                break;
            }
        }
        Ok(())
    }

    fn locked(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a segment without one whole line of ours out of the way. What somebody may still want to look at stays.
fn set_aside(segment: &Segment, folder: &Path) -> io::Result<()> {
    let path = segment.path(folder);
    if segment.bytes == 0 {
        return fs::remove_file(path);
    }
    let aside = path.with_extension("damaged");
    tracing::warn!(file = %aside.display(), "a log file is damaged and was set aside");
    fs::rename(path, aside)
}

/// Cuts off what is behind, for good: what is appended must never be read together with it.
fn cut(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)?;
    file.sync_data()
}

/// Cuts off a segment's end from where it is torn; answers time and number of the last whole line, if there is one.
fn mend(segment: &mut Segment, folder: &Path) -> io::Result<Option<(Timestamp, u64)>> {
    let path = segment.path(folder);
    let Some(mut reader) = Reader::open(&path, segment.bytes)? else { return Ok(None) };
    let whole = reader.whole_bytes()?;
    if whole < segment.bytes {
        cut(&OpenOptions::new().write(true).open(&path)?, whole)?;
        segment.bytes = whole;
    }
    let mut last = None;
    reader.lines(LogDirection::Backward, 0, whole, |line| {
        last = RawLine::parse(line).and_then(|line| {
            let number = line.sequence()?;
            Some((line.into_line(&mut Names::default())?.at, number))
        });
        last.is_none()
    })?;
    Ok(last)
}
