//! Connections of clients: how many there may be, and how slow their clients.
//!
//! A client may take so long to agree on TLS, to send its first request and the head of each other one (`keep_alive`), and
//! to take an answer (`answer`); the time for a body is that of its request (`http/body.rs`).

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Version;
use axum::response::Response;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};

use crate::threads::Threads;
use crate::tls::Tls;

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of an answer a client takes, at least, in the time that it has for an answer.
const LEAST_TAKEN: usize = 1 << 16;

/// Clients that are told at the same time that there are too many; more are left without a word.
const MOST_REFUSALS: usize = 256;

/// How long a client may take to read that there are too many.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 81\r\n\r\n\
    {\"detail\":\"the server has as many connections as it may have; try again later\"}\r\n";

/// What clients may do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long a connection stays open without a request.
    pub(crate) keep_alive: Duration,
    /// How long a client may leave 64 KiB of an answer, or the rest of it.
    pub(crate) answer: Duration,
    /// Open connections.
    pub(crate) connections: usize,
}

/// What answers requests.
pub(crate) trait Answers: Clone + Send + 'static {
    type Answering: Future<Output = Result<Response, Infallible>> + Send + 'static;

    fn answer(&self, request: hyper::Request<Incoming>) -> Self::Answering;
}

impl<S> Answers for S
where
    S: hyper::service::Service<hyper::Request<Incoming>, Response = Response, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Answering = S::Future;

    fn answer(&self, request: hyper::Request<Incoming>) -> S::Future {
        self.call(request)
    }
}

/// How connections are answered.
pub(crate) struct Connections<S> {
    builder: auto::Builder<TokioExecutor>,
    answers: S,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    /// Where they are answered, other than where they are accepted.
    threads: Option<Threads>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    /// When it was told last that there are too many.
    told: Mutex<Option<Instant>>,
}

impl<S: Answers> Connections<S> {
    pub(crate) fn new(answers: S, tls: Option<Arc<Tls>>, limits: Limits) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // The time to wait for the head of the next request is what keeps or closes idle connections.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.keep_alive);
        let mut http2 = builder.http2();
        http2.timer(TokioTimer::new());
        http2.keep_alive_interval(Some(limits.keep_alive)).keep_alive_timeout(limits.keep_alive);
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            builder,
            answers,
            tls,
            limits,
            threads: None,
            places: semaphore(limits.connections),
            refusals: semaphore(MOST_REFUSALS),
            told: Mutex::default(),
        }
    }

    /// The same, on threads of their own.
    pub(crate) fn on(self, threads: Option<Threads>) -> Self {
        Self { threads, ..self }
    }

    /// Ends its threads.
    pub(crate) async fn end(self) {
        if let Some(threads) = self.threads {
            threads.end().await;
        }
    }

    /// Answers whoever connects until `shutdown` ends.
    pub(crate) async fn answer_until(&self, listener: TcpListener, graceful: &GracefulShutdown, shutdown: impl Future) {
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.answer(stream, peer, graceful),
                    Err(error) => accept_failed(&error).await,
                },
                _ = &mut shutdown => return,
            }
        }
    }

    fn answer(&self, stream: TcpStream, peer: SocketAddr, graceful: &GracefulShutdown) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return self.refuse(stream, peer) };
        // Small answers must not wait for more to come.
        let _set = stream.set_nodelay(true);
        let answering = Answering {
            builder: self.builder.clone(),
            watcher: graceful.watcher(),
            answers: self.answers.clone(),
            tls: self.tls.clone(),
            limits: self.limits,
            peer,
            _place: place,
        };
        let Some(threads) = &self.threads else {
            tokio::spawn(answering.begin(stream));
            return;
        };
        let Ok(stream) = stream.into_std() else { return };
        threads.spawn(|on_thread| async move {
            let _on_thread = on_thread;
            match TcpStream::from_std(stream) {
                Ok(stream) => answering.begin(stream).await,
                Err(error) => tracing::warn!(%peer, %error, "a connection could not be answered"),
            }
        });
    }

    fn refuse(&self, stream: TcpStream, peer: SocketAddr) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            *told = Some(Instant::now());
            let connections = self.limits.connections;
            tracing::warn!(%peer, connections, "refused a connection: no more than these may be open");
        }
        // Nobody can be told within TLS who did not agree on it.
        let Some(turn) = Arc::clone(&self.refusals).try_acquire_owned().ok().filter(|_| self.tls.is_none()) else {
            return;
        };
        tokio::spawn(async move {
            let _turn = turn;
            let _ended = timeout(REFUSAL_TIMEOUT, say_no(stream)).await;
        });
    }
}

async fn say_no(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(REFUSAL).await?;
    stream.shutdown().await?;
    // What was sent and not read would take the answer away from the client.
    let mut sent = [0; 4096];
    while stream.read(&mut sent).await? > 0 {}
    Ok(())
}

/// A connection that broke before it was accepted means nothing; a lack of file handles needs a pause.
async fn accept_failed(error: &io::Error) {
    use io::ErrorKind as E;
    if !matches!(error.kind(), E::ConnectionAborted | E::ConnectionReset | E::ConnectionRefused) {
        tracing::warn!(%error, "a connection could not be accepted");
        sleep(Duration::from_millis(100)).await;
    }
}

/// One connection.
struct Answering<S> {
    builder: auto::Builder<TokioExecutor>,
    watcher: Watcher,
    answers: S,
    tls: Option<Arc<Tls>>,
    limits: Limits,
    peer: SocketAddr,
    _place: OwnedSemaphorePermit,
}

