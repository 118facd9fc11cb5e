//! A TCP connection as hyper reads and writes it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::framing::Framing;
use crate::timer::IdleTimer;

/// A connection whose writes fail when the other side takes nothing for too long.
#[derive(Debug)]
pub(crate) struct Stream {
    tcp: TokioIo<TcpStream>,
    write_limit: Duration,
    write_idle: IdleTimer,
    watched: Option<Watched>,
}

/// Watches the requests that come in.
#[derive(Debug)]
struct Watched {
    framing: Framing,
    signs: Arc<Signs>,
}

/// What a client's connection shows while hyper has it.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    ambiguous: AtomicBool,
    stalled: AtomicBool,
}

impl Signs {
    /// True once its requests can't be told apart for certain.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Ordering::Relaxed)
    }

    /// True while there are bytes that the client does not take yet.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }
}

impl Stream {
    /// A connection to an instance.
    pub(crate) fn upstream(tcp: TcpStream, write_limit: Duration) -> Self {
        Self { tcp: TokioIo::new(tcp), write_limit, write_idle: IdleTimer::default(), watched: None }
    }

    /// A client's connection, which shows `signs`.
    pub(crate) fn client(tcp: TcpStream, write_limit: Duration, signs: Arc<Signs>) -> Self {
        let watched = Watched { framing: Framing::default(), signs };
        Self { watched: Some(watched), ..Self::upstream(tcp, write_limit) }
    }

    /// The connection itself, once it speaks another protocol.
    pub(crate) fn into_tcp(self) -> TcpStream {
        self.tcp.into_inner()
    }

    fn written<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Some(watched) = &self.watched {
            watched.signs.stalled.store(result.is_pending(), Ordering::Relaxed);
        }
        if result.is_ready() {
            self.write_idle.reset();
            return result;
        }
        ready!(self.write_idle.poll_expired(context, self.write_limit));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(watched) = &mut this.watched else {
            return Pin::new(&mut this.tcp).poll_read(context, cursor);
        };
        // What is watched takes one more copy; looking into hyper's own memory would take unsafe code.
        let mut memory = [MaybeUninit::uninit(); 16 * 1024];
        let room = cursor.remaining().min(memory.len());
        let mut buffer = ReadBuf::uninit(&mut memory[..room]);
        ready!(Pin::new(&mut this.tcp).poll_read(context, buffer.unfilled()))?;
        watched.framing.observe(buffer.filled());
        if watched.framing.is_ambiguous() {
            watched.signs.ambiguous.store(true, Ordering::Relaxed);
        }
        cursor.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.written(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.tcp).poll_write_vectored(context, slices);
        self.written(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
