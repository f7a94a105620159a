//! Where commands go: to the one server, the server that sentinels name, or the nodes of a cluster; again where that
//! may help.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use feast_core::Result;
use feast_net::TlsOptions;
use futures::future::join_all;
use hashbrown::HashMap;
use rustls::ClientConfig;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::commands::{Commands, Pipeline};
use super::config::{Address, RedisConfig, RedisType};
use super::connection::{Entrance, Expected, Failure};
use super::node::{Node, Purpose, lock};
use super::reply::{Answer, Element, Reply};
use crate::stores::forking;

/// How often a read is tried; other calls are tried until their time is over.
const READ_ATTEMPTS: u32 = 4;

const SLOTS: usize = 16_384;

/// A script on the server, and its SHA-1, by which it is called.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) source: &'static str,
    pub(super) sha1: &'static str,
}

/// The servers behind a store.
pub(super) struct Client {
    redis_type: RedisType,
    sentinel_master: String,
    seeds: Vec<Address>,
    entrance: Entrance,
    sentinel_entrance: Entrance,
    scripts: &'static [&'static Script],
    /// Of the process that made it: connections do not survive a fork.
    state: Mutex<(u32, Arc<State>)>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("redis_type", &self.redis_type)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds: Vec<String> = self.seeds.iter().map(Address::to_string).collect();
        let seeds = seeds.join(",");
        match self.redis_type {
            RedisType::Redis => write!(f, "redis at `{seeds}`"),
            RedisType::RedisCluster => write!(f, "redis cluster at `{seeds}`"),
            RedisType::RedisSentinel => write!(f, "redis `{}` of the sentinels at `{seeds}`", self.sentinel_master),
        }
    }
}

/// What is known and open.
#[derive(Default)]
struct State {
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    /// The only server, where there is one.
    only: OnceLock<Arc<Node>>,
    /// The server that the sentinels named.
    master: Mutex<Option<Arc<Node>>>,
    slots: Mutex<Option<Arc<SlotMap>>>,
    refreshing: AsyncMutex<()>,
}

struct SlotMap {
    nodes: Vec<Arc<Node>>,
    /// Position in `nodes` of each slot's node.
    owners: Vec<Option<u16>>,
}

impl State {
    fn node(&self, address: Address) -> Arc<Node> {
        let mut nodes = lock(&self.nodes);
        Arc::clone(nodes.entry(address).or_insert_with_key(|address| Arc::new(Node::new(address.clone()))))
    }
}

/// The replies to commands, wherever they came from.
#[derive(Debug)]
pub(super) struct Replies {
    parts: Vec<Answer>,
    /// For each command the part and the position in it; empty where all are in one part, in their order.
    places: Vec<(usize, usize)>,
}

impl Replies {
    /// The reply to a command, or the line of the error it is.
    pub(super) fn get(&self, command: usize) -> Result<Reply<'_>, String> {
        let (part, position) = self.place(command);
        match self.parts[part].error(position) {
            None => Ok(self.parts[part].reply(position)),
            Some(line) => Err(shortened(line)),
        }
    }
}

impl Replies {
    /// The bytes of all replies, and in which of them the reply to a command is.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter().flat_map(|answer| &answer.parts).map(|part| &part.bytes)
    }

    pub(super) fn part(&self, command: usize) -> usize {
        let (answer, position) = self.place(command);
        let before = self.parts[..answer].iter().map(|answer| answer.parts.len()).sum::<usize>();
        before + self.parts[answer].part(position)
    }

    /// The values that were kept of the replies, and in which of them those of the reply to a command are.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter().map(|answer| &answer.kept.bytes)
    }

    pub(super) fn kept_part(&self, command: usize) -> usize {
        self.place(command).0
    }

    fn place(&self, command: usize) -> (usize, usize) {
        self.places.get(command).copied().unwrap_or((0, command))
    }
}

/// An error line without the arguments that it may quote.
fn shortened(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    line.split(", with args").next().unwrap_or_default().to_owned()
}

/// What an error line asks for.
enum Verdict {
    /// Another node has the slot.
    Moved(Address),
    /// Another node has the key for now.
    Ask(Address),
    /// The script has to be sent first.
    NoScript,
    /// Trying again may help.
    Passing,
    /// It is the answer.
    Final,
}

