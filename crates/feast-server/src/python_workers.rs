//! Users' Python in processes of its own: the server hands rows over and waits, whatever the function does.
//!
//! Who finds a worker free speaks to it. Where all are busy, calls for the same view that wait at the same moment go to
//! the next free worker in one message, which calls the function once for each of them: a function may look at all rows
//! that it is given, and what it returns must not depend on who else asked at that moment. Only views whose tag
//! [`ROW_WISE`] says that each row is computed from itself get the rows of several calls at once. When such a call fails,
//! each is tried alone, so that nobody gets somebody else's error.
//!
//! A worker that does not answer in time, or dies, is replaced, and what it was computing when it died is tried once
//! more; a view that keeps doing that to its workers has to wait ever longer, so that others find one.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use feast::TransformationsConfig;
use feast_core::{Error, ErrorCode, FeatureView, Field, RegistryObject, Result, Transformer};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::to_its_end::ToItsEnd;
use crate::worker_process::Process;
use crate::worker_protocol::{Wanted, WorkerAnswer, WorkerRequest};

/// The tag of an on-demand view by which its user says that the function computes each row from that row alone:
/// `tags={"feast.row_wise": "true"}`.
const ROW_WISE: &str = "feast.row_wise";
/// Most rows, and most bytes of them, that calls of several requests are put together to.
const MOST_ROWS: usize = 4096;
const MOST_BYTES: usize = 1 << 20;
/// Calls that wait for a worker; more are refused.
const MOST_WAITING: usize = 1024;
/// Views whose messages are kept.
const MOST_MESSAGES: usize = 1024;
/// Longest time for which nobody tries again what failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Workers that a view may bring down in a row before it has to wait.
const FREE_STRIKES: u32 = 2;

/// How users' Python runs.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The interpreter; it needs the module `feast`.
    pub python: OsString,
    /// Number of processes.
    pub workers: usize,
    /// Longest time for one call.
    pub timeout: Duration,
    /// Most memory for one process, in bytes.
    pub memory_limit: u64,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            python: "python3".into(),
            workers: cores.min(4),
            timeout: Duration::from_secs(30),
            memory_limit: 2 << 30,
        }
    }
}

impl WorkerOptions {
    /// What the section `transformations` of a configuration says.
    pub fn configured(python: impl Into<OsString>, section: &TransformationsConfig) -> Self {
        let default = Self::default();
        Self {
            python: python.into(),
            workers: section.workers.unwrap_or(default.workers),
            timeout: section.timeout.unwrap_or(default.timeout),
            memory_limit: section.memory_limit.unwrap_or(default.memory_limit),
        }
    }
}

/// Runs functions in Python processes, which start when they are first needed.
pub struct PythonWorkers(Arc<Pool>);

impl PythonWorkers {
    /// Workers to come: nothing is started yet.
    pub fn new(options: WorkerOptions) -> Self {
        Self(Arc::new(Pool {
            messages: Mutex::default(),
            state: Mutex::default(),
            turns: Arc::new(Semaphore::new(options.workers.max(1))),
            arrived: Notify::new(),
            checking: tokio::sync::Mutex::default(),
            options,
        }))
    }

    async fn call(&self, view: &FeatureView, input: RecordBatch, wanted: Wanted) -> Result<Computed> {
        let (reply, answer) = oneshot::channel();
        let call = Call {
            view: view.name.clone(),
            message: self.0.message(view),
            wanted,
            input,
            alone: false,
            // Time to wait for a worker, time to share a call, and time to be called alone after that.
            deadline: Instant::now() + self.0.options.timeout * 3,
            reply,
        };
        if let Some((turn, process, call)) = self.0.place(call)? {
            // To wake another task for it would cost more than most functions.
            ToItsEnd::of(Arc::clone(&self.0).compute(turn, process, vec![call])).await;
        }
        answer.await.unwrap_or_else(|_| Err(Error::unavailable("the Python workers are stopping")))
    }
}

impl fmt::Debug for PythonWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PythonWorkers").field(&self.0.options).finish()
    }
}

impl Drop for PythonWorkers {
    fn drop(&mut self) {
        for worker in self.0.state().tasks.drain(..) {
            worker.abort();
        }
    }
}

