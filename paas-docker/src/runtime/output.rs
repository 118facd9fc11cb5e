//! The output of a container, as lines.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;

use ::http::Uri;
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters as query;
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt};
use jiff::Timestamp;
use paas_core::{LogStream, NewLogLine, OutputLine, OutputOptions, Result};

use crate::engine::{DockerEngine, failed, is_missing};

/// What stands where an overlong line was cut.
const CUT_MARK: &str = "… [cut]";

/// Reads the output of the container with this engine's id.
pub(super) fn read(
    engine: &DockerEngine,
    id: &str,
    options: &OutputOptions,
) -> BoxStream<'static, Result<OutputLine>> {
    let reader = Reader {
        chunks: open(engine.docker(), id, options),
        docker: engine.docker().clone(),
        id: id.to_owned(),
        is_following: options.follow,
        after: options.after,
        lines: Lines { skip_until: options.after, ..Lines::default() },
        ready: VecDeque::new(),
        is_ended: false,
    };
    futures::stream::unfold(reader, |mut reader| async move {
        let line = reader.next().await?;
        Some((line, reader))
    })
    .boxed()
}

type Chunks = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;

fn open(docker: &Docker, id: &str, options: &OutputOptions) -> Chunks {
    let tail = options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let query = query::LogsOptionsBuilder::new()
        .follow(options.follow)
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .tail(&tail)
        .build();
    let mut docker = docker.clone();
    if let Some(after) = options.after {
        // The client's `since` is whole seconds; the engine takes nanoseconds.
        docker = docker.with_request_modifier(move |mut request| {
            if let Some(uri) = with_since(request.uri(), after) {
                *request.uri_mut() = uri;
            }
            request
        });
    }
    docker.logs(id, Some(query)).boxed()
}

fn with_since(uri: &Uri, after: Timestamp) -> Option<Uri> {
    let seconds = after.as_second();
    let nanoseconds = after.subsec_nanosecond();
    let text = uri.to_string().replace("since=0", &format!("since={seconds}.{nanoseconds:09}"));
    text.parse().ok()
}

struct Reader {
    chunks: Chunks,
    docker: Docker,
    id: String,
    is_following: bool,
    /// The time of the last chunk that was taken; before the first, of what the caller has.
    after: Option<Timestamp>,
    lines: Lines,
    ready: VecDeque<OutputLine>,
    is_ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<OutputLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            if self.is_ended {
                return None;
            }
            match self.chunks.next().await {
                Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => {
                    self.take(LogStream::Stdout, &message);
                }
                Some(Ok(LogOutput::StdErr { message })) => self.take(LogStream::Stderr, &message),
                Some(Ok(LogOutput::StdIn { .. })) => {}
                Some(Err(error)) => {
                    self.is_ended = true;
                    let error = failed("docker.container_output")(error);
                    return if is_missing(&error) { None } else { Some(Err(error)) };
                }
                // An engine that follows may end before the last line was written to its file: ask once more.
                None if self.is_following => {
                    self.is_following = false;
                    let rest = OutputOptions { after: self.after, ..OutputOptions::default() };
                    self.chunks = open(&self.docker, &self.id, &rest);
                    self.lines.skip_until = self.after;
                }
                None => {
                    self.is_ended = true;
                    self.ready.extend(self.lines.rest());
                }
            }
        }
    }

    fn take(&mut self, stream: LogStream, chunk: &Bytes) {
        self.ready.extend(self.lines.take(stream, chunk));
        self.after = self.after.max(self.lines.last);
    }
}

/// Puts lines together from the engine's chunks: each begins with a time; a chunk without a line end is a part of
/// a long line. Holds one line of each output at most, cut to its longest length.
#[derive(Debug, Default)]
struct Lines {
    begun: HashMap<LogStream, Begun>,
    /// The engine includes the moment that it is asked for: chunks up to this time are known already.
    skip_until: Option<Timestamp>,
    /// The time of the newest chunk.
    last: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Begun {
    at: Timestamp,
    text: Vec<u8>,
    is_cut: bool,
}

impl Lines {
    fn take(&mut self, stream: LogStream, chunk: &Bytes) -> Option<OutputLine> {
        let split = chunk.iter().position(|byte| *byte == b' ')?;
        let at: Timestamp = std::str::from_utf8(&chunk[..split]).ok()?.parse().ok()?;
        if self.skip_until.is_some_and(|until| at <= until) {
            return None;
        }
        self.last = self.last.max(Some(at));
        let text = &chunk[split + 1..];
        let begun = self.begun.entry(stream).or_default();
        begun.at = at;
        let (text, is_complete) = match text.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let room = NewLogLine::MAX_TEXT_BYTES.saturating_add(1).saturating_sub(begun.text.len());
        begun.is_cut |= text.len() > room;
        begun.text.extend_from_slice(&text[..text.len().min(room)]);
        if is_complete { self.begun.remove(&stream).map(|begun| begun.finish(stream)) } else { None }
    }

    /// What was begun and has no line end.
    fn rest(&mut self) -> Vec<OutputLine> {
        let mut lines: Vec<_> = self.begun.drain().map(|(stream, begun)| begun.finish(stream)).collect();
        lines.sort_by_key(|line| line.at);
        lines
    }
}

impl Begun {
    fn finish(self, stream: LogStream) -> OutputLine {
        let bytes = self.text.strip_suffix(b"\r").unwrap_or(&self.text);
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        if self.is_cut || text.len() > NewLogLine::MAX_TEXT_BYTES {
            let mut end = NewLogLine::MAX_TEXT_BYTES - CUT_MARK.len();
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str(CUT_MARK);
        }
        OutputLine { at: self.at, stream, text }
    }
}
