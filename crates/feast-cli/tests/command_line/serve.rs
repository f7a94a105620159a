//! Serving, as a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{Repository, assert_told};

/// A running server; it is killed when this is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(repository: &Repository) -> Self {
        let mut command = repository.command(&["serve", "--port", "0", "--no-access-log"]);
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = log.find_map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            line["address"].as_str().map(|address| address.parse().unwrap())
        });
        // Nobody reads on, and the log must not fill its pipe.
        std::thread::spawn(move || log.for_each(drop));
        Self { process, address: address.unwrap() }
    }

    fn ask(&self, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let head =
            "POST /get-online-features HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json";
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn ten_thousand_idle_connections_do_not_stop_others() {
    // Both sides need a file handle per connection; the server raises its own limit.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let repository = Repository::materialized();
    let server = Server::start(&repository);
    let idle: Vec<TcpStream> = (0..10_000).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let body = r#"{"features": ["driver_hourly_stats:avg_daily_trips"], "entities": {"driver_id": [1001]}}"#;
    for _ in 0..10 {
        let answer = server.ask(body);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""values":[30]"#), "{answer}");
    }
    drop(idle);
    assert!(server.ask(body).starts_with("HTTP/1.1 200"));
}

#[test]
fn what_would_serve_otherwise_than_asked_does_not_start() {
    let repository = Repository::applied();
    repository.write("feature_store.yaml", "project: rides\nregistry: data/registry.db\nauth: {type: kubernetes}\n");
    assert_told!(repository.run(&["serve", "--port", "0"]), @"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    warning: `auth` of type `kubernetes` is not enforced yet: nobody is asked who they are
    error: feature_store.yaml asks for `auth` of type `kubernetes`, which this server cannot enforce yet, so it does not start
    hint: serve with Feast, or remove `auth` if everybody who reaches the server may read and write
    ");
    repository.write("feature_store.yaml", "project: rides\nregistry: data/registry.db\n");
    let told = repository.run(&["serve", "--port", "0", "--key", "a.pem", "--cert", "b.pem"]);
    assert!(told.contains("exit code: 1") && told.contains("error: `b.pem` cannot be read as PEM"), "{told}");
    let told = repository.run(&["serve", "--port", "0", "--key", "a.pem"]);
    assert!(told.contains("exit code: 2") && told.contains("--cert <FILE>"), "{told}");
}

#[test]
fn the_registry_server_says_what_it_takes() {
    let repository = Repository::applied();
    assert_told!(repository.run(&["serve_registry", "--help"]), @"
    exit code: 0
    ----- stdout -----
    Serve the registry to other machines, over gRPC and REST

    Usage: feast serve_registry [OPTIONS]

    Options:
      -p, --port <PORT>       Port for gRPC; 0 takes a free one [default: 6570]
      -r, --rest-api          Also serve REST
          --rest-port <PORT>  Port for REST; 0 takes a free one [default: 6572]
      -h, --host <HOST>       Name or address to listen on for REST; gRPC listens on all [default: ::]
          --grpc              Serve gRPC, which is the default
          --no-grpc           Serve no gRPC
      -k, --key <FILE>        Private key for TLS, in PEM; needs --cert. Both files are read anew when
                              they change
      -c, --cert <FILE>       Certificate for TLS with its chain, in PEM; needs --key
          --help              Print help

    Global options:
          --log-level <LEVEL>  Least important messages to log [possible values: debug, info, warning,
                               error, critical]
          --output <FORMAT>    How to print data; the default depends on the command [env: FEAST_OUTPUT]
                               [possible values: table, json, yaml]
          --color <WHEN>       When to use colours [default: auto] [possible values: auto, always,
                               never]
    ----- stderr -----
    ");
    assert_told!(repository.run(&["serve_registry", "--no-grpc"]), @"
    exit code: 1
    ----- stdout -----
    ----- stderr -----
    error: the registry is to be served neither over gRPC nor over REST
    hint: leave out `--no-grpc`, or add `--rest-api`
    ");
    assert_told!(repository.run(&["serve_registry", "--cert", "a.pem"]), @"
    exit code: 2
    ----- stdout -----
    ----- stderr -----
    error: the following required arguments were not provided:
      --key <FILE>

    Usage: feast serve_registry --cert <FILE> --key <FILE>

    For more information, try '--help'.
    ");
}

#[test]
fn the_registry_is_served_until_the_server_is_told_to_stop() {
    let repository = Repository::applied();
    let ports = ["serve-registry", "--port", "0", "--rest-api", "--rest-port", "0", "--host", "127.0.0.1"];
    let mut process = repository.command(&ports).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    let rest: SocketAddr = log
        .find_map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            line["rest"].as_str()?.parse().ok()
        })
        .unwrap();
    let mut stream = TcpStream::connect(rest).unwrap();
    write!(stream, "GET /api/v1/projects HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""name":"rides""#), "{answer}");
    let id = process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    log.for_each(drop);
    assert_eq!(process.wait().unwrap().code(), Some(0));
}
