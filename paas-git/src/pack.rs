//! A received pack becomes a file of the mirror, after every entry was found to be bounded.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use gix::hash::Kind::Sha1;
use gix::odb::pack::data::entry::Header;
use gix::odb::pack::data::input::{
    BytesToEntriesIter, EntriesToBytesIter, Entry, EntryDataMode, LookupRefDeltaObjectsIter, Mode,
};
use gix::odb::pack::{data, index};
use gix::progress::Discard;
use paas_core::Error;

use crate::call::Call;
use crate::errors;
use crate::mirror::alloc_limit;
use crate::options::GitLimits;

/// The longest chain of deltas, as in git itself. gix counts to 65,535, and holds a chain's objects in memory while it works on it.
const MAX_CHAIN: u64 = 4095;
/// How many times the largest file a chain's objects may have together.
const MAX_CHAIN_FILES: u64 = 4;
/// How many times the largest tree it takes to read each object of a pack by itself.
const MAX_READING: u64 = 32;
/// What compressing may add to a file.
const COMPRESSION_SLACK: u64 = 1 << 20;
/// The files before they have their names.
const NEW_PACK: &str = ".tmp-pack";
const NEW_INDEX: &str = ".tmp-index";

/// Stores the pack that `received` brings, with its index, in `directory`, and returns when both are on stable
/// storage. `objects` has what a thin pack leaves out. At most `room` bytes are written: a pack that needs more only
/// because of what it left out is refused as one that cannot be read, and comes whole into a new mirror.
pub(crate) fn store(
    call: &Call,
    received: &mut dyn BufRead,
    objects: gix::odb::Handle,
    directory: &Path,
    room: u64,
) -> gix::Result<()> {
    let limits = call.limits();
    let pending = Cell::new(0);
    let received = Metered { received, pending: &pending, limit: limits.object_bytes as u64, call };
    let entries = BytesToEntriesIter::new_from_header(
        BufReader::new(received),
        Mode::Verify,
        EntryDataMode::KeepAndCrc32,
        Sha1,
    )?;
    let count = u32::try_from(entries.size_hint().0).unwrap_or(u32::MAX);
    if count > limits.pack_objects {
        let error = errors::too_large(call.operation(), "it has more files than the platform takes");
        return Err(refused(call, error));
    }
    let version = entries.version();
    let whole = LookupRefDeltaObjectsIter::new(entries, objects, gix::zlib::Compression::BEST_SPEED);
    let bounded = Bounded {
        entries: whole,
        call,
        pending: &pending,
        room,
        chains: Chains::new(limits),
        inflate: Default::default(),
    };
    let (pack_path, index_path) = (directory.join(NEW_PACK), directory.join(NEW_INDEX));
    let mut pack = PackFile(BufWriter::new(create(&pack_path)?));
    let mut index_file = BufWriter::new(create(&index_path)?);
    let mut written = EntriesToBytesIter::new(bounded, &mut pack, version, Sha1);
    let outcome = index::write_data_iter_to_stream(
        index::Version::default(),
        || {
            let file = data::File::at(&pack_path, Sha1).map_err(io::Error::other)?;
            Ok((bytes_of, file))
        },
        &mut written,
        None,
        &mut Discard,
        &mut index_file,
        call.interrupt(),
        Sha1,
        Some(alloc_limit(limits)),
        version,
    )?;
    drop(written);
    if outcome.num_objects == 0 {
        return fs::remove_file(&pack_path)
            .and_then(|()| fs::remove_file(&index_path))
            .map_err(gix::Error::from_error);
    }
    let name = directory.join(format!("pack-{}", outcome.data_hash));
    keep(pack.0, index_file, directory, &name).map_err(gix::Error::from_error)
}

fn bytes_of(range: data::EntryRange, pack: &data::File) -> Option<&[u8]> {
    pack.entry_slice(range)
}

fn create(path: &Path) -> gix::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o400);
    options.open(path).map_err(gix::Error::from_error)
}

/// Gives both files their names, the index last: without it the pack is not looked at.
fn keep(pack: BufWriter<File>, index: BufWriter<File>, directory: &Path, name: &Path) -> io::Result<()> {
    for (file, new, extension) in [(pack, NEW_PACK, "pack"), (index, NEW_INDEX, "idx")] {
        file.into_inner()?.sync_all()?;
        fs::rename(directory.join(new), name.with_extension(extension))?;
    }
    // Only what is surely here is listed as here.
    File::open(directory)?.sync_all()
}

fn refused(call: &Call, error: Error) -> gix::Error {
    gix::Error::from_error(call.fail(error))
}

/// The bytes of the pack, as long as no entry is larger than a file may be and nobody stopped the call.
struct Metered<'a> {
    received: &'a mut dyn BufRead,
    /// Bytes since the last whole entry.
    pending: &'a Cell<u64>,
    limit: u64,
    call: &'a Call,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.call.interrupt().load(Ordering::Relaxed) {
            return Err(io::Error::other("the call was stopped"));
        }
        let length = self.received.read(buffer)?;
        self.pending.set(self.pending.get() + length as u64);
        if self.pending.get() > self.limit.saturating_add(COMPRESSION_SLACK) {
            return Err(self.call.fail(errors::too_large(self.call.operation(), errors::LARGE_FILE)));
        }
        Ok(length)
    }
}

