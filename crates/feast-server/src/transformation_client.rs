//! Functions of on-demand views, run by a transformation server: Feast's, or `feast serve_transformations`.
//!
//! Source features travel under their full names only: Feast's server adds the short ones itself. Batches that are larger
//! than the messages that Feast's server takes go in parts, one after the other.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, concat_batches};
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

use crate::transformation_service::{MOST_BYTES, SERVICE, read_file_aside, write_file};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of columns that go in one message. Feast's server takes 4 MiB of all that is in one.
const MOST_SENT: usize = 3 << 20;

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
        if matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange) {
            let message = format!(
                "{what} the transformation server at `{}`, which has no room for the message: {}",
                self.endpoint,
                status.message()
            );
            return Error::new(ErrorCode::TransformationFailed, message)
                .with_hint("make the values of its sources smaller, or try again when the server has less to do");
        }
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
        let input = fully_named(view, &input)?;
        let mut parts = Vec::new();
        let mut rows = 0..input.num_rows();
        loop {
            let (sent, bytes) = first_part(&input, rows.clone()).await?;
            parts.push(self.apply_part(view, sent.len(), bytes).await?);
            rows.start = sent.end;
            if rows.is_empty() {
                break;
            }
        }
        match parts.as_slice() {
            [only] => Ok(only.clone()),
            _ => Ok(concat_batches(parts[0].schema_ref(), &parts)?),
        }
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
    /// The features of some rows, which are there as bytes.
    async fn apply_part(&self, view: &FeatureView, n_rows: usize, bytes: Vec<u8>) -> Result<RecordBatch> {
        let value = Some(TransformationValue::ArrowValue(bytes.into()));
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
        let output = read_file_aside(bytes).await;
        let output = output.map_err(|error| self.malformed(view, "unreadable columns").with_source(error))?;
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

    fn malformed(&self, view: &FeatureView, found: &str) -> Error {
        let message = format!(
            "the transformation server at `{}` answered {found} for on-demand feature view `{}`",
            self.endpoint, view.name
        );
        Error::new(ErrorCode::TransformationFailed, message)
            .with_hint("check that it serves the same version of the feature repository")
    }
}

/// As many of the rows as fit into one message, at least one, and their bytes.
async fn first_part(input: &RecordBatch, rows: Range<usize>) -> Result<(Range<usize>, Vec<u8>)> {
    let mut part = rows.clone();
    loop {
        let sliced = input.slice(part.start, part.len());
        // Before rows are written: most of them would be written in vain.
        let mut bytes = 0;
        for column in sliced.columns() {
            bytes += column.to_data().get_slice_memory_size()?;
        }
        if bytes <= MOST_SENT || part.len() <= 1 {
            let written = tokio::task::spawn_blocking(move || write_file(&sliced)).await;
            let written = written.map_err(|error| Error::internal("columns are not written").with_source(error))??;
            if written.len() <= MOST_SENT || part.len() <= 1 {
                return Ok((part, written));
            }
            bytes = written.len();
        }
        let fewer = (part.len() as f64 * MOST_SENT as f64 / bytes as f64 * 0.9) as usize;
        part.end = part.start + fewer.clamp(1, part.len() - 1);
    }
}

