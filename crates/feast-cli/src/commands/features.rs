//! `feast features`.

use clap::{Args, Subcommand};
use feast_core::{
    Error, ErrorCode, FeatureView, FeatureViewKind, Field, ProjectContents, RegistryObject, did_you_mean,
};
use serde_json::{Value, json};

use super::objects;
use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::table::Table;
use crate::terminal::Format;

/// What can be done with features.
#[derive(Debug, Subcommand)]
pub(crate) enum Features {
    /// List the features of all feature views
    List,
    Describe(Describe),
}

/// Show everything about the features of one name
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Name of the feature, or `<feature_view>:<feature>`
    name: String,
}

impl Features {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let store = session.store()?;
        let contents = session.wait(async { store.contents(true).await })?;
        match self {
            Self::List => match session.terminal().format() {
                None | Some(Format::Table) => {
                    let mut table = Table::new(["Feature", "Feature View", "Data Type"]);
                    for (view, feature) in features(&contents) {
                        table.row([json!(feature.name), json!(view.name), json!(type_name(feature))]);
                    }
                    table.print(session.terminal());
                }
                // The keys are those that scripts know from Feast.
                Some(format) => {
                    let list = features(&contents).map(|(view, feature)| {
                        json!({"feature_name": feature.name, "feature_view": view.name, "dtype": type_name(feature)})
                    });
                    session.terminal().print_value(&list.collect(), format);
                }
            },
            Self::Describe(command) => {
                let found = command.find(&contents)?;
                let described = found.into_iter().map(|(view, feature)| describe(view, feature, store.project()));
                let described: Vec<Value> = described.collect::<feast_core::Result<_>>()?;
                let format = session.terminal().format().unwrap_or(Format::Json);
                session.terminal().print_value(&described.into(), format);
            }
        }
        Ok(Exit::Done)
    }
}

impl Describe {
    fn find<'a>(&self, contents: &'a ProjectContents) -> feast_core::Result<Vec<(&'a FeatureView, &'a Field)>> {
        let (of_view, name) = match self.name.split_once(':') {
            Some((view, name)) => (Some(view), name),
            None => (None, self.name.as_str()),
        };
        let found: Vec<_> = features(contents)
            .filter(|(view, feature)| of_view.is_none_or(|of| of == view.name) && feature.name == name)
            .collect();
        if found.is_empty() {
            let known = features(contents).map(|(_, feature)| feature.name.as_str());
            let message =
                format!("no feature view of project `{}` has a feature `{}`", contents.project.name, self.name);
            return Err(Error::new(ErrorCode::FeatureNotFound, message).with_hint_opt(did_you_mean(name, known)));
        }
        Ok(found)
    }
}

fn features(contents: &ProjectContents) -> impl Iterator<Item = (&FeatureView, &Field)> {
    let views = contents.feature_views.values().filter(|view| !matches!(view.kind, FeatureViewKind::Label(_)));
    views.flat_map(|view| view.features.iter().map(move |feature| (view.as_ref(), feature)))
}

fn describe(view: &FeatureView, feature: &Field, project: &str) -> feast_core::Result<Value> {
    let source = match view.batch_source() {
        Some(source) => {
            objects::description(&RegistryObject::DataSource(std::sync::Arc::new(source.clone())), project)?
        }
        None => Value::Null,
    };
    Ok(json!({
        "Feature Name": feature.name,
        "Feature View": view.name,
        "Data Type": type_name(feature),
        "Description": feature.description,
        "Online Store": view.has_online_table(),
        "Source": source,
    }))
}

/// The type as definitions spell it, such as `Float32` or `Array(String)`.
fn type_name(feature: &Field) -> String {
    feature.value_type.declared_name()
}
