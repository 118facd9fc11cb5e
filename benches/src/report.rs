//! The one table, as Markdown and JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use paas_core::{Clock, SystemClock};
use serde::Serialize;

use crate::Result;
use crate::contest::Contest;
use crate::machine;

/// What was measured in one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    date: String,
    machine: String,
    synced_write_micros: f64,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// One figure.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    /// The number of the goal.
    pub(crate) goal: u8,
    /// What was measured.
    pub(crate) what: String,
    /// Whose figure it is.
    pub(crate) who: String,
    /// The median of the rounds.
    pub(crate) value: f64,
    /// What it is counted in.
    pub(crate) unit: &'static str,
    /// Processor time for each operation, in microseconds.
    pub(crate) processor_micros: Option<f64>,
    /// What ours is against this one.
    pub(crate) ratio: Option<f64>,
    /// What the goal asks of it, and whether it is met.
    pub(crate) target: Option<Target>,
    /// The machine's load when it was taken.
    pub(crate) load: f64,
}

/// What a goal asks of a figure.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) enum Target {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

impl Target {
    fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
        }
    }
}

impl Row {
    /// The goal is about the ratio where there is one, and else about the figure itself.
    fn is_met(&self) -> Option<bool> {
        self.target.map(|target| target.is_met(self.ratio.unwrap_or(self.value)))
    }
}

impl Report {
    pub(crate) fn begin() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self {
            date: SystemClock::new().now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            machine: machine::describe(),
            synced_write_micros: machine::synced_write(folder.path())?.as_secs_f64() * 1e6,
            rows: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// Adds a figure, and shows it at once.
    pub(crate) fn row(&mut self, row: Row) {
        let row = Row { load: machine::load(), ..row };
        eprintln!("{}", line(&row));
        self.rows.push(row);
    }

    /// Adds what readers of the table should know.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        eprintln!("note: {note}");
        self.notes.push(note);
    }

    /// Adds ours, and each peer with what ours is against it.
    pub(crate) fn contest(
        &mut self,
        goal: u8,
        what: &str,
        unit: &'static str,
        contest: &Contest,
        ours: &str,
        peers: &[(&str, Option<Target>)],
    ) {
        let mut add = |who: &str, ratio, target| {
            if let Some(turn) = contest.median(who) {
                self.row(Row {
                    goal,
                    what: what.to_owned(),
                    who: who.to_owned(),
                    value: turn.value,
                    unit,
                    processor_micros: turn.processor_micros,
                    ratio,
                    target,
                    load: 0.0,
                });
            }
        };
        add(ours, None, None);
        for (peer, target) in peers {
            add(peer, contest.ratio(ours, peer), *target);
        }
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# Results\n\n{}. {}. A synced write of 4 KiB takes {:.0} µs. Medians of the rounds; `ours against it` is the \
             median of the rounds' ratios; `load` is the machine's load average when the figure was taken.\n\n\
             | goal | what | who | figure | CPU per operation | ours against it | goal | met | load |\n\
             |---|---|---|---|---|---|---|---|---|\n",
            self.date, self.machine, self.synced_write_micros
        );
        for row in &self.rows {
            let _ = writeln!(text, "{}", line(row));
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    /// Writes `results.md` and `results.json`, and shows the first.
    #[allow(clippy::print_stdout)] // the table is what the program is for
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let markdown = self.markdown();
        println!("{markdown}");
        fs::create_dir_all(folder)?;
        fs::write(folder.join("results.md"), markdown)?;
        fs::write(folder.join("results.json"), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}

fn line(row: &Row) -> String {
    let target = row.target.map_or_else(String::new, |target| match target {
        Target::AtLeast(bound) => format!("≥ {bound}"),
        Target::AtMost(bound) => format!("≤ {bound}"),
    });
    format!(
        "| {} | {} | {} | {} {} | {} | {} | {} | {} | {:.1} |",
        row.goal,
        row.what,
        row.who,
        number(row.value),
        row.unit,
        row.processor_micros.map_or_else(String::new, |micros| format!("{} µs", number(micros))),
        row.ratio.map_or_else(String::new, number),
        target,
        row.is_met().map_or("", |is_met| if is_met { "yes" } else { "no" }),
        row.load,
    )
}

/// Three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}
