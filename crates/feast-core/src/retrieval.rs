//! From feature references to what has to be read: the same plan for online and offline.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::TimeDelta;
use indexmap::IndexMap;

use crate::{
    DUMMY_ENTITY, DUMMY_JOIN_KEY, Error, ErrorCode, FeatureService, FeatureView, FeatureViewProjection, Field, Memo,
    OnDemandSource, OnlineTable, ProjectContents, Result, TimeToLive, ValueType, VersionRecord, WantedColumns,
    did_you_mean, list_names,
};

/// `view:feature`, `view@v2:feature` or `view@latest:feature`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FeatureReference {
    /// Name of the view.
    pub view: String,
    /// Version asked for; `None` is the latest.
    pub version: Option<i32>,
    /// Name of the feature.
    pub feature: String,
}

impl FromStr for FeatureReference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || {
            Error::new(ErrorCode::InvalidFeatureReference, format!("invalid feature reference `{text}`"))
                .with_hint("write `<feature_view>:<feature>` or `<feature_view>@<version>:<feature>`")
        };
        let (view, feature) = text.split_once(':').ok_or_else(malformed)?;
        let (view, version) = match view.split_once('@') {
            None | Some((_, "latest")) => (view.split('@').next().unwrap_or(view), None),
            Some((view, version)) => {
                let number = version.strip_prefix(['v', 'V']).unwrap_or(version);
                (view, Some(number.parse::<i32>().ok().filter(|n| *n >= 0).ok_or_else(malformed)?))
            }
        };
        if view.is_empty() || feature.is_empty() {
            return Err(malformed());
        }
        Ok(Self { view: view.to_owned(), version, feature: feature.to_owned() })
    }
}

impl fmt::Display for FeatureReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Some(version) => write!(f, "{}@v{version}:{}", self.view, self.feature),
            None => write!(f, "{}:{}", self.view, self.feature),
        }
    }
}

/// Which features a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum FeatureSelection {
    /// Feature references, in order.
    References(Vec<String>),
    /// A registered feature service.
    ServiceName(String),
    /// A feature service as the caller holds it, registered or not.
    Service(Arc<FeatureService>),
}

/// What must be read to answer a request, and how the answer looks.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrievalPlan {
    /// Project of all views.
    pub project: String,
    /// Name of the feature service, when the request named one.
    pub feature_service: Option<String>,
    /// Stored views to read, in order of first appearance.
    pub views: Vec<PlannedView>,
    /// Views to compute afterwards, in order.
    pub on_demand: Vec<PlannedOnDemandView>,
    /// Columns the caller must supply to identify rows, without the dummy key.
    pub join_keys: Vec<PlannedJoinKey>,
    /// Join keys of the project that no view needs. Who supplies them gets them back, beside the others.
    pub other_join_keys: Vec<PlannedJoinKey>,
    /// The different sets of join keys of `views`.
    pub key_sets: Vec<PlannedKeySet>,
    /// Entity names by which the caller may call a join key.
    pub entity_aliases: Vec<EntityAlias>,
    /// Columns the caller must supply as input of on-demand views.
    pub request_fields: Vec<Field>,
    /// Whether output names carry the name of their view.
    pub full_feature_names: bool,
    /// What whoever answers works out about it.
    pub memo: Memo,
}

/// An entity whose name differs from its join key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct EntityAlias {
    pub entity: String,
    pub join_key: String,
}

/// What is read of one view.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedView {
    /// The view.
    pub view: Arc<FeatureView>,
    /// Name under which its features appear: the alias of the projection or the name of the view.
    pub name: String,
    /// Version asked for.
    pub version: Option<i32>,
    /// Whether the online store has rows of this version: of the current one always, of others where each has a table of
    /// its own.
    pub is_stored: bool,
    /// Its join keys and the caller's columns that hold them; for entity-less views the dummy key.
    pub join_keys: Vec<PlannedJoinKey>,
    /// The features read, the returned ones first and in the order asked for.
    pub features: Vec<PlannedFeature>,
    /// How far back values count.
    pub ttl: TimeToLive,
    /// Where its rows are online, and the columns of `features` there, in the same order.
    pub online: WantedColumns,
    /// Position of its join keys in [`RetrievalPlan::key_sets`].
    pub key_set: usize,
}

