//! Reads a Dockerfile as far as planning and building need it: its images and its port.

use std::collections::BTreeSet;

use paas_core::{Error, Port, Result};

use super::safety::{refuse_frontends, refuse_unsafe_lines, unsafe_line};
use super::syntax::{Directive, Instruction, Joining, directives, logical_lines, readings};
use super::words::{self, Variables};
use crate::OPERATION;

/// Far more than a Dockerfile needs; each is looked up before a build.
const MAX_IMAGES: usize = 64;
/// Likewise; the length of each is bounded where it is expanded.
const MAX_VARIABLES: usize = 1024;

/// What a Dockerfile says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerfileSummary {
    /// The images that it starts or copies from, in order, each once.
    pub base_images: Vec<String>,
    /// Every image that it may take something from, in whichever way its lines are read: versions of the engine
    /// differ in which lines continue, and in heredocs. Whoever guards images looks at these.
    pub named_images: Vec<NamedImage>,
    /// The first TCP port that its last stage exposes.
    pub port: Option<Port>,
    /// Its text for the engine: a `# syntax=` line, for which a frontend would be fetched from a registry, names
    /// none. The other lines, and their numbers, are the same.
    pub text: String,
}

/// An image that a Dockerfile names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedImage {
    /// Its name, as it stands there with the values of variables.
    pub name: String,
    /// The line that names it, from 1.
    pub line: usize,
}

/// Reads a Dockerfile, and refuses one that would leave the build's sandbox.
///
/// # Errors
/// The user's, with the line: `unsafe_dockerfile` for what would leave the build's sandbox; else what cannot
/// be understood, or is too large.
pub fn read_dockerfile(text: &str) -> Result<DockerfileSummary> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let directives = directives(text);
    refuse_frontends(text, &directives)?;
    refuse_unsafe_lines(text)?;
    let escape = match directives.iter().find(|directive| directive.name == "escape") {
        Some(directive) if directive.value == "`" => '`',
        _ => '\\',
    };
    let reader = Reader::read(escape, logical_lines(text, escape, Joining::Escaped))?;
    if reader.stages == 0 {
        return Err(Error::invalid(OPERATION, "the Dockerfile has no FROM")
            .hint("start the Dockerfile with `FROM` and a base image"));
    }
    let mut named_images = reader.images.clone();
    for (escape, lines) in readings(text) {
        for image in Reader::read(escape, lines)?.images {
            add(&mut named_images, image)?;
        }
    }
    Ok(DockerfileSummary {
        base_images: reader.images.into_iter().map(|image| image.name).collect(),
        named_images,
        port: reader.port,
        text: without_syntax(text, &directives),
    })
}

/// The text with another directive in the place of `# syntax=`: an empty line would end the directives.
fn without_syntax(text: &str, directives: &[Directive]) -> String {
    let is_syntax = |number| directives.iter().any(|found| found.line == number && found.name == "syntax");
    let line = |(index, line)| match line {
        "\n" | "\r\n" => line,
        line if !is_syntax(index + 1) => line,
        line if line.ends_with('\n') => "# frontend=built-in\n",
        _ => "# frontend=built-in",
    };
    text.split_inclusive('\n').enumerate().map(line).collect()
}

/// Adds an image that is not there yet.
fn add(images: &mut Vec<NamedImage>, image: NamedImage) -> Result<()> {
    if images.iter().any(|known| known.name == image.name) {
        return Ok(());
    }
    if images.len() == MAX_IMAGES {
        return Err(too_large(image.line, &format!("uses more than {MAX_IMAGES} images"))
            .hint("use fewer base images"));
    }
    images.push(image);
    Ok(())
}

fn too_large(line: usize, what: &str) -> Error {
    Error::invalid(OPERATION, format!("the Dockerfile {what} (line {line})")).code("too_large")
}

#[derive(Default)]
struct Reader {
    images: Vec<NamedImage>,
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
    fn read(escape: char, lines: Vec<(usize, String)>) -> Result<Self> {
        let mut reader = Self::default();
        for (line, text) in lines {
            reader.take(&Instruction::parse(line, &text, escape), escape)?;
        }
        Ok(reader)
    }

