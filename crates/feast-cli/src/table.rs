//! Lists for people and for programs.

use comfy_table::{ColumnConstraint, ContentArrangement, Width, presets};
use serde_json::{Map, Value};

use crate::terminal::{Format, Terminal};

/// Rows under named columns. As text they are a table, as JSON and YAML a list of mappings.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    pub(crate) fn new(columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row with one value per column.
    pub(crate) fn row(&mut self, values: impl IntoIterator<Item = Value>) {
        self.rows.push(values.into_iter().collect());
    }

    /// Prints the table, or what `--output` asks for.
    pub(crate) fn print(&self, terminal: &Terminal) {
        match terminal.format().unwrap_or(Format::Table) {
            Format::Table => terminal.print(self.text(terminal.stdout_is_terminal())),
            other => terminal.print_value(&self.value(), other),
        }
    }

    fn value(&self) -> Value {
        let record = |row: &Vec<Value>| -> Value {
            self.columns
                .iter()
                .map(|name| name.to_lowercase().replace(' ', "_"))
                .zip(row.iter().cloned())
                .collect::<Map<_, _>>()
                .into()
        };
        self.rows.iter().map(record).collect()
    }

    /// As wide as it is, or, on a terminal, no wider than that as long as no word has to be broken: names are copied.
    fn text(&self, on_terminal: bool) -> String {
        self.text_within(on_terminal, None)
    }

    fn text_within(&self, on_terminal: bool, width: Option<u16>) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_header(self.columns.clone());
        table.set_content_arrangement(if on_terminal {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        if let Some(width) = width {
            table.set_width(width);
        }
        let mut longest: Vec<usize> = self.columns.iter().map(|name| longest_word(name)).collect();
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(text_of).collect();
            for (longest, cell) in longest.iter_mut().zip(&cells) {
                *longest = (*longest).max(longest_word(cell));
            }
            table.add_row(cells);
        }
        for (column, longest) in table.column_iter_mut().zip(longest) {
            column.set_padding((0, PADDING));
            let least = u16::try_from(longest).unwrap_or(u16::MAX).saturating_add(PADDING);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
        }
        // Names are copied: they stay whole.
        if let Some(names) = table.column_mut(0) {
            names.set_constraint(ColumnConstraint::ContentWidth);
        }
        table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }
}

const PADDING: u16 = 3;

fn longest_word(text: &str) -> usize {
    text.split(' ').map(|word| word.chars().count()).max().unwrap_or_default()
}

/// A value as a cell: lists and labels in one line.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(", "),
        Value::Object(map) => {
            map.iter().map(|(name, value)| format!("{name}:{}", text_of(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_are_never_broken() {
        let mut table = Table::new(["NAME", "FEATURES"]);
        table.row([json!("carriers"), json!(["carrier_flights_7d", "carrier_late_share_7d"])]);
        let text = table.text_within(true, Some(40));
        assert_eq!(text, "NAME       FEATURES\ncarriers   carrier_flights_7d,\n           carrier_late_share_7d");
        // Where the terminal is too narrow for that, it breaks lines itself.
        assert_eq!(table.text_within(true, Some(10)), text);
    }

    #[test]
    fn cells_are_one_line_and_records_keep_their_types() {
        let mut table = Table::new(["NAME", "DATA TYPE", "TAGS"]);
        table.row([json!("a"), json!(["x", "y"]), json!({"team": "rides"})]);
        assert_eq!(table.text(false), "NAME   DATA TYPE   TAGS\na      x, y        team:rides");
        assert_eq!(table.value(), json!([{"name": "a", "data_type": ["x", "y"], "tags": {"team": "rides"}}]));
    }
}
