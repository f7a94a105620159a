//! Feast's transformation service over gRPC: runs the functions of on-demand views for servers that have no Python.
//!
//! Inputs and outputs are Arrow IPC files inside of the messages. A caller may give source features under their full
//! names (`view__feature`) or their short ones, as Feast's servers take them; join keys may be left out. What comes back
//! has one column per declared feature, of its declared type, under its full name.
//!
//! What requests hold is limited, each alone and all together: who finds no room is told so at once.

use std::convert::Infallible;
use std::future::Future;
use std::io::Cursor;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use feast::FeatureStore;
use feast_core::{Error, ErrorCode, Result};
use feast_proto::serving::value_type::Value as TransformationValue;
use feast_proto::serving::{
    GetTransformationServiceInfoRequest, GetTransformationServiceInfoResponse, TransformFeaturesRequest,
    TransformFeaturesResponse, TransformationServiceType, ValueType as TransformationColumns,
};
use hyper::body::Frame;
use prost::bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::codegen::{StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::error::http_status;
use crate::serve::{listen, refuse_authentication};

/// The full name of the service.
pub(crate) const SERVICE: &str = "feast.serving.TransformationService";
/// Largest message in either direction.
pub(crate) const MOST_BYTES: usize = 64 << 20;
/// Bytes of all requests that are being answered.
const MOST_BYTES_OF_ALL: usize = 256 << 20;
/// Requests that are being answered; as many as may wait for a worker.
const MOST_REQUESTS: usize = 1024;

/// Serves transformations until `shutdown` ends; requests that are being answered finish first.
///
/// # Errors
/// `Unsupported` when the configuration asks for authentication; `Unavailable` when the address cannot be listened on;
/// those of reading the registry.
pub async fn serve_transformations(
    store: FeatureStore,
    host: &str,
    port: u16,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future,
) -> Result<()> {
    refuse_authentication(&store)?;
    store.snapshot(true).await?;
    let (listener, address) = listen(host, port).await?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    ready(address);
    tracing::info!(%address, project = store.project(), "serving transformations");
    let stopped = async {
        shutdown.await;
    };
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(TransformationService { store, room: Room::new(MOST_REQUESTS, MOST_BYTES_OF_ALL) })
        .serve_with_incoming_shutdown(incoming, stopped)
        .await
        .map_err(|error| Error::unavailable("the transformation server ended").with_source(error))
}

/// The service.
#[derive(Debug, Clone)]
struct TransformationService {
    store: FeatureStore,
    room: Room,
}

impl NamedService for TransformationService {
    const NAME: &'static str = SERVICE;
}

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for TransformationService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (store, room) = (self.store.clone(), self.room.clone());
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        Box::pin(async move {
            Ok(match method.as_str() {
                "TransformFeatures" => {
                    let codec = ProstCodec::<TransformFeaturesResponse, TransformFeaturesRequest>::default();
                    let grpc = Grpc::new(codec).max_decoding_message_size(MOST_BYTES);
                    let mut grpc = grpc.max_encoding_message_size(MOST_BYTES);
                    match room.take() {
                        Some(taken) => {
                            let request = request.map(|body| Body::new(taken.counted(body)));
                            grpc.unary(TransformFeatures(store), request).await
                        }
                        None => full().into_http(),
                    }
                }
                "GetTransformationServiceInfo" => {
                    let codec = ProstCodec::<
                        GetTransformationServiceInfoResponse,
                        GetTransformationServiceInfoRequest,
                    >::default();
                    Grpc::new(codec).unary(GetTransformationServiceInfo(store), request).await
                }
                _ => Status::unimplemented(format!("{SERVICE} has no method `{method}`")).into_http(),
            })
        })
    }
}

/// What requests may hold together.
#[derive(Debug, Clone)]
struct Room {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Room {
    fn new(requests: usize, bytes: usize) -> Self {
        Self { requests: Arc::new(Semaphore::new(requests)), bytes: Arc::new(Semaphore::new(bytes)) }
    }

