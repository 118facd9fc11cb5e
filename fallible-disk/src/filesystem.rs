//! What the kernel asks.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::power::Power;
use crate::sectors::Sectors;
use crate::tree::{Content, Node, Owner, ROOT, Tree};

/// The kernel keeps no names or attributes: a cut would not be noticed.
const TO_KEEP: Duration = Duration::ZERO;
/// No number is given twice.
const FIRST: Generation = Generation(0);
const BLOCK_BYTES: u32 = 4096;
/// 64 GiB in blocks, all of them free: nobody is to find it full.
const BLOCKS: u64 = 16 << 20;
/// The bits of a mode that say what kind of file it is.
const KIND: u32 = libc::S_IFMT;

type Result<T, E = Errno> = std::result::Result<T, E>;

#[derive(Debug)]
pub(crate) struct Served(pub(crate) Arc<Mutex<Power>>);

impl Served {
    fn power(&self) -> MutexGuard<'_, Power> {
        self.0.lock().unwrap()
    }

    fn make(
        &self,
        request: &Request,
        directory: INodeNo,
        name: &OsStr,
        content: Content,
        mode: u32,
    ) -> Result<FileAttr> {
        let permissions = (mode & 0o7777) as u16;
        let owner = Owner { user: request.uid(), group: request.gid(), permissions };
        self.power().change(|tree| {
            let number = tree.make(directory.0, name, content, owner)?;
            attributes(tree, number)
        })
    }
}

fn attributes(tree: &Tree, number: u64) -> Result<FileAttr> {
    let Node { content, owner, links, changed } = tree.node(number)?;
    let (kind, size) = match content {
        Content::File(sectors) => (FileType::RegularFile, sectors.len() as u64),
        Content::Directory { .. } => (FileType::Directory, 0),
        Content::Socket => (FileType::Socket, 0),
    };
    let time = UNIX_EPOCH + Duration::from_millis(*changed);
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: owner.permissions,
        nlink: *links,
        uid: owner.user,
        gid: owner.group,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    })
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn reply_empty(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn reply_entry(reply: ReplyEntry, result: Result<FileAttr>) {
    match result {
        Ok(attributes) => reply.entry(&TO_KEEP, &attributes, FIRST),
        Err(error) => reply.error(error),
    }
}

fn reply_attributes(reply: ReplyAttr, result: Result<FileAttr>) {
    match result {
        Ok(attributes) => reply.attr(&TO_KEEP, &attributes),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, directory: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let power = self.power();
        let found = power.look().and_then(|tree| attributes(tree, tree.look_up(directory.0, name)?));
        reply_entry(reply, found);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let power = self.power();
        reply_attributes(reply, power.look().and_then(|tree| attributes(tree, number.0)));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        length: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let result = self.power().change(|tree| {
            if let Some(length) = length {
                tree.file_mut(number.0)?.resize(size(length));
            }
            let owner = &mut tree.node_mut(number.0)?.owner;
            owner.permissions = mode.map_or(owner.permissions, |mode| (mode & 0o7777) as u16);
            owner.user = user.unwrap_or(owner.user);
            owner.group = group.unwrap_or(owner.group);
            attributes(tree, number.0)
        });
        reply_attributes(reply, result);
    }

    fn mknod(
        &self,
        request: &Request,
        directory: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let content = match mode & KIND {
            libc::S_IFREG => Content::File(Sectors::default()),
            libc::S_IFSOCK => Content::Socket,
            _ => return reply.error(Errno::EINVAL),
        };
        reply_entry(reply, self.make(request, directory, name, content, mode));
    }

    fn mkdir(
        &self,
        request: &Request,
        directory: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        reply_entry(reply, self.make(request, directory, name, Content::empty_directory(), mode));
    }

    fn unlink(&self, _: &Request, directory: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.power().change(|tree| tree.remove(directory.0, name)));
    }

    fn rmdir(&self, _: &Request, directory: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.power().change(|tree| tree.remove(directory.0, name)));
    }

    fn rename(
        &self,
        _: &Request,
        directory: INodeNo,
        name: &OsStr,
        new_directory: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let replaces = match flags.bits() {
            0 => true,
            libc::RENAME_NOREPLACE => false,
            _ => return reply.error(Errno::EINVAL),
        };
        let (from, to) = ((directory.0, name), (new_directory.0, new_name));
        reply_empty(reply, self.power().change(|tree| tree.rename(from, to, replaces)));
    }

    fn link(&self, _: &Request, number: INodeNo, directory: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.power().change(|tree| {
            tree.link(number.0, directory.0, name)?;
            attributes(tree, number.0)
        });
        reply_entry(reply, linked);
    }

    fn create(
        &self,
        request: &Request,
        directory: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.make(request, directory, name, Content::File(Sectors::default()), mode) {
            Ok(attributes) => {
                reply.created(&TO_KEEP, &attributes, FIRST, FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.power().read(number.0, size(offset), size(length.into())) {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.power().change(|tree| {
            tree.file_mut(number.0)?.write(size(offset), bytes);
            Ok(())
        });
        match written {
            Ok(()) => reply.written(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file makes nothing durable.
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(reply, self.power().sync_file(number.0));
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(reply, self.power().sync_directory(number.0));
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let power = self.power();
        let tree = match power.look() {
            Ok(tree) => tree,
            Err(error) => return reply.error(error),
        };
        let entries = match tree.entries(number.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(error),
        };
        // A place must not move while names before it go: it is the number of the node behind which to go on.
        let mut ordered: Vec<_> = entries.iter().collect();
        ordered.sort_unstable_by_key(|(_, node)| **node);
        for (name, node) in ordered {
            let kind = attributes(tree, *node).map_or(FileType::RegularFile, |attributes| attributes.kind);
            if *node > offset.max(ROOT) && reply.add(INodeNo(*node), *node, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}
