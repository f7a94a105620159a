//! Feast's registry service over gRPC: one row per method.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use feast::managed_tables;
use feast_core::{Error, Interval, ObjectKind, ObjectRef, Result, Timestamp};
use feast_proto::registry as wire;
use feast_proto::{
    AnyMessage, core, from_message, managed_table_message, registry_from_snapshot, table_from_message, to_message,
};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::Registry;
use super::lineage::Relation;
use super::page::{SortKey, page};
use super::read::{FeatureOfView, Listing, ViewFilter};
use super::status::status;

/// The full name of the service.
pub(super) const SERVICE: &str = "feast.registry.RegistryServer";

/// Largest message in either direction: a registry of tens of thousands of views.
pub(super) const MOST_BYTES: usize = 256 << 20;

/// The service.
#[derive(Debug, Clone)]
pub(super) struct RegistryService(pub(super) Registry);

impl NamedService for RegistryService {
    const NAME: &'static str = SERVICE;
}

/// What a method answers, later.
pub(super) type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for RegistryService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = answer(self.0.clone(), request);
        Box::pin(async move { Ok(answer.await) })
    }
}

/// Decodes the request, works, encodes the answer.
pub(super) fn unary<Q, A, W>(
    request: http::Request<Body>,
    mut work: impl FnMut(Q) -> W + Send + 'static,
) -> Answer<http::Response<Body>>
where
    Q: Message + Default + Send + 'static,
    A: Message + Default + Send + 'static,
    W: Future<Output = Result<A>> + Send + 'static,
{
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    Box::pin(async move {
        let codec = ProstCodec::<A, Q>::default();
        let mut grpc = Grpc::new(codec).max_decoding_message_size(MOST_BYTES).max_encoding_message_size(MOST_BYTES);
        let service = tower::service_fn(move |request: Request<Q>| {
            let answer = work(request.into_inner());
            let method = method.clone();
            async move {
                answer.await.map(Response::new).map_err(|error| {
                    tracing::debug!(method, %error, "a registry request was not answered");
                    status(&error)
                })
            }
        });
        grpc.unary(service, request).await
    })
}