impl Verdict {
    fn of(line: &[u8], node: &Node) -> Self {
        let line = String::from_utf8_lossy(line);
        let mut words = line.split(' ');
        let target = |address: Option<&str>| {
            let address = address?;
            // Without a host it is the one that answered.
            match address.strip_prefix(':') {
                Some(port) => Some(Address { host: node.address.host.clone(), port: port.parse().ok()? }),
                None => Address::parse(address).or_else(|| {
                    let (host, port) = address.rsplit_once(':')?;
                    Some(Address { host: host.to_owned(), port: port.parse().ok()? })
                }),
            }
        };
        match words.next().unwrap_or_default() {
            "MOVED" => target(words.nth(1)).map_or(Self::Passing, Self::Moved),
            "ASK" => target(words.nth(1)).map_or(Self::Passing, Self::Ask),
            "NOSCRIPT" => Self::NoScript,
            "LOADING" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "READONLY" | "BUSY" => Self::Passing,
            _ => Self::Final,
        }
    }
}

/// Commands for one node.
struct Group {
    node: Arc<Node>,
    commands: Vec<usize>,
    /// Whether each is preceded by `ASKING`.
    asking: bool,
}

/// Where single commands were redirected to, and whether they have to ask.
type Redirects = HashMap<usize, (Address, bool)>;

/// The settings of every encrypted connection.
fn encryption(options: &TlsOptions) -> Result<Arc<ClientConfig>> {
    let config = options.client_config().map_err(|error| {
        error.with_hint("see `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` in `online_store.connection_string`")
    })?;
    Ok(Arc::new(config))
}

