//! A build's progress as log lines.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog};
use paas_core::{Context, Failure, LogSource, NewLogLine};

/// The longest line that is kept as evidence, in bytes: a failure carries twenty of them.
const EVIDENCE_LINE_BYTES: usize = 1024;

/// Follows the steps of a build.
#[derive(Debug)]
pub(super) struct Progress {
    steps: BTreeMap<String, Step>,
    /// What is left of the bytes that are kept.
    budget: u64,
    dropped: u64,
}

#[derive(Debug, Default)]
struct Step {
    name: String,
    is_announced: bool,
    is_finished: bool,
    error: String,
    output: BTreeMap<i64, Line>,
    last_lines: VecDeque<String>,
}

/// What a failed step left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FailedStep {
    /// As the Dockerfile says it, with its number: `[2/3] RUN make`.
    pub(super) name: String,
    /// What the engine says of it.
    pub(super) error: String,
    /// The last lines that it wrote.
    pub(super) last_lines: Vec<String>,
}

impl Progress {
    pub(super) fn new(log_bytes: u64) -> Self {
        Self { steps: BTreeMap::new(), budget: log_bytes, dropped: 0 }
    }

    /// Takes one report of the engine; true if a step began, ended or wrote something.
    pub(super) fn take(&mut self, context: &Context, report: StatusResponse) -> bool {
        let mut is_active = false;
        for vertex in report.vertexes {
            is_active |= self.take_vertex(context, vertex);
        }
        for log in report.logs {
            is_active = true;
            self.take_output(context, &log);
        }
        is_active || !report.statuses.is_empty()
    }

    fn take_vertex(&mut self, context: &Context, vertex: Vertex) -> bool {
        let step = self.steps.entry(vertex.digest).or_default();
        step.name = vertex.name;
        // What the engine does for itself is not shown.
        let is_shown = step.name.starts_with('[') && !step.name.starts_with("[internal]");
        let mut lines = Vec::new();
        let begins = !step.is_announced && (vertex.started.is_some() || vertex.cached);
        if begins {
            step.is_announced = true;
            if !vertex.cached {
                lines.push(step.name.clone());
            }
        }
        if !vertex.error.is_empty() {
            step.error = vertex.error;
        }
        let ends = !step.is_finished && (vertex.completed.is_some() || vertex.cached);
        if ends {
            step.is_finished = true;
            let rest: Vec<_> = step.output.values_mut().filter_map(Line::rest).collect();
            for text in rest {
                step.keep(&text);
                lines.push(text);
            }
            let took = duration(vertex.started.as_ref(), vertex.completed.as_ref());
            lines.push(if vertex.cached {
                format!("{} (cached)", step.name)
            } else if step.error.is_empty() {
                format!("{} done in {:.1} s", number(&step.name), took.as_secs_f64())
            } else {
                format!("{} failed after {:.1} s", number(&step.name), took.as_secs_f64())
            });
        }
        if is_shown {
            for line in lines {
                self.write(context, line);
            }
        }
        begins || ends
    }

    fn take_output(&mut self, context: &Context, log: &VertexLog) {
        let step = self.steps.entry(log.vertex.clone()).or_default();
        let lines = step.output.entry(log.stream).or_default().take(&log.msg);
        for line in &lines {
            step.keep(line);
        }
        for line in lines {
            self.write(context, line);
        }
    }

    fn write(&mut self, context: &Context, line: String) {
        let size = line.len() as u64 + 1;
        if self.dropped == 0 && size <= self.budget {
            self.budget -= size;
            context.log(LogSource::Build, line);
        } else {
            if self.dropped == 0 {
                context.log(LogSource::Build, "… the rest of the output is not kept: the log is full");
            }
            self.dropped += size;
        }
    }

    /// Says how much was not kept.
    pub(super) fn finish(&self, context: &Context) {
        if self.dropped > 0 {
            context.log(LogSource::Build, format!("… {} bytes of output were not kept", self.dropped));
        }
    }

