//! A line as it stands in a file.
//!
//! ```text
//! 01767225600000000001 17 A1 0 paas-0123… dpl_0123… the text to the end of the line
//! ^time               ^  ^  ^ ^instance  ^deployment
//!                     |  |  how much later the time is than the engine's, in nanoseconds
//!                     |  source and stream
//!                     number
//! ```
//! A dash stands for what is not known. The time has always 20 digits at the line's start, so that a place can be
//! found by halving. No byte is zero: where zeros are read, what was written never reached the disk. A zero of the text
//! stands as a byte that no text has.

use std::borrow::Cow;
use std::io::Write as _;

use jiff::Timestamp;
use paas_core::{DeploymentId, InstanceName, LogLine, LogQuery, LogSource, LogStream};

/// The digits of a time.
pub(super) const TIME_DIGITS: usize = 20;

/// Stands for a zero: it is not part of any UTF-8 text.
const ZERO: u8 = 0xff;

/// Nanoseconds since 1970; lines are not older.
pub(super) fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond().max(0)).unwrap_or(u64::MAX)
}

fn timestamp(nanoseconds: u64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanoseconds.into()).ok()
}

/// Writes a line at the end of `buffer`; `by_engine` is the time that the engine gave it.
pub(super) fn encode(buffer: &mut Vec<u8>, line: &LogLine, by_engine: Option<Timestamp>) {
    let source = match line.source {
        LogSource::Build => 'B',
        LogSource::App => 'A',
        LogSource::System => 'S',
    };
    let stream = match line.stream {
        LogStream::Stdout => '1',
        LogStream::Stderr => '2',
    };
    let time = nanoseconds(line.at);
    // Writing into a vector can't fail.
    let _ = write!(buffer, "{time:020} {} {source}{stream} ", line.sequence);
    let _ = match by_engine {
        Some(engine) => write!(buffer, "{}", i128::from(time) - engine.as_nanosecond()),
        None => write!(buffer, "-"),
    };
    let instance = line.instance.as_ref().map_or("-", |name| name.as_str());
    let deployment = line.deployment.as_ref().map_or("-", DeploymentId::as_str);
    let _ = write!(buffer, " {instance} {deployment} ");
    buffer.extend_from_slice(&without_zeros(&line.text));
    buffer.push(b'\n');
}

fn without_zeros(text: &str) -> Cow<'_, [u8]> {
    if text.contains('\0') { swapped(text.as_bytes(), 0, ZERO).into() } else { text.as_bytes().into() }
}

fn with_zeros(bytes: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(ZERO, bytes).is_some() { swapped(bytes, ZERO, 0).into() } else { bytes.into() }
}

fn swapped(bytes: &[u8], from: u8, to: u8) -> Vec<u8> {
    bytes.iter().map(|byte| if *byte == from { to } else { *byte }).collect()
}

/// The time of a line, if it is one.
pub(super) fn time_of(line: &[u8]) -> Option<u64> {
    let digits = line.get(..TIME_DIGITS)?;
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A line of a file, its fields not yet looked into.
pub(super) struct RawLine<'a> {
    time: u64,
    number: &'a str,
    source: LogSource,
    stream: LogStream,
    shift: &'a str,
    instance: Option<&'a str>,
    deployment: Option<&'a str>,
    text: &'a [u8],
}

