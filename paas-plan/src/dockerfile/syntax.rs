//! Lines of a Dockerfile, joined to instructions.

use super::words;

/// An instruction of a Dockerfile.
#[derive(Debug)]
pub(super) struct Instruction {
    /// Where it starts, from 1.
    pub(super) line: usize,
    /// In capitals.
    pub(super) keyword: String,
    /// The words behind it that start with `--`, without quotes.
    pub(super) flags: Vec<String>,
    /// The other words, without quotes.
    pub(super) words: Vec<String>,
    /// What follows the flags, as it stands there.
    pub(super) text: String,
}

impl Instruction {
    /// Reads one logical line. What an `ONBUILD` carries counts as if it stood alone.
    pub(super) fn parse(line: usize, text: &str, escape: char) -> Self {
        let mut rest = text.trim();
        loop {
            let (keyword, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let after = after.trim_start();
            if keyword.eq_ignore_ascii_case("onbuild") && !after.is_empty() {
                rest = after;
                continue;
            }
            let (flags, text) = words::flags(after);
            return Self {
                line,
                keyword: keyword.to_ascii_uppercase(),
                flags,
                words: words::split(&text, escape),
                text,
            };
        }
    }

    /// The values of a flag.
    pub(super) fn flag<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.flags.iter().filter_map(move |flag| match flag.strip_prefix("--")?.split_once('=') {
            Some((key, value)) => (key == name).then_some(value),
            None => (&flag[2..] == name).then_some(""),
        })
    }
}

/// A comment of the form `# name=value` before everything else, which steers the parser.
#[derive(Debug)]
pub(super) struct Directive {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) value: String,
}

/// The directives at the start.
pub(super) fn directives(text: &str) -> Vec<Directive> {
    let mut directives = Vec::new();
    for (index, line) in text.lines().enumerate() {
        // Newer frontends pass over a `#!` line.
        if index == 0 && line.starts_with("#!") {
            continue;
        }
        let Some((name, value)) = line.trim().strip_prefix('#').and_then(|line| line.split_once('=')) else {
            break;
        };
        let name = name.trim();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            break;
        }
        directives.push(Directive {
            line: index + 1,
            name: name.to_ascii_lowercase(),
            value: value.trim().to_owned(),
        });
    }
    directives
}

/// Which lines continue on the next one. Frontends differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joining {
    /// Those that end with the escape character.
    Escaped,
    /// Those that end with one of them, not with two: newer frontends.
    EscapedOnce,
    /// None: what stands in a heredoc to one frontend is instructions to another.
    Never,
}

/// The text in every way in which a frontend may read it: the escape character and the logical lines.
pub(super) fn readings(text: &str) -> impl Iterator<Item = (char, Vec<(usize, String)>)> {
    ['\\', '`'].into_iter().flat_map(move |escape| {
        [Joining::Escaped, Joining::EscapedOnce, Joining::Never]
            .map(|joining| (escape, logical_lines(text, escape, joining)))
    })
}

/// The logical lines: comments are left out, continued lines joined.
pub(super) fn logical_lines(text: &str, escape: char, joining: Joining) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut current: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (_, joined) = current.get_or_insert_with(|| (index + 1, String::new()));
        let continued = line.trim_end().strip_suffix(escape).filter(|start| match joining {
            Joining::Escaped => true,
            Joining::EscapedOnce => !start.ends_with(escape),
            Joining::Never => false,
        });
        if let Some(start) = continued {
            joined.push_str(start);
        } else {
            joined.push_str(line);
            lines.extend(current.take());
        }
    }
    lines.extend(current);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_lines_and_leaves_out_comments() {
        let text = "# a\nRUN one \\\n  # between\n\n  two\r\nCMD x \\  \ny\nRUN open \\";
        assert_eq!(
            logical_lines(text, '\\', Joining::Escaped),
            [(2, "RUN one   two".to_owned()), (6, "CMD x y".to_owned()), (8, "RUN open ".to_owned())]
        );
    }

    #[test]
    fn a_doubled_escape_joins_in_some_frontends() {
        let lines = |joining| logical_lines("RUN a \\\\\nFROM b", '\\', joining).len();
        assert_eq!(lines(Joining::Escaped), 1);
        assert_eq!(lines(Joining::EscapedOnce), 2);
        assert_eq!(lines(Joining::Never), 2);
    }

    #[test]
    fn directives_end_where_anything_else_begins() {
        let found = directives("#!/x\n# Syntax = a/b\n#escape=`\n# a comment\n# syntax=c");
        let found: Vec<_> = found.iter().map(|d| (d.line, d.name.as_str(), d.value.as_str())).collect();
        assert_eq!(found, [(2, "syntax", "a/b"), (3, "escape", "`")]);
    }

    #[test]
    fn flags_come_before_the_words() {
        let run = Instruction::parse(1, "onbuild run --mount=type=ssh --\"network\"=host echo --x=y", '\\');
        assert_eq!(run.keyword, "RUN");
        assert_eq!(run.flag("network").collect::<Vec<_>>(), ["host"]);
        assert_eq!(run.flag("x").count(), 0);
        assert_eq!(run.words, ["echo", "--x=y"]);
    }
}
