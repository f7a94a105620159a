//! Which objects of a project are made from which.

use std::collections::BTreeMap;

use feast_core::{
    DataSource, DataSourceOptions, Error, FeatureView, FeatureViewKind, ObjectKind, OnDemandSource, ProjectContents,
    Result, list_names,
};

/// An object in the graph. Views of all kinds but label views are `featureView`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: &'static str,
    pub(super) name: String,
}

/// An edge: the target is made from the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) source: Node,
    pub(super) target: Node,
}

pub(super) const DATA_SOURCE: &str = "dataSource";
pub(super) const ENTITY: &str = "entity";
pub(super) const FEATURE_VIEW: &str = "featureView";
pub(super) const LABEL_VIEW: &str = "labelView";
pub(super) const FEATURE_SERVICE: &str = "featureService";
pub(super) const FEATURE: &str = "feature";
pub(super) const SAVED_DATASET: &str = "savedDataset";

/// The kinds of nodes.
pub(super) const KINDS: &[&str] =
    &[DATA_SOURCE, ENTITY, FEATURE_VIEW, LABEL_VIEW, FEATURE_SERVICE, FEATURE, SAVED_DATASET];

/// Refuses what is no kind of node.
///
/// # Errors
/// `InvalidRequest` with the kinds there are.
pub(super) fn check_kind(kind: &str) -> Result<()> {
    if KINDS.contains(&kind) {
        return Ok(());
    }
    Err(Error::invalid_request(format!("`{kind}` is not a kind of object in a lineage"))
        .with_hint(format!("valid are {}", list_names(KINDS.iter().copied()))))
}

impl Relation {
    fn new(source_kind: &'static str, source: &str, target_kind: &'static str, target: &str) -> Self {
        let node = |kind, name: &str| Node { kind, name: name.to_owned() };
        Self { source: node(source_kind, source), target: node(target_kind, target) }
    }

    /// Whether the object is one of the ends.
    pub(super) fn touches(&self, kind: &str, name: &str) -> bool {
        [&self.source, &self.target].iter().any(|node| node.kind == kind && node.name == name)
    }
}

/// What is made directly from what, in the order in which Feast tells it.
pub(super) fn direct(contents: &ProjectContents) -> Vec<Relation> {
    let mut relations = Vec::new();
    for service in contents.feature_services.values() {
        for projection in &service.projections {
            let view = projection.feature_view_name.as_str();
            let is_label = projection.view_type == LABEL_VIEW
                || contents.feature_views.get(view).is_some_and(|view| view.object_kind() == ObjectKind::LabelView);
            let kind = if is_label { LABEL_VIEW } else { FEATURE_VIEW };
            relations.push(Relation::new(kind, view, FEATURE_SERVICE, &service.name));
        }
    }
    let of_kind = |kind| contents.feature_views.values().filter(move |view| view.object_kind() == kind);
    for view in of_kind(ObjectKind::FeatureView) {
        relations.extend(entities_and_features(view));
        relations.extend(read_by(view.batch_source(), FEATURE_VIEW, view));
    }
    for view in of_kind(ObjectKind::OnDemandFeatureView) {
        relations.extend(entities_and_features(view));
    }
    for view in of_kind(ObjectKind::OnDemandFeatureView) {
        for source in view.on_demand().into_iter().flat_map(|on_demand| on_demand.sources.values()) {
            let (kind, name) = match source {
                OnDemandSource::Request(source) => (DATA_SOURCE, &source.name),
                OnDemandSource::Projection(projection) => (FEATURE_VIEW, &projection.feature_view_name),
                OnDemandSource::FeatureView(view) => (FEATURE_VIEW, &view.name),
            };
            if !name.is_empty() {
                relations.push(Relation::new(kind, name, FEATURE_VIEW, &view.name));
            }
        }
    }
    for view in of_kind(ObjectKind::StreamFeatureView) {
        relations.extend(read_by(view.stream_source(), FEATURE_VIEW, view));
        relations.extend(read_by(view.batch_source(), FEATURE_VIEW, view));
    }
    for view in of_kind(ObjectKind::LabelView) {
        relations.extend(view.entities.iter().map(|entity| Relation::new(ENTITY, entity, LABEL_VIEW, &view.name)));
        if let FeatureViewKind::Label(labels) = &view.kind {
            relations.extend(read_by(labels.source.as_ref(), LABEL_VIEW, view));
            let batch = labels.source.as_ref().and_then(|source| source.batch_source.as_deref());
            relations.extend(read_by(batch, LABEL_VIEW, view));
        }
    }
    relations.extend(datasets(contents));
    relations
}

