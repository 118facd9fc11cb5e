//! What must not be in a Dockerfile: whatever would leave the build's sandbox.

use paas_core::{Error, Result};

use super::syntax::{Directive, Instruction, readings};
use crate::OPERATION;

/// The error of a line that must not be in a Dockerfile.
pub(super) fn unsafe_line(line: usize, what: &str) -> Error {
    Error::invalid(OPERATION, format!("the Dockerfile's line {line} {what}")).code("unsafe_dockerfile")
}

/// A frontend is a program that the engine runs in place of its own parser: only the engine's own, and the
/// released versions of the one it comes from, are let in.
pub(super) fn refuse_frontends(text: &str, directives: &[Directive]) -> Result<()> {
    let refuse = |line| {
        Err(unsafe_line(line, "asks for another frontend")
            .hint("remove the `# syntax=` line, or use `# syntax=docker/dockerfile:1`"))
    };
    // Newer frontends also read `// syntax=` and a JSON object; neither can start a Dockerfile.
    let first = text.lines().enumerate().find(|(_, line)| !line.trim().is_empty() && !line.starts_with("#!"));
    if let Some((index, line)) = first
        && line.trim_start().starts_with(['/', '{'])
    {
        return refuse(index + 1);
    }
    for directive in directives.iter().filter(|directive| directive.name == "syntax") {
        let tag = directive.value.strip_prefix("docker.io/").unwrap_or(&directive.value);
        let is_released = tag.strip_prefix("docker/dockerfile:").is_some_and(|tag| {
            !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        });
        if !is_released {
            return refuse(directive.line);
        }
    }
    Ok(())
}

/// Refuses what would reach out of the build's sandbox, in whichever way the lines are read.
pub(super) fn refuse_unsafe_lines(text: &str) -> Result<()> {
    for (escape, lines) in readings(text) {
        for (line, text) in lines {
            refuse_unsafe(&Instruction::parse(line, &text, escape))?;
        }
    }
    Ok(())
}

fn refuse_unsafe(instruction: &Instruction) -> Result<()> {
    let line = instruction.line;
    match instruction.keyword.as_str() {
        "RUN" => {
            if instruction.flag("security").any(|value| value != "sandbox") {
                return Err(unsafe_line(line, "runs a step without its sandbox")
                    .hint("remove `--security` from the RUN"));
            }
            if instruction.flag("network").any(|value| value != "default" && value != "none") {
                return Err(unsafe_line(line, "runs a step in the host's network")
                    .hint("remove `--network` from the RUN: steps have a network of their own"));
            }
            if instruction.flag("device").next().is_some() {
                return Err(
                    unsafe_line(line, "asks for a device of the host").hint("remove `--device` from the RUN")
                );
            }
            Ok(())
        }
        // The engine itself would fetch it, from where it can reach what the build must not.
        "ADD" if adds_from_network(instruction) => Err(unsafe_line(line, "adds a file from the network")
            .hint("fetch it in a RUN with curl or wget: steps have a network of their own")),
        _ => Ok(()),
    }
}

/// True if an `ADD` may name an address. A list in JSON that only some parsers understand may name anything.
fn adds_from_network(instruction: &Instruction) -> bool {
    match serde_json::from_str::<Vec<String>>(&instruction.text) {
        Ok(sources) => sources.iter().any(|source| may_be_remote(source)),
        Err(_) if instruction.text.starts_with('[') && instruction.text.contains('"') => true,
        Err(_) => instruction.words.iter().any(|source| may_be_remote(source)),
    }
}

/// True if the engine may take `source` for an address, whatever its variables turn out to be.
fn may_be_remote(source: &str) -> bool {
    const SCHEMES: [&str; 5] = ["http://", "https://", "git://", "ssh://", "git@"];
    let source = source.to_ascii_lowercase();
    match source.split_once('$') {
        Some((before, _)) => SCHEMES.iter().any(|s| s.starts_with(before) || before.starts_with(s)),
        None => SCHEMES.iter().any(|scheme| source.starts_with(scheme)) || source.starts_with("github.com/"),
    }
}

#[cfg(test)]
mod tests {
    use paas_core::{Fault, Kind};

    use super::super::read_dockerfile;

    #[test]
    fn what_leaves_the_sandbox_is_refused_with_its_line() {
        for (line, text) in [
            (1, "# syntax=evil/frontend:1\nFROM a"),
            (1, "#SYNTAX = docker/dockerfile:1-labs\nFROM a"),
            (1, "# syntax=docker/dockerfile-upstream:master\nFROM a"),
            (2, "# escape=`\n# syntax=docker/dockerfile:1@sha256:abc\nFROM a"),
            (2, "#!/x\n# syntax=evil\nFROM a"),
            (1, "// syntax=evil\nFROM a"),
            (1, "{\"syntax\":\"evil\"}\nFROM a"),
            (1, "\u{feff}# syntax=evil\nFROM a"),
            (2, "FROM a\nRUN --security=insecure id"),
            (2, "FROM a\n  run --network=host id"),
            (2, "FROM a\nRUN --mount=type=ssh --network=host id"),
            (2, "FROM a\nRUN --net\"work\"='host' id"),
            (2, "FROM a\nRUN --network=$X id"),
            (2, "FROM a\nRUN --network\\=host id"),
            (2, "FROM a\nONBUILD RUN --network=host id"),
            (2, "FROM a\nRUN --net\\\nwork=host id"),
            (4, "# escape=`\nFROM a\nRUN echo \\\nRUN --network=host id"),
            (3, "FROM a\nRUN echo \\\\\nRUN --network=host id"),
            (3, "FROM a\nRUN cat <<EOF\nRUN --network=host id\nEOF"),
            (3, "# x=y\n# escape=`\nRUN --net\\\nwork=host id"),
            (2, "FROM a\nRUN --mount=type=bind,From=$X id"),
            (2, "FROM a\nRUN --device=nvidia id"),
            (2, "FROM a\nADD http://169.254.169.254/ /x"),
            (2, "FROM a\nADD [\"HTTPS://example.com/x\", \"/x\"]"),
            (2, "FROM a\nADD --chown=[1] [\"\\u0068ttp://example.com/x\", \"/x\"]"),
            (2, "FROM a\nADD [\"http://example.com/\\ud800\", \"/x\"]"),
            (3, "FROM a\nARG U\nADD ${U} /x"),
            (3, "FROM a\nARG U\nADD ht$U /x"),
            (2, "FROM a\nADD git@example.com:x/y.git /x"),
            (2, "FROM a\nCOPY --from=$X /x /x"),
        ] {
            let error = read_dockerfile(text).map(|summary| format!("{text}: {summary:?}")).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{text}");
            assert_eq!(error.whose(), Fault::User, "{text}");
            assert_eq!(error.reason(), Some("unsafe_dockerfile"), "{text}");
            assert!(error.message().contains(&format!("line {line} ")), "{text}: {error}");
            assert!(error.hinted().is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_harmless_is_let_in() {
        for text in [
            "# syntax=docker/dockerfile:1\nFROM a",
            "# syntax=docker.io/docker/dockerfile:1.7\nFROM a",
            "# a comment\n# syntax=evil\nFROM a",
            "FROM a\nRUN --network=none --security=sandbox id",
            "FROM a\nRUN docker run --network=host x",
            "FROM a\nADD files-${VERSION}.tar.gz /x",
            "FROM a\nADD [\"a\", \"/x\"]",
            "FROM a\nADD --chown=1:1 [ab].txt /x",
        ] {
            assert!(read_dockerfile(text).is_ok(), "{text}");
        }
    }
}