impl<'a> RawLine<'a> {
    /// `None` if it is no line of ours.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let time = time_of(line)?;
        let mut rest = line.get(TIME_DIGITS..)?.strip_prefix(b" ")?;
        let mut field = || {
            let end = memchr::memchr(b' ', rest)?;
            let field = std::str::from_utf8(&rest[..end]).ok()?;
            rest = &rest[end + 1..];
            Some(field)
        };
        let number = field()?;
        let [source, stream] = field()?.as_bytes() else { return None };
        let shift = field()?;
        let known = |field: &'a str| (field != "-").then_some(field);
        let (instance, deployment) = (known(field()?), known(field()?));
        Some(Self {
            time,
            number,
            source: match source {
                b'B' => LogSource::Build,
                b'A' => LogSource::App,
                b'S' => LogSource::System,
                _ => return None,
            },
            stream: match stream {
                b'1' => LogStream::Stdout,
                b'2' => LogStream::Stderr,
                _ => return None,
            },
            shift,
            instance,
            deployment,
            text: rest,
        })
    }

    pub(super) fn sequence(&self) -> Option<u64> {
        self.number.parse().ok()
    }

    pub(super) fn instance(&self) -> Option<&str> {
        self.instance
    }

    /// The engine's time, in nanoseconds, if it gave one.
    pub(super) fn by_engine(&self) -> Option<Timestamp> {
        let shift: i128 = self.shift.parse().ok()?;
        Timestamp::from_nanosecond(i128::from(self.time) - shift).ok()
    }

    pub(super) fn into_line(self, names: &mut Names) -> Option<LogLine> {
        Some(LogLine {
            at: timestamp(self.time)?,
            sequence: self.sequence()?,
            source: self.source,
            stream: self.stream,
            instance: self.instance.and_then(|name| names.instance(name)),
            deployment: self.deployment.and_then(|id| names.deployment(id)),
            text: String::from_utf8_lossy(&with_zeros(self.text)).into_owned(),
        })
    }
}

/// The names of the line before: those of the next line are nearly always the same.
#[derive(Default)]
pub(super) struct Names {
    instance: Option<InstanceName>,
    deployment: Option<DeploymentId>,
}

impl Names {
    pub(super) fn instance(&mut self, name: &str) -> Option<InstanceName> {
        if self.instance.as_ref().is_none_or(|last| last.as_str() != name) {
            self.instance = serde_json::from_value(name.into()).ok();
        }
        self.instance.clone()
    }

    fn deployment(&mut self, id: &str) -> Option<DeploymentId> {
        if self.deployment.as_ref().is_none_or(|last| last.as_str() != id) {
            self.deployment = id.parse().ok();
        }
        self.deployment.clone()
    }
}

/// What a query asks for, ready to be held against many lines.
pub(super) struct Filter<'q> {
    pub(super) from: u64,
    pub(super) to: u64,
    source: Option<LogSource>,
    deployment: Option<&'q str>,
    instance: Option<&'q str>,
    contains: Option<memchr::memmem::Finder<'static>>,
}

impl<'q> Filter<'q> {
    /// `None` if nothing can match.
    pub(super) fn new(query: &'q LogQuery) -> Option<Self> {
        let next = |time: Timestamp| nanoseconds(time).checked_add(1);
        let mut from = query.from.map_or(0, nanoseconds);
        if let Some(after) = query.after.filter(|after| after.as_nanosecond() >= 0) {
            from = from.max(next(after)?);
        }
        let is_past = |bound: Option<Timestamp>| bound.is_some_and(|bound| bound.as_nanosecond() < 0);
        if is_past(query.to) || is_past(query.before) {
            return None;
        }
        let mut to = query.to.map_or(u64::MAX, nanoseconds);
        if let Some(before) = query.before {
            to = to.min(nanoseconds(before).checked_sub(1)?);
        }
        (from <= to).then(|| Self {
            from,
            to,
            source: query.source,
            deployment: query.deployment.as_ref().map(DeploymentId::as_str),
            instance: query.instance.as_ref().map(|name| name.as_str()),
            contains: query
                .contains
                .as_deref()
                .map(|text| memchr::memmem::Finder::new(&without_zeros(text)).into_owned()),
        })
    }

    /// True for a line within the times that is asked for.
    pub(super) fn passes(&self, line: &RawLine<'_>) -> bool {
        self.source.is_none_or(|source| line.source == source)
            && self.deployment.is_none_or(|id| line.deployment == Some(id))
            && self.instance.is_none_or(|name| line.instance == Some(name))
            && self.contains.as_ref().is_none_or(|text| text.find(line.text).is_some())
    }
}
