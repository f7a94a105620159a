//! One connection, shared by all calls: commands of many callers go out together, replies come back in order.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::config::{Address, Login};
use super::protocol::{Answer, Commands, KeptPairs, Malformed, Pipeline, Reply, Scanner, Unusable};

/// Calls that wait for one connection; more of them are refused.
const MOST_WAITING: usize = 1024;

/// Pairs that may be on their way before more commands are taken on. A server makes the replies to all that it was sent
/// before the first one is on its way, and neither it nor we get through tens of megabytes as fast as through a few.
const MOST_PAIRS: usize = 1 << 16;

/// Bytes on their way out before more commands are taken on.
const MOST_OUTGOING: usize = 1 << 20;

/// How to reach and enter a server.
#[derive(Debug, Clone)]
pub(super) struct Entrance {
    pub(super) login: Login,
    pub(super) database: u32,
    pub(super) client_name: Option<String>,
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Whether a replica is refused: after a failover an address may lead to one.
    pub(super) master_only: bool,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
}

/// Why a call did not get its replies.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// Nobody listens, or the name has no address.
    Unreachable(String),
    /// The connection ended.
    Lost(String),
    /// Certificates or versions do not fit.
    Tls(String),
    /// The server does not let us in; its code, such as `WRONGPASS`.
    Refused(String),
    /// Too many calls wait.
    Busy,
    /// No reply in time.
    Timeout,
    /// What came is not the protocol.
    Malformed,
    /// A reply has more elements than the caller takes.
    TooLong,
    /// The server answered that it cannot now; the line it sent.
    Unable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "nobody answers: {why}"),
            Self::Lost(why) => write!(f, "the connection was lost: {why}"),
            Self::Tls(why) => write!(f, "no encrypted connection: {why}"),
            Self::Refused(code) => write!(f, "the server refused the connection with {code}"),
            Self::Busy => write!(f, "more than {MOST_WAITING} calls wait for it"),
            Self::Timeout => f.write_str("it did not answer in time"),
            Self::Malformed => f.write_str("it does not speak the protocol of Redis"),
            Self::TooLong => f.write_str("a reply is longer than anybody expected"),
            Self::Unable(line) => f.write_str(line),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Malformed => Self::Malformed,
            Unusable::TooLong => Self::TooLong,
        }
    }
}

impl Failure {
    /// Whether the same commands may succeed on a new connection.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Lost(_) | Self::Unable(_))
    }
}

fn lost(error: &io::Error) -> Failure {
    Failure::Lost(error.to_string())
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The replies to some commands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) n_replies: usize,
    /// The most elements that one may have; a connection that brings more is given up.
    pub(super) most_elements: usize,
    /// About how many pairs there are, where their places are to be kept.
    pub(super) n_pairs: usize,
}

impl From<&Commands> for Expected {
    fn from(commands: &Commands) -> Self {
        Self { n_replies: commands.len(), most_elements: commands.most_elements(), n_pairs: commands.n_pairs() }
    }
}

struct Request {
    commands: Bytes,
    expected: Expected,
    answer: oneshot::Sender<Result<Answer, Failure>>,
}

/// An open connection. It closes when it is dropped and the calls under way have ended.
#[derive(Debug)]
pub(super) struct Connection {
    requests: mpsc::Sender<Request>,
}

impl Connection {
    /// Connects and logs in.
    pub(super) async fn open(address: &Address, entrance: &Entrance) -> Result<Self, Failure> {
        let opened = timeout(entrance.connect_timeout, open(address, entrance)).await;
        let stream = opened.map_err(|_| Failure::Timeout)??;
        let (requests, received) = mpsc::channel(MOST_WAITING);
        tokio::spawn(drive(stream, received, entrance.response_timeout));
        Ok(Self { requests })
    }