    /// Room for one more request, as long as it is kept.
    fn take(&self) -> Option<Taken> {
        let request = Arc::clone(&self.requests).try_acquire_owned().ok()?;
        Some(Taken { _request: request, room: Arc::clone(&self.bytes), bytes: Arc::default() })
    }
}

/// What one request holds.
struct Taken {
    _request: OwnedSemaphorePermit,
    room: Arc<Semaphore>,
    bytes: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Taken {
    /// The body, whose bytes find room as they come, or end it. They are held as long as this, not the body, is there.
    fn counted(&self, body: Body) -> Counted {
        Counted { body, room: Arc::clone(&self.room), taken: Arc::clone(&self.bytes) }
    }
}

struct Counted {
    body: Body,
    room: Arc<Semaphore>,
    taken: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, StdError>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else { return Poll::Ready(None) };
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            let bytes = u32::try_from(data.len()).ok();
            let more = bytes.and_then(|bytes| Arc::clone(&self.room).try_acquire_many_owned(bytes).ok());
            let Some(more) = more else { return Poll::Ready(Some(Err(full().into()))) };
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            match taken.as_mut() {
                Some(taken) => taken.merge(more),
                None => *taken = Some(more),
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

fn full() -> Status {
    Status::unavailable("this transformation server is answering as much as it can hold; try again in a moment")
}

struct GetTransformationServiceInfo(FeatureStore);

impl UnaryService<GetTransformationServiceInfoRequest> for GetTransformationServiceInfo {
    type Response = GetTransformationServiceInfoResponse;
    type Future = Answer<std::result::Result<Response<Self::Response>, Status>>;

    fn call(&mut self, _: Request<GetTransformationServiceInfoRequest>) -> Self::Future {
        let store = self.0.clone();
        Box::pin(async move {
            // Whoever asks wants to know whether it may send its work here.
            store.check_transformer().await.map_err(|error| status(&error))?;
            let version = env!("CARGO_PKG_VERSION").to_owned();
            Ok(Response::new(GetTransformationServiceInfoResponse {
                transformation_service_type_details: format!("feast-rs {version}, functions in Python processes"),
                version,
                r#type: TransformationServiceType::Python.into(),
            }))
        })
    }
}

struct TransformFeatures(FeatureStore);

impl UnaryService<TransformFeaturesRequest> for TransformFeatures {
    type Response = TransformFeaturesResponse;
    type Future = Answer<std::result::Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<TransformFeaturesRequest>) -> Self::Future {
        let store = self.0.clone();
        Box::pin(async move {
            let answer = transform(&store, request.into_inner()).await;
            answer.map(Response::new).map_err(|error| {
                tracing::debug!(%error, "a transformation failed");
                status(&error)
            })
        })
    }
}

async fn transform(store: &FeatureStore, request: TransformFeaturesRequest) -> Result<TransformFeaturesResponse> {
    let project = request.project.as_str();
    if !project.is_empty() && project != store.project() {
        return Err(Error::invalid_request(format!(
            "project `{project}` is asked for, and this server runs the functions of project `{}`",
            store.project()
        ))
        .with_hint("start `feast serve_transformations` in the repository of the other project"));
    }
    let input = request.transformation_input.and_then(|input| input.value);
    let Some(TransformationValue::ArrowValue(bytes)) = input else {
        return Err(Error::invalid_request("the request has no `transformation_input`")
            .with_hint("send the columns as an Arrow IPC file in `arrow_value`"));
    };
    let input = read_file_aside(bytes).await.map_err(|error| {
        Error::invalid_request("`transformation_input` is not an Arrow IPC file")
            .with_source(error)
            .with_hint("write it as an IPC file (not a stream) with one or more record batches")
    })?;
    let output = store.transform(&request.on_demand_feature_view_name, &input).await?;
    let value = Some(TransformationValue::ArrowValue(write_file(&output)?.into()));
    Ok(TransformFeaturesResponse { transformation_output: Some(TransformationColumns { value }) })
}

/// All rows of an Arrow IPC file that somebody sent: read off the threads that answer, where bytes that break the reader
/// break nothing else.
pub(crate) async fn read_file_aside(bytes: impl AsRef<[u8]> + Send + 'static) -> Result<RecordBatch> {
    let read = tokio::task::spawn_blocking(move || read_file(bytes.as_ref()));
    read.await.unwrap_or_else(|_| Err(Error::invalid_request("they end early, or are damaged")))
}

/// All rows of an Arrow IPC file.
pub(crate) fn read_file(bytes: &[u8]) -> Result<RecordBatch> {
    let reader = FileReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    let mut batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
    match batches.len() {
        1 => Ok(batches.remove(0)),
        _ => Ok(concat_batches(&schema, &batches)?),
    }
}

/// The bytes of an Arrow IPC file.
pub(crate) fn write_file(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, rows.schema_ref())?;
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// The status that says the same as an error. Feast tells failed functions as `UNKNOWN`.
fn status(error: &Error) -> Status {
    let code = match (error.code(), http_status(error.code())) {
        (ErrorCode::TransformationFailed, _) => Code::Unknown,
        (ErrorCode::Timeout, _) => Code::DeadlineExceeded,
        (ErrorCode::Unsupported, _) => Code::Unimplemented,
        (_, 400..=499) => Code::InvalidArgument,
        (_, 503) => Code::Unavailable,
        _ => Code::Internal,
    };
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    Status::new(code, format!("{error}{hint}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn files_come_back_and_nonsense_does_not() {
        let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef)]);
        let rows = rows.unwrap();
        let bytes = write_file(&rows).unwrap();
        assert_eq!(read_file(&bytes).unwrap(), rows);
        for end in [0, 1, 8, bytes.len() - 1] {
            assert!(read_file(&bytes[..end]).is_err());
        }
    }

    #[tokio::test]
    async fn requests_that_find_no_room_are_told_so_and_give_theirs_back() {
        use http_body_util::{BodyExt, Full};
        let room = Room::new(2, 10);
        let body = |taken: &Taken| taken.counted(Body::new(Full::new(Bytes::from_static(b"123456"))));
        let first = room.take().unwrap();
        assert_eq!(body(&first).collect().await.unwrap().to_bytes().len(), 6);
        let second = room.take().unwrap();
        assert!(room.take().is_none());
        let refused = Status::from_error(body(&second).collect().await.unwrap_err());
        assert_eq!(refused.code(), Code::Unavailable);
        // What was read is held until it is answered.
        drop(first);
        assert_eq!(body(&second).collect().await.unwrap().to_bytes().len(), 6);
        assert!(room.take().is_some());
    }
}
