//! `feast online-store`.

use clap::{Args, Subcommand};
use feast::{OnlineStoreReport, OnlineTableProblem, OnlineTableReport};
use feast_core::{Error, ErrorCode, list_names};
use serde_json::{Value, json};

use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::table::Table;
use crate::terminal::Format;

/// What can be done with the online store.
#[derive(Debug, Subcommand)]
pub(crate) enum OnlineStoreCommand {
    Check(Check),
}

/// Connect, measure the round trip, and compare the tables with the registry
///
/// Exits with 1 when the store cannot be reached or a table is not as it should be.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// How many round trips to measure
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
}

impl OnlineStoreCommand {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Check(command) => command.run(session),
        }
    }
}

impl Check {
    fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let report = session.wait(async { store.check_online_store(count).await })?;
        let terminal = session.terminal();
        match terminal.format() {
            None | Some(Format::Table) => {
                terminal.print(&report.store);
                if let Some(shortest) = report.round_trips.first() {
                    terminal.print(format_args!(
                        "round trip: {:.3} ms at least, {:.3} ms in the median of {}",
                        milliseconds(*shortest),
                        milliseconds(report.median()),
                        report.round_trips.len()
                    ));
                }
                let mut table = Table::new(["Table", "Feature View", "State", "What To Do"]);
                for one in &report.tables {
                    let (state, todo) = described(one);
                    table.row([json!(one.table), json!(one.feature_view), json!(state), json!(todo)]);
                }
                table.print(terminal);
            }
            Some(format) => terminal.print_value(&value_of(&report), format),
        }
        match report.n_problems() {
            0 => Ok(Exit::Done),
            problems => Err(Error::new(
                ErrorCode::Unavailable,
                format!("{problems} of {} tables of the online store need attention", report.tables.len()),
            )
            .into()),
        }
    }
}

fn milliseconds(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The state of a table, and how to mend it.
fn described(table: &OnlineTableReport) -> (String, Option<String>) {
    match &table.problem {
        None => ("ok".to_owned(), None),
        Some(OnlineTableProblem::Missing) => {
            ("missing".to_owned(), Some("run `feast apply`, then materialize".to_owned()))
        }
        Some(OnlineTableProblem::MissingColumns(columns)) => {
            let lacks = format!("lacks {}", list_names(columns.iter().map(String::as_str)));
            (lacks, Some("run `feast apply`".to_owned()))
        }
        Some(OnlineTableProblem::WholeSeconds) => ("ok, keeps whole seconds only".to_owned(), None),
        Some(OnlineTableProblem::Unreadable(error)) => {
            (format!("unreadable: {error}"), error.hint().map(str::to_owned))
        }
        Some(OnlineTableProblem::Unknown) => {
            ("unknown to the registry".to_owned(), Some("drop it, when no other registry names it".to_owned()))
        }
    }
}

fn value_of(report: &OnlineStoreReport) -> Value {
    let tables = report.tables.iter().map(|table| {
        let (state, todo) = described(table);
        json!({"table": table.table, "feature_view": table.feature_view, "state": state, "what_to_do": todo})
    });
    let shortest = report.round_trips.first().map(|shortest| milliseconds(*shortest));
    json!({
        "online_store": report.store,
        "round_trip_ms": {
            "min": shortest,
            "median": shortest.map(|_| milliseconds(report.median())),
            "count": report.round_trips.len(),
        },
        "tables": tables.collect::<Vec<_>>(),
    })
}