    /// Whether commands can be sent.
    pub(super) fn is_open(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Sends commands and waits for their replies.
    pub(super) async fn call(&self, commands: Bytes, expected: Expected) -> Result<Answer, Failure> {
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(Request { commands, expected, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Failure::Busy,
            mpsc::error::TrySendError::Closed(_) => Failure::Lost("it is closed".to_owned()),
        })?;
        answered.await.unwrap_or_else(|_| Err(Failure::Lost("it was closed".to_owned())))
    }
}

async fn open(address: &Address, entrance: &Entrance) -> Result<Box<dyn Stream>, Failure> {
    let unreachable = |error: io::Error| Failure::Unreachable(error.to_string());
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let mut stream: Box<dyn Stream> = match &entrance.tls {
        None => Box::new(tcp),
        Some(config) => {
            let name = ServerName::try_from(address.host.clone()).map_err(|error| Failure::Tls(error.to_string()))?;
            let connecting = TlsConnector::from(Arc::clone(config)).connect(name, tcp);
            Box::new(connecting.await.map_err(|error| Failure::Tls(error.to_string()))?)
        }
    };
    let hello = hello(entrance);
    let answer = exchange(&mut stream, &hello).await?;
    // The last commands only show what the server is and whether it lets us do anything.
    let questions = if entrance.master_only { 2 } else { 1 };
    for number in 0..hello.len() {
        let Some(line) = answer.error(number) else { continue };
        // Only the code: the rest may quote what was sent.
        let code = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let is_question = number + questions >= hello.len();
        if !(is_question && code == b"NOPERM") {
            let code = String::from_utf8_lossy(code).into_owned();
            return Err(match code.as_str() {
                "LOADING" | "MASTERDOWN" => Failure::Unreachable(format!("the server is not ready ({code})")),
                _ => Failure::Refused(code),
            });
        }
    }
    if entrance.master_only && is_replica(answer.reply(hello.len() - 2)) {
        return Err(Failure::Unable(format!("READONLY `{address}` is a replica")));
    }
    Ok(stream)
}

/// Whether a server says that it is no master, in reply to `ROLE`.
fn is_replica(mut reply: Reply<'_>) -> bool {
    reply.array().is_ok() && reply.text().is_ok_and(|role| role.is_some_and(|role| role != b"master"))
}

/// What is said first.
fn hello(entrance: &Entrance) -> Pipeline {
    let mut pipeline = Pipeline::default();
    match (&entrance.login.username, &entrance.login.password) {
        (Some(username), password) => {
            let password = password.as_deref().unwrap_or_default();
            pipeline.push(&[b"AUTH", username.as_bytes(), password.as_bytes()]);
        }
        (None, Some(password)) => pipeline.push(&[b"AUTH", password.as_bytes()]),
        (None, None) => {}
    }
    if entrance.database != 0 {
        pipeline.push(&[b"SELECT", entrance.database.to_string().as_bytes()]);
    }
    if let Some(name) = &entrance.client_name {
        pipeline.push(&[b"CLIENT", b"SETNAME", name.as_bytes()]);
    }
    if entrance.master_only {
        pipeline.push(&[b"ROLE"]);
    }
    pipeline.push(&[b"PING"]);
    pipeline
}

async fn exchange(stream: &mut Box<dyn Stream>, commands: &Pipeline) -> Result<Answer, Failure> {
    stream.write_all(commands.bytes()).await.map_err(|error| lost(&error))?;
    stream.flush().await.map_err(|error| lost(&error))?;
    let (mut bytes, mut scanner, mut ends) = (BytesMut::new(), Scanner::default(), Vec::new());
    while ends.len() < commands.len() {
        match scanner.next(&bytes, usize::MAX, None)? {
            Some(end) => ends.push(end),
            None => {
                if stream.read_buf(&mut bytes).await.map_err(|error| lost(&error))? == 0 {
                    return Err(Failure::Lost("the server closed it at once".to_owned()));
                }
            }
        }
    }
    Ok(Answer { bytes: bytes.freeze(), ends, pairs: KeptPairs::default() })
}

/// A call whose replies are on their way.
struct Pending {
    expected: Expected,
    ends: Vec<usize>,
    pairs: KeptPairs,
    answer: oneshot::Sender<Result<Answer, Failure>>,
}

/// Moves bytes until the connection ends or nobody holds it any more.
async fn drive(stream: Box<dyn Stream>, mut requests: mpsc::Receiver<Request>, patience: Duration) {
    let mut waiting = VecDeque::new();
    let failure = exchange_all(stream, &mut requests, &mut waiting, patience).await;
    requests.close();
    let Err(mut failure) = failure else { return };
    if let Failure::TooLong = failure {
        // Others that take so much would do the same to the next connection.
        let most_elements = waiting.front().map(|pending| pending.expected.most_elements);
        let (greedy, others): (VecDeque<_>, _) =
            waiting.into_iter().partition(|pending| Some(pending.expected.most_elements) == most_elements);
        greedy.into_iter().for_each(|pending| drop(pending.answer.send(Err(Failure::TooLong))));
        waiting = others;
        failure = Failure::Lost("another call got too long a reply".to_owned());
    }
    while let Ok(request) = requests.try_recv() {
        drop(request.answer.send(Err(failure.clone())));
    }
    for pending in waiting {
        drop(pending.answer.send(Err(failure.clone())));
    }
}

async fn exchange_all(
    stream: Box<dyn Stream>,
    requests: &mut mpsc::Receiver<Request>,
    waiting: &mut VecDeque<Pending>,
    patience: Duration,
) -> Result<(), Failure> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (mut incoming, mut outgoing) = (Incoming::default(), BytesMut::new());
    let (mut needs_flush, mut wanted) = (false, true);
    let pairs_of = |waiting: &VecDeque<Pending>| waiting.iter().map(|pending| pending.expected.n_pairs).sum::<usize>();
    let mut n_pairs = 0;
    // A server that is silent for too long while calls wait is taken for gone.
    let mut last_sign = Instant::now();
    let watchdog = sleep_until(last_sign + patience);
    tokio::pin!(watchdog);
    while wanted || !waiting.is_empty() {
        incoming.make_room();
        tokio::select! {
            biased;
            read = reader.read_buf(&mut incoming.bytes) => {
                if read.map_err(|error| lost(&error))? == 0 {
                    return Err(Failure::Lost("the server closed it".to_owned()));
                }
                last_sign = Instant::now();
                incoming.hand_out(waiting)?;
                n_pairs = pairs_of(waiting);
            }
            request = requests.recv(), if wanted
                && outgoing.len() < MOST_OUTGOING
                && waiting.len() < MOST_WAITING
                && n_pairs < MOST_PAIRS =>
            {
                let Some(mut request) = request else {
                    wanted = false;
                    continue;
                };
                if waiting.is_empty() {
                    last_sign = Instant::now();
                }
                // Whatever else waits goes out in the same packet, also that of tasks that are ready and did not run yet.
                yield_now().await;
                loop {
                    outgoing.extend_from_slice(&request.commands);
                    let Request { expected, answer, .. } = request;
                    let (ends, pairs) = (Vec::with_capacity(expected.n_replies), KeptPairs::default());
                    waiting.push_back(Pending { expected, ends, pairs, answer });
                    n_pairs += expected.n_pairs;
                    if outgoing.len() >= MOST_OUTGOING || n_pairs >= MOST_PAIRS {
                        break;
                    }
                    let Ok(next) = requests.try_recv() else { break };
                    request = next;
                }
            }
            sent = send(&mut writer, &mut outgoing), if needs_flush || !outgoing.is_empty() => {
                needs_flush = sent.map_err(|error| lost(&error))?;
            }
            () = &mut watchdog => {
                if !waiting.is_empty() && last_sign.elapsed() >= patience {
                    return Err(Failure::Timeout);
                }
                let from = if waiting.is_empty() { Instant::now() } else { last_sign };
                watchdog.as_mut().reset(from + patience);
            }
        }
    }
    Ok(())
}

