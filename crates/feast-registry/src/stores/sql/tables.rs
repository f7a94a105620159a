//! Feast's tables, and the two of ours beside them.
//!
//! | table | content |
//! |---|---|
//! | `projects`, `entities`, … one per kind of object | the serialized message of each object |
//! | `managed_infra` | what Feast's `plan` expects in the online store, per project |
//! | `feature_view_version_history` | numbered definitions of views |
//! | `feast_metadata` | an identifier and the time of the last change, per project |
//! | `feast_rs_registry` | ours, one row: the number of commits, and the name of the last one |
//! | `feast_rs_history` | ours, one row per object and commit: what it was before and after |

use feast_core::ObjectKind;

use super::database::Dialect;

/// A table with one row per object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ObjectTable {
    /// `None` for `managed_infra`, whose rows are not objects.
    pub(super) kind: Option<ObjectKind>,
    pub(super) name: &'static str,
    /// Column with the name of the object.
    pub(super) key: &'static str,
    /// Column with the message.
    pub(super) message: &'static str,
}

const fn objects(kind: ObjectKind, name: &'static str, key: &'static str, message: &'static str) -> ObjectTable {
    ObjectTable { kind: Some(kind), name, key, message }
}

/// All tables with objects, and at last `managed_infra`.
pub(super) const OBJECT_TABLES: &[ObjectTable] = &[
    objects(ObjectKind::Project, "projects", "project_name", "project_proto"),
    objects(ObjectKind::Entity, "entities", "entity_name", "entity_proto"),
    objects(ObjectKind::DataSource, "data_sources", "data_source_name", "data_source_proto"),
    objects(ObjectKind::FeatureView, "feature_views", "feature_view_name", "feature_view_proto"),
    objects(ObjectKind::StreamFeatureView, "stream_feature_views", "feature_view_name", "feature_view_proto"),
    objects(ObjectKind::OnDemandFeatureView, "on_demand_feature_views", "feature_view_name", "feature_view_proto"),
    objects(ObjectKind::LabelView, "label_views", "feature_view_name", "feature_view_proto"),
    objects(ObjectKind::FeatureService, "feature_services", "feature_service_name", "feature_service_proto"),
    objects(ObjectKind::SavedDataset, "saved_datasets", "saved_dataset_name", "saved_dataset_proto"),
    objects(
        ObjectKind::ValidationReference,
        "validation_references",
        "validation_reference_name",
        "validation_reference_proto",
    ),
    objects(ObjectKind::Permission, "permissions", "permission_name", "permission_proto"),
    ObjectTable { kind: None, name: INFRA, key: "infra_name", message: "infra_proto" },
];

pub(super) const INFRA: &str = "managed_infra";
/// The name of the row in `managed_infra`.
pub(super) const INFRA_NAME: &str = "infra_obj";
pub(super) const VERSIONS: &str = "feature_view_version_history";
pub(super) const METADATA: &str = "feast_metadata";
/// Ours: one row with the number of commits.
pub(super) const COMMITS: &str = "feast_rs_registry";
/// Ours: what each commit changed.
pub(super) const HISTORY: &str = "feast_rs_history";

/// The table of a kind of object.
pub(super) fn table_of(kind: ObjectKind) -> &'static ObjectTable {
    OBJECT_TABLES.iter().find(|table| table.kind == Some(kind)).expect("every kind has its table")
}

/// Names of all tables, Feast's first.
pub(super) fn table_names() -> impl Iterator<Item = &'static str> {
    OBJECT_TABLES.iter().map(|table| table.name).chain([VERSIONS, METADATA, COMMITS, HISTORY])
}

/// The statements that create what is missing.
pub(super) fn create_statements(dialect: &Dialect) -> Vec<String> {
    let bytes = dialect.bytes;
    let name = "VARCHAR(255) NOT NULL";
    let mut statements = Vec::new();
    let mut create = |table: &str, columns: String, key: &str, index: Option<&str>| {
        let inline = match index {
            Some(index) if dialect.inline_index => format!(", INDEX {index} (project_id)"),
            _ => String::new(),
        };
        statements.push(format!("CREATE TABLE IF NOT EXISTS {table} ({columns}, PRIMARY KEY ({key}){inline})"));
        if let Some(index) = index.filter(|_| !dialect.inline_index) {
            statements.push(format!("CREATE INDEX IF NOT EXISTS {index} ON {table} (project_id)"));
        }
    };
    for table in OBJECT_TABLES {
        let ObjectTable { key, message, .. } = table;
        let (columns, primary_key) = match table.kind {
            Some(ObjectKind::Project) => (
                format!(
                    "project_id {name}, {key} {name}, last_updated_timestamp BIGINT NOT NULL, {message} {bytes} NOT NULL"
                ),
                "project_id".to_owned(),
            ),
            kind => {
                let is_view = kind.is_some_and(ObjectKind::is_feature_view);
                let intervals = if kind == Some(ObjectKind::FeatureView) {
                    format!("materialized_intervals {bytes}, ")
                } else {
                    String::new()
                };
                let user_metadata = if is_view { format!(", user_metadata {bytes}") } else { String::new() };
                let columns = format!(
                    "{key} {name}, project_id {name}, last_updated_timestamp BIGINT NOT NULL, {intervals}\
                     {message} {bytes} NOT NULL{user_metadata}"
                );
                (columns, format!("{key}, project_id"))
            }
        };
        create(table.name, columns, &primary_key, Some(&format!("idx_{}_project_id", table.name)));
    }
    create(
        VERSIONS,
        format!(
            "feature_view_name {name}, project_id {name}, version_number INTEGER NOT NULL, \
             feature_view_type VARCHAR(50) NOT NULL, feature_view_proto {bytes} NOT NULL, \
             created_timestamp BIGINT NOT NULL, description TEXT, version_id VARCHAR(36) NOT NULL"
        ),
        "feature_view_name, project_id, version_number",
        Some("idx_fv_version_history_project_id"),
    );
    create(
        METADATA,
        format!(
            "project_id {name}, metadata_key VARCHAR(50) NOT NULL, metadata_value TEXT NOT NULL, \
             last_updated_timestamp BIGINT NOT NULL"
        ),
        "project_id, metadata_key",
        Some("idx_feast_metadata_project_id"),
    );
    create(
        COMMITS,
        "id INTEGER NOT NULL, commits BIGINT NOT NULL, commit_id VARCHAR(36) NOT NULL".to_owned(),
        "id",
        None,
    );
    create(
        HISTORY,
        format!(
            "version BIGINT NOT NULL, item INTEGER NOT NULL, commit_id VARCHAR(36) NOT NULL, project_id {name}, \
             author VARCHAR(255) NOT NULL, committed BIGINT NOT NULL, kind VARCHAR(50) NOT NULL, name {name}, \
             before_proto {bytes}, after_proto {bytes}"
        ),
        "version, item",
        None,
    );
    statements
}
