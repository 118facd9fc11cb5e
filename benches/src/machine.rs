//! What the machine is, what it is doing, and what a process has used of it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use paas_core::{Clock, SystemClock};

use crate::Result;

/// What the kernel counts processor time in, everywhere that Linux runs.
const TICKS_PER_SECOND: f64 = 100.0;

/// The machine in one line.
pub(crate) fn describe() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once([':', '='])
            .map_or_else(String::new, |(_, value)| value.trim().trim_matches('"').to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{} × {}, {} memory, {}, Linux {}",
        cores,
        field(&read("/proc/cpuinfo"), "model name"),
        field(&read("/proc/meminfo"), "MemTotal"),
        field(&read("/etc/os-release"), "PRETTY_NAME"),
        read("/proc/sys/kernel/osrelease").trim(),
    )
}

/// How many processes wanted to run, on average over the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

/// The processor time that a process has used so far, its ended threads included.
pub(crate) fn processor_time(process: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold anything.
    let (_, rest) = text.rsplit_once(") ").ok_or("an unreadable /proc/PID/stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks =
        |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    Ok(Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS_PER_SECOND))
}

/// The resident memory of a process, in MiB.
pub(crate) fn resident_mebibytes(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: f64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
    Ok(kibibytes / 1024.0)
}

/// How long a synced write of one page takes in `folder`: the median of many.
pub(crate) fn synced_write(folder: &Path) -> Result<Duration> {
    let clock = SystemClock::new();
    let path = folder.join("synced-write-probe");
    let mut file: File = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut times = Vec::with_capacity(200);
    for _ in 0..200 {
        let begun = clock.elapsed();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(clock.elapsed() - begun);
    }
    fs::remove_file(path)?;
    times.sort();
    Ok(times[times.len() / 2])
}