/// Writes some bytes, or flushes what was written before; gives whether something may have to be flushed.
async fn send(writer: &mut (impl AsyncWrite + Unpin), outgoing: &mut BytesMut) -> io::Result<bool> {
    if outgoing.is_empty() {
        writer.flush().await?;
        return Ok(false);
    }
    writer.write_buf(outgoing).await?;
    Ok(true)
}

/// What has arrived.
#[derive(Default)]
struct Incoming {
    bytes: BytesMut,
    scanner: Scanner,
    /// How long answers are, the longest of the last ones: a buffer that has to grow is copied.
    usual: usize,
}

impl Incoming {
    /// Makes room for the next read. There is room for several answers, since what has arrived of one is copied when
    /// there is no room for the rest.
    fn make_room(&mut self) {
        if self.bytes.capacity() - self.bytes.len() < 1 << 14 {
            self.bytes.reserve((4 * self.usual).clamp(1 << 16, 1 << 23));
        }
    }

    /// Gives whole answers to those who wait for them.
    fn hand_out(&mut self, waiting: &mut VecDeque<Pending>) -> Result<(), Failure> {
        loop {
            let Some(pending) = waiting.front_mut() else {
                // A reply that nobody asked for: whose the following ones would be is unknown.
                let found = self.scanner.next(&self.bytes, usize::MAX, None)?;
                return if found.is_some() { Err(Failure::Malformed) } else { Ok(()) };
            };
            let Expected { most_elements, n_pairs, .. } = pending.expected;
            if n_pairs > 0 && pending.pairs.starts.capacity() == 0 {
                pending.pairs.starts.reserve(n_pairs);
                pending.pairs.ends.reserve(pending.expected.n_replies);
            }
            let pairs = (n_pairs > 0).then_some(&mut pending.pairs.starts);
            let Some(end) = self.scanner.next(&self.bytes, most_elements, pairs)? else { return Ok(()) };
            pending.ends.push(end);
            if n_pairs > 0 {
                pending.pairs.ends.push(pending.pairs.starts.len());
            }
            if pending.ends.len() == pending.expected.n_replies {
                let bytes = self.bytes.split_to(end).freeze();
                self.scanner.taken();
                self.usual = bytes.len().max(self.usual - self.usual / 8);
                if let Some(Pending { ends, pairs, answer, .. }) = waiting.pop_front() {
                    drop(answer.send(Ok(Answer { bytes, ends, pairs })));
                }
            }
        }
    }
}
