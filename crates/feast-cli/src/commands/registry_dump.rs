//! `feast registry-dump`.

use clap::Args;
use feast_core::ObjectKind;
use serde_json::{Map, Value};

use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::terminal::Format;

/// Print everything the registry holds of this project
#[derive(Debug, Args)]
pub(crate) struct RegistryDump {}

impl RegistryDump {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let contents = session.wait(async { store.contents(true).await })?;
        let mut dump = Map::new();
        dump.insert("project".to_owned(), store.project().into());
        for kind in ObjectKind::ALL.iter().copied().filter(|kind| *kind != ObjectKind::Project) {
            let mut objects = contents.list(kind);
            objects.sort_by(|a, b| a.name().cmp(b.name()));
            let described = objects.iter().map(|object| super::objects::description(object, store.project()));
            let described: Vec<Value> = described.collect::<feast_core::Result<_>>()?;
            if !described.is_empty() {
                dump.insert(plural(kind).to_owned(), described.into());
            }
        }
        let mut dump = Value::Object(dump);
        show_code(&mut dump);
        dump.sort_all_objects();
        let format = session.terminal().format().unwrap_or(Format::Json);
        session.terminal().print_value(&dump, format);
        Ok(Exit::Done)
    }
}

/// Functions are shown as their source text instead of their pickled bytes.
fn show_code(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.contains_key("body")
                && let Some(text) = map.remove("bodyText")
            {
                map.insert("body".to_owned(), text);
            }
            map.values_mut().for_each(show_code);
        }
        Value::Array(items) => items.iter_mut().for_each(show_code),
        _ => {}
    }
}

/// Key of the objects of a kind in the dump.
fn plural(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Project => "projects",
        ObjectKind::Entity => "entities",
        ObjectKind::DataSource => "dataSources",
        ObjectKind::FeatureView => "featureViews",
        ObjectKind::StreamFeatureView => "streamFeatureViews",
        ObjectKind::OnDemandFeatureView => "onDemandFeatureViews",
        ObjectKind::LabelView => "labelViews",
        ObjectKind::FeatureService => "featureServices",
        ObjectKind::SavedDataset => "savedDatasets",
        ObjectKind::ValidationReference => "validationReferences",
        ObjectKind::Permission => "permissions",
    }
}
