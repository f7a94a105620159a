//! `feast materialize`.

use std::sync::Arc;
use std::time::Instant;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use feast::{MaterializeRequest, Window};
use feast_core::{Shard, Timestamp, list_names};

use super::plan::online_store_type;
use crate::arguments::Arguments;
use crate::exit::{Exit, Failure, Outcome};
use crate::progress::MaterializationProgress;
use crate::session::Session;
use crate::terminal::Format;
use crate::timestamp::{parse_timestamp, show_timestamp};

/// Load the newest values of a span of time into the online store
#[derive(Debug, Args)]
pub(crate) struct Materialize {
    /// First event time, such as `2026-11-01` or `2026-11-01T06:00:00+01:00`; UTC without an offset
    #[arg(value_name = "START_TS", value_parser = parse_timestamp)]
    start: Option<Timestamp>,
    /// Last event time
    #[arg(value_name = "END_TS", value_parser = parse_timestamp)]
    end: Option<Timestamp>,
    #[command(flatten)]
    views: Views,
    /// Load all rows up to now, without START_TS and END_TS
    #[arg(long)]
    disable_event_timestamp: bool,
}

/// Which feature views are loaded.
#[derive(Debug, Args)]
pub(crate) struct Views {
    /// Only this feature view (can be repeated); all that are served online by default
    #[arg(short, long, value_name = "FEATURE_VIEW", value_delimiter = ',')]
    views: Vec<String>,
    /// Version of the one feature view, such as `v2`, where each has a table of its own; the current one by default
    #[arg(long)]
    version: Option<String>,
    /// Only this part of the entity keys, such as `1/4` to `4/4`: run them all, in any order, also at the same time on
    /// several machines
    #[arg(long, value_name = "NUMBER/COUNT")]
    shard: Option<Shard>,
    /// Memory to use for finding the newest rows, such as `512MiB`; what needs more takes several passes
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
}

impl Materialize {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let window = match (self.disable_event_timestamp, self.start, self.end) {
            (true, None, None) => Window::Everything,
            (false, Some(start), Some(end)) => Window::Between(start, end),
            (true, ..) => {
                return Err(usage("START_TS and END_TS do not go together with --disable-event-timestamp"));
            }
            (false, ..) => {
                return Err(usage("START_TS and END_TS are required, unless --disable-event-timestamp is given"));
            }
        };
        load(session, window, self.views)
    }
}

fn usage(message: &str) -> Failure {
    let mut command = Arguments::command();
    command.build();
    let error = match command.find_subcommand_mut("materialize") {
        Some(command) => command.error(ErrorKind::MissingRequiredArgument, message),
        None => command.error(ErrorKind::MissingRequiredArgument, message),
    };
    Failure::Usage(Box::new(error))
}

/// Materializes, tells view by view what was done, and sums up.
pub(crate) fn load(session: &Session, window: Window, views: Views) -> Outcome {
    let terminal = session.terminal();
    let for_people = matches!(terminal.format(), None | Some(Format::Table));
    let mut store = session.store()?;
    if let Some(limit) = &views.memory_limit {
        store = store.with_memory_limit(limit)?;
    }
    let span = match window {
        Window::Between(start, end) => format!(" from {} to {}", show_timestamp(start), show_timestamp(end)),
        Window::Until(end) => format!(" to {}", show_timestamp(end)),
        Window::Everything => String::new(),
    };
    let header = format!("Materializing feature views{span} into the {} online store", online_store_type(&store));
    let progress = MaterializationProgress::new(terminal.stderr_is_terminal(), for_people.then_some(header));
    let store = store.observed_by(Arc::new(progress));
    let started = Instant::now();
    let shard = views.shard.unwrap_or(Shard::WHOLE);
    let request = MaterializeRequest { window, feature_views: views.views, shard, version: views.version };
    let report = session.wait(store.materialize(request))?;
    if let Some(format) = terminal.format().filter(|_| !for_people) {
        terminal.print_value(&super::to_value(&report)?, format);
        return Ok(Exit::Done);
    }
    if let Some(server) = &report.server {
        terminal
            .print(format_args!("Done by the feature server: {server}, in {:.1} s", started.elapsed().as_secs_f64()));
        return Ok(Exit::Done);
    }
    let (views, rows) = (report.feature_views.len(), report.feature_views.iter().map(|view| view.rows).sum::<u64>());
    if views == 0 {
        terminal.print("No feature view is served online from a source: nothing to do");
    } else {
        let noun = if views == 1 { "feature view" } else { "feature views" };
        terminal.print(format_args!("{views} {noun}, {rows} rows in {:.1} s", started.elapsed().as_secs_f64()));
        let mut missing: Vec<&str> =
            report.feature_views.iter().flat_map(|view| &view.missing_shards).map(String::as_str).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let missing = list_names(missing);
            terminal.print(format_args!("The interval is recorded when these shards have loaded it too: {missing}"));
        }
    }
    Ok(Exit::Done)
}
