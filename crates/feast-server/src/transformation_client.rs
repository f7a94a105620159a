//! Functions of on-demand views, run by a transformation server: Feast's, or `feast serve_transformations`.
//!
//! Source features travel under their full names only: Feast's server adds the short ones itself.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use async_trait::async_trait;
use feast_core::{Error, ErrorCode, FeatureView, Field, OnDemandSource, Result, Transformer};
use feast_online::coerce_column;
use feast_proto::serving::value_type::Value as TransformationValue;
use feast_proto::serving::{
    GetTransformationServiceInfoRequest, GetTransformationServiceInfoResponse, TransformFeaturesRequest,
    TransformFeaturesResponse, ValueType as TransformationColumns,
};
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::transformation_service::{MOST_BYTES, SERVICE, read_file, write_file};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A transformation server somewhere else.
#[derive(Debug, Clone)]
pub struct TransformationClient {
    endpoint: String,
    channel: Channel,
}

impl TransformationClient {
    /// A client of the server at `host:port`. Nothing is connected before the first call; called within a runtime.
    ///
    /// # Errors
    /// `InvalidConfiguration` for anything else than a host and a port.
    pub fn new(endpoint: &str, timeout: Duration) -> Result<Self> {
        let wrong = || {
            Error::invalid_configuration(format!(
                "`feature_server.transformation_service_endpoint` is `{endpoint}`, expected a host and a port"
            ))
            .with_hint("write it as `localhost:6569`")
        };
        let place = endpoint.strip_prefix("http://").unwrap_or(endpoint);
        if place.contains("://") || !place.contains(':') {
            return Err(wrong());
        }
        let target = Endpoint::from_shared(format!("http://{place}")).map_err(|error| wrong().with_source(error))?;
        let target = target.connect_timeout(CONNECT_TIMEOUT).timeout(timeout).tcp_nodelay(true);
        Ok(Self { endpoint: endpoint.to_owned(), channel: target.connect_lazy() })
    }

    async fn call<Q, A>(&self, method: &'static str, request: Q) -> std::result::Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc =
            Grpc::new(self.channel.clone()).max_decoding_message_size(MOST_BYTES).max_encoding_message_size(MOST_BYTES);
        grpc.ready().await.map_err(|error| Status::unavailable(root(&error)))?;
        let path = PathAndQuery::from_maybe_shared(format!("/{SERVICE}/{method}"));
        let path = path.map_err(|error| Status::internal(error.to_string()))?;
        Ok(grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await?.into_inner())
    }

    fn failed(&self, what: &str, status: &Status) -> Error {
        let code = match status.code() {
            Code::Unavailable => ErrorCode::Unavailable,
            Code::DeadlineExceeded | Code::Cancelled => ErrorCode::Timeout,
            Code::Unimplemented => ErrorCode::Unsupported,
            _ => ErrorCode::TransformationFailed,
        };
        let hint = match code {
            ErrorCode::Unavailable => {
                "start `feast serve_transformations` there, or name a Python that has feast-rs in FEAST_PYTHON"
            }
            ErrorCode::Timeout => "make its function faster, or raise `transformations.timeout_seconds`",
            _ => "correct its function, and look at the log of the transformation server",
        };
        let reason = std::error::Error::source(status).map_or_else(|| status.message().to_owned(), root);
        Error::new(code, format!("{what} the transformation server at `{}`: {reason}", self.endpoint)).with_hint(hint)
    }
}

