//! `feast explain online`.

use clap::{Args, Subcommand};
use feast::{OnlineExplanation, OnlineRequest, parse_selection};
use feast_core::span_text;
use serde_json::{Value, json};

use super::get_online_features::entity_rows;
use super::to_value;
use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::table::Table;
use crate::terminal::{Format, Style, Terminal};

/// Say how an answer comes about
#[derive(Debug, Subcommand)]
pub(crate) enum Explain {
    Online(ExplainOnline),
}

/// Where each millisecond and each null of an online request comes from
#[derive(Debug, Args)]
pub(crate) struct ExplainOnline {
    /// A feature service, or features as `<feature_view>:<feature>`, separated by commas
    #[arg(value_name = "SERVICE|FEATURES")]
    what: String,
    /// Join key and value, such as `driver_id=1001`; more values (`driver_id=1001,1002`, or the option again) are more
    /// rows
    #[arg(short, long = "entity", value_name = "KEY=VALUE")]
    entities: Vec<String>,
    /// Put the name of the feature view before each feature
    #[arg(long)]
    full_feature_names: bool,
}

impl Explain {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let Self::Online(command) = self;
        let request = OnlineRequest {
            entity_rows: entity_rows(&command.entities)?,
            selection: parse_selection(&command.what),
            full_feature_names: command.full_feature_names,
        };
        let store = session.store()?;
        let explanation = session.wait(store.explain_online_features(&request))?;
        let terminal = session.terminal();
        match terminal.format().unwrap_or(Format::Table) {
            Format::Table => print_tables(&explanation, terminal),
            other => terminal.print_value(&to_value(&explanation)?, other),
        }
        Ok(Exit::Done)
    }
}

fn print_tables(explanation: &OnlineExplanation, terminal: &Terminal) {
    let title = |text: &str| terminal.print(terminal.styled(Style::Strong, text));
    let milliseconds = |time: f64| Value::from(format!("{time:.3} ms"));
    title("time");
    let mut table = Table::new(["PHASE", "FIRST", "AGAIN"]);
    for phase in &explanation.phases {
        table.row([phase.phase.into(), milliseconds(phase.first_ms), milliseconds(phase.again_ms)]);
    }
    table.print(terminal);

    title("\nviews");
    let mut table = Table::new(["VIEW", "JOIN KEYS", "FEATURES", "ROWS FOUND", "TTL", "MATERIALIZED UNTIL"]);
    for view in &explanation.views {
        table.row([
            view.view.clone().into(),
            json!(view.join_keys),
            view.features.into(),
            format!("{} of {}", view.rows_found, explanation.rows).into(),
            view.ttl_seconds.map_or("for ever".into(), |seconds| span_text(seconds).into()),
            view.materialized_until.map_or("never".into(), |end| end.to_string().into()),
        ]);
    }
    table.print(terminal);

    if explanation.values.is_empty() {
        terminal.print("\nno value is null or too old");
        return;
    }
    title("\nnulls and old values");
    let mut table = Table::new(["ROW", "VIEW", "FEATURES", "CAUSE", "WHY"]);
    for values in &explanation.values {
        table.row([
            values.row.to_string().into(),
            values.view.clone().into(),
            json!(values.features),
            values.cause.name().into(),
            values.why.clone().into(),
        ]);
    }
    table.print(terminal);
}
