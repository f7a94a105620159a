//! One connection, shared by all calls: commands of many callers go out together, replies come back in order.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::commands::{Commands, Pipeline, WantedPairs};
use super::config::{Address, Login};
use super::reply::{Answer, Part, Reply};
use super::scanner::{Keeping, Malformed, Scanner, Unusable, header};

/// Calls that wait for one connection; more of them are refused.
const MOST_WAITING: usize = 1024;

/// Pairs that may be on their way before more commands are taken on. A server makes the replies to all that it was sent
/// before the first one is on its way, and neither it nor we get through tens of megabytes as fast as through a few.
const MOST_PAIRS: usize = 1 << 16;

/// Bytes on their way out before more commands are taken on.
const MOST_OUTGOING: usize = 1 << 20;

/// Most values are numbers.
const BYTES_PER_VALUE: usize = 12;

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

    /// Whether nobody was there.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

fn lost(error: &io::Error) -> Failure {
    Failure::Lost(error.to_string())
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The replies to some commands.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) n_replies: usize,
    /// The most elements that one may have; a connection that brings more is given up.
    pub(super) most_elements: usize,
    /// About how many pairs there are.
    pub(super) n_pairs: usize,
    /// Which pairs are wanted of the replies up to a number.
    pub(super) wanted: Vec<(usize, WantedPairs)>,
}

impl From<&Commands> for Expected {
    fn from(commands: &Commands) -> Self {
        Self {
            n_replies: commands.len(),
            most_elements: commands.most_elements(),
            n_pairs: commands.n_pairs(),
            wanted: commands.wanted().to_vec(),
        }
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
    Ok(Answer::of(bytes.freeze(), ends))
}

/// A call whose replies are on their way.
struct Pending {
    expected: Expected,
    found: Answer,
    kept: Keeping,
    /// How many replies were taken out of the bytes, and how many bytes that were.
    taken: (usize, usize),
    /// What is left of the last of those that were let go of.
    left: Vec<u8>,
    /// How many wanted pairs the replies lack that were taken.
    lacking: usize,
    answer: oneshot::Sender<Result<Answer, Failure>>,
}

impl Pending {
    fn new(request: Request) -> Self {
        let Request { expected, answer, .. } = request;
        let found = Answer { ends: Vec::with_capacity(expected.n_replies), ..Answer::default() };
        let mut kept = Keeping::default();
        let mut before = 0;
        for (end, wanted) in &expected.wanted {
            let values = wanted.len() * (end - before);
            kept.places.reserve(values);
            kept.bytes.reserve(values * BYTES_PER_VALUE);
            before = *end;
        }
        kept.ends.reserve(before);
        Self { expected, found, kept, taken: (0, 0), left: Vec::new(), lacking: 0, answer }
    }

    /// Finds the end of the next reply; gives whether that was found.
    fn find(&mut self, bytes: &[u8], scanner: &mut Scanner) -> Result<bool, Unusable> {
        let number = self.found.ends.len();
        let wanted = self.expected.wanted.iter().find(|(end, _)| number < *end);
        let keeping = wanted.map(|(_, wanted)| (&**wanted, &mut self.kept));
        let Some(end) = scanner.next(bytes, self.expected.most_elements, keeping)? else { return Ok(false) };
        self.found.ends.push(end);
        Ok(true)
    }

    fn is_done(&self) -> bool {
        self.found.ends.len() == self.expected.n_replies
    }

    /// Whether all that is wanted of the replies that were found was kept.
    fn has_all(&self) -> bool {
        let (before, found) = (self.taken.0, self.found.ends.len());
        let n_kept = self.expected.wanted.last().map_or(0, |(end, _)| *end);
        before < found && found <= n_kept && self.kept.lacking == self.lacking
    }

