//! Values of the core as both databases keep them.

use jiff::Timestamp;
use paas_core::{Scope, WorkClass};

/// Nanoseconds since 1970; what lies beyond the year 2262 is kept as that.
pub(crate) fn nanoseconds(time: Timestamp) -> i64 {
    let bounded = time.as_nanosecond().clamp(i64::MIN.into(), i64::MAX.into());
    i64::try_from(bounded).unwrap_or(i64::MAX)
}

/// A number that may come from outside: beyond what a database holds it matches nothing.
pub(crate) fn bounded(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The owner that a text stands for.
pub(crate) fn owner(text: &str) -> paas_core::Result<Scope> {
    if text == Scope::System.as_str() { Ok(Scope::System) } else { text.parse().map(Scope::Org) }
}

/// The class that a text stands for.
pub(crate) fn class(text: &str) -> Option<WorkClass> {
    WorkClass::ALL.into_iter().find(|class| class.as_str() == text)
}