/// Join keys that one or more views share: their distinct keys are found and encoded once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedKeySet {
    /// The join keys, as each of the views has them.
    pub join_keys: Vec<PlannedJoinKey>,
    /// The same as columns.
    pub fields: Vec<Field>,
    /// How they are encoded.
    pub memo: Memo,
}

/// A join key of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedJoinKey {
    /// Name in the view and in the online store.
    pub key: String,
    /// Name of the caller's column.
    pub column: String,
    /// Type of the key.
    pub value_type: ValueType,
}

/// A feature that is read or computed.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedFeature {
    /// Declaration of the feature.
    pub field: Field,
    /// Its position among the features of the view.
    pub position: usize,
    /// Name of the output column.
    pub output: Arc<str>,
    /// Whether the caller asked for it; otherwise it is only the input of an on-demand view.
    pub returned: bool,
}

/// A view that is computed from others.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedOnDemandView {
    /// The view.
    pub view: Arc<FeatureView>,
    /// Name under which its features appear.
    pub name: String,
    /// The features asked for.
    pub features: Vec<PlannedFeature>,
}

impl RetrievalPlan {
    /// Plans a request against the objects of a project, of which only the current versions are known. Pure.
    ///
    /// # Errors
    /// Unknown views, features and services; malformed references; two outputs with the same name; disabled views.
    pub fn resolve(contents: &ProjectContents, selection: &FeatureSelection, full_feature_names: bool) -> Result<Self> {
        Self::resolve_with(contents, Versions::default(), selection, full_feature_names)
    }

    /// [`resolve`](Self::resolve) where older versions of the views are known, too.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), and versions that there are not.
    pub fn resolve_with(
        contents: &ProjectContents,
        versions: Versions<'_>,
        selection: &FeatureSelection,
        full_feature_names: bool,
    ) -> Result<Self> {
        let mut planner =
            Planner { contents, versions, full_feature_names, views: IndexMap::new(), on_demand: IndexMap::new() };
        let mut feature_service = None;
        match selection {
            FeatureSelection::References(references) => {
                if references.is_empty() {
                    return Err(Error::invalid_request("no features were asked for")
                        .with_hint("name features as `<feature_view>:<feature>`, or a feature service"));
                }
                for text in references {
                    let reference: FeatureReference = text.parse()?;
                    planner.add(Wanted {
                        view: &reference.view,
                        alias: None,
                        version: reference.version,
                        feature: &reference.feature,
                        join_key_map: None,
                        returned: true,
                    })?;
                }
            }
            FeatureSelection::ServiceName(name) => {
                planner.add_service(contents.feature_service(name)?)?;
                feature_service = Some(name.clone());
            }
            FeatureSelection::Service(service) => {
                planner.add_service(service)?;
                feature_service = Some(service.name.clone());
            }
        }
        planner.finish(feature_service)
    }

    /// Names and types of the output columns, without the caller's own columns.
    pub fn outputs(&self) -> impl Iterator<Item = &PlannedFeature> {
        let stored = self.views.iter().flat_map(|view| &view.features);
        stored.chain(self.on_demand.iter().flat_map(|view| &view.features)).filter(|feature| feature.returned)
    }

    /// Feature references of the outputs, as Feast's retrieval metadata lists them.
    pub fn references(&self) -> Vec<String> {
        let stored = self.views.iter().map(|view| (&view.name, &view.features));
        let computed = self.on_demand.iter().map(|view| (&view.name, &view.features));
        stored
            .chain(computed)
            .flat_map(|(view, features)| {
                features.iter().filter(|f| f.returned).map(move |f| format!("{view}:{}", f.field.name))
            })
            .collect()
    }

    /// The longest look-back of the views; `None` when none has a limit.
    pub fn longest_ttl(&self) -> Option<TimeDelta> {
        self.views.iter().filter_map(|view| view.ttl.limit()).max()
    }
}