#[async_trait]
impl Transformer for PythonWorkers {
    async fn apply(&self, view: &FeatureView, input: RecordBatch) -> Result<RecordBatch> {
        match self.call(view, input, Wanted::Rows).await? {
            Computed::Rows(rows) => Ok(rows),
            _ => Err(Error::internal("a Python worker answered something else than rows")),
        }
    }

    async fn infer(&self, view: &FeatureView, sample: RecordBatch) -> Result<Vec<Field>> {
        match self.call(view, sample, Wanted::Fields).await? {
            Computed::Fields(fields) => Ok(fields),
            _ => Err(Error::internal("a Python worker answered something else than types")),
        }
    }

    async fn expressions(&self, view: &FeatureView) -> Result<Option<String>> {
        let no_rows = RecordBatch::new_empty(Arc::new(Schema::empty()));
        match self.call(view, no_rows, Wanted::Expressions).await? {
            Computed::Expressions(text) => Ok(text),
            _ => Err(Error::internal("a Python worker answered something else than expressions")),
        }
    }

    /// Where no process runs, starts one, which the first call then finds ready.
    async fn check(&self) -> Result<()> {
        // Whoever asks meanwhile waits for the same answer.
        let _checking = self.0.checking.lock().await;
        if self.0.state().has_process() {
            return Ok(());
        }
        match self.0.start().await {
            Ok(process) => {
                self.0.keep(process);
                Ok(())
            }
            Err(reason) => Err(Error::unavailable(format!("functions cannot be run: {reason}")).with_hint(NO_PYTHON)),
        }
    }
}

/// What to do where there is no interpreter that runs workers.
const NO_PYTHON: &str = "install feast-rs in that Python, name an interpreter that has it in FEAST_PYTHON, or a \
                         transformation server in `feature_server.transformation_service_endpoint`";

/// What comes of a call.
enum Computed {
    Rows(RecordBatch),
    Fields(Vec<Field>),
    Expressions(Option<String>),
}

/// One call of a function, and whoever waits for it.
struct Call {
    view: String,
    message: Arc<Message>,
    wanted: Wanted,
    input: RecordBatch,
    /// Whether it is not put together with others any more.
    alone: bool,
    deadline: Instant,
    reply: oneshot::Sender<Result<Computed>>,
}

impl Call {
    fn goes_with(&self, other: &Self) -> bool {
        !self.alone
            && !other.alone
            && self.wanted == Wanted::Rows
            && other.wanted == Wanted::Rows
            && Arc::ptr_eq(&self.message, &other.message)
            && self.input.schema_ref() == other.input.schema_ref()
    }

    /// Whether a frame of the rows of both has the types that the frame of each has alone: whole numbers with a null
    /// among them become floats.
    fn is_typed_as(&self, other: &Self) -> bool {
        let has_nulls =
            |call: &Self| call.input.columns().iter().map(|column| column.null_count() > 0).collect::<Vec<_>>();
        has_nulls(self) == has_nulls(other)
    }

    fn answer(self, answer: Result<Computed>) {
        // Nobody waits for it any more when this fails.
        let _ = self.reply.send(answer);
    }
}

/// A view and its message.
struct Written {
    view: FeatureView,
    message: Arc<Message>,
}

/// What workers are told about a view.
struct Message {
    /// The view as the registry keeps it.
    view: Vec<u8>,
    /// The schema of what is computed.
    features: SchemaRef,
    /// Whether the function may be given the rows of several calls at once.
    row_wise: bool,
    /// The last schema of its input, also as bytes.
    input: Mutex<Option<(SchemaRef, Arc<[u8]>)>>,
}

impl Message {
    fn of(view: &FeatureView) -> Self {
        let object = RegistryObject::FeatureView(Arc::new(view.clone()));
        Self {
            view: feast_proto::encode_object(&object, &view.project),
            features: WorkerAnswer::schema(view),
            row_wise: view.tags.get(ROW_WISE).is_some_and(|value| value.eq_ignore_ascii_case("true")),
            input: Mutex::default(),
        }
    }

    fn schema(&self, schema: &SchemaRef) -> Arc<[u8]> {
        let mut known = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((same, bytes)) if same == schema => Arc::clone(bytes),
            _ => {
                let bytes: Arc<[u8]> = WorkerRequest::schema_bytes(schema).into();
                *known = Some((Arc::clone(schema), Arc::clone(&bytes)));
                bytes
            }
        }
    }
}

