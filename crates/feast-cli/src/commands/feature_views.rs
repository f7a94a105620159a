//! `feast feature-views`.

use clap::{Args, Subcommand};
use feast_core::{Error, FeatureViewState, ObjectKind, did_you_mean};
use serde_json::json;

use super::objects;
use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::table::Table;
use crate::timestamp::show_timestamp;

/// The kinds this command is about. Names of feature views are unique among all of them.
const KINDS: &[ObjectKind] =
    &[ObjectKind::FeatureView, ObjectKind::StreamFeatureView, ObjectKind::OnDemandFeatureView, ObjectKind::LabelView];

/// What can be done with feature views.
#[derive(Debug, Subcommand)]
pub(crate) enum FeatureViews {
    List(objects::List),
    Describe(objects::Describe),
    Delete(objects::Delete),
    /// Serve and materialize one of them again
    Enable(Named),
    /// Neither serve nor materialize one of them
    Disable(Named),
    SetState(SetState),
    /// List the recorded versions of one of them
    ListVersions(Named),
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// Its name
    name: String,
}

/// Set how far one of them is on its way to the online store
#[derive(Debug, Args)]
pub(crate) struct SetState {
    /// Its name
    name: String,
    /// CREATED, GENERATED, MATERIALIZING or AVAILABLE_ONLINE
    #[arg(value_parser = parse_state)]
    state: FeatureViewState,
}

fn parse_state(text: &str) -> Result<FeatureViewState, String> {
    text.parse().map_err(|error: Error| match error.hint() {
        Some(hint) => format!("not a state of a feature view; {hint}"),
        None => "not a state of a feature view".to_owned(),
    })
}

impl FeatureViews {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        match self {
            Self::List(command) => list(session, &command),
            Self::Describe(command) => command.run(session, KINDS),
            Self::Delete(command) => command.run(session, KINDS),
            Self::Enable(command) => set_enabled(session, &command.name, true),
            Self::Disable(command) => set_enabled(session, &command.name, false),
            Self::SetState(command) => set_state(session, &command),
            Self::ListVersions(command) => list_versions(session, &command.name),
        }
    }
}

fn list(session: &Session, command: &objects::List) -> Outcome {
    let store = session.store()?;
    let contents = session.wait(async { store.contents(true).await })?;
    let kinds = [ObjectKind::FeatureView, ObjectKind::OnDemandFeatureView, ObjectKind::StreamFeatureView];
    let views = kinds.iter().flat_map(|kind| contents.list(*kind)).filter(|view| command.wants(view));
    objects::table(ObjectKind::FeatureView, views, &contents).print(session.terminal());
    Ok(Exit::Done)
}

fn set_enabled(session: &Session, name: &str, enabled: bool) -> Outcome {
    let store = session.store()?;
    let (view, is_change) = session.wait(store.set_enabled(name, enabled))?;
    let word = if enabled { "enabled" } else { "disabled" };
    let already = if is_change { "" } else { " already" };
    session.terminal().done(format_args!("{view} is {word}{already}"));
    Ok(Exit::Done)
}

fn set_state(session: &Session, command: &SetState) -> Outcome {
    let store = session.store()?;
    let view = session.wait(store.set_state(&command.name, command.state))?;
    session.terminal().done(format_args!("{view} is {}", command.state));
    Ok(Exit::Done)
}

fn list_versions(session: &Session, name: &str) -> Outcome {
    let store = session.store()?;
    let snapshot = session.wait(async { store.snapshot(true).await })?;
    let mut records: Vec<_> = snapshot.versions.iter().filter(|record| record.is_of(store.project(), name)).collect();
    if records.is_empty() {
        let contents = snapshot.project(store.project())?;
        contents.feature_view(name).map_err(|error| {
            error.with_hint_opt(did_you_mean(name, contents.feature_views.keys().map(String::as_str)))
        })?;
    }
    records.sort_by_key(|record| record.version_number);
    let mut table = Table::new(["VERSION", "TYPE", "CREATED", "VERSION_ID"]);
    for record in records {
        let created = record.created.map(show_timestamp).unwrap_or_default();
        let kind = record.kind.identifier();
        let version = format!("v{}", record.version_number);
        table.row([json!(version), json!(kind), json!(created), json!(record.version_id)]);
    }
    table.print(session.terminal());
    Ok(Exit::Done)
}
