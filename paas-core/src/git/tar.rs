//! How a source tree becomes a tar stream, the same bytes in every adapter.

use super::{EntryKind, TreeEntry};

/// What everything in a tar is padded to.
const BLOCK: usize = 512;
/// The longest `name` and link target of a ustar header.
const NAME_LENGTH: usize = 100;
/// The longest `prefix` of a ustar header.
const PREFIX_LENGTH: usize = 155;
/// The largest size in eleven octal digits, plus one.
const SIZE_LIMIT: u64 = 1 << 33;

/// Two empty blocks: the end of a tar stream.
pub const TAR_END: &[u8] = &[0; 2 * BLOCK];

/// The bytes before an entry's contents in a tar stream: a ustar header, with a pax header before it where the
/// path, the link's target or the size needs one. All times are 0 and all owners root, so that the same entry
/// gives the same bytes. A submodule becomes an empty directory, as `git archive` has it.
pub fn tar_header(entry: &TreeEntry) -> Vec<u8> {
    let (kind, mode, size, target) = match &entry.kind {
        EntryKind::File { size, executable: false } => (b'0', 0o644, *size, ""),
        EntryKind::File { size, executable: true } => (b'0', 0o755, *size, ""),
        EntryKind::Symlink { target } => (b'2', 0o777, 0, target.as_str()),
        EntryKind::Directory | EntryKind::Submodule => (b'5', 0o755, 0, ""),
    };
    let path = if kind == b'5' { format!("{}/", entry.path) } else { entry.path.clone() };
    let mut records = Vec::new();
    let (prefix, name) = split(&path).unwrap_or_else(|| {
        pax_record(&mut records, "path", &path);
        ("", "././@LongPath")
    });
    if target.len() > NAME_LENGTH || !target.is_ascii() {
        pax_record(&mut records, "linkpath", target);
    }
    if size >= SIZE_LIMIT {
        pax_record(&mut records, "size", &size.to_string());
    }
    let mut bytes = Vec::with_capacity(BLOCK);
    if !records.is_empty() {
        bytes.extend(block("", "././@PaxHeader", b'x', 0o644, records.len() as u64, ""));
        bytes.extend(&records);
        bytes.extend(tar_padding(records.len() as u64));
    }
    let short_target = if target.len() > NAME_LENGTH || !target.is_ascii() { "" } else { target };
    bytes.extend(block(prefix, name, kind, mode, if size < SIZE_LIMIT { size } else { 0 }, short_target));
    bytes
}

/// The zeros after `size` bytes of contents.
pub fn tar_padding(size: u64) -> &'static [u8] {
    let used = (size % BLOCK as u64) as usize;
    if used == 0 { &[] } else { &TAR_END[..BLOCK - used] }
}

/// Splits a path for the two fields of a ustar header; `None` if it fits no split.
fn split(path: &str) -> Option<(&str, &str)> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= NAME_LENGTH {
        return Some(("", path));
    }
    path.match_indices('/')
        .map(|(at, _)| (&path[..at], &path[at + 1..]))
        .find(|(prefix, name)| prefix.len() <= PREFIX_LENGTH && !name.is_empty() && name.len() <= NAME_LENGTH)
}

/// A pax record starts with its own length, the digits of the length included.
fn pax_record(records: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend(format!("{length} {key}={value}\n").bytes());
}

fn block(prefix: &str, name: &str, kind: u8, mode: u32, size: u64, target: &str) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, target.as_bytes());
    put(257, b"ustar\x0000");
    put(345, prefix.as_bytes());
    let checksum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{checksum:06o}\0 ").as_bytes());
    header
}
