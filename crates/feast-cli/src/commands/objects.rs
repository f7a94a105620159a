//! `list`, `describe` and `delete`, which every kind of object has.

use clap::{Args, Subcommand};
use feast_core::{
    DUMMY_ENTITY, DataSourceOptions, FeatureView, FeatureViewKind, ObjectKind, ObjectRef, OnDemandSource, Permission,
    Policy, ProjectContents, RegistryObject, Result, Tags,
};
use serde_json::{Value, json};

use crate::exit::{Exit, Outcome};
use crate::session::Session;
use crate::table::Table;
use crate::terminal::Format;

/// What can be done with objects of any kind.
#[derive(Debug, Subcommand)]
pub(crate) enum Objects {
    List(List),
    Describe(Describe),
    Delete(Delete),
}

/// List them
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those that have all these tags, such as `team:rides,stage:production`
    #[arg(long, value_name = "KEY:VALUE", value_delimiter = ',', value_parser = parse_tag)]
    pub(crate) tags: Vec<(String, String)>,
}

/// Show everything about one of them
#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// Its name
    name: String,
}

/// Delete one of them
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Its name
    name: String,
}

impl Objects {
    pub(crate) fn run(self, session: &Session, kind: ObjectKind) -> Outcome {
        match self {
            Self::List(command) => command.run(session, kind),
            Self::Describe(command) => command.run(session, &[kind]),
            Self::Delete(command) => command.run(session, &[kind]),
        }
    }
}

impl List {
    fn run(self, session: &Session, kind: ObjectKind) -> Outcome {
        let store = session.store()?;
        let contents = session.wait(async { store.contents(true).await })?;
        let listed = contents.list(kind).into_iter().filter(|object| self.wants(object));
        table(kind, listed, &contents).print(session.terminal());
        Ok(Exit::Done)
    }

    /// Whether an object has all the tags asked for.
    pub(crate) fn wants(&self, object: &RegistryObject) -> bool {
        object.name() != DUMMY_ENTITY && has_tags(object.tags(), &self.tags)
    }
}

impl Describe {
    /// Looks among objects of several kinds that share a space of names.
    pub(crate) fn run(self, session: &Session, kinds: &[ObjectKind]) -> Outcome {
        let store = session.store()?;
        let contents = session.wait(async { store.contents(true).await })?;
        let object = require(&contents, kinds, &self.name)?;
        print_description(session, &description(&object, store.project())?);
        Ok(Exit::Done)
    }
}

impl Delete {
    pub(crate) fn run(self, session: &Session, kinds: &[ObjectKind]) -> Outcome {
        let store = session.store()?;
        session.wait(async {
            let contents = store.contents(true).await?;
            let reference = require(&contents, kinds, &self.name)?.reference();
            store.delete(&reference).await?;
            session.terminal().done(format_args!("Deleted {} {}", reference.kind, reference.name));
            Ok(Exit::Done)
        })
    }
}

/// The object of this name and one of these kinds.
fn require(contents: &ProjectContents, kinds: &[ObjectKind], name: &str) -> Result<RegistryObject> {
    let found = kinds.iter().find_map(|kind| contents.get(&ObjectRef::new(*kind, name)));
    match (found, kinds) {
        (Some(object), _) => Ok(object),
        (None, [kind]) => contents.require(&ObjectRef::new(*kind, name)),
        (None, _) => contents.feature_view(name).cloned().map(RegistryObject::FeatureView),
    }
}

/// Prints protobuf JSON as YAML, or as `--output` asks for.
pub(crate) fn print_description(session: &Session, description: &Value) {
    let terminal = session.terminal();
    match terminal.format() {
        None | Some(Format::Table) => {
            terminal.print_value(description, Format::Yaml);
            terminal.print("");
        }
        Some(format) => terminal.print_value(description, format),
    }
}

/// The protobuf JSON of an object, without the project it is in.
pub(crate) fn description(object: &RegistryObject, project: &str) -> Result<Value> {
    let kind = object.kind();
    let mut json = feast_proto::to_json(kind, &feast_proto::encode_object(object, project))?;
    for part in ["spec", ""] {
        let holder = if part.is_empty() { Some(&mut json) } else { json.get_mut(part) };
        if let Some(Value::Object(map)) = holder
            && kind != ObjectKind::Project
        {
            map.shift_remove("project");
        }
    }
    Ok(json)
}

