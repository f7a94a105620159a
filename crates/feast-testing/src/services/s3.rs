//! An S3 server for tests: moto, from the environment of the tests.
//!
//! It takes any credentials. When the tests' process ends, however it ends, the server stops.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Runs the server until the standard input ends.
const KEEPER: &str = r#"
moto_server -H 127.0.0.1 -p 0 2>&1 &
server=$!
cat >/dev/null
kill $server
"#;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct S3Server {
    keeper: Child,
    port: u16,
}

impl S3Server {
    /// Starts a server on a free port.
    ///
    /// # Panics
    /// When moto is not installed or does not start.
    pub fn start() -> Self {
        let mut keeper = Command::new("sh");
        // Its own group, so that an interrupt of the tests leaves the cleaning to the keeper.
        keeper.args(["-c", KEEPER]).process_group(0);
        let mut keeper = keeper
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("sh: {error}"));
        let output = keeper.stdout.take().unwrap_or_else(|| panic!("the server has no output"));
        let mut said = String::new();
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let port = lines.by_ref().find_map(|line| {
            said.push_str(&line);
            said.push('\n');
            line.split_once("Running on http://127.0.0.1:")?.1.trim().parse().ok()
        });
        let Some(port) = port else {
            panic!("moto does not start; `pip install -r scripts/requirements/dev.txt` brings it: {said}")
        };
        // It waits when nobody takes what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Self { keeper, port }
    }

    /// The URL of the server.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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
        Self::put_at(self.port, path, body);
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

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}