impl<S: Answers> Answering<S> {
    /// Agrees on TLS first, where that is wanted.
    async fn begin(self, stream: TcpStream) {
        let (stream, peer) = (Patient::new(stream, self.limits.answer), self.peer);
        let Some(tls) = self.tls.clone() else { return self.run(stream).await };
        match timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => self.run(stream).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS was agreed on"),
            Err(_) => tracing::debug!(%peer, "the client took too long to agree on TLS"),
        }
    }

    /// Answers requests until the client leaves, until none comes, or until the client leaves an answer where it is.
    async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let peer = self.peer;
        let asked = Arc::new(AtomicBool::new(false));
        let open = Arc::new(OpenAnswers::new(self.limits.answer));
        let service = Noticing { answers: self.answers, asked: Arc::clone(&asked), open: Arc::clone(&open) };
        let connection = self.builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let mut connection = pin!(self.watcher.watch(connection));
        let mut pause = self.limits.keep_alive;
        let ended = loop {
            match timeout(pause, connection.as_mut()).await {
                Ok(ended) => break ended,
                // Before the first bytes say which HTTP it is, no other limit applies.
                Err(_) if !asked.load(Relaxed) => return tracing::debug!(%peer, "closed a connection without requests"),
                Err(_) if open.is_one_left() => return tracing::debug!(%peer, "the client left an answer"),
                Err(_) => pause = self.limits.answer,
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended early");
        }
    }
}

/// Notices that there was a request, and which answers of HTTP/2 are on their way: there, a client that takes nothing of
/// one goes on with others, and nothing is to be seen of it in the bytes of the connection.
#[derive(Clone)]
struct Noticing<S> {
    answers: S,
    asked: Arc<AtomicBool>,
    open: Arc<OpenAnswers>,
}

impl<S: Answers> hyper::service::Service<hyper::Request<Incoming>> for Noticing<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Answering, BoxFuture<'static, Result<Response, Infallible>>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        self.asked.store(true, Relaxed);
        let is_http_2 = request.version() == Version::HTTP_2;
        let answering = self.answers.answer(request);
        if !is_http_2 {
            return Either::Left(answering);
        }
        let open = Arc::clone(&self.open);
        Either::Right(answering.map(move |answer| answer.map(|answer| answer.map(|body| open.watch(body)))).boxed())
    }
}

/// The answers of a connection that are on their way.
#[derive(Debug)]
struct OpenAnswers {
    since: Instant,
    patience: Duration,
    /// For each answer the time until which the client has to take the piece at hand, in milliseconds.
    deadlines: Mutex<Vec<Weak<AtomicU64>>>,
}

/// Bytes of an answer over HTTP/2 that are on their way at once.
const PIECE: usize = 1 << 14;

/// As long as the server works on an answer, the client may wait.
const NO_DEADLINE: u64 = u64::MAX;

impl OpenAnswers {
    fn new(patience: Duration) -> Self {
        Self { since: Instant::now(), patience, deadlines: Mutex::default() }
    }

    fn watch(self: &Arc<Self>, body: Body) -> Body {
        let deadline = Arc::new(AtomicU64::new(NO_DEADLINE));
        let mut deadlines = self.deadlines.lock().unwrap_or_else(PoisonError::into_inner);
        deadlines.retain(|known| known.strong_count() > 0);
        deadlines.push(Arc::downgrade(&deadline));
        Body::new(WatchedBody { body, answers: Arc::clone(self), deadline, rest: Bytes::new() })
    }

    fn is_one_left(&self) -> bool {
        let now = self.since.elapsed().as_millis() as u64;
        let deadlines = self.deadlines.lock().unwrap_or_else(PoisonError::into_inner);
        deadlines.iter().filter_map(Weak::upgrade).any(|deadline| deadline.load(Relaxed) < now)
    }

    /// Until when the piece has to be taken that is handed out now.
    fn deadline(&self) -> u64 {
        (self.since.elapsed() + self.patience).as_millis() as u64
    }
}

/// A body in pieces: hyper asks for the next one when the client has taken most of those before.
struct WatchedBody {
    body: Body,
    answers: Arc<OpenAnswers>,
    deadline: Arc<AtomicU64>,
    /// Of the piece at hand.
    rest: Bytes,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.deadline.store(NO_DEADLINE, Relaxed);
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        self.deadline.store(self.answers.deadline(), Relaxed);
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // It is asked for before the first piece.
        self.body.size_hint()
    }
}

/// A stream whose other end has to take what is sent to it, some at least in a certain time.
struct Patient<S> {
    stream: S,
    patience: Duration,
    /// Since the other end did not take all it was sent.
    waiting: Option<Pin<Box<Sleep>>>,
    /// Bytes that it took since then.
    taken: usize,
}

impl<S> Patient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, waiting: None, taken: 0 }
    }

    fn took(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match wrote {
            Poll::Ready(Ok(length)) if self.waiting.is_some() => {
                self.taken += length;
                if self.taken >= LEAST_TAKEN {
                    self.all_taken();
                }
                wrote
            }
            Poll::Ready(_) => wrote,
            Poll::Pending => {
                let patience = self.patience;
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
                ready!(waiting.as_mut().poll(context));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer")))
            }
        }
    }

    fn all_taken(&mut self) {
        self.waiting = None;
        self.taken = 0;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.took(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.took(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Whoever writes calls it when nothing is left to write.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        self.all_taken();
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
