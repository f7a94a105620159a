//! Everything that is wrong with the definitions of a project, at once.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use arrow::datatypes::DataType;
use chrono::TimeDelta;
use serde::Serialize;

use crate::{
    DUMMY_ENTITY, DUMMY_JOIN_KEY, DataSource, DataSourceOptions, ErrorCode, FeatureView, FeatureViewProjection, Field,
    ObjectKind, ObjectRef, OnDemandFeatures, OnDemandSource, ProjectContents, SourceSchemas, ValueType, did_you_mean,
};

/// Something wrong with one object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    /// The object.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// File and line of the definition, when known.
    pub location: Option<String>,
    /// What is wrong; reads on from the name of the object.
    pub message: String,
    /// How to fix it.
    pub hint: Option<String>,
    /// The cause, where users of Feast know it by a class of its own.
    #[serde(skip)]
    pub code: ErrorCode,
}

impl Problem {
    /// A problem without location and hint.
    pub fn new(object: ObjectRef, message: impl Into<String>) -> Self {
        Self { object, location: None, message: message.into(), hint: None, code: ErrorCode::InvalidDefinition }
    }

    /// Says what it is more precisely than a wrong definition.
    #[must_use]
    pub fn with_code(mut self, code: ErrorCode) -> Self {
        self.code = code;
        self
    }