/// The versions of views that a request may ask for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Versions<'a> {
    /// Older definitions, of all projects.
    pub records: &'a [Arc<VersionRecord>],
    /// Whether each version has a table of its own in the online store.
    pub have_tables: bool,
}

impl Versions<'_> {
    /// The definition of a view in one of its versions.
    ///
    /// # Errors
    /// `FeatureViewVersionNotFound` telling those that there are.
    pub fn of(&self, contents: &ProjectContents, current: &Arc<FeatureView>, number: i32) -> Result<Arc<FeatureView>> {
        if number == current.meta.current_version_number {
            return Ok(Arc::clone(current));
        }
        let project = &contents.project.name;
        let mut records = self.records.iter().filter(|record| record.is_of(project, &current.name));
        let Some(record) = records.find(|record| record.version_number == number) else {
            let records = self.records.iter().filter(|record| record.is_of(project, &current.name));
            let mut numbers: Vec<i32> = records.map(|record| record.version_number).collect();
            numbers.push(current.meta.current_version_number);
            numbers.sort_unstable();
            numbers.dedup();
            let names: Vec<String> = numbers.iter().map(|number| format!("v{number}")).collect();
            return Err(Error::new(
                ErrorCode::FeatureViewVersionNotFound,
                format!("{} has no version `v{number}`", current.reference()),
            )
            .with_hint(format!("its versions are {}", list_names(names.iter().map(String::as_str)))));
        };
        let mut view = FeatureView::clone(&*record.view()?);
        view.meta.current_version_number = number;
        Ok(Arc::new(view))
    }
}

struct Planner<'a> {
    contents: &'a ProjectContents,
    versions: Versions<'a>,
    full_feature_names: bool,
    /// By name, version and join key map, so that two projections of one view stay apart.
    views: IndexMap<(String, Option<i32>), PlannedView>,
    on_demand: IndexMap<String, PlannedOnDemandView>,
}

#[derive(Clone, Copy)]
struct Wanted<'a> {
    view: &'a str,
    alias: Option<&'a str>,
    version: Option<i32>,
    feature: &'a str,
    join_key_map: Option<&'a std::collections::BTreeMap<String, String>>,
    returned: bool,
}