/// What is at the bottom of an error: those above it repeat each other.
fn root(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

#[async_trait]
impl Transformer for TransformationClient {
    async fn apply(&self, view: &FeatureView, input: RecordBatch) -> Result<RecordBatch> {
        let n_rows = input.num_rows();
        let value = Some(TransformationValue::ArrowValue(write_file(&fully_named(view, &input)?)?.into()));
        let request = TransformFeaturesRequest {
            on_demand_feature_view_name: view.name.clone(),
            project: view.project.clone(),
            transformation_input: Some(TransformationColumns { value }),
        };
        let answer: TransformFeaturesResponse = self.call("TransformFeatures", request).await.map_err(|status| {
            self.failed(&format!("on-demand feature view `{}` was not computed by", view.name), &status)
        })?;
        let Some(TransformationValue::ArrowValue(bytes)) = answer.transformation_output.and_then(|output| output.value)
        else {
            return Err(self.malformed(view, "no columns"));
        };
        let output =
            read_file(&bytes).map_err(|error| self.malformed(view, "unreadable columns").with_source(error))?;
        let columns = view.features.iter().map(|feature| -> Result<ArrayRef> {
            let full = format!("{}__{}", view.name, feature.name);
            let column = output.column_by_name(&full).or_else(|| output.column_by_name(&feature.name));
            let column = column.ok_or_else(|| self.malformed(view, &format!("no column `{}`", feature.name)))?;
            coerce_column(column, feature.value_type, &feature.name)
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let fields: Vec<_> = view.features.iter().map(|field| field.value_type.arrow_field(&field.name)).collect();
        if output.num_rows() != n_rows {
            return Err(self.malformed(view, &format!("{} rows for {n_rows}", output.num_rows())));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }

    async fn infer(&self, view: &FeatureView, _: RecordBatch) -> Result<Vec<Field>> {
        Err(Error::unsupported(format!(
            "on-demand feature view `{}` cannot be tried: a transformation server runs functions that are applied",
            view.name
        ))
        .with_hint("run `feast apply` where Python is: name one that has feast-rs in FEAST_PYTHON"))
    }

    async fn check(&self) -> Result<()> {
        let asked = self.call("GetTransformationServiceInfo", GetTransformationServiceInfoRequest {}).await;
        let _: GetTransformationServiceInfoResponse =
            asked.map_err(|status| self.failed("nothing can be computed by", &status))?;
        Ok(())
    }
}

impl TransformationClient {
    fn malformed(&self, view: &FeatureView, found: &str) -> Error {
        let message = format!(
            "the transformation server at `{}` answered {found} for on-demand feature view `{}`",
            self.endpoint, view.name
        );
        Error::new(ErrorCode::TransformationFailed, message)
            .with_hint("check that it serves the same version of the feature repository")
    }
}

/// The input without the short names of source features that are there under their full ones.
fn fully_named(view: &FeatureView, input: &RecordBatch) -> Result<RecordBatch> {
    let is_feature = |name: &str| {
        let sources = view.on_demand().into_iter().flat_map(|on_demand| on_demand.sources.values());
        sources.into_iter().any(|source| {
            let (view, features) = match source {
                OnDemandSource::FeatureView(view) => (view.name.as_str(), &view.features),
                OnDemandSource::Projection(projection) => (projection.name_to_use(), &projection.features),
                OnDemandSource::Request(_) => return false,
            };
            features.iter().any(|feature| feature.name == name)
                && input.column_by_name(&format!("{view}__{name}")).is_some()
        })
    };
    let kept: Vec<usize> =
        (0..input.num_columns()).filter(|column| !is_feature(input.schema_ref().field(*column).name())).collect();
    let plain = input.project(&kept)?;
    let columns = plain.columns().iter().map(|column| match widened(column.data_type()) {
        Some(wide) => Ok(cast(column, &wide)?),
        None => Ok(Arc::clone(column)),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    // Marks of our own are no concern of others.
    let named = plain.schema_ref().fields().iter().zip(&columns);
    let fields = named.map(|(field, column)| ArrowField::new(field.name(), column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(plain.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// Numbers as Python has them: functions compute with those wherever else Feast runs them.
fn widened(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Float32 => Some(DataType::Float64),
        DataType::Int32 => Some(DataType::Int64),
        DataType::List(item) => {
            let wide = widened(item.data_type())?;
            Some(DataType::List(Arc::new(ArrowField::new("item", wide, true))))
        }
        _ => None,
    }
}
