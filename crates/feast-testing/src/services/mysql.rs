//! A MariaDB server for tests, from the installed programs.
//!
//! Sessions are in another time zone than UTC unless they set one. When the tests' process ends, however it ends, the
//! server stops and its directory goes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The user that tests connect as.
pub const USER: &str = "feast";
/// Its password; tests look for it in logs and errors.
pub const PASSWORD: &str = "s3cret-of-mysql";

/// Starts the server, tells so, waits until its standard input ends, and cleans up. Options are in `$2`.
const KEEPER: &str = r#"
directory=$1; shift
"$@" >"$directory/log" 2>&1 </dev/null &
server=$!
attempt=0
until mariadb-admin --no-defaults --socket="$directory/socket" --user=root ping >/dev/null 2>&1; do
    attempt=$((attempt + 1))
    if [ $attempt -gt 600 ] || ! kill -0 $server 2>/dev/null; then
        cat "$directory/log"; kill -9 $server 2>/dev/null; rm -rf "$directory"; exit 1
    fi
    sleep 0.1
done
echo ready
cat >/dev/null
kill -9 $server
wait $server 2>/dev/null
rm -rf "$directory"
"#;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct MySqlServer {
    directory: PathBuf,
    port: u16,
    keeper: Child,
    databases: AtomicUsize,
}

impl MySqlServer {
    /// The server that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<MySqlServer> = LazyLock::new(MySqlServer::start);
        &SHARED
    }

    /// Starts a server of its own.
    ///
    /// # Panics
    /// When MariaDB is not installed or does not start.
    pub fn start() -> Self {
        // Between finding a free port and using it somebody else may take it.
        let mut failures = Vec::new();
        for _ in 0..5 {
            match Self::try_start() {
                Ok(server) => return server,
                Err(failure) => failures.push(failure),
            }
        }
        panic!("MariaDB does not start: {}", failures.join("\n"));
    }

    fn try_start() -> Result<Self, String> {
        let program = program();
        let directory = tempfile::Builder::new().prefix("feast-my-").tempdir().map_err(|error| error.to_string())?;
        let account = account_for(directory.path());
        if let Some((user, group)) = account {
            std::os::unix::fs::chown(directory.path(), Some(user), Some(group)).map_err(|error| error.to_string())?;
        }
        let as_account = |command: &mut Command| {
            // Its own group, so that an interrupt of the tests leaves the cleaning to the keeper.
            command.current_dir("/").process_group(0);
            if let Some((user, group)) = account {
                command.uid(user).gid(group);
            }
        };
        let data = format!("--datadir={}", directory.path().join("data").display());
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", &data, "--skip-test-db", "--auth-root-authentication-method=normal"]);
        as_account(&mut install);
        let done = install.output().map_err(|error| error.to_string())?;
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned());
        }
        let port = free_port();
        let directory = directory.keep();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&directory).arg(program);
        keeper.args(["--no-defaults", &data, "--bind-address=127.0.0.1", &format!("--port={port}")]);
        keeper.arg(format!("--socket={}", directory.join("socket").display()));
        keeper.arg(format!("--pid-file={}", directory.join("pid").display()));
        keeper.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M", "--max-connections=200"]);
        keeper.args(["--default-time-zone=+09:00", "--character-set-server=utf8mb4", "--skip-log-bin"]);
        keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        as_account(&mut keeper);
        let mut keeper = keeper.spawn().map_err(|error| error.to_string())?;
        let mut said = String::new();
        let mut output = BufReader::new(keeper.stdout.take().ok_or("the keeper has no output")?);
        output.read_line(&mut said).map_err(|error| error.to_string())?;
        if said != "ready\n" {
            output.read_to_string(&mut said).map_err(|error| error.to_string())?;
            drop(keeper.wait());
            return Err(said);
        }
        let server = Self { directory, port, keeper, databases: AtomicUsize::new(0) };
        server.execute("mysql", &format!("CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'"));
        server.execute("mysql", &format!("GRANT ALL ON *.* TO '{USER}'@'%'"));
        Ok(server)
    }

    /// The host to connect to by TCP.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Creates an empty database and returns its name.
    pub fn create_database(&self) -> String {
        let name = format!("feast_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute("mysql", &format!("CREATE DATABASE {name}"));
        name
    }

    /// `mysql://` with user and password.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://{USER}:{PASSWORD}@{}:{}/{database}", self.host(), self.port)
    }

    /// Runs statements with the client program, apart from the code under test; gives the rows, columns set apart by
    /// tabs.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn execute(&self, database: &str, statements: &str) -> String {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", &format!("--socket={}", self.socket().display()), "--user=root"]);
        command.args(["--batch", "--skip-column-names", database, "--execute", statements]);
        let done = command.output().unwrap_or_else(|error| panic!("mariadb: {error}"));
        assert!(done.status.success(), "{statements}\n{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim_end().to_owned()
    }
}

impl Drop for MySqlServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

/// The program of the server, which Debian keeps off the path of users.
fn program() -> PathBuf {
    let found = Command::new("sh").args(["-c", "command -v mariadbd || ls /usr/sbin/mariadbd"]).output();
    let found = found.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned()).unwrap_or_default();
    assert!(!found.is_empty(), "MariaDB is not installed, which these tests need: run `scripts/services.sh`");
    PathBuf::from(found)
}

/// The account that runs the server: MariaDB refuses to run as root. `None` is that of the tests.
fn account_for(directory: &Path) -> Option<(u32, u32)> {
    let number = |option: &str| -> u32 {
        let done = Command::new("id").args([option, "mysql"]).output();
        done.ok().and_then(|done| String::from_utf8_lossy(&done.stdout).trim().parse().ok()).unwrap_or_else(|| {
            panic!("these tests run as root, and there is no user `mysql` to run MariaDB: `scripts/services.sh`")
        })
    };
    let is_root = fs::metadata(directory).is_ok_and(|metadata| metadata.uid() == 0);
    is_root.then(|| (number("-u"), number("-g")))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    listener.unwrap_or_else(|error| panic!("no free port: {error}")).port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_runs_until_it_is_dropped() {
        let server = MySqlServer::start();
        let database = server.create_database();
        assert_eq!(server.execute(&database, "SELECT 1, 'a'"), "1\ta");
        let socket = server.socket();
        drop(server);
        assert!(!socket.exists());
    }
}
