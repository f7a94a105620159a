//! moto, which stands in for the services of AWS: a server on a free port, from the environment of the tests.
//!
//! It takes any credentials. When the tests' process ends, however it ends, the server stops.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

/// Runs the server until the standard input ends.
const KEEPER: &str = r#"
moto_server -H 127.0.0.1 -p 0 2>&1 &
server=$!
cat >/dev/null
kill $server
"#;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct MotoServer {
    keeper: Child,
    port: u16,
}

impl MotoServer {
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

    /// The server that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<MotoServer> = LazyLock::new(MotoServer::start);
        &SHARED
    }

    /// The URL of the server.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for MotoServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}
