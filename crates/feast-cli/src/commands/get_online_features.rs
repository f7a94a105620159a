//! `feast get-online-features`.

use std::sync::Arc;

use clap::Args;
use feast::OnlineRequest;
use feast_core::{Error, FeatureSelection, Result};
use feast_online::{EntityRows, EntityValue};
use serde_json::{Map, Value};

use crate::cells;
use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::table::Table;
use crate::terminal::Format;

/// Read the newest values of features from the online store
#[derive(Debug, Args)]
pub(crate) struct GetOnlineFeatures {
    /// Join key and value, such as `driver_id=1001`; more values (`driver_id=1001,1002`, or the option again) are more
    /// rows
    #[arg(short, long, required = true, value_name = "KEY=VALUE")]
    entities: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// Put the name of the feature view before each feature
    #[arg(long)]
    full_feature_names: bool,
}

/// Which features.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Selection {
    /// A feature as `<feature_view>:<feature>` (can be repeated)
    #[arg(short, long, value_name = "FEATURE", value_delimiter = ',')]
    features: Vec<String>,
    /// All features of a feature service
    #[arg(long, value_name = "NAME")]
    feature_service: Option<String>,
}

impl Selection {
    pub(crate) fn into_selection(self) -> FeatureSelection {
        match self.feature_service {
            Some(name) => FeatureSelection::ServiceName(name),
            None => FeatureSelection::References(self.features),
        }
    }
}

impl GetOnlineFeatures {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let request = OnlineRequest {
            entity_rows: entity_rows(&self.entities)?,
            selection: self.selection.into_selection(),
            full_feature_names: self.full_feature_names,
        };
        let store = session.store()?;
        let answer = session.wait(store.get_online_features(request))?;
        let columns = answer
            .columns
            .iter()
            .map(|column| (column.value_type.arrow_field(&column.name), Arc::clone(&column.values)));
        let rows = cells::records(&cells::batch(columns.collect())?)?;
        let terminal = session.terminal();
        let format = terminal.format().unwrap_or(Format::Json);
        if format == Format::Table {
            print_table(session, rows);
            return Ok(Exit::Done);
        }
        // As in Feast, a list of values per column.
        let mut by_column = Map::new();
        for column in &answer.columns {
            let values = rows.iter().map(|row| row.get(&*column.name).cloned().unwrap_or_default());
            by_column.insert(column.name.to_string(), values.collect());
        }
        terminal.print_value(&by_column.into(), format);
        Ok(Exit::Done)
    }
}

/// Prints rows with the same columns as a table.
pub(crate) fn print_table(session: &Session, rows: Vec<Map<String, Value>>) {
    let columns: Vec<String> = rows.first().map(|row| row.keys().cloned().collect()).unwrap_or_default();
    let mut table = Table::new(columns);
    for row in rows {
        table.row(row.into_iter().map(|(_, value)| value));
    }
    table.print(session.terminal());
}

/// Columns from `key=value` arguments. Values are text here; the types of the join keys decide what they become.
pub(crate) fn entity_rows(arguments: &[String]) -> Result<EntityRows> {
    let mut columns: Vec<(String, Vec<EntityValue>)> = Vec::new();
    for argument in arguments {
        let (key, text) = argument.split_once('=').filter(|(key, _)| !key.trim().is_empty()).ok_or_else(|| {
            Error::invalid_request(format!("`{argument}` names no entity")).with_hint("write it as `driver_id=1001`")
        })?;
        let values = values(key, text)?;
        match columns.iter_mut().find(|(name, _)| name == key.trim()) {
            Some((_, known)) => known.extend(values),
            None => columns.push((key.trim().to_owned(), values)),
        }
    }
    let mut rows = EntityRows::default();
    for (name, values) in columns {
        rows.push(name, values)?;
    }
    Ok(rows)
}

/// Values separated by commas, or a JSON list for values that contain commas.
fn values(key: &str, text: &str) -> Result<Vec<EntityValue>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(|error| {
            Error::invalid_request(format!("the values of `{key}` start like a JSON list but are none"))
                .with_hint("write `key=1,2` or `key=[\"a,b\", \"c\"]`")
                .with_source(error)
        });
    }
    Ok(text.split(',').map(|value| EntityValue::String(value.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn values_are_collected_by_key() {
        let rows = entity_rows(&["driver=1,2".to_owned(), "city=[\"a,b\", null]".to_owned()]).unwrap();
        assert_eq!(rows.len(), 2);
        let rows = entity_rows(&["driver=1".to_owned(), "driver=2".to_owned(), "driver=3".to_owned()]).unwrap();
        assert_eq!(rows.len(), 3);
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for argument in ["driver", "=1", "city=[1"] {
            assert!(entity_rows(&[argument.to_owned()]).is_err(), "{argument}");
        }
    }
}