/// The methods. One that is not here does not exist.
fn answer(registry: Registry, request: http::Request<Body>) -> Answer<http::Response<Body>> {
    /// Calls an async method of the registry with a request.
    macro_rules! rpc {
        (|$registry:ident, $asked:ident: $Request:ty| $work:expr) => {
            unary(request, move |$asked: $Request| {
                let $registry = registry.clone();
                async move { $work }
            })
        };
    }
    /// Adds or replaces the object in a field of the request.
    macro_rules! apply {
        ($Request:ident, $field:ident, $Kind:ident) => {
            rpc!(|registry, asked: wire::$Request| {
                registry.apply(&asked.project, asked.$field.map(AnyMessage::$Kind)).await
            })
        };
    }
    /// One object by name.
    macro_rules! get {
        ($Request:ident, $Kind:ident) => {
            rpc!(|registry, asked: wire::$Request| {
                let (kind, project) = (ObjectKind::$Kind, &asked.project);
                let object = registry.get(kind, project, &asked.name, asked.allow_cache).await?;
                match to_message(&object, project) {
                    AnyMessage::$Kind(message) => Ok(message),
                    _ => Err(Error::internal("an object has the message of another kind")),
                }
            })
        };
    }
    /// All objects of a kind; after the name of the request may stand a condition.
    macro_rules! list {
        ($Request:ident, $Kind:ident, $Response:ident, $field:ident) => {
            list!($Request, $Kind, $Response, $field, |_asked, _message| true)
        };
        ($Request:ident, $Kind:ident, $Response:ident, $field:ident, |$asked:ident, $message:ident| $wanted:expr) => {
            rpc!(|registry, $asked: wire::$Request| {
                let listing = Listing {
                    project: $asked.project.clone(),
                    allow_cache: $asked.allow_cache,
                    tags: $asked.tags.clone(),
                    pagination: $asked.pagination,
                    sorting: $asked.sorting.clone(),
                };
                let wanted = |object: &feast_core::RegistryObject| {
                    let $message = object;
                    $wanted
                };
                let (objects, pagination) = registry.list(ObjectKind::$Kind, &listing, wanted).await?;
                let message = |object| match to_message(object, &listing.project) {
                    AnyMessage::$Kind(message) => Some(message),
                    _ => None,
                };
                let $field = objects.iter().filter_map(message).collect();
                Ok(wire::$Response { $field, pagination: Some(pagination) })
            })
        };
    }
    /// Deletes an object by name.
    macro_rules! delete {
        ($Request:ident, $Kind:ident) => {
            rpc!(|registry, asked: wire::$Request| {
                registry.delete(&asked.project, ObjectRef::new(ObjectKind::$Kind, asked.name)).await
            })
        };
    }
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    match method.as_str() {
        "ApplyEntity" => apply!(ApplyEntityRequest, entity, Entity),
        "GetEntity" => get!(GetEntityRequest, Entity),
        "ListEntities" => list!(ListEntitiesRequest, Entity, ListEntitiesResponse, entities),
        "DeleteEntity" => delete!(DeleteEntityRequest, Entity),

        "ApplyDataSource" => apply!(ApplyDataSourceRequest, data_source, DataSource),
        "GetDataSource" => get!(GetDataSourceRequest, DataSource),
        "ListDataSources" => list!(ListDataSourcesRequest, DataSource, ListDataSourcesResponse, data_sources),
        "DeleteDataSource" => delete!(DeleteDataSourceRequest, DataSource),

        "ApplyFeatureView" => rpc!(|registry, asked: wire::ApplyFeatureViewRequest| {
            use wire::apply_feature_view_request::BaseFeatureView as View;
            let view = asked.base_feature_view.map(|view| match view {
                View::FeatureView(view) => AnyMessage::FeatureView(view),
                View::OnDemandFeatureView(view) => AnyMessage::OnDemandFeatureView(view),
                View::StreamFeatureView(view) => AnyMessage::StreamFeatureView(view),
                View::LabelView(view) => AnyMessage::LabelView(view),
            });
            registry.apply(&asked.project, view).await
        }),
        "DeleteFeatureView" => delete!(DeleteFeatureViewRequest, FeatureView),
        "GetAnyFeatureView" => rpc!(|registry, asked: wire::GetAnyFeatureViewRequest| {
            let view = registry.get_any_view(&asked.project, &asked.name, asked.allow_cache).await?;
            let any_feature_view = any_view(to_message(&view, &asked.project));
            Ok(wire::GetAnyFeatureViewResponse { any_feature_view })
        }),
        "ListAllFeatureViews" => rpc!(|registry, asked: wire::ListAllFeatureViewsRequest| {
            let filter = ViewFilter {
                entity: asked.entity,
                feature: asked.feature,
                feature_service: asked.feature_service,
                data_source: asked.data_source,
                updated_since: asked.updated_since.and_then(time),
            };
            let listing = Listing {
                project: asked.project,
                allow_cache: asked.allow_cache,
                tags: asked.tags,
                pagination: asked.pagination,
                sorting: asked.sorting,
            };
            let (views, pagination) = registry.views(&listing, &filter).await?;
            let views = views.iter().filter_map(|view| any_view(to_message(view, &listing.project)));
            Ok(wire::ListAllFeatureViewsResponse { feature_views: views.collect(), pagination: Some(pagination) })
        }),
        "GetFeatureView" => get!(GetFeatureViewRequest, FeatureView),
        "ListFeatureViews" => list!(ListFeatureViewsRequest, FeatureView, ListFeatureViewsResponse, feature_views),
        "GetStreamFeatureView" => get!(GetStreamFeatureViewRequest, StreamFeatureView),
        "ListStreamFeatureViews" => {
            list!(
                ListStreamFeatureViewsRequest,
                StreamFeatureView,
                ListStreamFeatureViewsResponse,
                stream_feature_views
            )
        }
        "GetOnDemandFeatureView" => get!(GetOnDemandFeatureViewRequest, OnDemandFeatureView),
        "ListOnDemandFeatureViews" => {
            list!(
                ListOnDemandFeatureViewsRequest,
                OnDemandFeatureView,
                ListOnDemandFeatureViewsResponse,
                on_demand_feature_views
            )
        }
        "GetLabelView" => get!(GetLabelViewRequest, LabelView),
        "ListLabelViews" => list!(ListLabelViewsRequest, LabelView, ListLabelViewsResponse, label_views),

        "ApplyFeatureService" => apply!(ApplyFeatureServiceRequest, feature_service, FeatureService),
        "GetFeatureService" => get!(GetFeatureServiceRequest, FeatureService),
        "ListFeatureServices" => list!(
            ListFeatureServicesRequest,
            FeatureService,
            ListFeatureServicesResponse,
            feature_services,
            |asked, object| asked.feature_view.is_empty() || uses_view(object, &asked.feature_view)
        ),
        "DeleteFeatureService" => delete!(DeleteFeatureServiceRequest, FeatureService),

        "ApplySavedDataset" => apply!(ApplySavedDatasetRequest, saved_dataset, SavedDataset),
        "GetSavedDataset" => get!(GetSavedDatasetRequest, SavedDataset),
        "ListSavedDatasets" => {
            list!(ListSavedDatasetsRequest, SavedDataset, ListSavedDatasetsResponse, saved_datasets, |asked, object| {
                is_in(object, &asked.namespace, &asked.collection)
            })
        }
        "DeleteSavedDataset" => delete!(DeleteSavedDatasetRequest, SavedDataset),

        "ApplyValidationReference" => {
            apply!(ApplyValidationReferenceRequest, validation_reference, ValidationReference)
        }
        "GetValidationReference" => get!(GetValidationReferenceRequest, ValidationReference),
        "ListValidationReferences" => {
            list!(
                ListValidationReferencesRequest,
                ValidationReference,
                ListValidationReferencesResponse,
                validation_references
            )
        }
        "DeleteValidationReference" => delete!(DeleteValidationReferenceRequest, ValidationReference),

        "ApplyPermission" => apply!(ApplyPermissionRequest, permission, Permission),
        "GetPermission" => get!(GetPermissionRequest, Permission),
        "ListPermissions" => list!(ListPermissionsRequest, Permission, ListPermissionsResponse, permissions),
        "DeletePermission" => delete!(DeletePermissionRequest, Permission),

        "ApplyProject" => rpc!(|registry, asked: wire::ApplyProjectRequest| {
            let name = asked.project.as_ref().and_then(|project| project.spec.as_ref()).map(|spec| spec.name.clone());
            registry.apply(&name.unwrap_or_default(), asked.project.map(AnyMessage::Project)).await
        }),
        "GetProject" => rpc!(|registry, asked: wire::GetProjectRequest| {
            let project = registry.get(ObjectKind::Project, "", &asked.name, asked.allow_cache).await?;
            match to_message(&project, &asked.name) {
                AnyMessage::Project(message) => Ok(message),
                _ => Err(Error::internal("a project has the message of another kind")),
            }
        }),
        "ListProjects" => rpc!(|registry, asked: wire::ListProjectsRequest| {
            let listing = Listing {
                allow_cache: asked.allow_cache,
                tags: asked.tags,
                pagination: asked.pagination,
                sorting: asked.sorting,
                ..Listing::default()
            };
            let (projects, pagination) = registry.projects(&listing).await?;
            let message = |project: &feast_core::RegistryObject| match to_message(project, project.name()) {
                AnyMessage::Project(message) => Some(message),
                _ => None,
            };
            let projects = projects.iter().filter_map(message).collect();
            Ok(wire::ListProjectsResponse { projects, pagination: Some(pagination) })
        }),
        "DeleteProject" => rpc!(|registry, asked: wire::DeleteProjectRequest| {
            registry.delete(&asked.name, ObjectRef::new(ObjectKind::Project, &asked.name)).await
        }),

        "ApplyMaterialization" => rpc!(|registry, asked: wire::ApplyMaterializationRequest| {
            let view = asked.feature_view.and_then(|view| view.spec).map(|spec| spec.name).unwrap_or_default();
            let (Some(start), Some(end)) = (asked.start_date.and_then(time), asked.end_date.and_then(time)) else {
                return Err(Error::invalid_request(format!("the materialization of `{view}` has no start or no end")));
            };
            let interval = Interval::new(start, end);
            registry.store.record_materialization(&asked.project, &view, interval).await?;
            tracing::info!(project = asked.project, feature_view = view, "a materialization was recorded");
            Ok(())
        }),
        "ListProjectMetadata" => rpc!(|registry, asked: wire::ListProjectMetadataRequest| {
            let known = registry.contents(&asked.project, asked.allow_cache).await?;
            let project_metadata =
                known.map(|_| core::ProjectMetadata { project: asked.project, ..core::ProjectMetadata::default() });
            Ok(wire::ListProjectMetadataResponse { project_metadata: project_metadata.into_iter().collect() })
        }),
        "UpdateInfra" => rpc!(|registry, asked: wire::UpdateInfraRequest| {
            let objects = asked.infra.unwrap_or_default().infra_objects;
            let tables: Vec<_> = objects.iter().filter_map(table_from_message).collect();
            registry.store.replace_managed_tables(&asked.project, &tables).await
        }),
        "GetInfra" => rpc!(|registry, asked: wire::GetInfraRequest| {
            let snapshot = registry.snapshot(asked.allow_cache).await?;
            let tables = managed_tables(&snapshot, &asked.project);
            Ok(core::Infra { infra_objects: tables.into_iter().map(managed_table_message).collect() })
        }),
        // Every change is committed at once: one call cannot be told from the next of the same client.
        "Commit" => rpc!(|_registry, _asked: ()| Ok::<(), Error>(())),
        "Refresh" => rpc!(|registry, _asked: wire::RefreshRequest| registry.snapshot(false).await.map(drop)),
        "Proto" => rpc!(|registry, _asked: ()| Ok(registry_from_snapshot(&*registry.snapshot(false).await?, None))),

        "GetRegistryLineage" => rpc!(|registry, asked: wire::GetRegistryLineageRequest| {
            let (kind, name) = (&asked.filter_object_type, &asked.filter_object_name);
            let (direct, indirect) = registry.lineage(&asked.project, kind, name, asked.allow_cache).await?;
            let of_page = |relations| page(relations, asked.pagination.as_ref(), asked.sorting.as_ref(), relation_key);
            let ((direct, direct_page), (indirect, indirect_page)) = (of_page(direct), of_page(indirect));
            Ok(wire::GetRegistryLineageResponse {
                relationships: direct.into_iter().map(relation_message).collect(),
                indirect_relationships: indirect.into_iter().map(relation_message).collect(),
                relationships_pagination: Some(direct_page),
                indirect_relationships_pagination: Some(indirect_page),
            })
        }),
        "GetObjectRelationships" => rpc!(|registry, asked: wire::GetObjectRelationshipsRequest| {
            let (kind, name) = (&asked.object_type, &asked.object_name);
            let relations =
                registry.relations(&asked.project, kind, name, asked.include_indirect, asked.allow_cache).await?;
            let (relations, pagination) =
                page(relations, asked.pagination.as_ref(), asked.sorting.as_ref(), relation_key);
            Ok(wire::GetObjectRelationshipsResponse {
                relationships: relations.into_iter().map(relation_message).collect(),
                pagination: Some(pagination),
            })
        }),
        "ListFeatures" => rpc!(|registry, asked: wire::ListFeaturesRequest| {
            let listing = Listing {
                project: asked.project,
                allow_cache: asked.allow_cache,
                pagination: asked.pagination,
                sorting: asked.sorting,
                ..Listing::default()
            };
            let (features, pagination) =
                registry.features(&listing, &asked.feature_view, &asked.name, &asked.kind).await?;
            let features = features.iter().map(feature_message).collect();
            Ok(wire::ListFeaturesResponse { features, pagination: Some(pagination) })
        }),
        "GetFeature" => rpc!(|registry, asked: wire::GetFeatureRequest| {
            let feature = registry.feature(&asked.project, &asked.feature_view, &asked.name, asked.allow_cache).await?;
            Ok(feature_message(&feature))
        }),
        "CreateDatasetFromRetrieval" => {
            rpc!(|registry, asked: wire::CreateDatasetFromRetrievalRequest| registry.create_dataset(asked))
        }
        "GetDatasetData" => rpc!(|registry, asked: wire::GetDatasetDataRequest| registry.dataset_data(asked).await),
        "GetDatasetJobStatus" => {
            rpc!(|registry, asked: wire::GetDatasetJobStatusRequest| registry.datasets.get(&asked.job_id))
        }
        "ListDatasetJobs" => rpc!(|registry, asked: wire::ListDatasetJobsRequest| {
            let jobs = registry.datasets.list(&asked.project, &asked.status_filter);
            Ok::<_, Error>(wire::ListDatasetJobsResponse { jobs })
        }),
        _ => {
            let status = Status::unimplemented(format!("{SERVICE} has no method `{method}`"));
            Box::pin(async move { status.into_http() })
        }
    }
}

