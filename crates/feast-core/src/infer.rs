//! Fills what a definition leaves open from the schemas of its sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};

use crate::{
    DUMMY_ENTITY, DUMMY_JOIN_KEY, DataSource, Entity, FeatureView, FeatureViewKind, Field, ObjectKind, ObjectRef,
    OnDemandSource, Problem, ProjectContents, RegistryObject, ValueType, list_names,
};

/// Schemas by source name. Sources whose schema is not known are absent.
pub type SourceSchemas = BTreeMap<String, SchemaRef>;

/// What was found while definitions were filled in.
#[derive(Debug, Default, PartialEq)]
pub struct Inferred {
    /// What cannot be inferred.
    pub problems: Vec<Problem>,
    /// Views without schema that get fewer features than their source has columns. Nothing is wrong with them.
    pub left_out: Vec<Problem>,
}

/// Fills event time columns, join key columns and their types, features of views without schema, and projections of
/// feature services without features. Pure; what cannot be inferred is reported, all at once.
///
/// `registered` supplies entities and views that the desired contents refer to without defining them.
pub fn infer(desired: &mut ProjectContents, registered: Option<&ProjectContents>, schemas: &SourceSchemas) -> Inferred {
    let mut found = Inferred::default();
    for source in desired.data_sources.values_mut() {
        infer_source(Arc::make_mut(source), schemas, &mut found.problems);
    }
    let known = |desired: &ProjectContents, name: &str| -> Option<Arc<Entity>> {
        desired.entities.get(name).or_else(|| registered?.entities.get(name)).cloned()
    };
    let mut needs_dummy = false;
    let mut names: Vec<String> = desired.feature_views.keys().cloned().collect();
    // Labels have little to say about the types of entities, and on-demand views take those of their sources.
    names.sort_by_key(|name| {
        let view = desired.feature_views.get(name);
        (view.is_some_and(|view| view.on_demand().is_some()), view.is_some_and(|view| is_label_view(view)))
    });
    for name in names {
        let Some(view) = desired.feature_views.get(&name) else { continue };
        let mut view = FeatureView::clone(view);
        take_entities_of_sources(&mut view, desired, registered, &mut found.problems);
        if view.is_entity_less() {
            view.entities = vec![DUMMY_ENTITY.to_owned()];
            view.entity_columns = vec![Field::new(DUMMY_JOIN_KEY, ValueType::String)];
            needs_dummy = true;
        }
        let entities: Vec<Arc<Entity>> = view.entities.iter().filter_map(|name| known(desired, name)).collect();
        infer_view(&mut view, &entities, schemas, &mut found);
        for entity in entities {
            let column = view.entity_columns.iter().find(|column| column.name == entity.join_key);
            if let (Some(column), Some(own)) = (column, desired.entities.get_mut(&entity.name))
                && own.value_type == ValueType::Invalid
                && entity.name != DUMMY_ENTITY
            {
                Arc::make_mut(own).value_type = column.value_type;
            }
        }
        desired.put(RegistryObject::FeatureView(Arc::new(view)));
    }
    if needs_dummy {
        desired.put(RegistryObject::Entity(Arc::new(Entity::dummy())));
    }
    infer_projections(desired, registered);
    found
}

