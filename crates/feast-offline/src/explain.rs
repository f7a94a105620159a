//! What a request for training data does, step by step, and what each step took.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use feast_core::Result;

/// The steps of a request. They are known when the request is made; their figures grow while its rows are read.
///
/// Its text is a table with one line per step, the last step first, as plans are usually shown.
#[derive(Debug, Clone, Default)]
pub struct Explanation(Arc<Mutex<Vec<ExplainedStep>>>);

/// One step of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedStep {
    /// How deep it stands below the step that uses it.
    pub depth: usize,
    /// What it does, to what.
    pub name: String,
    /// Rows that came out of it so far.
    pub rows: u64,
    /// For what reads files, bytes read as they are stored; else bytes of what came out, in memory.
    pub bytes: u64,
    /// From its start to its end; steps that run at the same time overlap.
    pub time: Duration,
}

/// Names one step to those that do it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepId(usize);

impl Explanation {
    /// The steps so far.
    pub fn steps(&self) -> Vec<ExplainedStep> {
        self.lock().clone()
    }

    /// Adds a step below those that are there.
    pub(crate) fn step(&self, depth: usize, name: impl Into<String>) -> StepId {
        let mut steps = self.lock();
        steps.push(ExplainedStep { depth, name: name.into(), rows: 0, bytes: 0, time: Duration::ZERO });
        StepId(steps.len() - 1)
    }

    /// Counts what a step did.
    pub(crate) fn count(&self, step: StepId, rows: usize, bytes: usize) {
        if let Some(step) = self.lock().get_mut(step.0) {
            step.rows += rows as u64;
            step.bytes += bytes as u64;
        }
    }

    /// Does a step and takes its time.
    pub(crate) fn timed<T>(&self, step: StepId, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let outcome = work();
        if let Some(step) = self.lock().get_mut(step.0) {
            step.time += started.elapsed();
        }
        outcome
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<ExplainedStep>> {
        // Figures of a thread that panicked are still figures.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps();
        let names: Vec<String> = steps.iter().map(|step| format!("{}{}", "  ".repeat(step.depth), step.name)).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("step".len());
        writeln!(f, "{:width$}  {:>12}  {:>10}  {:>9}", "step", "rows", "bytes", "time")?;
        for (step, name) in steps.iter().zip(names) {
            let bytes = bytes_text(step.bytes);
            writeln!(f, "{name:width$}  {:>12}  {bytes:>10}  {:>7.3} s", step.rows, step.time.as_secs_f64())?;
        }
        Ok(())
    }
}

/// A number of bytes with a unit: `0 B`, `1.5 MiB`.
fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn steps_are_lines_below_the_step_that_uses_them() {
        let explanation = Explanation::default();
        let last = explanation.step(0, "return rows");
        let first = explanation.step(1, "scan `a.parquet`");
        explanation.count(first, 1000, 3 << 20);
        explanation.count(first, 1000, 0);
        explanation.count(last, 7, 100);
        explanation.timed(first, || Ok(())).unwrap();
        let text = explanation.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "step                        rows       bytes       time");
        assert_eq!(lines[1], "return rows                    7       100 B    0.000 s");
        assert_eq!(lines[2], "  scan `a.parquet`          2000     3.0 MiB    0.000 s");
    }
}