impl Planner<'_> {
    fn add_service(&mut self, service: &FeatureService) -> Result<()> {
        for projection in &service.projections {
            self.add_projection(projection, true)
                .map_err(|error| error.with_context("feature service", &service.name))?;
        }
        Ok(())
    }

    fn add_projection(&mut self, projection: &FeatureViewProjection, returned: bool) -> Result<()> {
        let view = self.view(&projection.feature_view_name, projection.version_tag)?;
        // A service that was declared with a bare view takes all its features.
        let features = if projection.features.is_empty() { &view.features } else { &projection.features };
        for feature in features {
            self.add(Wanted {
                view: &projection.feature_view_name,
                alias: (!projection.alias.is_empty()).then_some(projection.alias.as_str()),
                version: projection.version_tag,
                feature: &feature.name,
                join_key_map: Some(&projection.join_key_map),
                returned,
            })?;
        }
        Ok(())
    }

    fn view(&self, name: &str, version: Option<i32>) -> Result<Arc<FeatureView>> {
        let current = self.contents.feature_view(name)?;
        if current.disabled {
            return Err(Error::invalid_request(format!("feature view `{name}` is disabled"))
                .with_hint(format!("enable it with `feast feature-views enable {name}`")));
        }
        match version {
            Some(number) => self.versions.of(self.contents, current, number),
            None => Ok(Arc::clone(current)),
        }
    }

    /// The table with the rows of a version of a view.
    fn table(&self, view: &FeatureView) -> OnlineTable {
        let table = OnlineTable::of(&self.contents.project.name, view);
        if self.versions.have_tables { table.in_version(view.meta.current_version_number) } else { table }
    }

    fn add(&mut self, wanted: Wanted<'_>) -> Result<()> {
        let view = self.view(wanted.view, wanted.version)?;
        let unknown = || {
            Error::new(
                ErrorCode::FeatureNotFound,
                format!("feature view `{}` has no feature `{}`", view.name, wanted.feature),
            )
            .with_hint_opt(did_you_mean(wanted.feature, view.features.iter().map(|field| field.name.as_str())))
        };
        let position = view.features.iter().position(|field| field.name == wanted.feature).ok_or_else(unknown)?;
        let name = match (wanted.alias, wanted.version) {
            (Some(alias), _) => alias.to_owned(),
            (None, Some(version)) => format!("{}@v{version}", view.name),
            (None, None) => view.name.clone(),
        };
        let output: Arc<str> = match self.full_feature_names {
            true => format!("{name}__{}", wanted.feature).into(),
            false => wanted.feature.into(),
        };
        let feature =
            PlannedFeature { field: view.features[position].clone(), position, output, returned: wanted.returned };
        match view.on_demand() {
            Some(on_demand) if !on_demand.write_to_online_store => {
                if !self.on_demand.contains_key(&name) {
                    let sources = on_demand.sources.clone();
                    let planned =
                        PlannedOnDemandView { view: Arc::clone(&view), name: name.clone(), features: Vec::new() };
                    self.on_demand.insert(name.clone(), planned);
                    for source in sources.values() {
                        match source {
                            OnDemandSource::FeatureView(source) => {
                                for feature in &source.features {
                                    self.add(Wanted {
                                        view: &source.name,
                                        alias: None,
                                        version: None,
                                        feature: &feature.name,
                                        join_key_map: None,
                                        returned: false,
                                    })?;
                                }
                            }
                            OnDemandSource::Projection(projection) => self.add_projection(projection, false)?,
                            OnDemandSource::Request(_) => {}
                        }
                    }
                }
                let planned = self.on_demand.get_mut(&name).ok_or_else(|| Error::internal("a planned view is gone"))?;
                if planned.view.name != view.name {
                    return Err(two_under_one_name(&name));
                }
                push_feature(&mut planned.features, feature);
            }
            _ => {
                let join_keys = planned_join_keys(&view, wanted.join_key_map)?;
                let online = self.table(&view).wanted([]);
                let current = self.contents.feature_view(wanted.view)?.meta.current_version_number;
                let is_stored = self.versions.have_tables || view.meta.current_version_number == current;
                let planned = self.views.entry((name.clone(), wanted.version)).or_insert_with(|| PlannedView {
                    ttl: view.time_to_live(),
                    view: Arc::clone(&view),
                    name,
                    version: wanted.version,
                    is_stored,
                    join_keys: join_keys.clone(),
                    features: Vec::new(),
                    online,
                    key_set: 0,
                });
                if planned.join_keys != join_keys || planned.view.name != view.name {
                    return Err(two_under_one_name(&planned.name));
                }
                push_feature(&mut planned.features, feature);
            }
        }
        Ok(())
    }

    fn finish(self, feature_service: Option<String>) -> Result<RetrievalPlan> {
        let mut views: Vec<PlannedView> = self.views.into_values().collect();
        let mut key_sets: Vec<PlannedKeySet> = Vec::new();
        for view in &mut views {
            view.features.sort_by_key(|feature| !feature.returned);
            view.online.positions = view.features.iter().map(|feature| feature.position).collect();
            let known = key_sets.iter().position(|set| set.join_keys == view.join_keys);
            view.key_set = known.unwrap_or(key_sets.len());
            if known.is_none() {
                let fields = view.join_keys.iter().map(|key| Field::new(&key.key, key.value_type)).collect();
                key_sets.push(PlannedKeySet { join_keys: view.join_keys.clone(), fields, memo: Memo::default() });
            }
        }
        let on_demand: Vec<PlannedOnDemandView> = self.on_demand.into_values().collect();
        let mut join_keys: Vec<PlannedJoinKey> = Vec::new();
        for key in views.iter().flat_map(|view| &view.join_keys).filter(|key| key.key != DUMMY_JOIN_KEY) {
            if !join_keys.iter().any(|known| known.column == key.column) {
                join_keys.push(key.clone());
            }
        }
        let mut entity_aliases: Vec<EntityAlias> = Vec::new();
        for entity in
            views.iter().flat_map(|view| &view.view.entities).filter_map(|name| self.contents.entities.get(name))
        {
            let alias = EntityAlias { entity: entity.name.clone(), join_key: entity.join_key.clone() };
            if alias.entity != alias.join_key && !entity_aliases.contains(&alias) {
                entity_aliases.push(alias);
            }
        }
        let mut request_fields: Vec<Field> = Vec::new();
        for source in
            on_demand.iter().filter_map(|planned| planned.view.on_demand()).flat_map(|view| view.sources.values())
        {
            if let OnDemandSource::Request(request) = source
                && let crate::DataSourceOptions::Request { schema } = &request.options
            {
                for field in schema {
                    if !request_fields.iter().any(|known| known.name == field.name) {
                        request_fields.push(field.clone());
                    }
                }
            }
        }
        let other_join_keys = other_join_keys(self.contents, &join_keys, &request_fields);
        let plan = RetrievalPlan {
            project: self.contents.project.name.clone(),
            feature_service,
            views,
            on_demand,
            join_keys,
            other_join_keys,
            key_sets,
            entity_aliases,
            request_fields,
            full_feature_names: self.full_feature_names,
            memo: Memo::default(),
        };
        check_collisions(&plan)?;
        Ok(plan)
    }
}

