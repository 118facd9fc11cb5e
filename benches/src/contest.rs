//! Contestants take turns; medians and ratios come out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one turn of one contestant came to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// The figure that is compared: operations a second, or milliseconds.
    pub(crate) value: f64,
    /// Processor time, in microseconds for each operation, where it was taken.
    pub(crate) processor_micros: Option<f64>,
}

impl Turn {
    /// A turn of `operations` in `seconds` of time and `processor_seconds` of processor time.
    pub(crate) fn of_rate(operations: f64, seconds: f64, processor_seconds: f64) -> Self {
        Self {
            value: operations / seconds,
            processor_micros: Some(processor_seconds * 1e6 / operations.max(1.0)),
        }
    }

    /// A turn that took this long.
    pub(crate) fn of_time(time: std::time::Duration) -> Self {
        Self { value: time.as_secs_f64() * 1e3, processor_micros: None }
    }
}

/// The turns of every contestant, in rounds.
#[derive(Debug, Default)]
pub(crate) struct Contest {
    turns: BTreeMap<&'static str, Vec<Turn>>,
}

impl Contest {
    pub(crate) fn add(&mut self, contestant: &'static str, turn: Turn) {
        self.turns.entry(contestant).or_default().push(turn);
    }

    /// The contestant's median turn; `None` if it had none.
    pub(crate) fn median(&self, contestant: &str) -> Option<Turn> {
        let turns = self.turns.get(contestant)?;
        Some(Turn {
            value: median(turns.iter().map(|turn| turn.value))?,
            processor_micros: median(turns.iter().filter_map(|turn| turn.processor_micros)),
        })
    }

    /// One contestant's figure against another's: the median of the rounds' ratios.
    pub(crate) fn ratio(&self, contestant: &str, against: &str) -> Option<f64> {
        let rounds = self.turns.get(contestant)?.iter().zip(self.turns.get(against)?);
        median(rounds.map(|(ours, theirs)| ours.value / theirs.value))
    }

    /// The same of the processor time for each operation.
    pub(crate) fn processor_ratio(&self, contestant: &str, against: &str) -> Option<f64> {
        let rounds = self.turns.get(contestant)?.iter().zip(self.turns.get(against)?);
        median(rounds.filter_map(|(ours, theirs)| Some(ours.processor_micros? / theirs.processor_micros?)))
    }
}

/// The median, if there is anything.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}
