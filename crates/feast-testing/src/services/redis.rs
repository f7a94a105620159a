//! Redis servers for tests, from the installed program: single ones, clusters, and servers with a sentinel.
//!
//! They keep nothing on disk unless told to. When the tests' process ends, however it ends, they stop.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Runs the server, tells its process, and ends it when standard input ends.
const KEEPER: &str = r#"
log=$1; shift
"$@" >>"$log" 2>&1 </dev/null &
server=$!
echo $server
cat >/dev/null
kill -9 $server 2>/dev/null
wait $server 2>/dev/null
"#;

/// How long something that always happens may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct RedisServer {
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    /// Arguments with which `redis-cli` gets in.
    login: Vec<String>,
    keeper: Child,
    process: String,
}

impl RedisServer {
    /// Starts a server.
    ///
    /// # Panics
    /// When Redis is not installed or does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more arguments, such as `["--requirepass", "secret"]`.
    ///
    /// # Panics
    /// When Redis is not installed or does not start.
    pub fn start_with(arguments: &[&str]) -> Self {
        // Between finding a free port and using it somebody else may take it.
        for _ in 0..5 {
            let folder = tempfile::Builder::new().prefix("feast-redis-").tempdir();
            let folder = folder.unwrap_or_else(|error| panic!("no temporary directory: {error}"));
            let port = free_port();
            let given = arguments.iter().map(|argument| argument.replace("{folder}", &folder.path().to_string_lossy()));
            let mut all: Vec<String> = vec!["--port".to_owned(), port.to_string()];
            all.extend(["--save", "", "--bind", "127.0.0.1", "--dir"].map(str::to_owned));
            all.push(folder.path().display().to_string());
            all.extend(given);
            let port = tls_port(&all).unwrap_or(port);
            let (keeper, process) = spawn(&log_of(folder.path()), &all);
            let login = login_of(&all);
            let mut server = Self { folder, port, arguments: all, login, keeper, process };
            if server.wait_until_up() {
                return server;
            }
        }
        panic!("redis-server does not start with {arguments:?}");
    }

    fn wait_until_up(&mut self) -> bool {
        wait_for(|| {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Some(true);
            }
            let log = fs::read_to_string(log_of(self.folder.path())).unwrap_or_default();
            (log.contains("Address already in use") || log.contains("Failed listening")).then_some(false)
        })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of its process.
    pub fn process(&self) -> &str {
        &self.process
    }

    /// A folder of its own.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command with `redis-cli`, apart from the code under test, and gives what it prints.
    ///
    /// # Panics
    /// When `redis-cli` cannot be run.
    pub fn command(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(program("redis-cli"));
        command.args(["-p", &self.port.to_string(), "--no-auth-warning"]).args(&self.login).args(arguments);
        let done = command.output().unwrap_or_else(|error| panic!("redis-cli: {error}"));
        String::from_utf8_lossy(&done.stdout).trim_end_matches('\n').to_owned()
    }

    /// All hashes as lines `key field value` in hexadecimal digits, in order.
    pub fn dump(&self) -> Vec<String> {
        const DUMP: &str = "local function hex(s) return (s:gsub('.', function(c) return ('%02x'):format(c:byte()) end)) end \
             local lines = {} \
             for _, key in ipairs(redis.call('KEYS', '*')) do \
               local all = redis.call('TYPE', key).ok == 'hash' and redis.call('HGETALL', key) or {} \
               for i = 1, #all, 2 do lines[#lines + 1] = hex(key)..' '..hex(all[i])..' '..hex(all[i + 1]) end \
             end \
             table.sort(lines) \
             return table.concat(lines, '\\n')";
        self.command(&["EVAL", DUMP, "0"]).lines().map(str::to_owned).collect()
    }

    /// Stops the server at once, as a crash does.
    pub fn kill(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }

    /// Starts the server again on the same port, after [`kill`](Self::kill).
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        let log = log_of(self.folder.path());
        drop(fs::remove_file(&log));
        (self.keeper, self.process) = spawn(&log, &self.arguments);
        assert!(self.wait_until_up(), "redis-server does not start again");
    }

    /// Stops the server from running without ending it.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets a paused server run.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.process]).status();
        assert!(done.is_ok_and(|status| status.success()), "kill {signal} {}", self.process);
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// The value of `--tls-port`, on which such a server listens instead.
fn tls_port(arguments: &[String]) -> Option<u16> {
    let position = arguments.iter().position(|argument| argument == "--tls-port")?;
    arguments.get(position + 1)?.parse().ok()
}

fn login_of(arguments: &[String]) -> Vec<String> {
    let value = |name: &str| {
        let position = arguments.iter().position(|argument| argument == name)?;
        arguments.get(position + 1).cloned()
    };
    let mut login = Vec::new();
    if let Some(password) = value("--requirepass") {
        login.extend(["-a".to_owned(), password]);
    }
    if let Some(authority) = value("--tls-ca-cert-file") {
        login.extend(["--tls".to_owned(), "--cacert".to_owned(), authority]);
    }
    login
}