    /// Takes the replies that were found out of the bytes. Of those of which all that is wanted was kept only the first
    /// line is left, so that what arrives next comes to the same memory, which is at hand.
    fn take(&mut self, bytes: &mut BytesMut, scanner: &mut Scanner) {
        let has_all = self.has_all();
        let Answer { parts, ends, .. } = &mut self.found;
        let Some(length) = ends[self.taken.0..].last().copied() else { return };
        if has_all {
            let mut start = 0;
            for end in &mut ends[self.taken.0..] {
                let line = match header(bytes, start) {
                    Ok(Some((b'*', .., line))) => line,
                    // Nobody wants pairs of it.
                    _ => *end,
                };
                self.left.extend_from_slice(&bytes[start..line]);
                start = std::mem::replace(end, self.left.len());
            }
            bytes.advance(length);
        } else {
            end_part(parts, &mut self.left, self.taken.0);
            parts.push(Part { bytes: bytes.split_to(length).freeze(), until: ends.len() });
        }
        self.taken = (ends.len(), self.taken.1 + length);
        self.lacking = self.kept.lacking;
        scanner.taken(length);
    }

    /// The whole answer, once it is done.
    fn finish(mut self) -> (Answer, oneshot::Sender<Result<Answer, Failure>>) {
        end_part(&mut self.found.parts, &mut self.left, self.taken.0);
        (Answer { kept: self.kept.into(), ..self.found }, self.answer)
    }
}

/// Makes a part of what is left of replies, if there are any.
fn end_part(parts: &mut Vec<Part>, left: &mut Vec<u8>, until: usize) {
    if !left.is_empty() {
        parts.push(Part { bytes: std::mem::take(left).into(), until });
    }
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
        incoming.make_room(waiting);
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
                    n_pairs += request.expected.n_pairs;
                    waiting.push_back(Pending::new(request));
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
                if waiting.is_empty() {
                    incoming.rest();
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

/// The room for what arrives is made in blocks of so many bytes: large enough for few reads, and small enough to stay
/// in the cache of a processor until somebody has gone through them.
const BLOCK: usize = 1 << 18;

/// Less room is not worth a read.
const LEAST_ROOM: usize = 1 << 14;

/// Blocks that are kept for what arrives next: memory that is new to a process costs more than what is read into it.
const MOST_SPENT: usize = 16;

/// What has arrived.
#[derive(Default)]
struct Incoming {
    bytes: BytesMut,
    scanner: Scanner,
    /// Earlier blocks; whoever got answers in them may still have them.
    spent: VecDeque<BytesMut>,
    /// How long answers are, the longest of the last ones.
    usual: usize,
}

impl Incoming {
    /// Makes room for the next read.
    fn make_room(&mut self, waiting: &mut VecDeque<Pending>) {
        let room = (2 * self.usual).clamp(1 << 16, BLOCK);
        if let Some(pending) = waiting.front_mut().filter(|pending| pending.has_all()) {
            pending.take(&mut self.bytes, &mut self.scanner);
            // Back to where the block begins, if nobody has anything in it.
            let _is_back = self.bytes.try_reclaim(room);
        }
        if self.bytes.capacity() - self.bytes.len() >= LEAST_ROOM {
            return;
        }
        // Only the beginning of a reply has to be copied.
        if let Some(pending) = waiting.front_mut() {
            pending.take(&mut self.bytes, &mut self.scanner);
        }
        let arrived = self.bytes.len();
        let room = room.max(arrived);
        if self.bytes.try_reclaim(room) {
            return;
        }
        let free = self.spent.iter_mut().position(|block| block.try_reclaim(arrived + room));
        let free = free.and_then(|at| self.spent.remove(at));
        let mut block = free.unwrap_or_else(|| BytesMut::with_capacity(arrived + room));
        block.extend_from_slice(&self.bytes);
        let mut spent = std::mem::replace(&mut self.bytes, block);
        spent.clear();
        if arrived <= BLOCK {
            self.spent.push_back(spent);
        }
        if self.spent.len() > MOST_SPENT {
            self.spent.pop_front();
        }
    }

    /// Gives back memory, when nothing is expected.
    fn rest(&mut self) {
        self.spent.clear();
        self.usual = 0;
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
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
            if !pending.find(&self.bytes, &mut self.scanner)? {
                return Ok(());
            }
            if pending.is_done() {
                pending.take(&mut self.bytes, &mut self.scanner);
                if let Some(pending) = waiting.pop_front() {
                    self.usual = pending.taken.1.max(self.usual - self.usual / 8);
                    let (found, answer) = pending.finish();
                    drop(answer.send(Ok(found)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::super::commands::{WantedPair, put_argument};
    use super::*;

    /// Replies of lists of so many pairs, whose values have about such a length.
    fn replies(widths: &[(usize, usize)]) -> Vec<Vec<u8>> {
        let reply = |(width, length): &(usize, usize)| {
            let mut reply = format!("*{}\r\n", 2 * width).into_bytes();
            for place in 0..*width {
                put_argument(&mut reply, format!("f{place:03}").as_bytes());
                put_argument(&mut reply, "x".repeat(length + place % 7).as_bytes());
            }
            reply
        };
        widths.iter().map(reply).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// However they arrive, and however many blocks they fill.
        #[test]
        fn answers_are_handed_out_whole(
            calls in prop::collection::vec(prop::collection::vec((0..60usize, 0..4000usize), 1..8), 1..6),
            wanted in prop::collection::btree_set(0..64u32, 0..6),
            steps in prop::collection::vec(1..300_000usize, 1..20),
        ) {
            let pair = |place: u32| WantedPair::new(place, format!("f{place:03}").as_bytes());
            let wanted: WantedPairs = wanted.into_iter().map(pair).collect();
            let (mut waiting, mut answers) = (VecDeque::new(), Vec::new());
            let mut sent = Vec::new();
            for call in &calls {
                let (answer, answered) = oneshot::channel();
                let expected = Expected {
                    n_replies: call.len(),
                    most_elements: 200,
                    n_pairs: 1,
                    wanted: vec![(call.len() - 1, Arc::clone(&wanted))],
                };
                waiting.push_back(Pending::new(Request { commands: Bytes::new(), expected, answer }));
                answers.push(answered);
                sent.extend(replies(call).concat());
            }
            let (mut incoming, mut rest) = (Incoming::default(), sent.as_slice());
            for step in steps.iter().cycle() {
                incoming.make_room(&mut waiting);
                let room = incoming.bytes.capacity() - incoming.bytes.len();
                let (now, later) = rest.split_at(room.min(*step).min(rest.len()));
                incoming.bytes.extend_from_slice(now);
                prop_assert!(incoming.hand_out(&mut waiting).is_ok());
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(waiting.is_empty());
            for (call, mut answered) in calls.iter().zip(answers) {
                let answer = answered.try_recv().unwrap().unwrap();
                for (number, reply) in replies(call).iter().enumerate() {
                    let found = answer.reply(number);
                    let (width, length) = call[number];
                    if number + 1 == call.len() {
                        prop_assert_eq!(answer.bytes_of(number), reply.as_slice());
                        prop_assert!(found.kept().is_empty());
                        continue;
                    }
                    let is_kept = width == 0 || found.kept().iter().all(|place| place.is_some());
                    let line = format!("*{}\r\n", 2 * width);
                    let is_left = is_kept && answer.bytes_of(number) == line.as_bytes();
                    prop_assert!(is_left || answer.bytes_of(number) == reply.as_slice());
                    prop_assert_eq!(found.kept().len(), wanted.len());
                    for (wanted, kept) in wanted.iter().zip(found.kept()) {
                        let place = wanted.place as usize;
                        let value = "x".repeat(length + place % 7);
                        let expected = (place < width).then_some(value.as_bytes());
                        prop_assert_eq!(kept.of(&answer.kept.bytes), expected);
                    }
                }
            }
        }
    }
}