impl Registry {
    /// Adds or replaces the object of a message.
    pub(super) async fn apply(&self, project: &str, message: Option<AnyMessage>) -> Result<()> {
        let message = message.ok_or_else(|| {
            Error::invalid_request(format!("a request to change project `{project}` has no object in it"))
        })?;
        // What is wrong came with the request, not from the registry.
        let object = from_message(message).map_err(|error| Error::invalid_request(error.message().to_owned()))?;
        let reference = object.reference();
        self.store.put_into(project, object).await?;
        tracing::info!(project, object = %reference, "an object was applied");
        Ok(())
    }

    pub(super) async fn delete(&self, project: &str, object: ObjectRef) -> Result<()> {
        self.store.delete_from(project, &object).await?;
        tracing::info!(project, %object, "an object was deleted");
        Ok(())
    }
}

fn time(message: prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::from_timestamp(message.seconds, u32::try_from(message.nanos).ok()?)
}

fn any_view(message: AnyMessage) -> Option<wire::AnyFeatureView> {
    use wire::any_feature_view::AnyFeatureView as View;
    let view = match message {
        AnyMessage::FeatureView(view) => View::FeatureView(view),
        AnyMessage::OnDemandFeatureView(view) => View::OnDemandFeatureView(view),
        AnyMessage::StreamFeatureView(view) => View::StreamFeatureView(view),
        AnyMessage::LabelView(view) => View::LabelView(view),
        _ => return None,
    };
    Some(wire::AnyFeatureView { any_feature_view: Some(view) })
}

