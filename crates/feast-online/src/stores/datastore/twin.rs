//! A Datastore of this process, for tests: as much of it as the store asks for. The tests compare what it answers with
//! what Google's emulator answered to the same calls (`tests/formats/datastore`).

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use prost::Message;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::messages as m;
use super::messages::ValueType as V;

/// As many as Datastore takes.
const MOST_KEYS: usize = 1000;
const MOST_CHANGES: usize = 500;

/// A server of this process; it ends with the runtime that it was started in.
#[derive(Debug, Clone, Default)]
pub(super) struct Twin(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Entities by their keys, with the number of the commit that wrote them.
    entities: BTreeMap<Vec<u8>, (m::Entity, u64)>,
    /// The commit that deleted an entity.
    deleted: HashMap<Vec<u8>, u64>,
    commits: u64,
    /// Open transactions: what they have read, and as which commit left it.
    transactions: HashMap<Vec<u8>, Vec<(Vec<u8>, u64)>>,
    begun: u64,
    faults: Faults,
    /// The methods that were called.
    calls: Vec<String>,
}

/// What goes wrong on purpose.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// So many calls are refused, as when the service is overloaded.
    pub(super) unavailable: usize,
    /// A lookup answers so many keys and puts off the others; 0: it answers all.
    pub(super) most_answered: usize,
}

impl State {
    fn version(&self, key: &[u8]) -> u64 {
        self.entities.get(key).map(|(_, commit)| *commit).or_else(|| self.deleted.get(key).copied()).unwrap_or(0)
    }

    fn transaction(&mut self, id: &[u8]) -> Result<&mut Vec<(Vec<u8>, u64)>, Status> {
        self.transactions.get_mut(id).ok_or_else(|| Status::invalid_argument("the transaction is not open"))
    }
}

