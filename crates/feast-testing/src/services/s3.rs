//! An S3 server for tests: moto, from the environment of the tests.
//!
//! It takes any credentials. When the tests' process ends, however it ends, the server stops.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::moto::MotoServer;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct S3Server(MotoServer);

impl S3Server {
    /// Starts a server on a free port.
    ///
    /// # Panics
    /// When moto is not installed or does not start.
    pub fn start() -> Self {
        Self(MotoServer::start())
    }

    /// The URL of the server.
    pub fn endpoint(&self) -> String {
        self.0.endpoint()
    }

    /// Creates a bucket.
    pub fn create_bucket(&self, name: &str) {
        self.put(name, b"");
    }

    /// Writes an object, apart from the code under test. The path is `bucket/key`.
    ///
    /// # Panics
    /// When the server refuses it.
    pub fn put(&self, path: &str, body: &[u8]) {
        Self::put_at(self.0.port(), path, body);
    }

    /// Writes an object to the server at a port, which another process may have started.
    ///
    /// # Panics
    /// When the server refuses it.
    pub fn put_at(port: u16, path: &str, body: &[u8]) {
        let request = || {
            let mut server = TcpStream::connect(("127.0.0.1", port))?;
            let host = format!("127.0.0.1:{port}");
            write!(server, "PUT /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n")?;
            write!(server, "Content-Length: {}\r\n\r\n", body.len())?;
            server.write_all(body)?;
            let mut answer = String::new();
            server.read_to_string(&mut answer)?;
            Ok::<String, std::io::Error>(answer)
        };
        let answer = request().unwrap_or_else(|error| panic!("PUT {path}: {error}"));
        assert!(answer.starts_with("HTTP/1.1 200"), "PUT {path}: {answer}");
    }
}