/// An on-demand view whose results are stored has the entities of its sources, unless it names its own: under none, all
/// of them would share one row.
fn take_entities_of_sources(
    view: &mut FeatureView,
    desired: &ProjectContents,
    registered: Option<&ProjectContents>,
    problems: &mut Vec<Problem>,
) {
    let Some(on_demand) = view.on_demand().filter(|on_demand| on_demand.write_to_online_store) else { return };
    if !view.is_entity_less() {
        return;
    }
    let find = |name: &str| desired.feature_views.get(name).or_else(|| registered?.feature_views.get(name));
    let (mut entities, mut columns): (Vec<String>, Vec<Field>) = (Vec::new(), Vec::new());
    for source in on_demand.sources.values() {
        let source: &FeatureView = match source {
            OnDemandSource::FeatureView(source) => find(&source.name).map_or(&**source, |known| known),
            OnDemandSource::Projection(projection) => {
                if !projection.join_key_map.is_empty() {
                    let message = format!(
                        "stores its results, but not under which keys: its source `{}` renames join keys",
                        projection.feature_view_name
                    );
                    problems.push(Problem::new(view.reference(), message).with_hint("give it `entities=[...]`"));
                    return;
                }
                match find(&projection.feature_view_name) {
                    Some(known) => known,
                    // Reported where sources are checked.
                    None => return,
                }
            }
            OnDemandSource::Request(_) => continue,
        };
        if source.is_entity_less() {
            continue;
        }
        for entity in source.entities.iter().filter(|name| !entities.contains(name)).cloned().collect::<Vec<_>>() {
            entities.push(entity);
        }
        for column in &source.entity_columns {
            if !columns.iter().any(|known| known.name == column.name) {
                columns.push(column.clone());
            }
        }
    }
    if !entities.is_empty() {
        (view.entities, view.entity_columns) = (entities, columns);
    }
}

fn infer_source(source: &mut DataSource, schemas: &SourceSchemas, problems: &mut Vec<Problem>) {
    if let Some(batch) = source.batch_source.as_deref_mut() {
        infer_source(batch, schemas, problems);
        if source.timestamp_field.is_empty() {
            source.timestamp_field = batch.timestamp_field.clone();
        }
        if source.created_timestamp_column.is_empty() {
            source.created_timestamp_column = batch.created_timestamp_column.clone();
        }
        return;
    }
    if !source.timestamp_field.is_empty() {
        return;
    }
    let Some(schema) = schemas.get(&source.name) else { return };
    let timestamps: Vec<&str> = schema
        .fields()
        .iter()
        .filter(|field| matches!(field.data_type(), DataType::Timestamp(..)))
        .map(|field| field.name().as_str())
        .filter(|name| *name != source.created_timestamp_column)
        .collect();
    match timestamps.as_slice() {
        [only] => source.timestamp_field = (*only).to_owned(),
        found => problems.push(
            Problem::new(
                ObjectRef::new(ObjectKind::DataSource, &source.name),
                match found {
                    [] => "has no timestamp column from which the event time could be taken".to_owned(),
                    many => format!("has several timestamp columns: {}", list_names(many.iter().copied())),
                },
            )
            .with_hint("name the column with `timestamp_field=`"),
        ),
    }
}