/// What all workers share.
struct Pool {
    options: WorkerOptions,
    /// The views that were computed last, as messages. To compare one with what is kept costs less than to write it.
    messages: Mutex<HashMap<String, Written>>,
    state: Mutex<State>,
    /// As many as there may be processes.
    turns: Arc<Semaphore>,
    arrived: Notify,
    /// Held while somebody finds out whether functions can be run.
    checking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Call>,
    tasks: Vec<JoinHandle<()>>,
    /// Views that brought their workers down.
    strikes: HashMap<String, Setback>,
    /// Processes that nobody uses now.
    idle: Vec<Process>,
    /// Processes that compute something now.
    busy: usize,
    /// Why the last worker did not start.
    does_not_start: Option<Setback>,
}

impl State {
    fn has_process(&mut self) -> bool {
        self.idle.retain_mut(Process::is_alive);
        self.busy > 0 || !self.idle.is_empty()
    }

    /// A process that waits for something to compute.
    fn idle_process(&mut self) -> Option<Process> {
        while let Some(mut process) = self.idle.pop() {
            if process.is_alive() {
                return Some(process);
            }
        }
        None
    }
}

/// Something that failed several times in a row, and is left alone for longer each time.
struct Setback {
    times: u32,
    until: Instant,
    reason: String,
}

impl Setback {
    fn again(before: Option<&Self>, reason: String) -> Self {
        let times = before.map_or(0, |before| before.times) + 1;
        let pause = SHORTEST_PAUSE.saturating_mul(1 << times.min(16)).min(LONGEST_PAUSE);
        Self { times, until: Instant::now() + pause, reason }
    }

