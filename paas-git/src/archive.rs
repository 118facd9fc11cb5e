//! A tree as a tar stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use paas_core::{EntryKind, PathFilter, Result, TAR_END, TreeEntry, error, tar_header, tar_padding};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::tree::{Objects, Reader};

const OPERATION: &str = "git.archive";
/// About how many bytes are made at a time. A larger file comes in one piece.
const BATCH_BYTES: usize = 256 * 1024;

/// The stream of a tree. While one batch is being read the next is made, and nothing runs ahead of that: a slow
/// reader holds no thread, and dropping the stream ends the work with the file in hand.
pub(crate) fn stream(
    entries: Arc<Vec<TreeEntry>>,
    objects: Objects,
    include: PathFilter,
    readers: Arc<Semaphore>,
) -> BoxStream<'static, Result<Bytes>> {
    let stop = StopOnDrop::default();
    let reader = objects.reader();
    let members = Members { entries, reader, include, next: 0, is_ended: false, is_stopped: stop.0.clone() };
    let first = State::Ready { members: Box::new(members), readers };
    stream::try_unfold((first, stop), |(state, stop)| async move {
        let (batch, readers) = match state {
            State::Ready { members, readers } => (start(members, &readers).await?, readers),
            State::Making { batch, readers } => (batch, readers),
        };
        let (members, bytes) = batch.await.map_err(error::map(OPERATION))?;
        let bytes = bytes?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let batch = start(members, &readers).await?;
        Ok(Some((bytes, (State::Making { batch, readers }, stop))))
    })
    .boxed()
}

enum State {
    Ready { members: Box<Members>, readers: Arc<Semaphore> },
    Making { batch: Batch, readers: Arc<Semaphore> },
}

/// Lives as long as the stream.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Batch = JoinHandle<(Box<Members>, Result<Bytes>)>;

async fn start(mut members: Box<Members>, readers: &Arc<Semaphore>) -> Result<Batch> {
    let permit = readers.clone().acquire_owned().await.map_err(error::map(OPERATION))?;
    Ok(spawn_blocking(move || {
        let bytes = members.batch();
        drop(permit);
        (members, bytes)
    }))
}

/// What is still to be made.
struct Members {
    entries: Arc<Vec<TreeEntry>>,
    reader: Reader,
    include: PathFilter,
    next: usize,
    is_ended: bool,
    is_stopped: Arc<AtomicBool>,
}

impl Members {
    /// The next bytes of the archive; none at its end.
    fn batch(&mut self) -> Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(BATCH_BYTES);
        while let Some(entry) = self.entries.get(self.next)
            && bytes.len() < BATCH_BYTES
            && !self.is_stopped.load(Ordering::Relaxed)
        {
            let index = self.next;
            self.next += 1;
            if !self.include.wants(&entry.path) {
                continue;
            }
            bytes.extend_from_slice(&tar_header(entry));
            if let EntryKind::File { size, .. } = entry.kind {
                bytes.extend_from_slice(&self.reader.read(OPERATION, index)?);
                bytes.extend_from_slice(tar_padding(size));
            }
        }
        if self.next == self.entries.len() && bytes.len() < BATCH_BYTES && !self.is_ended {
            self.is_ended = true;
            bytes.extend_from_slice(TAR_END);
        }
        Ok(bytes.freeze())
    }
}