/// Join keys of the project that are not among those needed.
fn other_join_keys(
    contents: &ProjectContents,
    needed: &[PlannedJoinKey],
    request_fields: &[Field],
) -> Vec<PlannedJoinKey> {
    let is_needed = |key: &str| {
        needed.iter().any(|known| known.column == key) || request_fields.iter().any(|field| field.name == key)
    };
    let mut others: Vec<PlannedJoinKey> = Vec::new();
    for entity in contents.entities.values().filter(|entity| entity.name != DUMMY_ENTITY) {
        let key = &entity.join_key;
        let has_type = entity.value_type != ValueType::Invalid;
        if has_type && !is_needed(key) && !others.iter().any(|known| known.column == *key) {
            others.push(PlannedJoinKey { key: key.clone(), column: key.clone(), value_type: entity.value_type });
        }
    }
    others
}

fn two_under_one_name(name: &str) -> Error {
    Error::new(ErrorCode::FeatureNameCollision, format!("two projections appear under the name `{name}`"))
        .with_hint("give one of them another name with `with_name`")
}

/// Adds a feature; asking for it wins over merely needing it. Asking twice is found by the collision check.
fn push_feature(features: &mut Vec<PlannedFeature>, feature: PlannedFeature) {
    match features.iter_mut().find(|known| known.position == feature.position) {
        Some(known) if !known.returned => known.returned = feature.returned,
        Some(_) if !feature.returned => {}
        _ => features.push(feature),
    }
}

fn planned_join_keys(
    view: &FeatureView,
    map: Option<&std::collections::BTreeMap<String, String>>,
) -> Result<Vec<PlannedJoinKey>> {
    let columns = view.key_columns();
    if let Some(unknown) =
        map.into_iter().flat_map(|map| map.keys()).find(|key| !columns.iter().any(|c| c.name == **key))
    {
        return Err(Error::invalid_request(format!("feature view `{}` has no join key `{unknown}`", view.name))
            .with_hint_opt(did_you_mean(unknown, columns.iter().map(|column| column.name.as_str()))));
    }
    Ok(columns
        .into_iter()
        .map(|column| PlannedJoinKey {
            column: map.and_then(|map| map.get(&column.name)).unwrap_or(&column.name).clone(),
            key: column.name,
            value_type: column.value_type,
        })
        .collect())
}