fn spawn(log: &Path, arguments: &[String]) -> (Child, String) {
    let mut keeper = Command::new("sh");
    keeper.args(["-c", KEEPER, "keeper"]).arg(log).arg(program("redis-server")).args(arguments);
    keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut keeper = keeper.spawn().unwrap_or_else(|error| panic!("sh: {error}"));
    let mut process = String::new();
    if let Some(output) = keeper.stdout.take() {
        drop(BufReader::new(output).read_line(&mut process));
    }
    (keeper, process.trim().to_owned())
}

/// A program of Redis, which has to be installed.
fn program(name: &str) -> &str {
    match Command::new(name).arg("--version").output() {
        Ok(_) => name,
        Err(_) => panic!("`{name}` is not installed, which these tests need: run `scripts/services.sh`"),
    }
}

/// A port that nobody uses.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    listener.unwrap_or_else(|error| panic!("no free port: {error}")).port()
}

/// Asks again and again for what other processes will bring about.
///
/// # Panics
/// After a minute.
pub fn wait_for<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(start.elapsed() < PATIENCE, "what should happen did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A cluster of three servers that share the hash slots.
#[derive(Debug)]
pub struct RedisCluster {
    /// The servers.
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// The cluster that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<RedisCluster> = LazyLock::new(RedisCluster::start);
        &SHARED
    }

    /// Starts a cluster of its own.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        let servers: Vec<RedisServer> = (0..3)
            .map(|_| {
                let bus = free_port().to_string();
                let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--cluster-port", &bus];
                RedisServer::start_with(&cluster)
            })
            .collect();
        let mut create = Command::new(program("redis-cli"));
        create.args(["--cluster", "create"]).args(servers.iter().map(RedisServer::address)).arg("--cluster-yes");
        let done = create.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("redis-cli: {error}"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        for server in &servers {
            wait_for(|| {
                let info = server.command(&["CLUSTER", "INFO"]);
                (info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")).then_some(())
            });
        }
        Self { servers }
    }

    /// The addresses of all servers, set apart by commas.
    pub fn addresses(&self) -> String {
        self.servers.iter().map(RedisServer::address).collect::<Vec<_>>().join(",")
    }
}

/// A server with a replica, and a sentinel that watches both.
#[derive(Debug)]
pub struct RedisSentinel {
    /// The server, until it is killed.
    pub master: RedisServer,
    /// What takes its place.
    pub replica: RedisServer,
    /// What watches them and says which is the master.
    pub sentinel: RedisServer,
}

impl RedisSentinel {
    /// Under which name the sentinel knows the server.
    pub const MASTER: &'static str = "feast";

    /// The servers that all tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<RedisSentinel> = LazyLock::new(RedisSentinel::start);
        &SHARED
    }

    /// Starts servers of its own.
    ///
    /// # Panics
    /// When they do not start.
    pub fn start() -> Self {
        let master = RedisServer::start();
        let port = master.port().to_string();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]);
        wait_for(|| replica.command(&["INFO", "replication"]).contains("master_link_status:up").then_some(()));
        let name = Self::MASTER;
        let settings = format!(
            "sentinel monitor {name} 127.0.0.1 {port} 1\nsentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 3000\n"
        );
        let sentinel = RedisServer::sentinel(&settings);
        wait_for(|| {
            let replicas = sentinel.command(&["SENTINEL", "REPLICAS", name]);
            replicas.contains(&replica.port().to_string()).then_some(())
        });
        Self { master, replica, sentinel }
    }
}

impl RedisServer {
    fn sentinel(settings: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("feast-redis-").tempdir();
        let folder = folder.unwrap_or_else(|error| panic!("no temporary directory: {error}"));
        // A sentinel keeps what it learns in its file.
        let file = folder.path().join("sentinel.conf");
        fs::write(&file, settings).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let port = free_port();
        let mut arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        arguments.extend(["--bind", "127.0.0.1", "--port"].map(str::to_owned));
        arguments.push(port.to_string());
        let (keeper, process) = spawn(&log_of(folder.path()), &arguments);
        let mut server = Self { folder, port, arguments, login: Vec::new(), keeper, process };
        assert!(server.wait_until_up(), "the sentinel does not start");
        server
    }
}

/// Certificates of an authority of the test's own, as PEM files.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes an authority, and a certificate for a server with these names.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn make(names: &[&str]) -> Self {
        let made = || -> Result<Self, Box<dyn std::error::Error>> {
            let folder = tempfile::Builder::new().prefix("feast-tls-").tempdir()?;
            let mut authority = rcgen::CertificateParams::new(Vec::new())?;
            authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            authority.distinguished_name.push(rcgen::DnType::CommonName, "authority of the tests");
            let authority_key = rcgen::KeyPair::generate()?;
            let certificate = authority.self_signed(&authority_key)?;
            fs::write(folder.path().join("authority.pem"), certificate.pem())?;
            let issuer = rcgen::Issuer::new(authority, authority_key);
            let server = rcgen::CertificateParams::new(names.iter().copied().map(str::to_owned).collect::<Vec<_>>())?;
            let server_key = rcgen::KeyPair::generate()?;
            fs::write(folder.path().join("server.pem"), server.signed_by(&server_key, &issuer)?.pem())?;
            fs::write(folder.path().join("server.key"), server_key.serialize_pem())?;
            Ok(Self { folder })
        };
        made().unwrap_or_else(|error| panic!("no certificates: {error}"))
    }

    /// The certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// The certificate of the server.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    /// The key of the server.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("server.key")
    }
}