impl Client {
    pub(super) fn new(config: &RedisConfig, scripts: &'static [&'static Script]) -> Result<Self> {
        let options = config.connection()?;
        let mut seeds = options.nodes;
        if config.redis_type == RedisType::Redis && seeds.len() > 1 {
            tracing::warn!(used = %seeds[0], "`redis_type: redis` uses the first of several addresses");
            seeds.truncate(1);
        }
        let entrance = Entrance {
            login: options.login,
            database: options.database,
            client_name: options.client_name,
            tls: options.tls.as_ref().map(encryption).transpose()?,
            master_only: config.redis_type == RedisType::RedisSentinel,
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
        };
        let sentinel_entrance = Entrance {
            login: options.sentinel_login,
            database: 0,
            tls: options.sentinel_tls.as_ref().map(encryption).transpose()?,
            master_only: false,
            ..entrance.clone()
        };
        Ok(Self {
            redis_type: config.redis_type,
            sentinel_master: config.sentinel_master.clone(),
            seeds,
            entrance,
            sentinel_entrance,
            scripts,
            state: Mutex::new((std::process::id(), Arc::default())),
        })
    }

    /// Whether commands with many keys have to be taken apart.
    pub(super) fn is_cluster(&self) -> bool {
        self.redis_type == RedisType::RedisCluster
    }

    fn state(&self) -> Arc<State> {
        let _working = forking::working();
        let mut state = lock(&self.state);
        let process = std::process::id();
        if state.0 != process {
            // Closing inherited connections would disturb those of the parent.
            std::mem::forget(std::mem::replace(&mut *state, (process, Arc::default())));
        }
        Arc::clone(&state.1)
    }

    /// Sends commands to where their keys are and gives all replies, errors of single commands included.
    pub(super) async fn execute(&self, purpose: Purpose, pipeline: Pipeline) -> Result<Replies> {
        self.try_execute(purpose, pipeline).await.map_err(|failure| self.error(failure))
    }

    /// [`Client::execute`], for callers that can do something about a failure.
    pub(super) async fn try_execute(&self, purpose: Purpose, pipeline: Pipeline) -> Result<Replies, Failure> {
        let commands = pipeline.finish();
        if commands.len() == 0 {
            return Ok(Replies { parts: Vec::new(), places: Vec::new() });
        }
        let deadline = Instant::now() + self.entrance.response_timeout;
        if purpose != Purpose::Write
            && self.redis_type == RedisType::Redis
            && let Some(connection) = self.only_node().current(purpose)
        {
            let call = connection.call(commands.all(), (&commands).into());
            match timeout_at(deadline, call).await.unwrap_or(Err(Failure::Timeout)) {
                Ok(answer) if !answer.has_errors() => {
                    return Ok(Replies { parts: vec![answer], places: Vec::new() });
                }
                Err(failure) if !failure.is_passing() => return Err(failure),
                // Whoever tries again knows what to do about it.
                _ => {}
            }
        }
        let mut unreachable = None;
        // Few calls come here; those that do not would be larger by the room for it.
        let executing = Box::pin(self.execute_until(deadline, purpose, &commands, &mut unreachable));
        let replies = timeout_at(deadline, executing).await;
        replies.unwrap_or_else(|_| Err(unreachable.unwrap_or(Failure::Timeout)))
    }

    fn only_node(&self) -> Arc<Node> {
        let state = self.state();
        Arc::clone(state.only.get_or_init(|| state.node(self.seeds[0].clone())))
    }

    async fn execute_until(
        &self,
        deadline: Instant,
        purpose: Purpose,
        commands: &Commands,
        unreachable: &mut Option<Failure>,
    ) -> Result<Replies, Failure> {
        let state = self.state();
        let mut replies = Replies { parts: Vec::new(), places: vec![(0, 0); commands.len()] };
        let mut waiting: Vec<usize> = (0..commands.len()).collect();
        let mut redirects = Redirects::new();
        let mut attempt = 0;
        loop {
            let mut again = Vec::new();
            let mut trouble = None;
            let mut moved = false;
            match self.groups(&state, commands, &waiting, &mut redirects).await {
                Err(failure) if failure.is_passing() => {
                    trouble = Some(failure);
                    again.append(&mut waiting);
                }
                Err(failure) => return Err(failure),
                Ok(groups) => {
                    let calls = groups.iter().map(|group| self.call_group(group, purpose, commands));
                    for (group, answer) in groups.iter().zip(join_all(calls).await) {
                        let answer = match answer {
                            Ok(answer) => answer,
                            Err(failure) if failure.is_passing() => {
                                self.forget(&state);
                                trouble = Some(failure);
                                again.extend_from_slice(&group.commands);
                                continue;
                            }
                            Err(failure) => return Err(failure),
                        };
                        let mut has_scripts = false;
                        for (position, command) in group.commands.iter().enumerate() {
                            let position = if group.asking { 2 * position + 1 } else { position };
                            let line = answer.error(position);
                            match line.map_or(Verdict::Final, |line| Verdict::of(line, &group.node)) {
                                Verdict::Final => {
                                    replies.places[*command] = (replies.parts.len(), position);
                                    continue;
                                }
                                Verdict::Moved(address) => {
                                    moved = true;
                                    redirects.insert(*command, (address, false));
                                }
                                Verdict::Ask(address) => drop(redirects.insert(*command, (address, true))),
                                Verdict::NoScript => {
                                    if !has_scripts {
                                        self.load_scripts(&group.node, purpose).await?;
                                        has_scripts = true;
                                    }
                                }
                                Verdict::Passing => {
                                    self.forget(&state);
                                    trouble = line.map(|line| Failure::Unable(shortened(line)));
                                }
                            }
                            again.push(*command);
                        }
                        replies.parts.push(answer);
                    }
                }
            }
            if again.is_empty() {
                return Ok(replies);
            }
            attempt += 1;
            if moved {
                self.forget(&state);
            }
            let trouble = match trouble {
                Some(trouble) => {
                    let delay = backoff(attempt);
                    let is_over = purpose == Purpose::Read && attempt >= READ_ATTEMPTS;
                    if is_over || Instant::now() + delay >= deadline {
                        return Err(trouble);
                    }
                    // Says more than that time is over, when it is over before the next attempt is.
                    *unreachable = Some(&trouble).filter(|trouble| trouble.is_unreachable()).cloned();
                    sleep(delay).await;
                    trouble
                }
                None => Failure::Unable("the nodes of the cluster redirect without end".to_owned()),
            };
            if attempt >= 64 {
                return Err(trouble);
            }
            again.sort_unstable();
            waiting = again;
        }
    }

    /// Who gets which of the waiting commands. Redirects count once.
    async fn groups(
        &self,
        state: &State,
        commands: &Commands,
        waiting: &[usize],
        redirects: &mut Redirects,
    ) -> Result<Vec<Group>, Failure> {
        let one = |node| vec![Group { node, commands: waiting.to_vec(), asking: false }];
        match self.redis_type {
            RedisType::Redis => return Ok(one(state.node(self.seeds[0].clone()))),
            RedisType::RedisSentinel => return Ok(one(self.master(state).await?)),
            RedisType::RedisCluster => {}
        }
        let slots = self.slots(state).await?;
        let mut groups: Vec<Group> = Vec::new();
        let mut push = |node: Arc<Node>, command: usize, asking: bool| match groups
            .iter_mut()
            .find(|group| Arc::ptr_eq(&group.node, &node) && group.asking == asking)
        {
            Some(group) => group.commands.push(command),
            None => groups.push(Group { node, commands: vec![command], asking }),
        };
        for command in waiting {
            if let Some((address, asking)) = redirects.remove(command) {
                push(state.node(address), *command, asking);
                continue;
            }
            match slots.owners[usize::from(commands.slot(*command))] {
                Some(owner) => push(Arc::clone(&slots.nodes[usize::from(owner)]), *command, false),
                None => {
                    self.forget(state);
                    return Err(Failure::Unable("CLUSTERDOWN a hash slot has no node".to_owned()));
                }
            }
        }
        Ok(groups)
    }

    async fn call_group(&self, group: &Group, purpose: Purpose, commands: &Commands) -> Result<Answer, Failure> {
        if !group.asking && group.commands.len() == commands.len() {
            return group.node.call(&self.entrance, purpose, commands.all(), commands.into()).await;
        }
        let mut bytes = BytesMut::new();
        for command in &group.commands {
            if group.asking {
                bytes.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
            }
            bytes.extend_from_slice(commands.command(*command));
        }
        let n_replies = if group.asking { 2 * group.commands.len() } else { group.commands.len() };
        // The numbers of the replies are no longer those of the commands.
        let expected = Expected { n_replies, wanted: Vec::new(), ..commands.into() };
        group.node.call(&self.entrance, purpose, bytes.freeze(), expected).await
    }

    async fn load_scripts(&self, node: &Node, purpose: Purpose) -> Result<(), Failure> {
        let mut pipeline = Pipeline::default();
        for script in self.scripts {
            pipeline.push(&[b"SCRIPT", b"LOAD", script.source.as_bytes()]);
        }
        let commands = pipeline.finish();
        let answer = node.call(&self.entrance, purpose, commands.all(), Expected::from(&commands)).await?;
        match (0..commands.len()).find_map(|number| answer.error(number)) {
            None => Ok(()),
            Some(line) => Err(Failure::Unable(shortened(line))),
        }
    }

    /// What is known of servers may be out of date.
    fn forget(&self, state: &State) {
        match self.redis_type {
            RedisType::Redis => {}
            RedisType::RedisSentinel => *lock(&state.master) = None,
            RedisType::RedisCluster => *lock(&state.slots) = None,
        }
    }

    /// The servers that hold keys.
    pub(super) async fn masters(&self) -> Result<Vec<Arc<Node>>> {
        let state = self.state();
        let deadline = Instant::now() + self.entrance.response_timeout;
        let masters = async {
            match self.redis_type {
                RedisType::Redis => Ok(vec![state.node(self.seeds[0].clone())]),
                RedisType::RedisSentinel => Ok(vec![self.master(&state).await?]),
                RedisType::RedisCluster => Ok(self.slots(&state).await?.nodes.clone()),
            }
        };
        timeout_at(deadline, masters).await.unwrap_or(Err(Failure::Timeout)).map_err(|failure| self.error(failure))
    }

    /// Sends one command to a certain server.
    pub(super) async fn execute_on(&self, purpose: Purpose, node: &Node, pipeline: Pipeline) -> Result<Replies> {
        let commands = pipeline.finish();
        let deadline = Instant::now() + self.entrance.response_timeout;
        let mut attempt = 0;
        let mut unreachable = None;
        loop {
            let call = node.call(&self.entrance, purpose, commands.all(), Expected::from(&commands));
            let in_time = timeout_at(deadline, call).await;
            let failure = match in_time.unwrap_or_else(|_| Err(unreachable.take().unwrap_or(Failure::Timeout))) {
                Ok(answer) => {
                    let places = (0..commands.len()).map(|position| (0, position)).collect();
                    return Ok(Replies { parts: vec![answer], places });
                }
                Err(failure) => failure,
            };
            attempt += 1;
            let delay = backoff(attempt);
            let is_over = purpose == Purpose::Read && attempt >= READ_ATTEMPTS;
            if is_over || !failure.is_passing() || Instant::now() + delay >= deadline {
                return Err(self.error(failure));
            }
            unreachable = Some(failure).filter(Failure::is_unreachable);
            sleep(delay).await;
        }
    }

    /// The server that the sentinels name, once it says itself that it is the master.
    async fn master(&self, state: &State) -> Result<Arc<Node>, Failure> {
        if let Some(master) = lock(&state.master).clone() {
            return Ok(master);
        }
        let _refreshing = state.refreshing.lock().await;
        if let Some(master) = lock(&state.master).clone() {
            return Ok(master);
        }
        let question = Pipeline::of(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.sentinel_master.as_bytes()]);
        let question = question.finish();
        let mut trouble = None;
        for seed in &self.seeds {
            let answer = match state
                .node(seed.clone())
                .call(&self.sentinel_entrance, Purpose::Read, question.all(), (&question).into())
                .await
            {
                Ok(answer) => answer,
                Err(failure) => {
                    trouble = Some(failure);
                    continue;
                }
            };
            let Some(address) = master_address(&answer)? else {
                let line = answer.error(0).map_or_else(|| "they do not know it".to_owned(), shortened);
                trouble = Some(Failure::Unable(format!("the sentinel at `{seed}` names no master: {line}")));
                continue;
            };
            let node = state.node(address);
            // Opening a connection asks for the role; an open one is closed by the server when its role changes.
            let ping = Pipeline::of(&[b"PING"]).finish();
            match node.call(&self.entrance, Purpose::Read, ping.all(), (&ping).into()).await {
                Ok(_) => {
                    *lock(&state.master) = Some(Arc::clone(&node));
                    return Ok(node);
                }
                Err(failure) => trouble = Some(failure),
            }
        }
        Err(trouble.unwrap_or(Failure::Malformed))
    }

    /// Which node has which slot.
    async fn slots(&self, state: &State) -> Result<Arc<SlotMap>, Failure> {
        if let Some(slots) = lock(&state.slots).clone() {
            return Ok(slots);
        }
        let _refreshing = state.refreshing.lock().await;
        if let Some(slots) = lock(&state.slots).clone() {
            return Ok(slots);
        }
        let mut trouble = Failure::Malformed;
        let known: Vec<Arc<Node>> = lock(&state.nodes).values().map(Arc::clone).collect();
        let seeds = self.seeds.iter().map(|seed| state.node(seed.clone()));
        let question = Pipeline::of(&[b"CLUSTER", b"SLOTS"]).finish();
        for node in seeds.chain(known) {
            match node.call(&self.entrance, Purpose::Read, question.all(), (&question).into()).await {
                Ok(answer) => match answer.error(0) {
                    Some(line) => trouble = Failure::Unable(shortened(line)),
                    None => {
                        let slots = Arc::new(slot_map(&answer, &node, state)?);
                        *lock(&state.slots) = Some(Arc::clone(&slots));
                        return Ok(slots);
                    }
                },
                Err(failure) => trouble = failure,
            }
        }
        Err(trouble)
    }
}

