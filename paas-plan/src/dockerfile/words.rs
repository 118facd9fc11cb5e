//! Words of a Dockerfile's line: quotes, escapes and variables.

use std::collections::BTreeMap;

/// The variables that are known at a place.
pub(super) type Variables = BTreeMap<String, String>;

/// Longer values are refused: definitions that double each other would grow without end.
const MAX_VALUE_BYTES: usize = 4096;
const MAX_NESTING: usize = 8;

/// The first word, and what follows it: words end at spaces, quotes and escapes are taken away, variables stay.
pub(super) fn next(text: &str, escape: char) -> Option<(String, &str)> {
    let text = text.trim_start();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        if quote == Some(c) {
            quote = None;
        } else if c == escape && quote != Some('\'') {
            word.extend(characters.next().map(|(_, escaped)| escaped));
        } else if quote.is_none() && (c == '"' || c == '\'') {
            quote = Some(c);
        } else if quote.is_none() && c.is_whitespace() {
            return Some((word, &text[at..]));
        } else {
            word.push(c);
        }
    }
    (!text.is_empty()).then_some((word, ""))
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

/// Puts in the values of variables: `$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME:+word}`. `None` if one is not
/// known, or the form is not, or the result is too long.
pub(super) fn expand(word: &str, variables: &Variables) -> Option<String> {
    expand_within(word, variables, MAX_NESTING)
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
            let value = variables.get(name).filter(|value| !value.is_empty() || !modifier.starts_with(':'));
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
            expanded.push_str(variables.get(name)?);
            rest = after;
        }
        if expanded.len() > MAX_VALUE_BYTES {
            return None;
        }
    }
    expanded.push_str(rest);
    (expanded.len() <= MAX_VALUE_BYTES).then_some(expanded)
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
    fn expands_what_is_known() {
        let variables = Variables::from([("A".into(), "1".into()), ("EMPTY".into(), String::new())]);
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
            ("${A#x}", None),
            ("${A", None),
            ("$", None),
        ] {
            assert_eq!(expand(word, &variables).as_deref(), expected, "{word}");
        }
    }

    #[test]
    fn growth_and_nesting_are_bounded() {
        let long = Variables::from([("A".into(), "x".repeat(3000))]);
        assert_eq!(expand("$A$A", &long), None);
        let deep = format!("{}{}", "${A:-".repeat(100_000), "}".repeat(100_000));
        assert_eq!(expand(&deep, &Variables::new()), None);
    }
}