/// The input without the short names of source features that are there under their full ones. Another column may have
/// such a name, of request data or a join key: it stays.
fn fully_named(view: &FeatureView, input: &RecordBatch) -> Result<RecordBatch> {
    let is_feature = |name: &str, column: &ArrayRef| {
        let sources = view.on_demand().into_iter().flat_map(|on_demand| on_demand.sources.values());
        let mut full = sources.filter_map(|source| {
            let (view, features) = match source {
                OnDemandSource::FeatureView(view) => (view.name.as_str(), &view.features),
                OnDemandSource::Projection(projection) => (projection.name_to_use(), &projection.features),
                OnDemandSource::Request(_) => return None,
            };
            features.iter().find(|feature| feature.name == name)?;
            input.column_by_name(&format!("{view}__{name}"))
        });
        // A name that two sources have is the short one of neither.
        full.next().filter(|_| full.next().is_none()).is_some_and(|full| Arc::ptr_eq(full, column) || full == column)
    };
    let names = input.schema_ref().fields().iter().zip(input.columns()).enumerate();
    let kept: Vec<usize> =
        names.filter(|(_, (field, column))| !is_feature(field.name(), column)).map(|(column, _)| column).collect();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{Int64Array, StringArray};
    use feast_core::{FeatureViewKind, FeatureViewProjection, OnDemandFeatures, ValueType};

    use super::*;
    use crate::transformation_service::read_file;

    fn view(sources: &[&str]) -> FeatureView {
        let source = |name: &&str| {
            let projection = FeatureViewProjection {
                feature_view_name: (*name).to_owned(),
                features: vec![Field::new("n", ValueType::Int64)],
                ..FeatureViewProjection::default()
            };
            ((*name).to_owned(), OnDemandSource::Projection(projection))
        };
        let sources = sources.iter().map(source).collect();
        FeatureView::new("v", FeatureViewKind::OnDemand(OnDemandFeatures { sources, ..OnDemandFeatures::default() }))
    }

    fn sent(view: &FeatureView, columns: &[(&str, &ArrayRef)]) -> Vec<String> {
        let input = RecordBatch::try_from_iter(columns.iter().map(|(name, column)| (*name, Arc::clone(column))));
        let sent = fully_named(view, &input.unwrap()).unwrap();
        sent.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    #[test]
    fn only_the_short_name_of_a_feature_stays_here() {
        let numbers = |first| Arc::new(Int64Array::from(vec![first, 2])) as ArrayRef;
        let (one, same, other) = (numbers(1), numbers(1), numbers(3));
        let view_of_one = view(&["a"]);
        assert_eq!(sent(&view_of_one, &[("a__n", &one), ("n", &one)]), ["a__n"]);
        assert_eq!(sent(&view_of_one, &[("a__n", &one), ("n", &same)]), ["a__n"]);
        assert_eq!(sent(&view_of_one, &[("a__n", &one), ("n", &other)]), ["a__n", "n"]);
        // The name that two sources have is here one of request data, whatever its values are.
        let columns = [("a__n", &one), ("b__n", &other), ("n", &one)];
        assert_eq!(sent(&view(&["a", "b"]), &columns), ["a__n", "b__n", "n"]);
    }

    #[tokio::test]
    async fn large_batches_go_in_parts_that_fit() {
        let texts = (0..3000).map(|row| Some("x".repeat(row))).collect::<StringArray>();
        let input = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap();
        let mut rows = 0..input.num_rows();
        let mut parts = Vec::new();
        while !rows.is_empty() {
            let (part, bytes) = first_part(&input, rows.clone()).await.unwrap();
            assert!(bytes.len() <= MOST_SENT && !part.is_empty(), "{part:?} {}", bytes.len());
            parts.push(read_file(&bytes).unwrap());
            rows.start = part.end;
        }
        assert!(parts.len() < 5, "{}", parts.len());
        assert_eq!(concat_batches(input.schema_ref(), &parts).unwrap(), input);
        // One row that is too large goes as it is, and the server says so.
        let text = StringArray::from(vec!["x".repeat(2 * MOST_SENT), String::new()]);
        let input = RecordBatch::try_from_iter([("text", Arc::new(text) as ArrayRef)]).unwrap();
        assert_eq!(first_part(&input, 0..2).await.unwrap().0, 0..1);
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_is_told_as_such() {
        let client = TransformationClient::new("127.0.0.1:1", CONNECT_TIMEOUT).unwrap();
        let error = client.failed("`v` was not computed by", &Status::resource_exhausted("larger than max (5 vs. 4)"));
        assert_eq!(error.code(), ErrorCode::TransformationFailed);
        assert!(error.to_string().contains("no room for the message: larger than max (5 vs. 4)"), "{error}");
    }
}