/// Up to 25, 50, 100… and at most 400 ms, by chance, so that callers do not come back together.
fn backoff(attempt: u32) -> Duration {
    let most = 25_000 << attempt.saturating_sub(1).min(4);
    Duration::from_micros(fastrand::u64(most / 2..=most))
}

fn master_address(answer: &Answer) -> Result<Option<Address>, Failure> {
    if answer.error(0).is_some() || answer.bytes_of(0).starts_with(b"*-1") || answer.bytes_of(0).starts_with(b"$-1") {
        return Ok(None);
    }
    let mut reply = answer.reply(0);
    reply.array()?;
    let mut text = || reply.text().map(|text| String::from_utf8_lossy(text.unwrap_or_default()).into_owned());
    let (host, port) = (text()?, text()?);
    Ok(Some(Address { host, port: port.parse().map_err(|_| Failure::Malformed)? }))
}

/// Reads the answer to `CLUSTER SLOTS`: first slot, last slot, address of the master, replicas.
fn slot_map(answer: &Answer, asked: &Node, state: &State) -> Result<SlotMap, Failure> {
    let mut reply = answer.reply(0);
    let mut map = SlotMap { nodes: Vec::new(), owners: vec![None; SLOTS] };
    for _ in 0..reply.array()? {
        let n_parts = reply.array()?;
        let mut slot = || match reply.next()? {
            Element::Integer(slot) => usize::try_from(slot).ok().filter(|slot| *slot < SLOTS).ok_or(Failure::Malformed),
            _ => Err(Failure::Malformed),
        };
        let (first, last) = (slot()?, slot()?);
        let n_facts = reply.array()?;
        let host = reply.text()?.map(|host| String::from_utf8_lossy(host).into_owned());
        // Without a host it is the one that was asked.
        let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| asked.address.host.clone());
        let Element::Integer(port) = reply.next()? else { return Err(Failure::Malformed) };
        let node = state.node(Address { host, port: u16::try_from(port).map_err(|_| Failure::Malformed)? });
        for _ in 2..n_facts {
            reply.skip()?;
        }
        for _ in 3..n_parts {
            reply.skip()?;
        }
        let position = map.nodes.iter().position(|known| Arc::ptr_eq(known, &node)).unwrap_or_else(|| {
            map.nodes.push(node);
            map.nodes.len() - 1
        });
        let owner = u16::try_from(position).map_err(|_| Failure::Malformed)?;
        map.owners.get_mut(first..=last).ok_or(Failure::Malformed)?.fill(Some(owner));
    }
    match map.nodes.is_empty() {
        true => Err(Failure::Unable("CLUSTERDOWN no node has any hash slot".to_owned())),
        false => Ok(map),
    }
}