fn infer_view(view: &mut FeatureView, entities: &[Arc<Entity>], schemas: &SourceSchemas, found: &mut Inferred) {
    let Inferred { problems, left_out } = found;
    if let Some(source) = view.batch_source_mut() {
        // The source itself is reported where it is listed; here its twin inside the view is brought up to date.
        infer_source(source, schemas, &mut Vec::new());
    }
    let reference = view.reference();
    let source = view.batch_source().cloned();
    let schema = source.as_ref().and_then(|source| schemas.get(&source.name)).cloned();
    let column_type = |name: &str| {
        let (schema, source) = (schema.as_ref()?, source.as_ref()?);
        let column = schema.field_with_name(source.unmapped(name)).or_else(|_| schema.field_with_name(name)).ok()?;
        ValueType::from_arrow(column.data_type())
    };
    let mut columns = Vec::new();
    for entity in entities.iter().filter(|entity| entity.name != DUMMY_ENTITY) {
        let declared = view
            .entity_columns
            .iter()
            .chain(&view.features)
            .find(|field| field.name == entity.join_key && field.value_type != ValueType::Invalid);
        let column = match declared {
            Some(declared) => Some(declared.clone()),
            None if entity.value_type != ValueType::Invalid => Some(Field::new(&entity.join_key, entity.value_type)),
            None => column_type(&entity.join_key).map(|value_type| Field::new(&entity.join_key, value_type)),
        };
        match column {
            Some(column) => {
                // Python gives a key of a label view this type for want of a better one.
                let unknown = is_label_view(view) && column.value_type == ValueType::String;
                if entity.value_type != ValueType::Invalid && entity.value_type != column.value_type && !unknown {
                    problems.push(
                        Problem::new(
                            reference.clone(),
                            format!(
                                "declares join key `{}` as {}, but entity `{}` declares it as {}",
                                column.name, column.value_type, entity.name, entity.value_type
                            ),
                        )
                        .with_hint("declare the same type in both places"),
                    );
                }
                columns.push(column);
            }
            None => problems.push(
                Problem::new(
                    reference.clone(),
                    format!("has no type for join key `{}` of entity `{}`", entity.join_key, entity.name),
                )
                .with_hint(format!(
                    "add `Field(name=\"{}\", dtype=...)` to the schema, or `value_type=` to the entity",
                    entity.join_key
                )),
            ),
        }
    }
    if !view.is_entity_less() {
        view.entity_columns = columns;
    }
    let join_keys: Vec<String> = view.join_keys().map(str::to_owned).collect();
    view.features.retain(|field| !join_keys.contains(&field.name));
    if view.features.is_empty()
        && view.on_demand().is_none()
        && let (Some(schema), Some(source)) = (&schema, &source)
    {
        let columns = inferred_columns(schema, source, &join_keys);
        view.features =
            columns.iter().filter_map(|(name, value_type, _)| Some(Field::new(*name, (*value_type)?))).collect();
        let untyped: Vec<_> = columns.iter().filter(|(_, value_type, _)| value_type.is_none()).collect();
        let told =
            untyped.iter().map(|(name, _, column)| format!("`{name}` ({column})")).collect::<Vec<_>>().join(", ");
        let one = untyped.len() == 1;
        let columns_in_words = if one { "column" } else { "columns" };
        let declare = format!(
            "declare {} with `schema=[Field(...)]` as a type that {} can become, such as `String`, or change the source",
            if one { "it" } else { "them" },
            if one { "it" } else { "they" }
        );
        if view.features.is_empty() {
            let problem = match untyped.is_empty() {
                true => Problem::new(
                    reference,
                    format!("has no schema, and its source `{}` has no further columns", source.name),
                )
                .with_hint("declare the features with `schema=[Field(...)]`"),
                false => Problem::new(
                    reference,
                    format!(
                        "has no schema, and no feature type is like the {columns_in_words} {told} of its source `{}`",
                        source.name
                    ),
                )
                .with_hint(declare),
            };
            problems.push(problem);
        } else if !untyped.is_empty() {
            left_out.push(
                Problem::new(
                    reference,
                    format!(
                        "has no schema, and gets no feature of the {columns_in_words} {told} of its source `{}`: \
                         no feature type is like {}",
                        source.name,
                        if one { "it" } else { "them" }
                    ),
                )
                .with_hint(declare),
            );
        }
    }
}

fn is_label_view(view: &FeatureView) -> bool {
    matches!(view.kind, FeatureViewKind::Label(_))
}

/// Every column of the source that is neither a join key nor a time, with the type that its feature gets.
fn inferred_columns<'a>(
    schema: &'a Schema,
    source: &'a DataSource,
    join_keys: &[String],
) -> Vec<(&'a str, Option<ValueType>, &'a DataType)> {
    let reserved = [&source.timestamp_field, &source.created_timestamp_column, &source.date_partition_column];
    schema
        .fields()
        .iter()
        .filter(|column| !reserved.contains(&column.name()))
        .map(|column| (source.mapped(column.name()), column.data_type()))
        .filter(|(name, _)| !reserved.iter().any(|r| r.as_str() == *name) && !join_keys.iter().any(|key| key == name))
        .filter(|(name, _)| !name.starts_with("__index"))
        .map(|(name, data_type)| (name, ValueType::from_arrow(data_type), data_type))
        .collect()
}