    /// The last lines of a step that is running.
    pub(super) fn running_step_lines(&self) -> Vec<String> {
        let running = self.steps.values().filter(|step| step.is_announced && !step.is_finished);
        running
            .max_by_key(|step| step.last_lines.len())
            .map(|step| step.last_lines.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// The step that the build failed at; where several did, one that was not merely cancelled.
    pub(super) fn failed_step(&self) -> Option<FailedStep> {
        let failed = || self.steps.values().filter(|step| !step.error.is_empty());
        let step =
            failed().find(|step| !step.error.contains("context canceled")).or_else(|| failed().next())?;
        Some(FailedStep {
            name: step.name.clone(),
            error: step.error.clone(),
            last_lines: step.last_lines.iter().cloned().collect(),
        })
    }
}

impl Step {
    fn keep(&mut self, line: &str) {
        if self.last_lines.len() == Failure::EVIDENCE_LINES {
            self.last_lines.pop_front();
        }
        self.last_lines.push_back(cut(line, EVIDENCE_LINE_BYTES).to_owned());
    }
}

/// `[2/3]` of `[2/3] RUN make`.
fn number(name: &str) -> &str {
    name.split_once(']').map_or(name, |(number, _)| &name[..=number.len()])
}

fn duration(started: Option<&Timestamp>, completed: Option<&Timestamp>) -> Duration {
    let nanoseconds = |time: &Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let (Some(started), Some(completed)) = (started, completed) else { return Duration::ZERO };
    let took = nanoseconds(completed) - nanoseconds(started);
    Duration::from_nanos(u64::try_from(took).unwrap_or_default())
}

fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A line that is being written. A carriage return starts it over, as on a terminal; it never grows past the
/// longest line of a log.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// A carriage return came, and what follows it decides: a line feed ends the line, anything else restarts it.
    has_returned: bool,
}

impl Line {
    fn take(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in chunk {
            match byte {
                b'\n' => lines.push(self.finish()),
                b'\r' => self.has_returned = true,
                _ => {
                    if std::mem::take(&mut self.has_returned) {
                        self.bytes.clear();
                    }
                    if self.bytes.len() < NewLogLine::MAX_TEXT_BYTES {
                        self.bytes.push(byte);
                    }
                }
            }
        }
        lines
    }

    fn rest(&mut self) -> Option<String> {
        if self.bytes.is_empty() { None } else { Some(self.finish()) }
    }

    fn finish(&mut self) -> String {
        self.has_returned = false;
        let text = plain(&String::from_utf8_lossy(&std::mem::take(&mut self.bytes)));
        cut(&text, NewLogLine::MAX_TEXT_BYTES).to_owned()
    }
}

/// Without the escape sequences that colour a terminal or move its cursor.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\u{1b}' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            // Parameters, then one final letter.
            Some('[') => {
                letters.find(|letter| ('@'..='~').contains(letter));
            }
            // A title or link, up to its terminator.
            Some(']') => {
                letters.find(|letter| matches!(letter, '\u{7}' | '\u{1b}'));
            }
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_bars_leave_their_last_state() {
        let mut line = Line::default();
        assert_eq!(line.take(b"10%\r50%\r100%\r\nnext"), ["100%"]);
        assert_eq!(line.rest().unwrap(), "next");
        assert_eq!(line.rest(), None);
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_one_line() {
        let mut line = Line::default();
        assert!(line.take(b"a\xc3").is_empty());
        assert!(line.take(b"\xa4\r").is_empty());
        assert_eq!(line.take(b"\n"), ["a\u{e4}"]);
    }

    #[test]
    fn escape_sequences_are_taken_away() {
        assert_eq!(plain("\u{1b}[1;31mred\u{1b}[0m \u{1b}]0;title\u{7}text"), "red text");
        assert_eq!(plain("cut \u{1b}["), "cut ");
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut line = Line::default();
        assert!(line.take(&vec![b'x'; 4 * NewLogLine::MAX_TEXT_BYTES]).is_empty());
        assert_eq!(line.take(b"\n")[0].len(), NewLogLine::MAX_TEXT_BYTES);
    }

    #[test]
    fn numbers_of_steps() {
        assert_eq!(number("[build 2/3] RUN x[1]"), "[build 2/3]");
        assert_eq!(number("exporting"), "exporting");
    }
}
