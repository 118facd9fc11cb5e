//! Words of a Dockerfile's line: quotes, escapes and variables.

use std::collections::BTreeMap;

/// The variables that are set at a place; `None` where the value cannot be known.
pub(super) type Variables = BTreeMap<String, Option<String>>;

/// Longer values are refused: definitions that double each other would grow without end.
const MAX_VALUE_BYTES: usize = 4096;
const MAX_NESTING: usize = 8;

/// Stands in a word where a quote ended the name of a variable, and behind a `$` that is no variable's.
const MARK: char = '\0';

/// The first word, and what follows it: words end at spaces, quotes and escapes are taken away, variables stay.
pub(super) fn next(text: &str, escape: char) -> Option<(String, &str)> {
    let text = text.trim_start();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        if quote == Some(c) {
            quote = None;
            end_variable(&mut word);
        } else if c == escape && quote != Some('\'') {
            end_variable(&mut word);
            if let Some((_, escaped)) = characters.next() {
                push_literal(&mut word, escaped);
            }
        } else if quote.is_none() && (c == '"' || c == '\'') {
            quote = Some(c);
            end_variable(&mut word);
        } else if quote.is_none() && c.is_whitespace() {
            return Some((word, &text[at..]));
        } else if quote == Some('\'') {
            push_literal(&mut word, c);
        } else {
            word.push(c);
        }
    }
    (!text.is_empty()).then_some((word, ""))
}

fn end_variable(word: &mut String) {
    if word.rsplit_once('$').is_some_and(|(_, name)| name_length(name) == name.len()) {
        word.push(MARK);
    }
}

fn push_literal(word: &mut String, c: char) {
    word.push(c);
    if c == '$' {
        word.push(MARK);
    }
}

/// All words.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut rest = text;
    std::iter::from_fn(|| {
        let (word, after) = next(rest, escape)?;
        rest = after;
        Some(word)
    })
    .collect()
}

/// The leading words that start with `--`, without quotes, and what follows them. Byte by byte, as the engine's
/// frontend does it, to which a part of a letter may be a space: what it takes for a flag is one here.
pub(super) fn flags(text: &str) -> (Vec<String>, String) {
    let is_space = |byte: u8| matches!(byte, b'\t'..=b'\r' | b' ' | 0x85 | 0xa0);
    let mut flags = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        rest = &rest[rest.iter().take_while(|byte| is_space(**byte)).count()..];
        if !rest.starts_with(b"--") {
            break;
        }
        let mut flag = Vec::new();
        let mut quote = None;
        let mut bytes = rest.iter().copied().enumerate();
        let mut end = rest.len();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'\\' => flag.extend(bytes.next().map(|(_, escaped)| escaped)),
                _ if quote == Some(byte) => quote = None,
                b'"' | b'\'' if quote.is_none() => quote = Some(byte),
                _ if quote.is_none() && is_space(byte) => {
                    end = at;
                    break;
                }
                _ => flag.push(byte),
            }
        }
        rest = &rest[end..];
        if flag == b"--" {
            break;
        }
        flags.push(String::from_utf8_lossy(&flag).into_owned());
    }
    (flags, String::from_utf8_lossy(rest).trim_start().to_owned())
}

/// A word without quotes, escapes and spaces, none of which can be part of an image's name: what is left is the
/// name that the engine reads, if it reads one.
pub(super) fn bare(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '"' | '\'' | '\\' | '`') && !c.is_whitespace()).collect()
}

/// Puts in the values of variables: `$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME:+word}`. `None` if one is not
/// known, or the form is not, or the result is too long.
pub(super) fn expand(word: &str, variables: &Variables) -> Option<String> {
    expand_within(word, variables, MAX_NESTING).map(|expanded| expanded.replace(MARK, ""))
}

