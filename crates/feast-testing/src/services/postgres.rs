//! A PostgreSQL server for tests, from the installed programs.
//!
//! Sessions are in another time zone than UTC unless they set one, so that code which relies on the zone fails.
//! TCP wants the password, the Unix socket does not. When the tests' process ends, however it ends, the server stops
//! and its directory goes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The administrator of the server.
pub const USER: &str = "postgres";
/// Its password; tests look for it in logs and errors.
pub const PASSWORD: &str = "s3cret-of-postgres";

/// Starts the server, tells so, waits until its standard input ends, and cleans up.
const KEEPER: &str = r#"
"$1/pg_ctl" --pgdata="$2/data" --log="$2/log" --options="$3" --wait --timeout=60 start >"$2/pg_ctl" 2>&1 </dev/null || {
    cat "$2/pg_ctl" "$2/log"; rm -rf "$2"; exit 1
}
echo ready
cat >/dev/null
"$1/pg_ctl" --pgdata="$2/data" --mode=immediate --wait stop >/dev/null 2>&1
rm -rf "$2"
"#;

/// Makes an authority and a certificate of it.
const CERTIFY: &str = r#"
cd "$1" && key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30" &&
openssl req -x509 $key -subj /CN=authority -keyout authority.key -out authority.crt &&
openssl req -x509 $key -subj /CN=localhost -keyout server.key -out server.crt -CA authority.crt -CAkey authority.key \
    -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE &&
chmod 600 server.key
"#;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct PostgresServer {
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
    keeper: Child,
    databases: AtomicUsize,
}

impl PostgresServer {
    /// The server that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<PostgresServer> = LazyLock::new(PostgresServer::start);
        &SHARED
    }

    /// Starts a server of its own.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub fn start() -> Self {
        Self::start_with(false)
    }

    /// Starts a server that can encrypt, with a certificate for `localhost` of an authority of its own.
    ///
    /// # Panics
    /// When PostgreSQL or OpenSSL is not installed or does not start.
    pub fn start_encrypting() -> Self {
        Self::start_with(true)
    }

    fn start_with(tls: bool) -> Self {
        // Between finding a free port and using it somebody else may take it.
        let mut failures = Vec::new();
        for _ in 0..5 {
            match Self::try_start(tls) {
                Ok(server) => return server,
                Err(failure) => failures.push(failure),
            }
        }
        panic!("PostgreSQL does not start: {}", failures.join("\n"));
    }

    fn try_start(tls: bool) -> Result<Self, String> {
        let programs = programs();
        let directory = tempfile::Builder::new().prefix("feast-pg-").tempdir().map_err(|error| error.to_string())?;
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
        let password_file = directory.path().join("password");
        fs::write(&password_file, PASSWORD).map_err(|error| error.to_string())?;
        let mut initdb = Command::new(programs.join("initdb"));
        initdb
            .arg("--pgdata")
            .arg(directory.path().join("data"))
            .arg("--pwfile")
            .arg(&password_file)
            .args(["--username", USER, "--auth-local=trust", "--auth-host=scram-sha-256"])
            .args(["--encoding=UTF8", "--locale=C", "--no-sync"]);
        as_account(&mut initdb);
        let done = initdb.output().map_err(|error| error.to_string())?;
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned());
        }
        if tls {
            let mut certify = Command::new("sh");
            certify.args(["-c", CERTIFY, "certify"]).arg(directory.path());
            as_account(&mut certify);
            let done = certify.output().map_err(|error| error.to_string())?;
            if !done.status.success() {
                return Err(String::from_utf8_lossy(&done.stderr).into_owned());
            }
        }
        let port = free_port();
        let directory = directory.keep();
        let folder = directory.display();
        let encryption = if tls {
            format!(" -c ssl=on -c ssl_cert_file={folder}/server.crt -c ssl_key_file={folder}/server.key")
        } else {
            String::new()
        };
        let options = format!(
            "-k {folder} -p {port} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200 \
             -c shared_buffers=32MB -c timezone=Asia/Tokyo{encryption}"
        );
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&programs).arg(&directory).arg(options);
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
        Ok(Self { programs, directory, port, keeper, databases: AtomicUsize::new(0) })
    }

    /// The host to connect to by TCP.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The port to connect to, by TCP or by socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket.
    pub fn socket_folder(&self) -> &Path {
        &self.directory
    }

    /// The certificate of the authority that signed that of the server, if it encrypts.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("authority.crt")
    }

    /// Creates an empty database and returns its name.
    pub fn create_database(&self) -> String {
        let name = format!("feast_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Ends the server as a crash does and starts it again, at the same place.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&self) {
        let owner = fs::metadata(&self.directory).unwrap_or_else(|error| panic!("the server's directory: {error}"));
        let mut command = Command::new(self.programs.join("pg_ctl"));
        command.arg("--pgdata").arg(self.directory.join("data")).arg("--log").arg(self.directory.join("log"));
        command.args(["--mode=immediate", "--wait", "restart"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.current_dir("/").process_group(0).uid(owner.uid()).gid(owner.gid());
        let done = command.status().unwrap_or_else(|error| panic!("pg_ctl: {error}"));
        assert!(done.success(), "PostgreSQL does not start again: {done}");
    }
    /// `postgresql://` with user and password.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://{USER}:{PASSWORD}@{}:{}/{database}", self.host(), self.port)
    }

    /// Runs statements with `psql`, apart from the code under test; gives the rows, columns set apart by `|`.
    ///
    /// # Panics
    /// When a statement fails.
    pub fn execute(&self, database: &str, statements: &str) -> String {
        let mut command = Command::new(self.programs.join("psql"));
        command.arg("--host").arg(&self.directory).args(["--port", &self.port.to_string()]);
        command.args(["--username", USER, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        command.args(["--set", "ON_ERROR_STOP=1", "--dbname", database, "--command", statements]);
        let done = command.output().unwrap_or_else(|error| panic!("psql: {error}"));
        assert!(done.status.success(), "{statements}\n{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim_end().to_owned()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

/// The folder of `initdb` and its companions.
fn programs() -> PathBuf {
    // Debian keeps the programs of each release apart, and only some of them on the path.
    let mut releases: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, programs)| programs.join("initdb").exists())
        .collect();
    releases.sort();
    let asked = || {
        let done = Command::new("pg_config").arg("--bindir").output().ok()?;
        let programs = PathBuf::from(String::from_utf8_lossy(&done.stdout).trim());
        programs.join("initdb").exists().then_some(programs)
    };
    releases
        .pop()
        .map(|(_, programs)| programs)
        .or_else(asked)
        .unwrap_or_else(|| panic!("PostgreSQL is not installed, which these tests need: run `scripts/services.sh`"))
}

/// The account that runs the server: PostgreSQL refuses to run as root. `None` is that of the tests.
fn account_for(directory: &Path) -> Option<(u32, u32)> {
    let number = |option: &str| -> u32 {
        let done = Command::new("id").args([option, "postgres"]).output();
        done.ok().and_then(|done| String::from_utf8_lossy(&done.stdout).trim().parse().ok()).unwrap_or_else(|| {
            panic!("these tests run as root, and there is no user `postgres` to run PostgreSQL: `scripts/services.sh`")
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
        let server = PostgresServer::start();
        let database = server.create_database();
        assert_eq!(server.execute(&database, "SELECT 1, 'a'"), "1|a");
        assert_eq!(server.execute(&database, "SHOW timezone"), "Asia/Tokyo");
        let directory = server.socket_folder().to_path_buf();
        drop(server);
        assert!(!directory.exists());
    }
}
