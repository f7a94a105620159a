//! One Python process that runs users' functions, and how it is spoken to.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::python_workers::WorkerOptions;
use crate::worker_protocol::LENGTH;

/// What a worker runs. Why it cannot, it tells as its first message.
const BOOTSTRAP: &str = "\
import socket, struct
try:
    from feast import _worker
except Exception as error:
    text = f'{type(error).__name__}: {error}'.encode()
    socket.socket(fileno=0).sendall(struct.pack('<Q', len(text)) + text)
else:
    _worker.main()
";
/// Longest time until a worker says that it is ready: it imports what the user's environment holds.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest message of a worker.
const LONGEST_ANSWER: u64 = 1 << 30;

/// A Python process, spoken to over a socket that is its standard input.
pub(crate) struct Process {
    child: Child,
    socket: BufReader<UnixStream>,
}

impl Process {
    /// Starts a process and waits until it is ready; says why it is not.
    pub(crate) async fn start(options: &WorkerOptions) -> std::result::Result<Self, String> {
        let shown = options.python.display();
        let cannot = |error: std::io::Error| format!("`{shown}` cannot be started: {error}");
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(cannot)?;
        ours.set_nonblocking(true).map_err(cannot)?;
        let mut command = Command::new(&options.python);
        command
            .args(["-c", BOOTSTRAP])
            .arg(options.memory_limit.to_string())
            // Memory that the allocator of pyarrow only reserves must not count towards the limit.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // What a function prints goes to the log; the worker turns its standard output there.
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn().map_err(cannot)?;
        // The command keeps the other end open, which hides the end of the child.
        drop(command);
        let socket = BufReader::new(UnixStream::from_std(ours).map_err(cannot)?);
        let mut process = Self { child, socket };
        match tokio::time::timeout(START_TIMEOUT, process.receive()).await {
            Ok(Ok(greeting)) if greeting.is_empty() => Ok(process),
            Ok(Ok(reason)) => Err(format!("`{shown}` cannot run it: {}", String::from_utf8_lossy(&reason))),
            Ok(Err(_)) => Err(format!("`{shown}` ended before it was ready ({})", process.end().await)),
            Err(_) => Err(format!("`{shown}` was not ready within {} s", START_TIMEOUT.as_secs())),
        }
    }

    /// Whether it has not ended meanwhile.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a request, which begins with room for its length: one write wakes the other side once.
    pub(crate) async fn ask(&mut self, request: &mut [u8]) -> std::io::Result<Vec<u8>> {
        let length = request.len().saturating_sub(LENGTH) as u64;
        if let Some(room) = request.first_chunk_mut::<LENGTH>() {
            *room = length.to_le_bytes();
        }
        self.socket.write_all(request).await?;
        self.receive().await
    }

    async fn receive(&mut self) -> std::io::Result<Vec<u8>> {
        let length = self.socket.read_u64_le().await?;
        if length > LONGEST_ANSWER {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; length as usize];
        self.socket.read_exact(&mut message).await?;
        Ok(message)
    }

    /// Stops it.
    pub(crate) async fn kill(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "a Python worker could not be stopped");
        }
    }

    /// How it ended; one that only closed its socket is stopped.
    pub(crate) async fn end(mut self) -> String {
        let ended = tokio::time::timeout(Duration::from_secs(1), self.child.wait()).await;
        match ended {
            Ok(Ok(status)) => status.to_string(),
            _ => {
                self.kill().await;
                "it stopped answering".to_owned()
            }
        }
    }
}