impl Twin {
    /// Starts a server on a free port, and gives its `host:port`.
    pub(super) fn start(&self) -> String {
        let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = incoming.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(Serving(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        address.to_string()
    }

    pub(super) fn fail(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// The methods that were called since the last time.
    pub(super) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().calls)
    }

    /// All entities of a namespace, by their keys.
    pub(super) fn entities(&self, namespace: &str) -> Vec<m::Entity> {
        let is_there = |entity: &&m::Entity| partition(entity).is_some_and(|found| found.namespace_id == namespace);
        self.lock().entities.values().map(|(entity, _)| entity).filter(is_there).cloned().collect()
    }

    /// Answers a call.
    pub(super) fn answer(&self, method: &str, request: &[u8]) -> Result<Vec<u8>, Status> {
        fn read<M: Message + Default>(request: &[u8]) -> Result<M, Status> {
            M::decode(request).map_err(|error| Status::invalid_argument(error.to_string()))
        }
        match method {
            "Lookup" => self.look_up(read(request)?).map(|answer| answer.encode_to_vec()),
            "BeginTransaction" => Ok(self.begin().encode_to_vec()),
            "Commit" => self.commit(read(request)?).map(|answer| answer.encode_to_vec()),
            "Rollback" => self.roll_back(&read(request)?).map(|answer| answer.encode_to_vec()),
            "RunQuery" => self.run_query(read(request)?).map(|answer| answer.encode_to_vec()),
            _ => Err(Status::unimplemented(method.to_owned())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&self, request: m::LookupRequest) -> Result<m::LookupResponse, Status> {
        if request.keys.len() > MOST_KEYS {
            return Err(Status::invalid_argument("too many keys"));
        }
        let mut state = self.lock();
        let most = match state.faults.most_answered {
            0 => request.keys.len(),
            most => most.min(request.keys.len()),
        };
        let (now, deferred) = request.keys.split_at(most);
        let keys: Vec<Vec<u8>> = now.iter().map(Message::encode_to_vec).collect();
        if let Some(id) = request.read_options.and_then(|options| options.transaction) {
            let read: Vec<_> = keys.iter().map(|key| (key.clone(), state.version(key))).collect();
            state.transaction(&id)?.extend(read);
        }
        let found = keys.iter().filter_map(|key| state.entities.get(key));
        let found = found.map(|(entity, _)| m::EntityResult { entity: Some(entity.clone()) }).collect();
        Ok(m::LookupResponse { found, deferred: deferred.to_vec() })
    }

    fn begin(&self) -> m::BeginTransactionResponse {
        let mut state = self.lock();
        state.begun += 1;
        let transaction = format!("transaction {}", state.begun).into_bytes();
        state.transactions.insert(transaction.clone(), Vec::new());
        m::BeginTransactionResponse { transaction }
    }

    fn commit(&self, request: m::CommitRequest) -> Result<m::CommitResponse, Status> {
        if request.mutations.len() > MOST_CHANGES {
            return Err(Status::invalid_argument("too many changes"));
        }
        let mut state = self.lock();
        match (request.mode, request.transaction) {
            (1, Some(id)) => {
                let read = std::mem::take(state.transaction(&id)?);
                state.transactions.remove(&id);
                if read.iter().any(|(key, commit)| state.version(key) != *commit) {
                    return Err(Status::aborted("others were faster"));
                }
            }
            (2, None) => {}
            _ => return Err(Status::invalid_argument("the mode does not fit")),
        }
        state.commits += 1;
        let commit = state.commits;
        for mutation in request.mutations {
            match mutation.operation {
                Some(m::Operation::Upsert(entity)) => {
                    let key = entity.key.clone().unwrap_or_default().encode_to_vec();
                    state.entities.insert(key, (entity, commit));
                }
                Some(m::Operation::Delete(key)) => {
                    let key = key.encode_to_vec();
                    state.entities.remove(&key);
                    state.deleted.insert(key, commit);
                }
                None => return Err(Status::invalid_argument("a change without an operation")),
            }
        }
        Ok(m::CommitResponse {})
    }

    fn roll_back(&self, request: &m::RollbackRequest) -> Result<m::RollbackResponse, Status> {
        let mut state = self.lock();
        state.transaction(&request.transaction)?;
        state.transactions.remove(&request.transaction);
        Ok(m::RollbackResponse {})
    }

    /// The keys of a kind below an entity.
    fn run_query(&self, request: m::RunQueryRequest) -> Result<m::RunQueryResponse, Status> {
        let query = request.query.ok_or_else(|| Status::invalid_argument("no query"))?;
        let filter = query.filter.and_then(|filter| filter.property_filter);
        let Some((11, Some(V::Key(ancestor)))) =
            filter.map(|filter| (filter.op, filter.value.and_then(|v| v.value_type)))
        else {
            return Err(Status::unimplemented("queries without an ancestor"));
        };
        let kind = query.kind.first().map(|kind| kind.name.as_str()).unwrap_or_default();
        let is_wanted = |key: &m::Key| {
            key.partition_id == ancestor.partition_id
                && key.path.starts_with(&ancestor.path)
                && key.path.last().is_some_and(|element| element.kind == kind)
        };
        let state = self.lock();
        let keys = state.entities.values().filter_map(|(entity, _)| entity.key.clone()).filter(is_wanted);
        let most = query.limit.map_or(usize::MAX, |limit| limit as usize);
        let result = |key| m::EntityResult { entity: Some(m::Entity { key: Some(key), properties: [].into() }) };
        let entity_results = keys.take(most).map(result).collect();
        Ok(m::RunQueryResponse { batch: Some(m::QueryResultBatch { entity_results, end_cursor: Vec::new() }) })
    }
}

fn partition(entity: &m::Entity) -> Option<&m::PartitionId> {
    entity.key.as_ref()?.partition_id.as_ref()
}

/// Bytes of a message that [`Twin::answer`] reads and writes.
#[derive(Debug, Clone, Default)]
struct Plain(Vec<u8>);

impl Message for Plain {
    fn encode_raw(&self, out: &mut impl bytes::BufMut) {
        out.put_slice(&self.0);
    }

    fn merge(&mut self, mut bytes: impl bytes::Buf) -> Result<(), prost::DecodeError> {
        self.0 = bytes.copy_to_bytes(bytes.remaining()).to_vec();
        Ok(())
    }

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[derive(Debug, Clone)]
struct Serving(Twin);

impl NamedService for Serving {
    const NAME: &'static str = "google.datastore.v1.Datastore";
}

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Service<http::Request<Body>> for Serving {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let call = Call { twin: self.0.clone(), method };
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Plain, Plain>::default()).max_decoding_message_size(64 << 20);
            Ok(grpc.unary(call, request).await)
        })
    }
}

struct Call {
    twin: Twin,
    method: String,
}

impl UnaryService<Plain> for Call {
    type Response = Plain;
    type Future = Answer<Result<Response<Plain>, Status>>;

    fn call(&mut self, request: Request<Plain>) -> Self::Future {
        let (twin, method) = (self.twin.clone(), self.method.clone());
        Box::pin(async move {
            {
                let mut state = twin.lock();
                state.calls.push(method.clone());
                if let Some(left) = state.faults.unavailable.checked_sub(1) {
                    state.faults.unavailable = left;
                    return Err(Status::unavailable("try again"));
                }
            }
            Ok(Response::new(Plain(twin.answer(&method, &request.into_inner().0)?)))
        })
    }
}
