//! `feast freshness`.

use clap::Args;
use feast::{Freshness, Newest};
use feast_core::span_text;
use serde_json::{Value, json};

use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::table::Table;
use crate::terminal::Format;
use crate::timestamp::show_timestamp;

/// Show how old the newest value of each feature view is, online and offline
///
/// `Told By` says who knows: the online `store` that was asked for the greatest event time; the last `materialization`,
/// which does not count what was pushed since; the `statistics` of Parquet files; the `rows` of other files; or a
/// `statement` that ran in a database.
#[derive(Debug, Args)]
#[command(name = "freshness")]
pub(crate) struct FreshnessCommand {
    /// Let no store read rows for it: only the registry and the statistics of files are asked
    #[arg(long)]
    quick: bool,
}

impl FreshnessCommand {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let views = session.wait(async { store.freshness(self.quick).await })?;
        let terminal = session.terminal();
        match terminal.format() {
            None | Some(Format::Table) => {
                let sides = ["Online", "Offline"];
                let columns = sides
                    .iter()
                    .flat_map(|side| [format!("{side} Age"), format!("{side} Newest"), "Told By".to_owned()]);
                let mut table = Table::new(["Feature View".to_owned()].into_iter().chain(columns));
                for Freshness { feature_view, online, offline } in &views {
                    let sides = [online, offline];
                    table.row([json!(feature_view)].into_iter().chain(sides.into_iter().flat_map(cells)));
                }
                table.print(terminal);
                for Freshness { feature_view, online, offline } in &views {
                    for problem in [online, offline].into_iter().flatten().filter_map(|newest| newest.problem.as_ref())
                    {
                        terminal.warn(format_args!("{feature_view}: {problem}"));
                    }
                }
            }
            Some(format) => terminal.print_value(&super::to_value(&views)?, format),
        }
        Ok(Exit::Done)
    }
}

fn cells(newest: &Option<Newest>) -> [Value; 3] {
    match newest {
        None => [Value::Null, Value::Null, Value::Null],
        Some(Newest { time, age_seconds, told_by, .. }) => [
            json!(age_seconds.map_or("-".to_owned(), span_text)),
            json!(time.map(show_timestamp)),
            json!(told_by.word()),
        ],
    }
}