    /// Adds how to fix it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint where there is one.
    #[must_use]
    pub fn with_hint_opt(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "{} {}", self.object, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Checks the definitions of a project after inference. Pure.
///
/// `registered` supplies objects that the desired contents refer to without defining them; sources without a schema
/// in `schemas` are not compared with their views.
pub fn validate(
    desired: &ProjectContents,
    registered: Option<&ProjectContents>,
    schemas: &SourceSchemas,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_project_name(desired, &mut problems);
    check_view_names(desired, registered, &mut problems);
    check_names(desired, &mut problems);
    for view in desired.feature_views.values() {
        check_view(view, desired, registered, schemas, &mut problems);
    }
    for service in desired.feature_services.values() {
        let reference = ObjectRef::new(ObjectKind::FeatureService, &service.name);
        for projection in &service.projections {
            check_projection(&reference, projection, desired, registered, &mut problems);
        }
    }
    problems
}

/// Names are shown on terminals, stand in requests and become names of tables.
fn check_names(desired: &ProjectContents, problems: &mut Vec<Problem>) {
    let views = desired.feature_views.values().map(|view| view.reference());
    let others = [
        (ObjectKind::Entity, desired.entities.keys().collect::<Vec<_>>()),
        (ObjectKind::DataSource, desired.data_sources.keys().collect()),
        (ObjectKind::FeatureService, desired.feature_services.keys().collect()),
        (ObjectKind::SavedDataset, desired.saved_datasets.keys().collect()),
        (ObjectKind::ValidationReference, desired.validation_references.keys().collect()),
        (ObjectKind::Permission, desired.permissions.keys().collect()),
    ];
    let others =
        others.into_iter().flat_map(|(kind, names)| names.into_iter().map(move |name| ObjectRef::new(kind, name)));
    for object in others.chain(views) {
        let problem = if object.name.is_empty() {
            Problem::new(object, "has no name").with_hint("give it one with `name=`")
        } else if object.name.contains(char::is_control) {
            let shown = ObjectRef::new(object.kind, object.name.escape_debug().to_string());
            Problem::new(shown, "has a control character in its name").with_hint("use letters, digits and `_`")
        } else if object.kind.is_feature_view() && object.name == DUMMY_ENTITY {
            Problem::new(object, "has a name that is reserved").with_hint("rename it")
        } else {
            continue;
        };
        problems.push(problem);
    }
}

fn check_project_name(desired: &ProjectContents, problems: &mut Vec<Problem>) {
    let name = &desired.project.name;
    let valid = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !valid {
        problems.push(
            Problem::new(ObjectRef::new(ObjectKind::Project, name), "is not a valid project name")
                .with_hint("use letters, digits, `_` and `-`, starting with a letter or digit"),
        );
    }
}

/// Names of views are unique among all kinds, ignoring case: they become names of tables.
fn check_view_names(desired: &ProjectContents, registered: Option<&ProjectContents>, problems: &mut Vec<Problem>) {
    let mut seen: BTreeMap<String, ObjectRef> = BTreeMap::new();
    let wanted: HashSet<String> = desired.feature_views.keys().map(|name| name.to_lowercase()).collect();
    for view in registered.iter().flat_map(|contents| contents.feature_views.values()) {
        // Of thousands, few have such a name, and nearly all are lower case already.
        let is_lower = view.name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase());
        let name = if is_lower { Cow::Borrowed(&view.name) } else { Cow::Owned(view.name.to_lowercase()) };
        if wanted.contains(&*name) && !desired.feature_views.contains_key(&view.name) {
            seen.insert(name.into_owned(), view.reference());
        }
    }
    for view in desired.feature_views.values() {
        let reference = view.reference();
        if let Some(other) = seen.insert(view.name.to_lowercase(), reference.clone())
            && other != reference
        {
            problems.push(
                Problem::new(reference.clone(), format!("has the same name as {other}"))
                    .with_code(ErrorCode::ConflictingFeatureViewNames)
                    .with_hint("names of feature views are unique among all kinds of views, ignoring case"),
            );
        }
        if let Some(other) = registered.and_then(|contents| contents.feature_views.get(&view.name))
            && other.object_kind() != view.object_kind()
        {
            problems.push(
                Problem::new(reference, format!("has the same name as {} in the registry", other.reference()))
                    .with_code(ErrorCode::ConflictingFeatureViewNames)
                    .with_hint(format!("delete the old one first with `feast delete {}`", view.name)),
            );
        }
    }
}

fn check_view(
    view: &FeatureView,
    desired: &ProjectContents,
    registered: Option<&ProjectContents>,
    schemas: &SourceSchemas,
    problems: &mut Vec<Problem>,
) {
    let mut report = |problem: Problem| problems.push(problem);
    let problem = |message: String| Problem::new(view.reference(), message);
    if let Some(found) = view.name.chars().find(|c| [':', '@'].contains(c)) {
        report(
            problem(format!("has `{found}` in its name"))
                .with_hint("rename it: `view:feature` is a feature reference, and `view@v2` a version of a view"),
        );
    }
    for entity in view.entities.iter().filter(|name| *name != DUMMY_ENTITY) {
        let known = |contents: &ProjectContents| contents.entities.contains_key(entity);
        if !known(desired) && !registered.is_some_and(known) {
            report(
                problem(format!("refers to entity `{entity}`, which does not exist"))
                    .with_hint_opt(did_you_mean(entity, desired.entities.keys().map(String::as_str)))
                    .with_hint_opt(desired.entities.is_empty().then(|| "define it in the repository".to_owned())),
            );
        }
    }
    if view.ttl.is_some_and(|ttl| ttl < TimeDelta::zero()) {
        report(problem("has a negative ttl".to_owned()).with_hint("use a positive `timedelta`, or 0 for no limit"));
    }
    let mut names = HashSet::new();
    for field in &view.features {
        if !names.insert(field.name.as_str()) {
            report(problem(format!("declares feature `{}` twice", field.name)).with_hint("remove one of them"));
        }
        if view.join_keys().any(|key| key == field.name) {
            report(
                problem(format!("declares `{}` both as a join key and as a feature", field.name))
                    .with_hint("rename the feature with `field_mapping` of the source"),
            );
        }
        if field.name.is_empty() || field.value_type == ValueType::Invalid {
            report(
                problem(format!("declares feature `{}` without a type", field.name))
                    .with_hint("give it one with `dtype=`"),
            );
        }
    }
    if let Some(on_demand) = view.on_demand() {
        for source in on_demand.sources.values() {
            match source {
                OnDemandSource::Projection(projection) => {
                    check_projection(&view.reference(), projection, desired, registered, problems);
                }
                OnDemandSource::FeatureView(source) => {
                    let projection = FeatureViewProjection {
                        feature_view_name: source.name.clone(),
                        ..FeatureViewProjection::default()
                    };
                    check_projection(&view.reference(), &projection, desired, registered, problems);
                }
                OnDemandSource::Request(_) => {}
            }
        }
        check_inputs(view, on_demand, desired, registered, problems);
    } else {
        check_columns(view, schemas, problems);
    }
}

/// The inputs of an on-demand view and its features have names that cannot be mistaken for each other. Two source views
/// may have features of the same name: their full names differ.
fn check_inputs(
    view: &FeatureView,
    on_demand: &OnDemandFeatures,
    desired: &ProjectContents,
    registered: Option<&ProjectContents>,
    problems: &mut Vec<Problem>,
) {
    let find = |name: &str| desired.feature_views.get(name).or_else(|| registered?.feature_views.get(name));
    let mut keys: HashSet<&str> = HashSet::new();
    let mut stored: HashSet<&str> = HashSet::new();
    let mut requested: Vec<(&str, &Field)> = Vec::new();
    for (name, source) in &on_demand.sources {
        match source {
            OnDemandSource::Projection(projection) => {
                let Some(source) = find(&projection.feature_view_name) else { continue };
                let renamed = |key| projection.join_key_map.get(key).map_or(key, String::as_str);
                keys.extend(source.join_keys().filter(|key| *key != DUMMY_JOIN_KEY).map(renamed));
                let features = if projection.features.is_empty() { &source.features } else { &projection.features };
                stored.extend(features.iter().map(|feature| feature.name.as_str()));
            }
            OnDemandSource::FeatureView(source) => {
                keys.extend(source.join_keys().filter(|key| *key != DUMMY_JOIN_KEY));
                stored.extend(source.features.iter().map(|feature| feature.name.as_str()));
            }
            OnDemandSource::Request(request) => {
                if let DataSourceOptions::Request { schema } = &request.options {
                    requested.extend(schema.iter().map(|field| (name.as_str(), field)));
                }
            }
        }
    }
    let mut report = |message: String, hint: &str| {
        problems.push(Problem::new(view.reference(), message).with_hint(hint));
    };
    for (position, (source, field)) in requested.iter().enumerate() {
        let name = field.name.as_str();
        let rename = "rename the field of the request source";
        if keys.contains(name) {
            report(format!("takes `{name}` from request source `{source}`, but it is a join key as well"), rename);
        } else if stored.contains(name) {
            report(format!("takes `{name}` from request source `{source}`, but a source view has it as well"), rename);
        }
        let other = requested[..position].iter().find(|(_, other)| other.name == name);
        if let Some((other, _)) = other.filter(|(_, other)| other.value_type != field.value_type) {
            report(
                format!("takes `{name}` from request sources `{other}` and `{source}`, with different types"),
                rename,
            );
        }
    }
    for feature in &view.features {
        let name = feature.name.as_str();
        let what = if requested.iter().any(|(_, field)| field.name == name) {
            "an input from the request"
        } else if keys.contains(name) {
            "a join key of its sources"
        } else if stored.contains(name) {
            "a feature of its sources"
        } else {
            continue;
        };
        report(format!("declares feature `{name}`, which is {what} as well"), "rename the feature");
    }
}

/// Every column a view reads exists in its source, in a type that can become the declared one.
fn check_columns(view: &FeatureView, schemas: &SourceSchemas, problems: &mut Vec<Problem>) {
    let Some(source) = view.batch_source() else { return };
    let Some(schema) = schemas.get(&source.name) else { return };
    let columns: Vec<&str> = schema.fields().iter().map(|field| source.mapped(field.name())).collect();
    let find =
        |name: &str| schema.fields().iter().find(|field| source.mapped(field.name()) == name || field.name() == name);
    let missing = |role: &str, name: &str| {
        Problem::new(
            view.reference(),
            format!("takes {role} `{name}` from source `{}`, which has no such column", source.name),
        )
        .with_hint_opt(did_you_mean(name, columns.iter().copied()))
    };
    let keys: Vec<Field> = if view.is_entity_less() { Vec::new() } else { view.entity_columns.clone() };
    let features: &[Field] = if view.is_computed() { &[] } else { &view.features };
    for (role, field) in keys.iter().map(|f| ("join key", f)).chain(features.iter().map(|f| ("feature", f))) {
        match find(&field.name) {
            None => problems.push(missing(role, &field.name)),
            Some(column) => {
                if !becomes(column.data_type(), field.value_type) {
                    problems.push(
                        Problem::new(
                            view.reference(),
                            format!(
                                "declares {role} `{}` as {}, but its column in source {} is {}",
                                field.name,
                                field.value_type,
                                named_with_file(source),
                                column.data_type()
                            ),
                        )
                        .with_hint(format!("{}, or change the source", declare(column.data_type()))),
                    );
                }
            }
        }
    }
    for (role, name) in [
        ("event time", &source.timestamp_field),
        ("created time", &source.created_timestamp_column),
        ("date partition", &source.date_partition_column),
    ] {
        if name.is_empty() {
            continue;
        }
        match find(name) {
            None => problems.push(missing(role, name)),
            Some(column) if role != "date partition" && !may_hold_times(column.data_type()) => problems.push(
                Problem::new(
                    view.reference(),
                    format!(
                        "takes {role} from column `{name}` of source `{}`, which is {} and not a time",
                        source.name,
                        column.data_type()
                    ),
                )
                .with_hint("name a column of timestamps, dates or text in ISO 8601"),
            ),
            Some(_) => {}
        }
    }
}

/// A source, and where its rows are.
fn named_with_file(source: &DataSource) -> String {
    match &source.options {
        DataSourceOptions::File { uri, .. } if *uri != source.name => format!("`{}` (`{uri}`)", source.name),
        _ => format!("`{}`", source.name),
    }
}

/// The types that are meant by most who have such a column.
fn declare(column: &DataType) -> String {
    let same = ValueType::from_arrow(column).filter(|same| *same != ValueType::Null);
    let text = Some(ValueType::String).filter(|text| Some(*text) != same && becomes(column, *text));
    let names: Vec<String> = same.into_iter().chain(text).map(|known| format!("`{}`", known.declared_name())).collect();
    match names.is_empty() {
        true => "declare the type of the column".to_owned(),
        false => format!("declare it as {}", names.join(" or ")),
    }
}

/// Whether a column of the source can be read as a declared type.
fn becomes(column: &DataType, declared: ValueType) -> bool {
    let arrow_type = declared.arrow_type();
    // Which number a time would become depends on the unit in which the file happens to count.
    if column.is_temporal() && (arrow_type.is_numeric() || arrow_type == DataType::Boolean) {
        return false;
    }
    // Arrow would make a list of one from any value; nobody means that.
    let wraps = arrow_type.is_list() && !column.is_list() && !column.is_null();
    declared.is_opaque() || (!wraps && arrow::compute::can_cast_types(column, &arrow_type))
}

fn may_hold_times(column: &DataType) -> bool {
    match column {
        DataType::Dictionary(_, values) => may_hold_times(values),
        column => column.is_temporal() || column.is_string() || column.is_null(),
    }
}

fn check_projection(
    owner: &ObjectRef,
    projection: &FeatureViewProjection,
    desired: &ProjectContents,
    registered: Option<&ProjectContents>,
    problems: &mut Vec<Problem>,
) {
    let name = &projection.feature_view_name;
    let view = desired.feature_views.get(name).or_else(|| registered?.feature_views.get(name));
    let Some(view) = view else {
        problems.push(
            Problem::new(owner.clone(), format!("refers to feature view `{name}`, which does not exist"))
                .with_hint_opt(did_you_mean(name, desired.feature_views.keys().map(String::as_str)))
                .with_hint_opt(desired.feature_views.is_empty().then(|| "define it in the repository".to_owned())),
        );
        return;
    };
    for feature in projection.features.iter().filter(|feature| view.feature(&feature.name).is_none()) {
        problems.push(
            Problem::new(
                owner.clone(),
                format!("takes feature `{}` of feature view `{name}`, which has no such feature", feature.name),
            )
            .with_hint_opt(did_you_mean(&feature.name, view.features.iter().map(|field| field.name.as_str()))),
        );
    }
    for key in projection.join_key_map.keys().filter(|key| !view.join_keys().any(|known| known == key.as_str())) {
        problems.push(
            Problem::new(owner.clone(), format!("maps join key `{key}`, which feature view `{name}` does not have"))
                .with_hint_opt(did_you_mean(key, view.join_keys())),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{FeatureService, FeatureViewKind, Project, RegistryObject};

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut contents = ProjectContents { project: Project::new("-p"), ..ProjectContents::default() };
        let mut view = FeatureView::new("stats", FeatureViewKind::Batch(crate::BatchFeatures::default()));
        view.entities = vec!["driver".to_owned()];
        view.features = vec![Field::new("a", ValueType::Int64), Field::new("a", ValueType::Int64)];
        contents.put(RegistryObject::FeatureView(Arc::new(view)));
        let projection =
            FeatureViewProjection { feature_view_name: "stat".to_owned(), ..FeatureViewProjection::default() };
        let service =
            FeatureService { name: "s".to_owned(), projections: vec![projection], ..FeatureService::default() };
        contents.put(RegistryObject::FeatureService(Arc::new(service)));
        let texts: Vec<String> =
            validate(&contents, None, &SourceSchemas::new()).iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 4, "{texts:?}");
        assert!(texts[3].contains("did you mean `stats`?"), "{texts:?}");
    }
}