    fn take(&mut self, instruction: &Instruction, escape: char) -> Result<()> {
        match instruction.keyword.as_str() {
            "FROM" => self.start_stage(instruction, escape)?,
            "ARG" => {
                for word in &instruction.words {
                    self.define(instruction.line, word)?;
                }
            }
            "ENV" => match instruction.words.as_slice() {
                [name, value] if !name.contains('=') => {
                    self.define(instruction.line, &format!("{name}={value}"))?;
                }
                words => {
                    for word in words {
                        self.define(instruction.line, word)?;
                    }
                }
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
                    for image in mount.split(',').filter_map(from_option) {
                        self.use_image(instruction.line, image)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A value that is not known here leaves the variable unknown, so that no image's name is worked out from it.
    fn define(&mut self, line: usize, word: &str) -> Result<()> {
        // `ARG NAME` in a stage takes the value from before the first `FROM`.
        let inherited = self.global.get(word).cloned();
        let is_in_stage = self.stages > 0;
        let scope = if is_in_stage { &mut self.local } else { &mut self.global };
        match word.split_once('=') {
            Some((name, value)) => {
                let value = words::expand(value, scope);
                scope.insert(name.to_owned(), value);
            }
            None => {
                if let Some(value) = inherited {
                    // Before the first `FROM`, engines differ in whether this takes the value away.
                    scope.insert(word.to_owned(), value.filter(|_| is_in_stage));
                } else {
                    scope.remove(word);
                }
            }
        }
        if scope.len() > MAX_VARIABLES {
            return Err(too_large(line, &format!("sets more than {MAX_VARIABLES} variables"))
                .hint("use fewer ARG and ENV"));
        }
        Ok(())
    }

    fn start_stage(&mut self, instruction: &Instruction, escape: char) -> Result<()> {
        // Here the frontend looks at spaces alone: quotes and escapes join no words.
        let words: Vec<&str> = instruction.text.split_whitespace().collect();
        let (image, name) = match words.as_slice() {
            [image] => (image, None),
            [image, r#as, name] if r#as.eq_ignore_ascii_case("as") => {
                (image, Some(name.to_ascii_lowercase()))
            }
            // Not a stage to any frontend: inside of a heredoc it is a line like others, elsewhere the build says so.
            _ => return Ok(()),
        };
        let expanded = words::next(image, escape).and_then(|(image, _)| words::expand(&image, &self.global));
        let Some(image) = expanded else {
            return Err(Error::invalid(
                OPERATION,
                format!("the Dockerfile's line {} starts from an image that is not known", instruction.line),
            )
            .hint("give each variable in `FROM` a default: `ARG NAME=value` before the first `FROM`"));
        };
        self.add(words::bare(&image), instruction.line)?;
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
        if name.parse::<u32>().is_ok() { Ok(()) } else { self.add(words::bare(name), line) }
    }

    fn add(&mut self, name: String, line: usize) -> Result<()> {
        let is_stage = name == "scratch" || self.names.contains(&name.to_ascii_lowercase());
        if is_stage || name.is_empty() {
            return Ok(());
        }
        add(&mut self.images, NamedImage { name, line })
    }
}

/// The value of `from=` in an option of a mount, whose names may be in capitals, and which may be quoted.
fn from_option(option: &str) -> Option<&str> {
    let (name, value) = option.split_once('=')?;
    name.trim().trim_start_matches('"').trim_start().eq_ignore_ascii_case("from").then_some(value)
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

    fn summary(text: &str) -> DockerfileSummary {
        read_dockerfile(text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
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
            let error = read_dockerfile(text).unwrap_err();
            assert_eq!((error.kind(), error.whose()), (Kind::Invalid, Fault::User), "{text}");
            assert!(error.hinted().is_some(), "{text}");
        }
    }

    #[test]
    fn many_stages_are_read_and_many_images_refused() {
        assert_eq!(summary(&"FROM a\n".repeat(100_000)).base_images, ["a"]);
        let many: String = (0..100_000).map(|n| format!("FROM a{n}\n")).collect();
        assert_eq!(read_dockerfile(&many).unwrap_err().reason(), Some("too_large"));
    }

    #[test]
    fn definitions_that_double_each_other_are_bounded() {
        let mut text = "ARG A0=xxxxxxxx\n".to_owned();
        for n in 1..200 {
            text += &format!("ARG A{n}=$A{}$A{}\n", n - 1, n - 1);
        }
        assert!(read_dockerfile(&(text + "FROM $A199")).is_err());
    }

    fn named(text: &str) -> Vec<String> {
        summary(text).named_images.into_iter().map(|image| image.name).collect()
    }

    #[test]
    fn every_way_to_name_an_image_is_seen() {
        for text in [
            "FROM a\nFROM theirs\\  AS b",
            "FROM a\nfrom --platform=\"linux amd64\" 'theirs'",
            "FROM a\nADD --from=theirs /x /y",
            "FROM a\nCOPY \\\n # a comment\n\n --from=theirs /x /y",
            "FROM a\r\nCOPY --fr\\om='theirs' /x /y\r\n",
            "FROM a\nCOPY --chown=\u{e0}--from=theirs /x /y",
            "FROM a\nONBUILD ONBUILD COPY --from=theirs /x /y",
            "FROM a\nRUN --mount=type=bind,From=theirs,target=/x ls",
            "FROM a\nRUN --mount=type=bind,from=a,from=theirs ls",
            "FROM a\nRUN --mount=target=\"/x y\",from=theirs ls",
            "FROM a\nRUN --mount='type=bind,\"from=theirs\",target=/x' ls",
            "FROM a\nRUN --mount=type=cache,target=/x \\\n  --mount=\"from=theirs\" ls",
            "FROM a\nRUN echo \\\\\nFROM theirs",
            "# a comment\n# escape=`\nFROM a\nCOPY \\\n --from=theirs /x /y",
            "# escape=`\nFROM a\nCOPY `\n --from=theirs /x /y",
            "FROM a\nRUN <<E\ncat \\\nE\nFROM theirs",
            "ARG A=the B=x\nARG Ax=a\nARG C=$A\"irs\"\nFROM a\nFROM $C",
            "ARG A=theirs\nFROM a\nFROM \"$A\"",
        ] {
            assert!(named(text).contains(&"theirs".to_owned()), "{text}: {:?}", named(text));
        }
    }

    #[test]
    fn no_image_hides_behind_a_variable_that_is_not_known() {
        let long = "x".repeat(5000);
        for arguments in [
            format!("ARG A={long}"),
            "ARG A='$B'".to_owned(),
            "ARG A=\\$B".to_owned(),
            "ARG A=1\nARG A".to_owned(),
            "ARG A=$TARGETARCH".to_owned(),
            "ARG A=$BUILDKIT_CACHE_MOUNT_NS".to_owned(),
        ] {
            for image in ["${A:+theirs}", "a${A:-b}", "$A"] {
                let error = read_dockerfile(&format!("{arguments}\nFROM {image}")).unwrap_err();
                assert_eq!(error.kind(), Kind::Invalid, "{arguments}: {image}");
            }
        }
    }

    #[test]
    fn hostile_texts_are_bounded() {
        let references = format!("ARG X={}\nFROM a", "$A".repeat(100_000));
        assert_eq!(summary(&references).base_images, ["a"]);
        let onbuild = format!("FROM a\n{}RUN x", "ONBUILD ".repeat(100_000));
        assert_eq!(summary(&onbuild).base_images, ["a"]);
        let arguments: String = (0..100_000).map(|n| format!("ARG A{n}=x\n")).collect();
        assert_eq!(read_dockerfile(&(arguments + "FROM a")).unwrap_err().reason(), Some("too_large"));
    }

    #[test]
    fn the_engine_gets_no_syntax_line_and_the_same_line_numbers() {
        let text = |text| summary(text).text;
        assert_eq!(
            text("# syntax=docker/dockerfile:1\r\n# escape=`\nFROM a"),
            "# frontend=built-in\n# escape=`\nFROM a"
        );
        assert_eq!(text("\u{feff}FROM a\n# syntax=evil\n"), "FROM a\n# syntax=evil\n");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "((FROM|RUN|ADD|COPY|ARG|ENV|EXPOSE|ONBUILD|# syntax=)?[ -~\\n]{0,30}\n?){0,12}") {
            let _ = read_dockerfile(&text);
        }

        #[test]
        fn any_characters_are_read_or_refused(text in "\\PC{0,80}") {
            let _ = read_dockerfile(&text);
        }
    }
}
