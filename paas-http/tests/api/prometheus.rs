//! A strict reader of Prometheus' text format: what it takes, a real one takes.

use std::collections::BTreeMap;

/// Every sample, by its name and labels as they are written.
///
/// Panics at anything that the format, or its conventions, do not allow: a sample without HELP and TYPE before it, one
/// that is not with its family or comes twice, a counter that is not called `_total` or is negative, a histogram whose
/// buckets do not grow up to its count.
pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let (mut samples, mut families) = (BTreeMap::new(), BTreeMap::new());
    let mut family: (&str, &str) = ("", "");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect(line);
            assert!(is_name(name) && help.len() > 10 && help.ends_with('.'), "{line}");
            let r#type = lines.next().and_then(|next| next.strip_prefix(&format!("# TYPE {name} ")));
            let r#type = r#type.unwrap_or_else(|| panic!("no type behind: {line}"));
            assert!(["counter", "gauge", "histogram"].contains(&r#type), "{line}");
            assert_eq!(r#type == "counter", name.ends_with("_total"), "{line}");
            assert!(families.insert(name, r#type).is_none(), "twice: {line}");
            family = (name, r#type);
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect(line);
        let value: f64 = value.parse().expect(line);
        let (name, labels) = match sample.split_once('{') {
            Some((name, labels)) => (name, read_labels(labels)),
            None => (sample, Vec::new()),
        };
        let suffix = name.strip_prefix(family.0).unwrap_or_else(|| panic!("not with its family: {line}"));
        match family.1 {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert!(suffix.is_empty(), "{line}"),
        }
        assert!(family.1 == "gauge" || value >= 0.0, "{line}");
        assert_eq!(suffix == "_bucket", labels.iter().any(|(label, _)| label == "le"), "{line}");
        assert!(samples.insert(sample.to_owned(), value).is_none(), "twice: {line}");
    }
    let histograms = families.iter().filter(|(_, r#type)| **r#type == "histogram");
    histograms.for_each(|(name, _)| check_buckets(text, name, &samples));
    samples
}

/// The buckets of each series, in the order of the text, grow with their bounds, and the last one is the count.
fn check_buckets(text: &str, name: &str, samples: &BTreeMap<String, f64>) {
    let mut before: Option<(String, f64, f64)> = None;
    for line in text.lines().filter(|line| line.starts_with(&format!("{name}_bucket{{"))) {
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        let (series, bound) = sample.rsplit_once("le=\"").expect(line);
        let bound: f64 = bound.trim_end_matches("\"}").parse().expect(line);
        if let Some((last, lower, count)) = &before
            && last == series
        {
            assert!(*lower < bound && *count <= value, "{line}");
        }
        if bound.is_infinite() {
            let series = series.trim_end_matches(',').replacen("_bucket", "_count", 1) + "}";
            let series = series.replace("{}", "");
            assert_eq!(samples.get(&series), Some(&value), "{line}");
        }
        before = Some((series.to_owned(), bound, value));
    }
    assert!(before.is_none_or(|(_, bound, _)| bound.is_infinite()), "{name} has no last bucket");
}

fn read_labels(text: &str) -> Vec<(String, String)> {
    let text = text.strip_suffix('}').expect(text);
    let labels = text.split(',').map(|label| {
        let (name, value) = label.split_once('=').expect(text);
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect(text);
        assert!(is_name(name) && !value.contains(['"', '\\', '\n']), "{text}");
        (name.to_owned(), value.to_owned())
    });
    labels.collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
        && !text.starts_with(|c: char| c.is_ascii_digit())
}