fn entities_and_features(view: &FeatureView) -> Vec<Relation> {
    let entities = view.entities.iter().map(|entity| Relation::new(ENTITY, entity, FEATURE_VIEW, &view.name));
    let features = view.features.iter().map(|feature| Relation::new(FEATURE, &feature.name, FEATURE_VIEW, &view.name));
    entities.chain(features).collect()
}

fn read_by(source: Option<&DataSource>, kind: &'static str, view: &FeatureView) -> Option<Relation> {
    let source = source.filter(|source| !source.name.is_empty())?;
    Some(Relation::new(DATA_SOURCE, &source.name, kind, &view.name))
}

fn datasets(contents: &ProjectContents) -> Vec<Relation> {
    let mut places: BTreeMap<&str, &str> = BTreeMap::new();
    for source in contents.data_sources.values() {
        for options in [Some(source.as_ref()), source.batch_source.as_deref()].into_iter().flatten() {
            places.extend(locations(&options.options).into_iter().map(|place| (place, source.name.as_str())));
        }
    }
    let mut relations = Vec::new();
    for dataset in contents.saved_datasets.values() {
        let mut add = |kind, name: &str| {
            let relation = Relation::new(kind, name, SAVED_DATASET, &dataset.name);
            if !relations.contains(&relation) {
                relations.push(relation);
            }
        };
        if !dataset.feature_service_name.is_empty() {
            add(FEATURE_SERVICE, &dataset.feature_service_name);
        }
        for view in dataset.features.iter().filter_map(|feature| feature.split_once(':')).map(|(view, _)| view) {
            // The view may be asked for in a version: `view@v2`.
            add(FEATURE_VIEW, view.split('@').next().unwrap_or(view));
        }
        for place in locations(&dataset.storage.0) {
            if let Some(source) = places.get(place) {
                add(DATA_SOURCE, source);
            }
        }
    }
    relations
}

/// Where rows rest, in words that two objects have in common.
fn locations(options: &DataSourceOptions) -> Vec<&str> {
    use DataSourceOptions as O;
    let all = match options {
        O::File { uri, .. } => vec![uri.as_str()],
        O::BigQuery(table) | O::Redshift(table) | O::Snowflake(table) | O::Trino(table) | O::Athena(table) => {
            vec![table.table.as_str()]
        }
        O::Spark { path, table, .. } => vec![path.as_str(), table.as_str()],
        _ => Vec::new(),
    };
    all.into_iter().filter(|place| !place.is_empty()).collect()
}

/// What is made from what through a view: services from what their views are made from, and sources that come with
/// the entities of a view.
pub(super) fn indirect(contents: &ProjectContents, direct: &[Relation]) -> Vec<Relation> {
    let is_view = |node: &Node| matches!(node.kind, FEATURE_VIEW | LABEL_VIEW);
    let mut into_view: BTreeMap<&str, Vec<&Node>> = BTreeMap::new();
    for relation in direct.iter().filter(|relation| is_view(&relation.target)) {
        into_view.entry(&relation.target.name).or_default().push(&relation.source);
    }
    let sources_of = |view: &str| into_view.get(view).map(Vec::as_slice).unwrap_or_default();
    let mut relations = Vec::new();
    for service in contents.feature_services.values() {
        for projection in &service.projections {
            for source in sources_of(&projection.feature_view_name) {
                relations.push(Relation {
                    source: (*source).clone(),
                    target: Node { kind: FEATURE_SERVICE, name: service.name.clone() },
                });
            }
        }
    }
    for relation in direct.iter().filter(|relation| relation.source.kind == ENTITY && is_view(&relation.target)) {
        for source in sources_of(&relation.target.name).iter().filter(|source| source.kind == DATA_SOURCE) {
            relations.push(Relation { source: relation.source.clone(), target: (*source).clone() });
        }
    }
    relations
}