/// Gives feature services that take a whole view the features that the view has.
pub fn infer_projections(desired: &mut ProjectContents, registered: Option<&ProjectContents>) {
    let services: Vec<_> = desired.feature_services.values().cloned().collect();
    for service in services {
        let mut service = crate::FeatureService::clone(&service);
        for projection in &mut service.projections {
            let name = &projection.feature_view_name;
            let view = desired.feature_views.get(name).or_else(|| registered?.feature_views.get(name));
            let Some(view) = view else { continue };
            if is_label_view(view) {
                // Whoever named the view did not know.
                projection.view_type = "labelView".to_owned();
            }
            if projection.features.is_empty() {
                projection.features = view.features.clone();
            } else {
                for field in &mut projection.features {
                    if let Some(declared) = view.feature(&field.name) {
                        *field = declared.clone();
                    }
                }
            }
        }
        desired.put(RegistryObject::FeatureService(Arc::new(service)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::datatypes::Field as ArrowField;

    use super::*;
    use crate::{BatchFeatures, LabelFeatures, Project};

    fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(
            columns.iter().map(|(name, data_type)| ArrowField::new(*name, data_type.clone(), true)).collect::<Vec<_>>(),
        ))
    }

    fn desired() -> ProjectContents {
        let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
        let source = DataSource::file("stats", "stats.parquet", "");
        let batch = BatchFeatures { batch_source: Some(source.clone()), ..BatchFeatures::default() };
        let mut view = FeatureView::new("driver_stats", FeatureViewKind::Batch(batch));
        view.entities = vec!["driver".to_owned()];
        contents.put(RegistryObject::DataSource(Arc::new(source)));
        contents.put(RegistryObject::Entity(Arc::new(Entity::new("driver", "driver_id", ValueType::Invalid))));
        contents.put(RegistryObject::FeatureView(Arc::new(view)));
        contents
    }

    #[test]
    fn everything_open_is_taken_from_the_source() {
        let mut contents = desired();
        let columns = schema(&[
            ("driver_id", DataType::Int64),
            ("event_timestamp", crate::timestamp_type()),
            ("conv_rate", DataType::Float64),
        ]);
        assert_eq!(infer(&mut contents, None, &[("stats".to_owned(), columns)].into()), Inferred::default());
        let view = contents.feature_view("driver_stats").unwrap();
        assert_eq!(view.features, [Field::new("conv_rate", ValueType::Double)]);
        assert_eq!(view.entity_columns, [Field::new("driver_id", ValueType::Int64)]);
        assert_eq!(view.batch_source().unwrap().timestamp_field, "event_timestamp");
        assert_eq!(contents.data_sources["stats"].timestamp_field, "event_timestamp");
        assert_eq!(contents.entities["driver"].value_type, ValueType::Int64);
    }

    #[test]
    fn the_key_of_a_label_view_does_not_contradict_its_entity() {
        let mut contents = desired();
        let mut label = FeatureView::new("a_label", FeatureViewKind::Label(LabelFeatures::default()));
        label.entities = vec!["driver".to_owned()];
        label.entity_columns = vec![Field::new("driver_id", ValueType::String)];
        label.features = vec![Field::new("fraud", ValueType::Bool)];
        contents.put(RegistryObject::FeatureView(Arc::new(label)));
        let columns = schema(&[
            ("driver_id", DataType::Int64),
            ("event_timestamp", crate::timestamp_type()),
            ("conv_rate", DataType::Float64),
        ]);
        assert_eq!(infer(&mut contents, None, &[("stats".to_owned(), columns)].into()), Inferred::default());
        assert_eq!(contents.entities["driver"].value_type, ValueType::Int64);
    }

    #[test]
    fn what_cannot_be_inferred_is_reported_at_once() {
        let mut contents = desired();
        let columns = schema(&[("a", crate::timestamp_type()), ("b", crate::timestamp_type())]);
        let found = infer(&mut contents, None, &[("stats".to_owned(), columns)].into());
        let texts: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
        assert!(texts[0].contains("several timestamp columns: `a` and `b`"), "{texts:?}");
        assert!(texts[1].contains("no type for join key `driver_id`"), "{texts:?}");
    }
}
