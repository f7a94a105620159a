//! `POST`: an object from the few facts that a form has.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use feast_core::{
    DataSource, DataSourceOptions, Error, ErrorCode, ObjectKind, RegistryObject, Result, SavedDataset,
    SavedDatasetStorage, TableReference, Tags,
};
use feast_proto::{AnyMessage, core, to_message};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::Registry;
use super::super::lineage::{FEATURE_VIEW, LABEL_VIEW};
use super::asked::{Answer, Refusal};

/// What every form has.
#[derive(Debug, Deserialize)]
struct Common {
    name: String,
    project: String,
    description: Option<String>,
    tags: Option<Tags>,
    owner: Option<String>,
}

#[derive(Debug, Deserialize)]
struct EntityForm {
    #[serde(flatten)]
    common: Common,
    join_key: Option<String>,
    value_type: Option<i32>,
}

#[derive(Debug, Deserialize)]
struct FeatureForm {
    name: String,
    value_type: Option<i32>,
    description: Option<String>,
}

#[derive(Debug, Deserialize)]
struct FeatureViewForm {
    #[serde(flatten)]
    common: Common,
    #[serde(default)]
    entities: Vec<String>,
    #[serde(default)]
    features: Vec<FeatureForm>,
    batch_source: Option<String>,
    ttl_seconds: Option<i64>,
    online: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct ViewReference {
    feature_view_name: String,
    #[serde(default)]
    feature_names: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct FeatureServiceForm {
    #[serde(flatten)]
    common: Common,
    features: Vec<ViewReference>,
}

#[derive(Debug, Deserialize)]
struct FileForm {
    #[serde(default)]
    uri: String,
    s3_endpoint_override: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DataSourceForm {
    #[serde(flatten)]
    common: Common,
    timestamp_field: Option<String>,
    created_timestamp_column: Option<String>,
    date_partition_column: Option<String>,
    file_options: Option<FileForm>,
}

#[derive(Debug, Deserialize)]
struct SavedDatasetForm {
    #[serde(flatten)]
    common: Common,
    #[serde(default)]
    features: Vec<String>,
    #[serde(default)]
    join_keys: Vec<String>,
    storage_path: Option<String>,
    storage_type: Option<String>,
    storage_file_format: Option<String>,
    #[serde(default)]
    full_feature_names: bool,
    feature_service_name: Option<String>,
    #[serde(default)]
    allow_override: bool,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    collection: String,
}

#[derive(Debug, Deserialize)]
struct PermissionForm {
    #[serde(flatten)]
    common: Common,
    #[serde(default)]
    types: Vec<String>,
    #[serde(default)]
    name_patterns: Vec<String>,
    #[serde(default)]
    actions: Vec<String>,
    policy: PolicyForm,
    required_tags: Option<Tags>,
}

#[derive(Debug, Deserialize)]
struct PolicyForm {
    role_based_policy: Option<NamesForm>,
    group_based_policy: Option<NamesForm>,
    namespace_based_policy: Option<NamesForm>,
    combined_group_namespace_policy: Option<NamesForm>,
}

#[derive(Debug, Default, Deserialize)]
struct NamesForm {
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    namespaces: Vec<String>,
}

pub(super) fn form<T: DeserializeOwned>(body: &Bytes) -> Answer<T> {
    serde_json::from_slice(body).map_err(|error| Refusal::invalid(format!("the body is not as it must be: {error}")))
}

async fn applied(registry: &Registry, common: &Common, message: AnyMessage) -> Answer<(StatusCode, Json<Value>)> {
    registry.apply(&common.project, Some(message)).await?;
    let told = json!({"name": common.name, "project": common.project, "status": "applied"});
    Ok((StatusCode::CREATED, Json(told)))
}

type Applied = Answer<(StatusCode, Json<Value>)>;

/// `POST /entities`
pub(super) async fn entity(State(registry): State<Registry>, body: Bytes) -> Applied {
    let EntityForm { common, join_key, value_type } = form(&body)?;
    let spec = core::EntitySpecV2 {
        name: common.name.clone(),
        join_key: join_key.filter(|key| !key.is_empty()).unwrap_or_else(|| common.name.clone()),
        value_type: value_type.unwrap_or(2),
        description: common.description.clone().unwrap_or_default(),
        tags: common.tags.clone().unwrap_or_default(),
        owner: common.owner.clone().unwrap_or_default(),
        ..core::EntitySpecV2::default()
    };
    applied(&registry, &common, AnyMessage::Entity(core::Entity { spec: Some(spec), meta: None })).await
}

/// `POST /data_sources`: of files. Other kinds are defined in a repository.
pub(super) async fn data_source(State(registry): State<Registry>, body: Bytes) -> Applied {
    let form: DataSourceForm = form(&body)?;
    let Some(file) = form.file_options else {
        return Err(Error::unsupported("data sources other than files are not made by this route")
            .with_hint("send `file_options`, or define the source in a feature repository and run `feast apply`")
            .into());
    };
    let common = form.common;
    let source = DataSource {
        description: common.description.clone().unwrap_or_default(),
        tags: common.tags.clone().unwrap_or_default(),
        owner: common.owner.clone().unwrap_or_default(),
        created_timestamp_column: form.created_timestamp_column.unwrap_or_default(),
        date_partition_column: form.date_partition_column.unwrap_or_default(),
        options: DataSourceOptions::File {
            format: None,
            uri: file.uri.clone(),
            s3_endpoint_override: file.s3_endpoint_override.unwrap_or_default(),
        },
        ..DataSource::file(&common.name, &file.uri, form.timestamp_field.unwrap_or_default())
    };
    let message = to_message(&RegistryObject::DataSource(source.into()), &common.project);
    applied(&registry, &common, message).await
}

/// `POST /feature_views`
pub(super) async fn feature_view(State(registry): State<Registry>, body: Bytes) -> Applied {
    let form: FeatureViewForm = form(&body)?;
    let common = form.common;
    let batch_source = match form.batch_source.filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            let source = registry.get(ObjectKind::DataSource, &common.project, &name, false).await?;
            match to_message(&source, "") {
                AnyMessage::DataSource(message) => Some(message),
                _ => None,
            }
        }
    };
    let feature = |feature: FeatureForm| core::FeatureSpecV2 {
        name: feature.name,
        value_type: feature.value_type.unwrap_or(2),
        description: feature.description.unwrap_or_default(),
        ..core::FeatureSpecV2::default()
    };
    let spec = core::FeatureViewSpec {
        name: common.name.clone(),
        entities: form.entities,
        features: form.features.into_iter().map(feature).collect(),
        tags: common.tags.clone().unwrap_or_default(),
        online: form.online.unwrap_or(true),
        description: common.description.clone().unwrap_or_default(),
        owner: common.owner.clone().unwrap_or_default(),
        ttl: form.ttl_seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        batch_source,
        ..core::FeatureViewSpec::default()
    };
    applied(&registry, &common, AnyMessage::FeatureView(core::FeatureView { spec: Some(spec), meta: None })).await
}

/// `POST /feature_services`
pub(super) async fn feature_service(State(registry): State<Registry>, body: Bytes) -> Applied {
    let FeatureServiceForm { common, features } = form(&body)?;
    let contents = registry.contents(&common.project, false).await?.unwrap_or_default();
    let mut service = feast_core::FeatureService {
        name: common.name.clone(),
        description: common.description.clone().unwrap_or_default(),
        tags: common.tags.clone().unwrap_or_default(),
        owner: common.owner.clone().unwrap_or_default(),
        ..feast_core::FeatureService::default()
    };
    for ViewReference { feature_view_name, feature_names } in features {
        let view = contents.feature_view(&feature_view_name)?;
        let mut chosen = Vec::new();
        for name in &feature_names {
            chosen.push(view.feature(name).cloned().ok_or_else(|| {
                Error::invalid_request(format!("feature view `{feature_view_name}` has no feature `{name}`"))
            })?);
        }
        service.projections.push(feast_core::FeatureViewProjection {
            feature_view_name,
            features: if feature_names.is_empty() { view.features.clone() } else { chosen },
            view_type: if view.object_kind() == ObjectKind::LabelView { LABEL_VIEW } else { FEATURE_VIEW }.to_owned(),
            batch_source: view.batch_source().cloned(),
            ..feast_core::FeatureViewProjection::default()
        });
    }
    let message = to_message(&RegistryObject::FeatureService(service.into()), &common.project);
    applied(&registry, &common, message).await
}

/// `POST /saved_datasets`: what somebody has written, made known. Without features, it has those of its service.
pub(super) async fn saved_dataset(State(registry): State<Registry>, body: Bytes) -> Answer {
    let form: SavedDatasetForm = form(&body)?;
    let common = form.common;
    let place = form.storage_path.as_deref().map(str::trim).unwrap_or_default().to_owned();
    for (what, text) in [("name", &common.name), ("project", &common.project), ("storage_path", &place)] {
        if text.trim().is_empty() {
            return Err(Refusal::bad(format!("`{what}` is empty, which a dataset needs")));
        }
    }
    let contents = registry.contents(&common.project, false).await?.unwrap_or_default();
    if !form.allow_override && contents.saved_datasets.contains_key(&common.name) {
        return Err(Error::new(
            ErrorCode::AlreadyExists,
            format!("saved dataset `{}` exists in project `{}` already", common.name, common.project),
        )
        .with_hint("send `allow_override` to replace it")
        .into());
    }
    let storage_type = form.storage_type.unwrap_or_default();
    let storage = storage_of(&storage_type, &place, form.storage_file_format.as_deref())?;
    let (mut features, mut join_keys) = (form.features, form.join_keys);
    let service = form.feature_service_name.unwrap_or_default();
    if let Some(service) = contents.feature_services.get(&service) {
        let of_projection = |one: &feast_core::FeatureViewProjection| {
            let view = one.name_to_use().to_owned();
            one.features.iter().map(move |feature| format!("{view}:{}", feature.name)).collect::<Vec<_>>()
        };
        if features.is_empty() {
            features = service.projections.iter().flat_map(of_projection).collect();
        }
        if join_keys.is_empty() {
            let views = service.projections.iter().filter_map(|one| contents.feature_views.get(&one.feature_view_name));
            let keys: BTreeSet<String> = views.flat_map(|view| view.join_keys()).map(str::to_owned).collect();
            join_keys = keys.into_iter().collect();
        }
    }
    let dataset = SavedDataset {
        name: common.name.clone(),
        features,
        join_keys,
        full_feature_names: form.full_feature_names,
        storage: SavedDatasetStorage(storage),
        feature_service_name: service,
        tags: common.tags.unwrap_or_default(),
        namespace: form.namespace,
        collection: form.collection,
        description: common.description.unwrap_or_default(),
        ..SavedDataset::default()
    };
    let message = to_message(&RegistryObject::SavedDataset(dataset.into()), &common.project);
    registry.apply(&common.project, Some(message)).await?;
    Ok(Json(json!({"status": "ok", "name": common.name, "project": common.project})))
}

/// The storage of a dataset, as forms name it: a type, by default `file`, and a path or table.
pub(in super::super) fn storage_of(kind: &str, place: &str, file_format: Option<&str>) -> Result<DataSourceOptions> {
    let table = || TableReference { table: place.to_owned(), ..TableReference::default() };
    Ok(match kind {
        "bigquery" => DataSourceOptions::BigQuery(table()),
        "redshift" => DataSourceOptions::Redshift(table()),
        "snowflake" => DataSourceOptions::Snowflake(table()),
        "trino" => DataSourceOptions::Trino(table()),
        "athena" => DataSourceOptions::Athena(table()),
        "spark" => DataSourceOptions::Spark {
            table: String::new(),
            query: String::new(),
            path: place.to_owned(),
            file_format: file_format.unwrap_or("parquet").to_owned(),
            date_partition_column_format: String::new(),
            table_format: None,
        },
        "postgres" | "clickhouse" => DataSourceOptions::Custom {
            configuration: json!({"name": null, "query": null, "table": place}).to_string().into(),
        },
        "" | "file" => {
            DataSourceOptions::File { format: None, uri: place.to_owned(), s3_endpoint_override: String::new() }
        }
        other => {
            return Err(Error::invalid_request(format!("`{other}` is not a type of storage")).with_hint(
                "use `file`, `bigquery`, `redshift`, `snowflake`, `trino`, `athena`, `spark`, `postgres` or `clickhouse`",
            ));
        }
    })
}

/// `POST /permissions`
pub(super) async fn permission(State(registry): State<Registry>, body: Bytes) -> Applied {
    use core::permission_spec::{AuthzedAction, Type};
    use core::policy::PolicyType;
    let form: PermissionForm = form(&body)?;
    let common = form.common;
    let number = |field: &str, name: &String, number: Option<i32>| {
        number.ok_or_else(|| Refusal::bad(format!("Invalid {field}: ['{name}']")))
    };
    let types = form.types.iter().map(|name| number("types", name, Type::from_str_name(name).map(|t| t as i32)));
    let actions = form
        .actions
        .iter()
        .map(|name| number("actions", name, AuthzedAction::from_str_name(name).map(|action| action as i32)));
    let policy = form.policy;
    let policy_type = if let Some(one) = policy.role_based_policy {
        Some(PolicyType::RoleBasedPolicy(core::RoleBasedPolicy { roles: one.roles }))
    } else if let Some(one) = policy.group_based_policy {
        Some(PolicyType::GroupBasedPolicy(core::GroupBasedPolicy { groups: one.groups }))
    } else if let Some(one) = policy.namespace_based_policy {
        Some(PolicyType::NamespaceBasedPolicy(core::NamespaceBasedPolicy { namespaces: one.namespaces }))
    } else {
        policy.combined_group_namespace_policy.map(|one| {
            PolicyType::CombinedGroupNamespacePolicy(core::CombinedGroupNamespacePolicy {
                groups: one.groups,
                namespaces: one.namespaces,
            })
        })
    };
    let spec = core::PermissionSpec {
        name: common.name.clone(),
        types: types.collect::<Answer<_>>()?,
        name_patterns: form.name_patterns,
        actions: actions.collect::<Answer<_>>()?,
        policy: Some(core::Policy { policy_type, ..core::Policy::default() }),
        tags: common.tags.clone().unwrap_or_default(),
        required_tags: form.required_tags.unwrap_or_default(),
        ..core::PermissionSpec::default()
    };
    applied(&registry, &common, AnyMessage::Permission(core::Permission { spec: Some(spec), meta: None })).await
}