fn uses_view(object: &feast_core::RegistryObject, view: &str) -> bool {
    match object {
        feast_core::RegistryObject::FeatureService(service) => {
            service.projections.iter().any(|projection| projection.feature_view_name == view)
        }
        _ => false,
    }
}

fn is_in(object: &feast_core::RegistryObject, namespace: &str, collection: &str) -> bool {
    let chosen = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    match object {
        feast_core::RegistryObject::SavedDataset(dataset) => {
            chosen(namespace, &dataset.namespace) && chosen(collection, &dataset.collection)
        }
        _ => false,
    }
}

pub(super) fn relation_key(relation: &Relation, name: &str) -> SortKey {
    match name {
        "source.name" => SortKey::text(&relation.source.name),
        "target.name" => SortKey::text(&relation.target.name),
        "source.type" => SortKey::text(relation.source.kind),
        "target.type" => SortKey::text(relation.target.kind),
        _ => SortKey::Absent,
    }
}

fn relation_message(relation: Relation) -> wire::EntityRelation {
    let node = |node: super::lineage::Node| wire::EntityReference { r#type: node.kind.to_owned(), name: node.name };
    wire::EntityRelation { source: Some(node(relation.source)), target: Some(node(relation.target)) }
}

/// The owner and the times stay empty, as in Feast.
pub(super) fn feature_message(feature: &FeatureOfView) -> wire::Feature {
    wire::Feature {
        name: feature.field.name.clone(),
        feature_view: feature.view.name.clone(),
        r#type: feature.declared_type(),
        description: feature.field.description.clone(),
        tags: feature.tags(),
        kind: feature.kind().to_owned(),
        ..wire::Feature::default()
    }
}