    fn lasts(&self) -> bool {
        self.until > Instant::now()
    }
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn message(&self, view: &FeatureView) -> Arc<Message> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = messages.get(&view.name).filter(|known| known.view == *view) {
            return Arc::clone(&known.message);
        }
        let message = Arc::new(Message::of(view));
        if messages.len() >= MOST_MESSAGES {
            messages.clear();
        }
        messages.insert(view.name.clone(), Written { view: view.clone(), message: Arc::clone(&message) });
        message
    }

    /// Gives the call back with a process that is free for it, or has it wait for one.
    fn place(self: &Arc<Self>, call: Call) -> Result<Option<(OwnedSemaphorePermit, Process, Call)>> {
        let mut state = self.state();
        // One that panicked is replaced.
        state.tasks.retain(|task| !task.is_finished());
        while state.tasks.len() < self.options.workers.max(1) {
            state.tasks.push(tokio::spawn(Arc::clone(self).work()));
        }
        if let Some(Setback { times, reason, .. }) =
            state.strikes.get(&call.view).filter(|setback| setback.times > FREE_STRIKES && setback.lasts())
        {
            let message = format!("on-demand feature view `{}` is not computed for a moment: {reason}", call.view);
            return Err(Error::new(ErrorCode::TransformationFailed, message)
                .with_hint(format!("it did so {times} times in a row; correct its function")));
        }
        if state.waiting.is_empty()
            && let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned()
            && let Some(process) = state.idle_process()
        {
            return Ok(Some((turn, process, call)));
        }
        if state.waiting.len() >= MOST_WAITING {
            return Err(Error::unavailable(format!(
                "on-demand feature view `{}` is not computed: {MOST_WAITING} calls wait for the Python workers already",
                call.view
            ))
            .with_hint("try again in a moment, or configure more workers"));
        }
        state.waiting.push_back(call);
        drop(state);
        self.arrived.notify_one();
        Ok(None)
    }

    /// One worker: takes calls that wait and finds a process for them.
    async fn work(self: Arc<Self>) {
        loop {
            let arrived = self.arrived.notified();
            if self.state().waiting.is_empty() {
                arrived.await;
                continue;
            }
            let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else { return };
            let calls = self.take();
            if !self.state().waiting.is_empty() {
                // Whoever else is free may take what is left.
                self.arrived.notify_one();
            }
            if calls.is_empty() {
                continue;
            }
            match self.start().await {
                Ok(process) => Arc::clone(&self).compute(turn, process, calls).await,
                Err(reason) => {
                    for call in calls {
                        let message = format!("on-demand feature view `{}` cannot be computed: {reason}", call.view);
                        call.answer(Err(Error::unavailable(message).with_hint(NO_PYTHON)));
                    }
                }
            }
        }
    }

    /// Computes calls in a process, which then is free again.
    async fn compute(self: Arc<Self>, turn: OwnedSemaphorePermit, process: Process, calls: Vec<Call>) {
        self.state().busy += 1;
        let process = self.run(process, calls).await;
        self.state().busy -= 1;
        if let Some(process) = process {
            self.keep(process);
        }
        drop(turn);
    }

    /// The next call, with those that wait for the same function.
    fn take(&self) -> Vec<Call> {
        let mut state = self.state();
        let now = Instant::now();
        let mut calls: Vec<Call> = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        let mut others = VecDeque::with_capacity(state.waiting.len());
        while let Some(call) = state.waiting.pop_front() {
            if call.reply.is_closed() {
                continue;
            }
            if call.deadline < now {
                let message =
                    format!("on-demand feature view `{}` was not computed in time: no worker was free", call.view);
                call.answer(Err(Error::new(ErrorCode::Timeout, message).with_hint("configure more workers")));
                continue;
            }
            // A call without rows is one, too.
            let (more_rows, more_bytes) = (call.input.num_rows().max(1), call.input.get_array_memory_size());
            let fits = calls.first().is_none_or(|first| {
                first.goes_with(&call) && rows + more_rows <= MOST_ROWS && bytes + more_bytes <= MOST_BYTES
            });
            if fits {
                rows += more_rows;
                bytes += more_bytes;
                calls.push(call);
            } else {
                others.push_back(call);
            }
        }
        state.waiting = others;
        calls
    }

    /// Keeps a process for the next call, unless as many run as were asked for.
    fn keep(&self, process: Process) {
        let mut state = self.state();
        if state.idle.len() + state.busy < self.options.workers.max(1) {
            state.idle.push(process);
        }
    }

    /// A process that is ready, or why there is none.
    async fn start(&self) -> std::result::Result<Process, String> {
        {
            let mut state = self.state();
            if let Some(process) = state.idle_process() {
                return Ok(process);
            }
            if let Some(setback) = state.does_not_start.as_ref().filter(|setback| setback.lasts()) {
                return Err(setback.reason.clone());
            }
        }
        let started = Process::start(&self.options).await;
        let mut state = self.state();
        state.does_not_start = match &started {
            Ok(_) => None,
            Err(reason) => {
                // Whoever waits is told.
                tracing::debug!(%reason, "a Python worker does not start");
                Some(Setback::again(state.does_not_start.as_ref(), reason.clone()))
            }
        };
        started
    }

    /// Runs calls in a process; returns the process if it still can be used.
    async fn run(&self, mut process: Process, calls: Vec<Call>) -> Option<Process> {
        let Some(first) = calls.first() else { return Some(process) };
        let (view, message) = (first.view.clone(), Arc::clone(&first.message));
        let together = calls.len() > 1 && message.row_wise && calls.iter().all(|call| call.is_typed_as(first));
        let mut request = match request_of(&calls, together) {
            Ok(request) => request,
            Err(error) => {
                self.answer_or_retry(calls, &error, false);
                return Some(process);
            }
        };
        match tokio::time::timeout(self.options.timeout, process.ask(&mut request)).await {
            Ok(Ok(answer)) => {
                self.state().strikes.remove(&view);
                match WorkerAnswer::decode(&answer, &message.features) {
                    Ok(WorkerAnswer::Calls(answers)) if together => self.hand_out_parts(calls, answers),
                    Ok(WorkerAnswer::Calls(answers)) => self.hand_out(calls, answers),
                    Ok(WorkerAnswer::Fields(fields)) => only(calls, Computed::Fields(fields)),
                    Ok(WorkerAnswer::Expressions(text)) => only(calls, Computed::Expressions(text)),
                    Err(error) => self.answer_or_retry(calls, &error, false),
                }
                Some(process)
            }
            Ok(Err(_)) => {
                let ended = process.end().await;
                self.strike(
                    &view,
                    calls,
                    ErrorCode::TransformationFailed,
                    format!("its function ended the process that ran it ({ended})"),
                );
                None
            }
            Err(_) => {
                process.kill().await;
                let seconds = self.options.timeout.as_secs_f64();
                self.strike(
                    &view,
                    calls,
                    ErrorCode::Timeout,
                    format!("its function took longer than {seconds} s and was stopped"),
                );
                None
            }
        }
    }

    /// Notes that a view brought its worker down.
    fn strike(&self, view: &str, calls: Vec<Call>, code: ErrorCode, reason: String) {
        tracing::warn!(view, %reason, "a Python worker is replaced");
        let mut state = self.state();
        let setback = Setback::again(state.strikes.get(view), reason.clone());
        state.strikes.insert(view.to_owned(), setback);
        drop(state);
        let message = format!("on-demand feature view `{view}` failed: {reason}");
        // Somebody else may have ended it, or the call before.
        let innocent = code != ErrorCode::Timeout;
        self.answer_or_retry(calls, &Error::new(code, message).with_hint("correct its function"), innocent);
    }

    /// Tells the caller the error. Several are called alone instead, and so is one that may be innocent.
    fn answer_or_retry(&self, calls: Vec<Call>, error: &Error, innocent: bool) {
        let again = calls.len() > 1 || innocent && calls.iter().any(|call| !call.alone);
        if !again {
            for call in calls {
                let copy = Error::new(error.code(), error.to_string()).with_hint_opt(error.hint().map(str::to_owned));
                call.answer(Err(copy));
            }
            return;
        }
        let mut state = self.state();
        for call in calls.into_iter().rev() {
            state.waiting.push_front(Call { alone: true, ..call });
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Gives each caller the answer to its call. What the worker has not begun is next.
    fn hand_out(&self, calls: Vec<Call>, answers: Vec<Result<RecordBatch>>) {
        if answers.is_empty() || answers.len() > calls.len() {
            let error = Error::internal("a Python worker answered another number of calls than it was asked for");
            self.answer_or_retry(calls, &error, false);
            return;
        }
        let mut calls = calls.into_iter();
        for (answer, call) in answers.into_iter().zip(&mut calls) {
            let n_rows = call.input.num_rows();
            call.answer(match answer {
                Ok(rows) if rows.num_rows() != n_rows => Err(other_number_of_rows()),
                answer => answer.map(Computed::Rows),
            });
        }
        if calls.len() > 0 {
            let mut state = self.state();
            for call in calls.rev() {
                state.waiting.push_front(call);
            }
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// Gives each caller its rows of the answer to one call that was made for all.
    fn hand_out_parts(&self, calls: Vec<Call>, mut answers: Vec<Result<RecordBatch>>) {
        let n_rows: usize = calls.iter().map(|call| call.input.num_rows()).sum();
        let rows = match answers.pop() {
            Some(Ok(rows)) if rows.num_rows() == n_rows => rows,
            Some(Err(error)) => return self.answer_or_retry(calls, &error, false),
            _ => return self.answer_or_retry(calls, &other_number_of_rows(), false),
        };
        let mut start = 0;
        for call in calls {
            let n_rows = call.input.num_rows();
            call.answer(Ok(Computed::Rows(rows.slice(start, n_rows))));
            start += n_rows;
        }
    }
}

/// Answers what is asked for alone.
fn only(calls: Vec<Call>, answer: Computed) {
    if let Some(call) = calls.into_iter().next() {
        call.answer(Ok(answer));
    }
}

/// The message that asks for all of these calls: one for each, or one `together` for the rows of all.
fn request_of(calls: &[Call], together: bool) -> Result<Vec<u8>> {
    let [first, others @ ..] = calls else { return Err(Error::internal("no call is to be made")) };
    let Call { message, wanted, input, .. } = first;
    let mut rows: Vec<usize> = calls.iter().map(|call| call.input.num_rows()).collect();
    let joined = match others {
        [] => None,
        _ => Some(concat_batches(input.schema_ref(), calls.iter().map(|call| &call.input))?),
    };
    if together {
        rows = vec![rows.iter().sum()];
    }
    let schema = message.schema(input.schema_ref());
    WorkerRequest::encode(*wanted, &message.view, &schema, &rows, joined.as_ref().unwrap_or(input))
}

fn other_number_of_rows() -> Error {
    Error::internal("a Python worker answered with another number of rows")
}
