//! Reads a Dockerfile as far as a plan needs it: its base images and its port.

use std::collections::BTreeSet;

use paas_core::{Error, Port, Result};

use super::safety::{refuse_frontends, refuse_unsafe_lines, unsafe_line};
use super::syntax::{Instruction, directives, logical_lines};
use super::words::{self, Variables};
use crate::OPERATION;

/// Far more than a Dockerfile needs; each is looked up before a build.
const MAX_BASE_IMAGES: usize = 64;

/// What a plan says of a Dockerfile.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The images that it starts or copies from, in order, each once.
    pub(crate) base_images: Vec<String>,
    /// The first TCP port that its last stage exposes.
    pub(crate) port: Option<Port>,
}

/// Reads a Dockerfile.
///
/// # Errors
/// The user's, with the line: `unsafe_dockerfile` for what would leave the build's sandbox; else what cannot
/// be understood.
pub(crate) fn read(text: &str) -> Result<Summary> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let directives = directives(text);
    refuse_frontends(text, &directives)?;
    let escape = match directives.iter().find(|directive| directive.name == "escape") {
        Some(directive) if directive.value == "`" => '`',
        _ => '\\',
    };
    refuse_unsafe_lines(text)?;
    let mut reader = Reader::default();
    for (line, text) in logical_lines(text, escape) {
        reader.read(&Instruction::parse(line, &text, escape))?;
    }
    if reader.stages == 0 {
        return Err(Error::invalid(OPERATION, "the Dockerfile has no FROM")
            .hint("start the Dockerfile with `FROM` and a base image"));
    }
    Ok(Summary { base_images: reader.base_images, port: reader.port })
}

#[derive(Default)]
struct Reader {
    base_images: Vec<String>,
    stages: usize,
    /// The names of stages, in lower case.
    names: BTreeSet<String>,
    /// What `FROM` lines may use: the arguments before the first of them.
    global: Variables,
    /// What the lines of the present stage may use.
    local: Variables,
    port: Option<Port>,
}