fn expand_within(word: &str, variables: &Variables, nesting: usize) -> Option<String> {
    let nesting = nesting.checked_sub(1)?;
    let mut expanded = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(inner) = rest.strip_prefix('{') {
            let end = closing_brace(inner)?;
            let (name, modifier) = inner[..end].split_at(name_length(&inner[..end]));
            rest = &inner[end + 1..];
            let value =
                value(name, variables)?.filter(|value| !value.is_empty() || !modifier.starts_with(':'));
            let modifier = modifier.strip_prefix(':').unwrap_or(modifier);
            match (modifier.chars().next(), value) {
                (None, value) => expanded.push_str(value?),
                (Some('-'), Some(value)) => expanded.push_str(value),
                (Some('-'), None) | (Some('+'), Some(_)) => {
                    expanded.push_str(&expand_within(&modifier[1..], variables, nesting)?);
                }
                (Some('+'), None) => {}
                _ => return None,
            }
        } else {
            let (name, after) = rest.split_at(name_length(rest));
            expanded.push_str(value(name, variables)??);
            rest = after;
        }
        if expanded.len() > MAX_VALUE_BYTES {
            return None;
        }
    }
    expanded.push_str(rest);
    (expanded.len() <= MAX_VALUE_BYTES).then_some(expanded)
}

/// The value of a variable, `None` within where it is not set; `None` if it cannot be known.
fn value<'a>(name: &str, variables: &'a Variables) -> Option<Option<&'a str>> {
    const OF_THE_ENGINE: [&str; 9] = [
        "BUILDARCH",
        "BUILDOS",
        "BUILDPLATFORM",
        "BUILDVARIANT",
        "TARGETARCH",
        "TARGETOS",
        "TARGETPLATFORM",
        "TARGETSTAGE",
        "TARGETVARIANT",
    ];
    let starts_as_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_as_name || OF_THE_ENGINE.contains(&name) || name.starts_with("BUILDKIT_") {
        return None;
    }
    match variables.get(name) {
        Some(Some(value)) => Some(Some(value)),
        Some(None) => None,
        None => Some(None),
    }
}

fn name_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}

fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_the_frontend_does() {
        assert_eq!(split("a  b\tc", '\\'), ["a", "b", "c"]);
        assert_eq!(split(r#"--net"work"='host' x"#, '\\'), ["--network=host", "x"]);
        assert_eq!(split(r#"a\ b "c\"d" 'e\f' """#, '\\'), ["a b", "c\"d", "e\\f", ""]);
        assert_eq!(split(r"C:\x a`b", '`'), [r"C:\x", "ab"]);
    }

    #[test]
    fn flags_are_read_as_the_frontend_reads_them() {
        for (text, expected, rest) in [
            ("--a=1  --b x --c", vec!["--a=1", "--b"], "x --c"),
            (r#"--a="x y",from=z w"#, vec!["--a=x y,from=z"], "w"),
            (r#"--a='x\'y' w"#, vec!["--a=x'y"], "w"),
            (r"--a=x\ y w", vec!["--a=x y"], "w"),
            ("-- --a w", vec![], "--a w"),
            // The last byte of this letter is a space to the engine.
            ("--a=\u{e0}--from=z w", vec!["--a=\u{fffd}", "--from=z"], "w"),
        ] {
            assert_eq!(
                flags(text),
                (expected.into_iter().map(str::to_owned).collect(), rest.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn expands_what_is_known() {
        let variables = Variables::from([
            ("A".into(), Some("1".into())),
            ("EMPTY".into(), Some(String::new())),
            ("UNKNOWN".into(), None),
        ]);
        for (word, expected) in [
            ("x:$A", Some("x:1")),
            ("${A}b", Some("1b")),
            ("${B:-2}", Some("2")),
            ("${B:-${A}}", Some("1")),
            ("${EMPTY:-3}", Some("3")),
            ("${EMPTY-3}", Some("")),
            ("${A:+4}", Some("4")),
            ("${B:+4}", Some("")),
            ("$B", None),
            ("${UNKNOWN:+x}", None),
            ("${UNKNOWN:-x}", None),
            ("${TARGETARCH:-x}", None),
            ("${BUILDKIT_CACHE_MOUNT_NS:+x}", None),
            ("$1", None),
            (r#""$A"x"#, Some("1x")),
            (r#"$A"x""#, Some("1x")),
            (r"'$A'", None),
            (r"\$A", None),
            ("${A#x}", None),
            ("${A", None),
            ("$", None),
        ] {
            let (unquoted, _) = next(word, '\\').unwrap();
            assert_eq!(expand(&unquoted, &variables).as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn growth_and_nesting_are_bounded() {
        let long = Variables::from([("A".into(), Some("x".repeat(3000)))]);
        assert_eq!(expand("$A$A", &long), None);
        let deep = format!("{}{}", "${A:-".repeat(100_000), "}".repeat(100_000));
        assert_eq!(expand(&deep, &Variables::new()), None);
    }
}
