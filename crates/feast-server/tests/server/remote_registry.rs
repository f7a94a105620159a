//! The registry `remote` against this server: the promises of every registry, and what is special to a server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use feast::{FeatureStore, RepoConfig};
use feast_core::{
    Entity, ErrorCode, RegistryChange, RegistryChanges, RegistryObject, RegistrySnapshot, RegistryStore, ValueType,
};
use feast_server::{RegistryServeOptions, serve_registry};
use feast_testing::registry_suite::RegistryUnderTest;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server and what it needs. It stops when this is dropped.
struct Running {
    folder: tempfile::TempDir,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<feast_core::Result<()>>,
}

impl Running {
    async fn start(folder: tempfile::TempDir, port: u16, options: RegistryServeOptions) -> Self {
        let text = "project: rides\nregistry: data/registry.db\nonline_store: null\n";
        let store = FeatureStore::open(RepoConfig::parse(text, folder.path()).unwrap()).unwrap();
        let (tell, ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let options = RegistryServeOptions { grpc_host: "127.0.0.1".to_owned(), grpc_port: Some(port), ..options };
        let task = tokio::spawn(serve_registry(store, options, |addresses| tell.send(addresses).unwrap(), stopped));
        let address = ready.await.unwrap().grpc.unwrap();
        Self { folder, address, stop: Some(stop), task }
    }

    async fn stop(mut self) -> (tempfile::TempDir, u16) {
        drop(self.stop.take());
        self.task.await.unwrap().unwrap();
        (self.folder, self.address.port())
    }
}

/// A client that `ada@laptop` runs.
fn client(address: impl std::fmt::Display, more: &str) -> FeatureStore {
    let text = format!(
        "project: rides\nonline_store: null\nregistry: {{registry_type: remote, path: '{address}', \
         cache_ttl_seconds: 60{more}}}\n"
    );
    let config = RepoConfig::parse(&text, Path::new("/nowhere")).unwrap();
    FeatureStore::open(RepoConfig { author: "ada@laptop".to_owned(), ..config }).unwrap()
}

fn remote(address: SocketAddr) -> Arc<dyn RegistryStore> {
    Arc::clone(client(address, "").registry().store())
}

async fn start() -> RegistryUnderTest {
    let running = Running::start(tempfile::tempdir().unwrap(), 0, RegistryServeOptions::default()).await;
    let address = running.address;
    RegistryUnderTest { open: Box::new(move || remote(address)), guard: Box::new(Mutex::new(running)) }
}

feast_testing::registry_store_conformance!(start);

fn put(name: &str) -> RegistryChanges {
    let entity = Entity::new(name, "id", ValueType::Int64);
    RegistryChanges::new("rides", vec![RegistryChange::Put(RegistryObject::Entity(entity.into()))])
}

fn entities(snapshot: &RegistrySnapshot) -> usize {
    snapshot.projects.get("rides").map_or(0, |contents| contents.entities.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_server_a_client_keeps_the_last_snapshot_and_comes_back() {
    let running = Running::start(tempfile::tempdir().unwrap(), 0, RegistryServeOptions::default()).await;
    let client = client(running.address, "");
    let registry = client.registry();
    registry.commit_with(|_| Ok(put("driver"))).await.unwrap();
    let (folder, port) = running.stop().await;
    let error = registry.refresh().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.to_string().starts_with("the registry server `127.0.0.1:"), "{error}");
    assert_eq!(entities(&registry.snapshot_checked().await.unwrap()), 1);
    assert!(registry.health().failure.is_some());
    let refused = registry.commit_with(|_| Ok(put("city"))).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Unavailable);
    let running = Running::start(folder, port, RegistryServeOptions::default()).await;
    let after = registry.commit_with(|_| Ok(put("city"))).await.unwrap();
    assert_eq!(entities(&after), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_brings_what_changed_and_keeps_the_rest() {
    let running = Running::start(tempfile::tempdir().unwrap(), 0, RegistryServeOptions::default()).await;
    let (reader, writer) = (client(running.address, ""), client(running.address, ""));
    writer.registry().commit_with(|_| Ok(put("driver"))).await.unwrap();
    let before = reader.snapshot(true).await.unwrap();
    writer.registry().commit_with(|_| Ok(put("city"))).await.unwrap();
    let after = reader.snapshot(true).await.unwrap();
    assert_eq!(entities(&after), 2);
    let driver = |snapshot: &RegistrySnapshot| Arc::clone(&snapshot.projects["rides"].entities["driver"]);
    assert!(Arc::ptr_eq(&driver(&before), &driver(&after)));
    // A reader that comes later, and one whose state the server does not remember, have the same.
    assert_eq!(entities(&client(running.address, "").snapshot(true).await.unwrap()), 2);
    for number in 0..20 {
        writer.registry().commit_with(|_| Ok(put(&format!("e{number}")))).await.unwrap();
    }
    assert_eq!(entities(&reader.snapshot(true).await.unwrap()), 22);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_names_the_client_and_not_the_server() {
    let running = Running::start(tempfile::tempdir().unwrap(), 0, RegistryServeOptions::default()).await;
    let client = client(running.address, "");
    client.registry().commit_with(|_| Ok(put("driver"))).await.unwrap();
    let commits = client.registry().store().history().unwrap().commits("rides", 0, 10).await.unwrap();
    assert_eq!(commits.iter().map(|commit| commit.author.as_str()).collect::<Vec<_>>(), ["ada@laptop"]);
    running.stop().await;
}

/// Writes a certificate and its key, `<name>.pem` and `<name>.key`; gives the path without ending.
fn certified(folder: &Path, name: &str) -> PathBuf {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["registry.test".to_owned()]).unwrap();
    let path = folder.join(name);
    std::fs::write(path.with_extension("pem"), cert.pem()).unwrap();
    std::fs::write(path.with_extension("key"), signing_key.serialize_pem()).unwrap();
    path
}

/// Lets through to `behind` whoever has the certificate of a client.
async fn asking_for_certificates(server: &Path, client: &Path, behind: SocketAddr) -> SocketAddr {
    let certificate = |path: &Path| CertificateDer::from_pem_file(path.with_extension("pem")).unwrap();
    let mut known = rustls::RootCertStore::empty();
    known.add(certificate(client)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let asking = rustls::server::WebPkiClientVerifier::builder_with_provider(known.into(), Arc::clone(&provider));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(asking.build().unwrap())
        .with_single_cert(
            vec![certificate(server)],
            PrivateKeyDer::from_pem_file(server.with_extension("key")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut client) = acceptor.accept(stream).await {
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_server_may_ask_for_the_certificate_of_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let [server, ours, other] = ["server", "ours", "other"].map(|name| certified(folder.path(), name));
    let running = Running::start(tempfile::tempdir().unwrap(), 0, RegistryServeOptions::default()).await;
    let address = asking_for_certificates(&server, &ours, running.address).await;
    let with = |identity: Option<&Path>| {
        let path = |path: &Path, ending: &str| path.with_extension(ending).display().to_string();
        let mut more = format!(", cert: '{}', authority: registry.test", path(&server, "pem"));
        if let Some(identity) = identity {
            let (certificate, key) = (path(identity, "pem"), path(identity, "key"));
            more += &format!(", client_cert: '{certificate}', client_key: '{key}'");
        }
        client(address, &more)
    };
    let known = with(Some(&ours));
    known.registry().commit_with(|_| Ok(put("driver"))).await.unwrap();
    assert_eq!(entities(&known.snapshot(true).await.unwrap()), 1);
    for refused in [with(Some(&other)), with(None)] {
        assert_eq!(refused.snapshot(true).await.unwrap_err().code(), ErrorCode::Unavailable);
    }
    running.stop().await;
}

#[tokio::test]
async fn a_certificate_that_the_client_knows_is_taken_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let [server, other] = ["server", "other"].map(|name| certified(folder.path(), name));
    let options = RegistryServeOptions {
        tls_key_path: Some(server.with_extension("key")),
        tls_cert_path: Some(server.with_extension("pem")),
        ..RegistryServeOptions::default()
    };
    let running = Running::start(tempfile::tempdir().unwrap(), 0, options).await;
    let with = |certificate: &Path, authority: &str| {
        let certificate = certificate.with_extension("pem");
        client(running.address, &format!(", cert: '{}', authority: '{authority}'", certificate.display()))
    };
    let known = with(&server, "registry.test");
    known.registry().commit_with(|_| Ok(put("driver"))).await.unwrap();
    assert_eq!(entities(&known.snapshot(true).await.unwrap()), 1);
    for refused in [with(&other, "registry.test"), with(&server, "elsewhere.test"), client(running.address, "")] {
        assert_eq!(refused.snapshot(true).await.unwrap_err().code(), ErrorCode::Unavailable);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_materializations_recorded_at_the_same_time_are_all_there() {
    use chrono::{DateTime, TimeDelta};
    use feast_core::{BatchFeatures, FeatureView, FeatureViewKind, Interval};

    let running = Running::start(tempfile::tempdir().unwrap(), 0, RegistryServeOptions::default()).await;
    let view = FeatureView::new("stats", FeatureViewKind::Batch(BatchFeatures::default()));
    let first = client(running.address, "");
    first.put_into("rides", RegistryObject::FeatureView(view.into())).await.unwrap();
    let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let writers: Vec<_> = (0..50)
        .map(|hour| {
            let client = client(running.address, "");
            let at = |hour: i64| start + TimeDelta::hours(hour);
            let interval = Interval::new(at(hour), at(hour + 1));
            tokio::spawn(async move { client.record_materialization("rides", "stats", interval).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    let snapshot = first.snapshot(true).await.unwrap();
    let intervals = &snapshot.projects["rides"].feature_views["stats"].meta.materialization_intervals;
    assert_eq!(intervals.as_slice(), [Interval::new(start, start + TimeDelta::hours(50))]);
    running.stop().await;
}

#[tokio::test]
async fn tools_find_health_and_what_there_is() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let running = Running::start(tempfile::tempdir().unwrap(), 0, RegistryServeOptions::default()).await;
    let endpoint = format!("http://{}", running.address);
    let channel = tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect().await.unwrap();
    for service in ["", "feast.registry.RegistryServer"] {
        let asked = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(channel.clone()).check(asked).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving);
    }
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = futures::stream::iter([asked]);
    let mut answers = ServerReflectionClient::new(channel).server_reflection_info(asked).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"feast.registry.RegistryServer") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    drop(answers);
    running.stop().await;
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused_and_the_server_goes_on() {
    use tonic::client::Grpc;
    use tonic::codegen::http::uri::PathAndQuery;
    use tonic_prost::ProstCodec;

    /// A message whose one field is text, where requests have something else.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Nonsense {
        #[prost(bytes = "vec", tag = "1")]
        bytes: Vec<u8>,
    }

    let running = Running::start(tempfile::tempdir().unwrap(), 0, RegistryServeOptions::default()).await;
    let endpoint = format!("http://{}", running.address);
    let channel = tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect().await.unwrap();
    for path in [
        "/feast.registry.RegistryServer/ApplyEntity",
        "/feast.registry.RegistryServer/ApplyFeatureView",
        "/feast_rs.registry.RegistryStore/Commit",
        "/feast.registry.RegistryServer/NoSuchMethod",
    ] {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let request = tonic::Request::new(Nonsense { bytes: vec![0xff; 300] });
        let codec = ProstCodec::<Nonsense, Nonsense>::default();
        let answer = grpc.unary(request, PathAndQuery::from_static(path), codec).await;
        assert!(answer.is_err(), "{path}");
    }
    let client = client(running.address, "");
    client.registry().commit_with(|_| Ok(put("driver"))).await.unwrap();
    drop((channel, client));
    running.stop().await;
}