impl Reader {
    fn read(&mut self, instruction: &Instruction) -> Result<()> {
        match instruction.keyword.as_str() {
            "FROM" => self.start_stage(instruction)?,
            "ARG" => {
                for word in &instruction.words {
                    self.define(word);
                }
            }
            "ENV" => match instruction.words.as_slice() {
                [name, value] if !name.contains('=') => self.define(&format!("{name}={value}")),
                words => words.iter().for_each(|word| self.define(word)),
            },
            "EXPOSE" if self.port.is_none() => {
                self.port = instruction.words.iter().find_map(|word| tcp_port(word, &self.local));
            }
            "COPY" | "ADD" => {
                for image in instruction.flag("from") {
                    self.use_image(instruction.line, image)?;
                }
            }
            "RUN" => {
                for mount in instruction.flag("mount") {
                    if let Some(image) = mount.split(',').find_map(from_option) {
                        self.use_image(instruction.line, image)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn define(&mut self, word: &str) {
        // `ARG NAME` in a stage takes the value from before the first `FROM`.
        let inherited = self.global.get(word).cloned();
        let scope = if self.stages == 0 { &mut self.global } else { &mut self.local };
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, words::expand(value, scope)),
            None => (word, inherited),
        };
        match value {
            Some(value) => scope.insert(name.to_owned(), value),
            None => scope.remove(name),
        };
    }

    fn start_stage(&mut self, instruction: &Instruction) -> Result<()> {
        let (image, name) = match instruction.words.as_slice() {
            [image] => (image, None),
            [image, r#as, name] if r#as.eq_ignore_ascii_case("as") => {
                (image, Some(name.to_ascii_lowercase()))
            }
            // Not a stage to any frontend: inside of a heredoc it is a line like others, elsewhere the build says so.
            _ => return Ok(()),
        };
        let Some(image) = words::expand(image, &self.global) else {
            return Err(Error::invalid(
                OPERATION,
                format!("the Dockerfile's line {} starts from an image that is not known", instruction.line),
            )
            .hint("give each variable in `FROM` a default: `ARG NAME=value` before the first `FROM`"));
        };
        self.add(image, instruction.line)?;
        self.names.extend(name);
        self.stages += 1;
        self.local.clear();
        self.port = None;
        Ok(())
    }

    /// `from=`, which names a stage, the number of one, or an image.
    fn use_image(&mut self, line: usize, name: &str) -> Result<()> {
        if name.contains('$') {
            return Err(unsafe_line(line, "copies from an image that a variable names")
                .hint("write the image's name itself, or a `FROM ... AS name` and that name"));
        }
        if name.parse::<usize>().is_ok() { Ok(()) } else { self.add(name.to_owned(), line) }
    }

    fn add(&mut self, image: String, line: usize) -> Result<()> {
        let is_stage = image == "scratch" || self.names.contains(&image.to_ascii_lowercase());
        if is_stage || image.is_empty() || self.base_images.contains(&image) {
            return Ok(());
        }
        if self.base_images.len() == MAX_BASE_IMAGES {
            return Err(Error::invalid(
                OPERATION,
                format!("the Dockerfile uses more than {MAX_BASE_IMAGES} images (line {line})"),
            )
            .code("too_large")
            .hint("use fewer base images"));
        }
        self.base_images.push(image);
        Ok(())
    }
}

/// The value of `from=` in an option of a mount, whose names may be in capitals.
fn from_option(option: &str) -> Option<&str> {
    let (name, value) = option.split_once('=')?;
    name.trim().eq_ignore_ascii_case("from").then_some(value)
}

fn tcp_port(word: &str, variables: &Variables) -> Option<Port> {
    let word = words::expand(word, variables)?;
    let (range, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
    let first = range.split('-').next()?;
    if !protocol.eq_ignore_ascii_case("tcp") {
        return None;
    }
    Port::try_from(first.parse::<u32>().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use paas_core::{Fault, Kind};
    use proptest::prelude::*;

    use super::*;

    fn summary(text: &str) -> Summary {
        read(text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    #[test]
    fn base_images_in_order_each_once() {
        let text = "ARG TAG=3\nARG BASE=alpine:${TAG}\nFROM --platform=linux/amd64 golang:1 AS Build\n\
                    RUN --mount=type=bind,from=tools:1,target=/t true\nFROM build AS again\n\
                    FROM \"$BASE\"\nCOPY --from=BUILD /a /a\nCOPY --from=0 /a /b\nCOPY --from=busybox:1 /c /c\n\
                    FROM alpine:3\nFROM scratch\n";
        assert_eq!(summary(text).base_images, ["golang:1", "tools:1", "alpine:3", "busybox:1"]);
    }

    #[test]
    fn a_line_of_another_language_is_no_stage() {
        let text =
            "FROM a\nRUN <<EOF python3\nfrom flask import Flask\nEOF\nRUN psql -c 'SELECT 1 \\\n FROM t'\n";
        assert_eq!(summary(text).base_images, ["a"]);
    }

    #[test]
    fn the_port_of_the_last_stage() {
        for (text, expected) in [
            ("FROM a\nEXPOSE 3000", Some(3000)),
            ("FROM a\nEXPOSE 53/udp 8000/tcp 9000", Some(8000)),
            ("FROM a\nEXPOSE 7000-7010", Some(7000)),
            ("FROM a\nENV PORT=81\nEXPOSE $PORT", Some(81)),
            ("FROM a\nENV PORT 82\nexpose ${PORT}/TCP", Some(82)),
            ("ARG P=83\nFROM a\nARG P\nEXPOSE $P", Some(83)),
            ("FROM a\nEXPOSE $UNKNOWN", None),
            ("FROM a\nEXPOSE 3000\nFROM b", None),
            ("FROM a\nEXPOSE 0 70000 x", None),
        ] {
            assert_eq!(summary(text).port.map(Port::number), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_the_users_fault() {
        for text in ["", "RUN x", "FROM $UNKNOWN", "ARG A=$A$A\nFROM $A", "FROM ${A%x}"] {
            let error = read(text).unwrap_err();
            assert_eq!((error.kind(), error.whose()), (Kind::Invalid, Fault::User), "{text}");
            assert!(error.hinted().is_some(), "{text}");
        }
    }

    #[test]
    fn many_stages_are_read_and_many_images_refused() {
        assert_eq!(summary(&"FROM a\n".repeat(100_000)).base_images, ["a"]);
        let many: String = (0..100_000).map(|n| format!("FROM a{n}\n")).collect();
        assert_eq!(read(&many).unwrap_err().reason(), Some("too_large"));
    }

    #[test]
    fn definitions_that_double_each_other_are_bounded() {
        let mut text = "ARG A0=xxxxxxxx\n".to_owned();
        for n in 1..200 {
            text += &format!("ARG A{n}=$A{}$A{}\n", n - 1, n - 1);
        }
        assert!(read(&(text + "FROM $A199")).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "((FROM|RUN|ADD|COPY|ARG|ENV|EXPOSE|ONBUILD|# syntax=)?[ -~\\n]{0,30}\n?){0,12}") {
            let _ = read(&text);
        }

        #[test]
        fn any_characters_are_read_or_refused(text in "\\PC{0,80}") {
            let _ = read(&text);
        }
    }
}