fn check_collisions(plan: &RetrievalPlan) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for feature in plan.outputs() {
        if plan.join_keys.iter().any(|key| *key.column == *feature.output) {
            return Err(Error::new(
                ErrorCode::FeatureNameCollision,
                format!("`{}` is both a feature asked for and a join key of the request", feature.output),
            )
            .with_hint("use full feature names, which carry the name of the view"));
        }
        if !seen.insert(&*feature.output) {
            let hint = if plan.full_feature_names {
                "ask for each feature once, or give one of the projections another name with `with_name`"
            } else {
                "ask for each feature once, or use full feature names, which carry the name of the view"
            };
            return Err(Error::new(
                ErrorCode::FeatureNameCollision,
                format!("two of the features asked for would both be called `{}`", feature.output),
            )
            .with_hint(hint));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{
        BatchFeatures, Entity, FeatureViewKind, ObjectKind, PastDefinition, Project, RegistryObject, RegistrySnapshot,
    };

    fn contents() -> ProjectContents {
        let mut contents = ProjectContents { project: Project::new("p"), ..ProjectContents::default() };
        contents.put(RegistryObject::Entity(Arc::new(Entity::new("driver", "driver_id", ValueType::Int64))));
        for (name, features) in [("stats", ["rate", "trips"]), ("other", ["city", "trips"])] {
            let mut view = FeatureView::new(name, FeatureViewKind::Batch(BatchFeatures::default()));
            view.entities = vec!["driver".to_owned()];
            view.entity_columns = vec![Field::new("driver_id", ValueType::Int64)];
            view.features = features.map(|feature| Field::new(feature, ValueType::Int64)).to_vec();
            contents.put(RegistryObject::FeatureView(Arc::new(view)));
        }
        contents
    }

    fn resolve(references: &[&str], full: bool) -> Result<RetrievalPlan> {
        let selection = FeatureSelection::References(references.iter().map(|r| (*r).to_owned()).collect());
        RetrievalPlan::resolve(&contents(), &selection, full)
    }

    fn outputs(plan: &RetrievalPlan) -> Vec<&str> {
        plan.outputs().map(|feature| &*feature.output).collect()
    }

    #[test]
    fn features_stay_in_the_order_asked_for_within_their_view() {
        let plan = resolve(&["stats:trips", "other:city", "stats:rate"], false).unwrap();
        assert_eq!(outputs(&plan), ["trips", "rate", "city"]);
        assert_eq!(plan.join_keys.len(), 1);
        assert_eq!(
            plan.entity_aliases,
            [EntityAlias { entity: "driver".to_owned(), join_key: "driver_id".to_owned() }]
        );
    }

    #[test]
    fn a_version_has_its_own_definition_and_where_versions_have_tables_its_own_table() {
        let mut contents = contents();
        let mut current = FeatureView::clone(contents.feature_view("stats").unwrap());
        let mut first = current.clone();
        first.features.truncate(1);
        current.meta.current_version_number = 2;
        let record = VersionRecord {
            project: "p".to_owned(),
            feature_view: "stats".to_owned(),
            kind: ObjectKind::FeatureView,
            version_number: 1,
            definition: PastDefinition::Read(Arc::new(first)),
            created: None,
            description: String::new(),
            version_id: String::new(),
        };
        contents.put(RegistryObject::FeatureView(Arc::new(current)));
        let records = [Arc::new(record)];
        let resolve = |reference: &str, have_tables: bool| {
            let versions = Versions { records: &records, have_tables };
            let selection = FeatureSelection::References(vec![reference.to_owned()]);
            RetrievalPlan::resolve_with(&contents, versions, &selection, false)
        };
        for (reference, have_tables, table, is_stored) in [
            ("stats:trips", false, "p_stats", true),
            ("stats@v2:trips", false, "p_stats", true),
            ("stats@v1:rate", false, "p_stats", false),
            ("stats:trips", true, "p_stats_v2", true),
            ("stats@v1:rate", true, "p_stats_v1", true),
        ] {
            let view = resolve(reference, have_tables).unwrap().views.remove(0);
            assert_eq!((view.online.table.name().as_str(), view.is_stored), (table, is_stored), "{reference}");
        }
        assert_eq!(resolve("stats@v1:trips", true).unwrap_err().code(), ErrorCode::FeatureNotFound);
        let error = resolve("stats@v7:rate", true).unwrap_err();
        assert_eq!(error.code(), ErrorCode::FeatureViewVersionNotFound);
        assert_eq!(error.hint(), Some("its versions are `v1` and `v2`"));
    }

    #[test]
    fn names_that_clash_need_full_names() {
        let error = resolve(&["stats:trips", "other:trips"], false).unwrap_err();
        assert_eq!(error.code(), ErrorCode::FeatureNameCollision);
        let plan = resolve(&["stats:trips", "other:trips"], true).unwrap();
        assert_eq!(outputs(&plan), ["stats__trips", "other__trips"]);
        assert!(resolve(&["stats:trips", "stats:trips"], true).is_err());

        let mut contents = contents();
        let mut view = FeatureView::new("cities", FeatureViewKind::Batch(BatchFeatures::default()));
        view.features = vec![Field::new("driver_id", ValueType::Int64)];
        contents.put(RegistryObject::FeatureView(Arc::new(view)));
        let selection = FeatureSelection::References(vec!["stats:rate".to_owned(), "cities:driver_id".to_owned()]);
        let error = RetrievalPlan::resolve(&contents, &selection, false).unwrap_err();
        assert_eq!(error.message(), "`driver_id` is both a feature asked for and a join key of the request");
        assert!(RetrievalPlan::resolve(&contents, &selection, true).is_ok());
    }

    #[test]
    fn unknown_names_come_with_a_hint() {
        let error = resolve(&["stats:rat"], false).unwrap_err();
        assert_eq!(error.to_string(), "feature view `stats` has no feature `rat`");
        assert_eq!(error.hint(), Some("did you mean `rate`?"));
        assert_eq!(resolve(&["stat:rate"], false).unwrap_err().code(), ErrorCode::FeatureViewNotFound);
        assert_eq!(resolve(&["bad"], false).unwrap_err().code(), ErrorCode::InvalidFeatureReference);
    }

    #[test]
    fn references_parse_and_print() {
        for text in ["a:b", "a@v3:b"] {
            assert_eq!(text.parse::<FeatureReference>().unwrap().to_string(), text);
        }
        assert_eq!("a@latest:b".parse::<FeatureReference>().unwrap().version, None);
        assert!("a@x:b".parse::<FeatureReference>().is_err());
    }

    #[test]
    fn one_view_twice_under_two_names() {
        let projection = |alias: &str, column: &str| FeatureViewProjection {
            feature_view_name: "stats".to_owned(),
            alias: alias.to_owned(),
            features: vec![Field::new("rate", ValueType::Int64)],
            join_key_map: [("driver_id".to_owned(), column.to_owned())].into(),
            ..FeatureViewProjection::default()
        };
        let service = FeatureService {
            name: "s".to_owned(),
            projections: vec![projection("from", "from_id"), projection("to", "to_id")],
            ..FeatureService::default()
        };
        let selection = FeatureSelection::Service(Arc::new(service));
        let plan = RetrievalPlan::resolve(&contents(), &selection, true).unwrap();
        assert_eq!(outputs(&plan), ["from__rate", "to__rate"]);
        assert_eq!(plan.join_keys.iter().map(|key| key.column.as_str()).collect::<Vec<_>>(), ["from_id", "to_id"]);
    }

    #[test]
    fn two_on_demand_views_under_one_name_are_refused() {
        let mut contents = contents();
        let mut service = FeatureService::default();
        for name in ["double", "half"] {
            let mut view = FeatureView::new(name, FeatureViewKind::OnDemand(crate::OnDemandFeatures::default()));
            view.features = vec![Field::new(format!("{name}d"), ValueType::Int64)];
            contents.put(RegistryObject::FeatureView(Arc::new(view)));
            service.projections.push(FeatureViewProjection {
                feature_view_name: name.to_owned(),
                alias: "same".to_owned(),
                ..FeatureViewProjection::default()
            });
        }
        let selection = FeatureSelection::Service(Arc::new(service));
        let error = RetrievalPlan::resolve(&contents, &selection, false).unwrap_err();
        assert_eq!(error.code(), ErrorCode::FeatureNameCollision);
    }

    #[test]
    fn a_snapshot_remembers_its_plans() {
        let mut snapshot = RegistrySnapshot::default();
        snapshot.projects.insert("p".to_owned(), Arc::new(contents()));
        let selection = FeatureSelection::References(vec!["stats:rate".to_owned()]);
        let first = snapshot.resolve("p", &selection, false).unwrap();
        assert!(Arc::ptr_eq(&first, &snapshot.resolve("p", &selection, false).unwrap()));
    }
}