/// Entries, each of them looked at before it is written or worked on.
struct Bounded<'a, I> {
    entries: I,
    call: &'a Call,
    pending: &'a Cell<u64>,
    room: u64,
    chains: Chains,
    inflate: gix::zlib::Inflate,
}

impl<I: Iterator<Item = gix::Result<Entry>>> Bounded<'_, I> {
    fn check(&mut self, entry: &Entry) -> gix::Result<()> {
        self.pending.set(0);
        let size =
            if entry.header.is_delta() { self.size_of_result(entry)? } else { entry.decompressed_size };
        let limit = self.call.limits().object_bytes as u64;
        if size.max(entry.decompressed_size) > limit {
            return Err(refused(self.call, errors::too_large(self.call.operation(), errors::LARGE_FILE)));
        }
        if !self.chains.takes(entry, size) {
            let error = errors::too_large(self.call.operation(), "its files are packed too densely");
            return Err(refused(self.call, error.hint("have the git server pack the repository anew")));
        }
        if entry.pack_offset + u64::from(entry.header_size) + entry.compressed_size > self.room {
            return Err(gix::Error::from_error(io::Error::other(
                "with what it left out, the pack is too large",
            )));
        }
        Ok(())
    }

    /// How large the object is that a delta makes: its second number, after the size of what it is made from.
    fn size_of_result(&mut self, entry: &Entry) -> gix::Result<u64> {
        let mut start = [0; 20];
        self.inflate.reset();
        let compressed = entry.compressed.as_deref().unwrap_or_default();
        let (_, _, length) = self.inflate.prefix(compressed, &mut start)?;
        let mut bytes = start[..length].iter();
        let mut number = || -> Option<u64> {
            let mut number = 0_u64;
            for shift in (0..64).step_by(7) {
                let byte = *bytes.next()?;
                number |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    return Some(number);
                }
            }
            None
        };
        number()
            .and_then(|_| number())
            .ok_or_else(|| gix::Error::from_error(io::Error::other("a delta has no size")))
    }
}

impl<I: Iterator<Item = gix::Result<Entry>>> Iterator for Bounded<'_, I> {
    type Item = gix::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(entry.and_then(|entry| self.check(&entry).map(|()| entry)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

/// How many objects one object is made from, and how large they are together.
#[derive(Clone, Copy, Default)]
struct Chain {
    deltas: u64,
    bytes: u64,
}

impl Chain {
    fn and(self, other: Self) -> Self {
        Self { deltas: self.deltas + other.deltas, bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// The chains of a pack, as far as it has come.
struct Chains {
    /// By where the entry is; entries come in this order.
    known: Vec<(u64, Chain)>,
    /// The most of each number among the chains that start in a whole object.
    largest: Chain,
    /// All that is made from objects that are somewhere in the pack: as if they made one single chain.
    loose: Chain,
    /// What it takes to read each object by itself.
    reading: u64,
    max_bytes: u64,
    max_reading: u64,
}

impl Chains {
    fn new(limits: &GitLimits) -> Self {
        Self {
            known: Vec::new(),
            largest: Chain::default(),
            loose: Chain::default(),
            reading: 0,
            max_bytes: (limits.object_bytes as u64).saturating_mul(MAX_CHAIN_FILES),
            max_reading: limits.disk_bytes.saturating_mul(MAX_READING),
        }
    }

    /// Adds an entry whose object has this size. False if a chain is too long, or too large.
    fn takes(&mut self, entry: &Entry, size: u64) -> bool {
        let own =
            Chain { deltas: u64::from(entry.header.is_delta()), bytes: size.max(entry.decompressed_size) };
        let base = match entry.header {
            Header::OfsDelta { base_distance } => self.at(entry.pack_offset.wrapping_sub(base_distance)),
            Header::RefDelta { .. } => None,
            _ => Some(Chain::default()),
        };
        let chain = match base {
            Some(base) => {
                let chain = base.and(own);
                self.largest.deltas = self.largest.deltas.max(chain.deltas);
                self.largest.bytes = self.largest.bytes.max(chain.bytes);
                self.known.push((entry.pack_offset, chain));
                chain
            }
            None => {
                self.loose = self.loose.and(own);
                own
            }
        };
        if entry.header.is_delta() {
            self.reading = self.reading.saturating_add(chain.bytes);
        }
        let worst = self.largest.and(self.loose);
        self.largest.deltas <= MAX_CHAIN
            && worst.deltas <= u64::from(u16::MAX)
            && worst.bytes <= self.max_bytes
            && self.reading <= self.max_reading
    }

    /// The chain of a whole object, or of one that is made from one.
    fn at(&self, offset: u64) -> Option<Chain> {
        let at = self.known.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        Some(self.known[at].1)
    }
}

/// The file that a pack is written to, and then read from once.
struct PackFile(BufWriter<File>);

impl Write for PackFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for PackFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl Read for PackFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.get_mut().read(buffer)
    }
}