fn parse_tag(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once(':').ok_or("not a tag; write `key:value`")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn has_tags(tags: &Tags, wanted: &[(String, String)]) -> bool {
    wanted.iter().all(|(key, value)| tags.get(key) == Some(value))
}

/// The table of one kind, with Feast's columns. `contents` are the objects that the listed ones refer to.
pub(crate) fn table(
    kind: ObjectKind,
    objects: impl Iterator<Item = RegistryObject>,
    contents: &ProjectContents,
) -> Table {
    let columns: &[&str] = match kind {
        ObjectKind::Project => &["NAME", "DESCRIPTION", "TAGS", "OWNER"],
        ObjectKind::Entity => &["NAME", "DESCRIPTION", "TYPE"],
        ObjectKind::DataSource => &["NAME", "CLASS"],
        ObjectKind::FeatureView => &["NAME", "ENTITIES", "TYPE", "ENABLED", "STATE"],
        ObjectKind::LabelView => &["NAME", "ENTITIES", "CONFLICT_POLICY"],
        ObjectKind::FeatureService => &["NAME", "FEATURES"],
        ObjectKind::Permission => &["NAME", "TYPES", "NAME_PATTERNS", "ACTIONS", "ROLES", "REQUIRED_TAGS"],
        ObjectKind::StreamFeatureView
        | ObjectKind::OnDemandFeatureView
        | ObjectKind::SavedDataset
        | ObjectKind::ValidationReference => &["NAME"],
    };
    let mut table = Table::new(columns.iter().copied());
    for object in objects {
        table.row(cells(kind, &object, contents));
    }
    table
}

fn cells(kind: ObjectKind, object: &RegistryObject, contents: &ProjectContents) -> Vec<Value> {
    let name = json!(object.name());
    match object {
        RegistryObject::Project(project) => {
            vec![name, json!(project.description), json!(project.tags), json!(project.owner)]
        }
        RegistryObject::Entity(entity) => {
            vec![name, json!(entity.description), json!(format!("ValueType.{}", entity.value_type))]
        }
        RegistryObject::DataSource(source) => {
            let class = match (&source.options, source.class_type.as_str()) {
                (DataSourceOptions::Request { .. }, "") => "feast.data_source.RequestSource",
                (DataSourceOptions::Push, "") => "feast.data_source.PushSource",
                (_, "") => source.kind(),
                (_, class) => class,
            };
            vec![name, json!(class)]
        }
        RegistryObject::FeatureView(view) => match (kind, &view.kind) {
            (ObjectKind::LabelView, FeatureViewKind::Label(label)) => {
                vec![name, json!(entities(view, contents)), json!(conflict_policy(label.conflict_policy))]
            }
            (ObjectKind::FeatureView, _) => {
                let enabled = if view.disabled { "No" } else { "Yes" };
                vec![
                    name,
                    json!(entities(view, contents)),
                    json!(class(view)),
                    json!(enabled),
                    json!(view.meta.state.name()),
                ]
            }
            _ => vec![name],
        },
        RegistryObject::FeatureService(service) => {
            let features: Vec<String> = service
                .projections
                .iter()
                .flat_map(|of| of.features.iter().map(|feature| format!("{}:{}", of.name_to_use(), feature.name)))
                .collect();
            vec![name, json!(features)]
        }
        RegistryObject::Permission(permission) => permission_cells(permission),
        RegistryObject::SavedDataset(_) | RegistryObject::ValidationReference(_) => vec![name],
    }
}

/// Entities of a view; those of an on-demand view are those of the views it is computed from.
fn entities<'a>(view: &'a FeatureView, contents: &'a ProjectContents) -> Vec<&'a str> {
    let sources = view.on_demand().into_iter().flat_map(|on_demand| on_demand.sources.values());
    let views = sources.filter_map(|source| match source {
        OnDemandSource::FeatureView(view) => Some(view.as_ref()),
        OnDemandSource::Projection(projection) => {
            contents.feature_views.get(&projection.feature_view_name).map(|view| view.as_ref())
        }
        OnDemandSource::Request(_) => None,
    });
    let names = views.chain([view]).flat_map(|view| &view.entities).map(String::as_str);
    let mut names: Vec<&str> = names.filter(|name| *name != DUMMY_ENTITY).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn class(view: &FeatureView) -> &'static str {
    match &view.kind {
        FeatureViewKind::Batch(batch) if batch.transformation.is_some() => "BatchFeatureView",
        FeatureViewKind::Batch(_) => "FeatureView",
        FeatureViewKind::Stream(_) => "StreamFeatureView",
        FeatureViewKind::OnDemand(_) => "OnDemandFeatureView",
        FeatureViewKind::Label(_) => "LabelView",
    }
}

fn conflict_policy(policy: feast_core::ConflictPolicy) -> &'static str {
    match policy {
        feast_core::ConflictPolicy::LastWriteWins => "last_write_wins",
        feast_core::ConflictPolicy::LabelerPriority => "labeler_priority",
        feast_core::ConflictPolicy::MajorityVote => "majority_vote",
    }
}

fn permission_cells(permission: &Permission) -> Vec<Value> {
    let types: Vec<String> = permission.types.iter().map(|of| format!("{of:?}")).collect();
    let actions: Vec<String> = permission.actions.iter().map(|action| shout(&format!("{action:?}"))).collect();
    vec![
        json!(permission.name),
        json!(types),
        json!(permission.name_patterns),
        json!(actions),
        json!(roles(permission)),
        json!(permission.required_tags),
    ]
}

/// The roles a permission is for.
pub(crate) fn roles(permission: &Permission) -> Vec<String> {
    match &permission.policy {
        Policy::Roles(roles) => roles.clone(),
        _ => Vec::new(),
    }
}

/// `ReadOnline` -> `READ_ONLINE`.
pub(crate) fn shout(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_uppercase());
    }
    text
}
