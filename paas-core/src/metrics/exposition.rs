//! Prometheus' text format, version 0.0.4.

use std::fmt::Write;

use super::{Family, Series, Type, Value};

/// The families in Prometheus' text format. Names, helps and labels are in the program's text: they hold nothing that
/// needs escaping.
#[must_use]
pub fn exposition(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        // Writing to a string does not fail.
        let _ = write_family(&mut text, family);
    }
    text
}

fn write_family(out: &mut String, family: &Family) -> std::fmt::Result {
    let name = family.name;
    let r#type = match family.r#type {
        Type::Counter => "counter",
        Type::Gauge => "gauge",
        Type::Histogram => "histogram",
    };
    writeln!(out, "# HELP {name} {}\n# TYPE {name} {type}", family.help)?;
    for Series { labels, value } in &family.series {
        let labels: Vec<_> =
            family.labels.iter().zip(labels).map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        match value {
            Value::Number(number) => writeln!(out, "{name}{} {number}", braced(&labels))?,
            Value::Distribution { buckets, sum, count } => {
                for (bound, count) in buckets {
                    write_bucket(out, name, &labels, &bound.to_string(), *count)?;
                }
                write_bucket(out, name, &labels, "+Inf", *count)?;
                writeln!(out, "{name}_sum{labels} {sum}", labels = braced(&labels))?;
                writeln!(out, "{name}_count{labels} {count}", labels = braced(&labels))?;
            }
        }
    }
    Ok(())
}

fn write_bucket(
    out: &mut String,
    name: &str,
    labels: &[String],
    bound: &str,
    count: u64,
) -> std::fmt::Result {
    let labels = [labels, &[format!("le=\"{bound}\"")]].concat();
    writeln!(out, "{name}_bucket{} {count}", braced(&labels))
}

fn braced(labels: &[String]) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) }
}
