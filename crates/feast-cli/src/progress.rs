//! Progress of long work: a bar with rate and time left on a terminal, a line now and then elsewhere.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use feast::{Event, Observer};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::timestamp::show_timestamp;

/// How often a line is written where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Shows the progress of a materialization on stderr and collects what is to be said about each view on stdout.
#[derive(Debug)]
pub(crate) struct MaterializationProgress {
    on_terminal: bool,
    /// Whether finished views are told on stdout.
    tell: bool,
    /// What is told before the first view, once it is clear that there is one.
    header: Mutex<Option<String>>,
    current: Mutex<Option<Current>>,
}

/// The view that is being written.
#[derive(Debug)]
struct Current {
    started: Instant,
    last_line: Instant,
    span: String,
    bar: ProgressBar,
}

impl MaterializationProgress {
    /// `header` is told on stdout before the first view, and then each view when it is finished; without header, nothing
    /// is told there.
    pub(crate) fn new(on_terminal: bool, header: Option<String>) -> Self {
        Self { on_terminal, tell: header.is_some(), header: Mutex::new(header), current: Mutex::new(None) }
    }

    fn tell_header(&self) {
        if let Some(header) = self.header.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tell(&header);
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, view: &str, span: String) {
        let target = if self.on_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target).with_prefix(view.to_owned());
        bar.set_style(style("{prefix} {spinner} {human_pos} rows, {rate}"));
        let now = Instant::now();
        *self.current() = Some(Current { started: now, last_line: now, span, bar });
    }

    fn advance(&self, view: &str, rows: u64, total: Option<u64>) {
        let mut current = self.current();
        let Some(current) = current.as_mut() else { return };
        if let (Some(total), None) = (total, current.bar.length()) {
            current.bar.set_length(total);
            current.bar.set_style(style("{prefix} [{bar:30}] {human_pos}/{human_len} rows, {rate}, {eta} left"));
        }
        current.bar.set_position(rows);
        if !self.on_terminal && current.last_line.elapsed() >= BETWEEN_LINES {
            current.last_line = Instant::now();
            let rate = rows as f64 / current.started.elapsed().as_secs_f64().max(f64::EPSILON);
            let left = total.map(|total| {
                let seconds = (total.saturating_sub(rows)) as f64 / rate.max(f64::EPSILON);
                format!(" of {total}, about {seconds:.0} s left")
            });
            say(&format!("{view}: {rows} rows{}, {rate:.0} rows/s", left.unwrap_or_default()));
        }
    }

    fn finish(&self, view: &str, rows: u64) {
        let Some(current) = self.current().take() else { return };
        current.bar.finish_and_clear();
        if self.tell {
            let noun = if rows == 1 { "row" } else { "rows" };
            let seconds = current.started.elapsed().as_secs_f64();
            tell(&format!("{view} {}: {rows} {noun} in {seconds:.1} s", current.span));
        }
    }
}

impl Observer for MaterializationProgress {
    fn on(&self, event: &Event) {
        match event {
            Event::MaterializationStarted { view, start, end } => {
                self.tell_header();
                self.start(view, format!("from {} to {}", show_timestamp(*start), show_timestamp(*end)));
            }
            Event::RowsWritten { view, rows, total } => self.advance(view, *rows, *total),
            Event::MaterializationFinished { view, rows } => self.finish(view, *rows),
            Event::MaterializationSkipped { view, reason } if self.tell => {
                self.tell_header();
                tell(&format!("{view}: {reason}"));
            }
            _ => {}
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // Nothing can be done about a rate that cannot be shown.
            let _ = write!(out, "{} rows/s", HumanCount(state.per_sec() as u64));
        })
        .progress_chars("=> ")
}

/// An observer cannot fail the work: a closed stdout shows when the summary is written.
fn tell(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}
