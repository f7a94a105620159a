//! A MariaDB server for tests, from the installed programs.
//!
//! Sessions are in another time zone than UTC unless they set one, so that code which relies on the zone fails. When
//! the tests' process ends, however it ends, the server stops and its directory goes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A user with all rights.
pub const USER: &str = "feast";
/// Its password; tests look for it in logs and errors.
pub const PASSWORD: &str = "s3cret-of-mysql";

/// Starts the server as often as a line comes in, tells so, and cleans up when there is no more line.
const KEEPER: &str = r#"
cd "$1" || exit 1
"$2" --no-defaults --datadir="$1/data" --auth-root-authentication-method=normal --skip-test-db >"$1/log" 2>&1 || {
    cat "$1/log"; rm -rf "$1"; exit 1
}
trap 'kill -9 $server 2>/dev/null; wait; rm -rf "$1"' EXIT
while read -r _; do
    [ -z "${server:-}" ] || { kill -9 "$server"; wait "$server" 2>/dev/null; }
    # A server that starts removes what others keep in a folder for temporary tables that it shares with them.
    "$3" --no-defaults --datadir="$1/data" --tmpdir="$1" --socket="$1/socket" --port="$4" --bind-address=127.0.0.1 \
        --pid-file="$1/pid" --init-file="$1/init.sql" --default-time-zone=+09:00 --innodb-flush-log-at-trx-commit=2 \
        --innodb-buffer-pool-size=64M --performance-schema=OFF --skip-name-resolve >>"$1/log" 2>&1 </dev/null &
    server=$!
    tries=0
    until "$5" --no-defaults --socket="$1/socket" --user=root --silent ping >/dev/null 2>&1; do
        kill -0 "$server" 2>/dev/null && [ $tries -lt 600 ] || { cat "$1/log"; exit 1; }
        tries=$((tries + 1)); sleep 0.1
    done
    echo ready
done
"#;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct MysqlServer {
    directory: PathBuf,
    port: u16,
    keeper: Child,
    output: BufReader<std::process::ChildStdout>,
    databases: AtomicUsize,
}

impl MysqlServer {
    /// The server that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<MysqlServer> = LazyLock::new(MysqlServer::start);
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
        let (install, server) = (program("mariadb-install-db"), program("mariadbd"));
        let directory = tempfile::Builder::new().prefix("feast-my-").tempdir().map_err(|error| error.to_string())?;
        let say = |error: std::io::Error| error.to_string();
        let init = format!(
            "CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO {USER}@'%';\n"
        );
        fs::write(directory.path().join("init.sql"), init).map_err(say)?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).map_err(say)?;
        let port = free_port();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(directory.path()).arg(install).arg(server);
        keeper.arg(port.to_string()).arg(program("mariadb-admin"));
        keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Its own group, so that an interrupt of the tests leaves the cleaning to the keeper.
        keeper.current_dir("/").process_group(0);
        if let Some((user, group)) = account_for(directory.path()) {
            std::os::unix::fs::chown(directory.path(), Some(user), Some(group)).map_err(say)?;
            keeper.uid(user).gid(group);
        }
        let directory = directory.keep();
        let mut keeper = keeper.spawn().map_err(say)?;
        let output = BufReader::new(keeper.stdout.take().ok_or("the keeper has no output")?);
        let mut server = Self { directory, port, keeper, output, databases: AtomicUsize::new(0) };
        server.launch()?;
        Ok(server)
    }

    fn launch(&mut self) -> Result<(), String> {
        use std::io::Write;
        let say = |error: std::io::Error| error.to_string();
        self.keeper.stdin.as_mut().ok_or("the keeper is gone")?.write_all(b"start\n").map_err(say)?;
        let mut said = String::new();
        self.output.read_line(&mut said).map_err(say)?;
        if said == "ready\n" {
            return Ok(());
        }
        self.output.read_to_string(&mut said).map_err(say)?;
        Err(said)
    }

    /// Ends the server as a crash does and starts it again, at the same place.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.launch().unwrap_or_else(|failure| panic!("MariaDB does not start again: {failure}"));
    }

    /// The host to connect to.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
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

    /// Runs statements with the command line client, apart from the code under test; gives the rows, columns set apart
    /// by tabs.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn execute(&self, database: &str, statements: &str) -> String {
        let mut command = Command::new(program("mariadb"));
        command.arg("--no-defaults").arg("--socket").arg(self.directory.join("socket")).arg("--user=root");
        command.args(["--batch", "--skip-column-names", "--default-character-set=utf8mb4", "--database", database]);
        let done = command.arg("--execute").arg(statements).output();
        let done = done.unwrap_or_else(|error| panic!("mariadb: {error}"));
        assert!(done.status.success(), "{statements}\n{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim_end_matches('\n').to_owned()
    }
}

impl Drop for MysqlServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

/// Where a program of MariaDB is: Debian keeps the server outside the path of users.
fn program(name: &str) -> PathBuf {
    let folders = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/libexec"];
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists()).unwrap_or_else(|| {
        panic!("MariaDB's `{name}` is not installed, which these tests need: run `scripts/services.sh`")
    })
}

/// The account that runs the server: MariaDB refuses to run as root. `None` is that of the tests.
fn account_for(directory: &Path) -> Option<(u32, u32)> {
    let number = |option: &str| -> u32 {
        let done = Command::new("id").args([option, "mysql"]).output();
        done.ok().and_then(|done| String::from_utf8_lossy(&done.stdout).trim().parse().ok()).unwrap_or_else(|| {
            panic!("these tests run as root, and there is no user `mysql` to run MariaDB: run `scripts/services.sh`")
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
        let mut server = MysqlServer::start();
        let database = server.create_database();
        assert_eq!(server.execute(&database, "SELECT 1, 'a'"), "1\ta");
        assert_eq!(server.execute(&database, "SELECT @@time_zone"), "+09:00");
        server.restart();
        assert_eq!(server.execute(&database, "SELECT 2"), "2");
        let directory = server.directory.clone();
        drop(server);
        assert!(!directory.exists());
    }
}
