//! Redis in Feast's layout: what either of the two writes, the other reads.
//!
//! One hash per entity key and project, shared by all views with these join keys:
//!
//! | | bytes |
//! |---|---|
//! | key | the serialized entity key, then the name of the project |
//! | field `_ts:<view>` | event time of the view's row, as `google.protobuf.Timestamp` |
//! | field of a feature | MurmurHash3 (32 bit) of `<view>:<feature>`, little-endian; the value is a serialized `Value`, zero bytes are null |
//!
//! Reading is one command per entity key, which asks for the fields of all views of the request that share the key, all
//! in one pipeline; in a cluster one pipeline per node, at the same time. The command is `HMGET`, or `HGETALL` where that
//! is less work (see `reading.rs`). Replies are decoded from the received bytes straight into columns.
//!
//! Writing is one script per several rows (`writing.rs`), of several callers at once where they write a few each
//! (`together.rs`). It compares event times where they are stored, so that the newest wins
//! whoever else writes, and writes a row whole or not at all. Of many rows, those whose keys are not there yet are put
//! there by `RESTORE`, which takes the server a third of the time (see `dump.rs`) and refuses a key that somebody else
//! was quicker to write; the script has the rest. Rows with equal event times replace each other in the
//! order in which they arrive, so that a correction lands; in a batch the greater created time wins. With
//! `skip_dedup: true` rows are written by plain `HSET`, whatever is stored.
//!
//! Limits, all of the layout:
//! - Created times are not stored, so that of rows with equal event times in two writes the later write wins.
//! - There are no tables: a view that nobody applied reads as one without rows.
//! - A feature that a view loses stays in its rows, and is there again when the view gets it back before the next write
//!   of the row.
//! - `key_ttl_seconds` lets the whole hash expire, with the rows of all views of the entity; each write starts it anew.
//! - Dropping a view looks at all keys of the database, unless `full_scan_for_deletion: false`, which leaves the rows.

mod client;
mod commands;
mod config;
mod connection;
mod dump;
mod failures;
mod guesses;
mod layout;
mod node;
mod places;
mod reading;
mod reply;
mod scanner;
mod shapes;
mod together;
mod writing;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use feast_core::{
    Error, OnlineRead, OnlineRows, OnlineStore, OnlineTable, OnlineWrite, Reading, Result, SerializedRows,
    SerializedWrite, StoredRows, TableChange, Writing,
};
use futures::TryStreamExt;
use tokio::task::yield_now;

pub use self::config::{RedisClient, RedisConfig, RedisType};

use self::client::{Client, Replies, Script};
use self::commands::Pipeline;
use self::connection::Failure;
use self::layout::{KeySpace, check_fields, feature_field, time_field};
use self::node::Purpose;
use self::reading::{ReadGroup, Trouble, decoded};
use self::reply::Reply;
use self::scanner::Malformed;
use self::shapes::Shapes;
use self::together::{Joined, Together};
use self::writing::{Cells, Columns, FieldNames, PreparedWrite};
use super::newest::newest_rows;

static WRITE: Script = Script { source: include_str!("write.lua"), sha1: "e747f043bf7f645e742eb6dc53883ba35a485132" };
static DELETE: Script = Script { source: include_str!("delete.lua"), sha1: "2bdee15c8742d9e90028c51ba68ad8cce1e09c40" };
static SCRIPTS: [&Script; 2] = [&WRITE, &DELETE];

/// Keys per call of the script that removes rows, which blocks the server meanwhile.
const KEYS_PER_CALL: usize = 64;

/// Rows that are sent together, and how many such pipelines are under way.
const ROWS_PER_PIPELINE: usize = 1024;
const PIPELINES: usize = 4;

/// Rows of a write that is worth asking whether their keys are new, and how many of them tell.
const MANY_ROWS: usize = 1024;
const FIRST_ROWS: usize = 64;

/// Bytes of a write that may share a connection with reads.
const SMALL_WRITE: usize = 1 << 16;

/// Keys that are read together; a larger request is several pipelines.
const KEYS_PER_PIPELINE: usize = 8192;

/// How many keys the server looks at in one step of a scan.
const SCAN_STEP: &[u8] = b"1000";

/// Redis in Feast's layout.
pub struct RedisStore {
    config: RedisConfig,
    client: Client,
    shapes: Shapes,
    together: Together,
    /// The server takes no hashes as a whole: it is too old, or the account may not.
    refuses_whole: AtomicBool,
}

impl RedisStore {
    /// A store over the servers that the options name. Nothing is opened before the first call.
    ///
    /// # Errors
    /// `InvalidConfiguration`.
    pub fn connect(options: &serde_json::Value) -> Result<Self> {
        let config = RedisConfig::parse(options)?;
        let client = Client::new(&config, &SCRIPTS)?;
        let (shapes, together, refuses_whole) = (Shapes::default(), Together::default(), AtomicBool::new(false));
        Ok(Self { client, config, shapes, together, refuses_whole })
    }

    fn malformed(&self) -> Error {
        self.client.error(Failure::Malformed)
    }

    /// The reply to a command that succeeded.
    fn reply<'a>(&self, replies: &'a Replies, command: usize) -> Result<Reply<'a>> {
        replies.get(command).map_err(|line| self.client.server_error(&line))
    }

    fn check_replies(&self, replies: &Replies, commands: usize) -> Result<()> {
        (0..commands).try_for_each(|command| self.reply(replies, command).map(drop))
    }

    /// Where the values of all reads are, in the replies as they came.
    async fn read_cells(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<StoredRows>> {
        let mut groups: Vec<ReadGroup<'_>> = Vec::new();
        for (position, read) in reads.iter().enumerate() {
            match groups.iter_mut().find(|group| group.shares_hashes_with(read)) {
                Some(group) => group.add(position, read, &self.shapes)?,
                None => groups.push(ReadGroup::new(position, read, &self.shapes)?),
            }
        }
        groups.iter_mut().for_each(ReadGroup::choose_way);
        for group in groups.iter_mut().filter(|group| group.has_to_know_shape()) {
            let mut pipeline = if self.client.is_cluster() { Pipeline::default() } else { Pipeline::for_one() };
            group.ask_shape(&mut pipeline);
            let replies =
                self.client.try_execute(Purpose::Read, pipeline).await.map_err(|why| self.client.error(why))?;
            // An account that may not ask reads all the same.
            let reply = |command| self.reply(&replies, command).ok();
            group.learn_shape(reply(0), reply(1));
            group.choose_way();
        }
        // As a rule all groups go in one pipeline; there are several when there are very many keys.
        let mut rest = groups.as_mut_slice();
        while !rest.is_empty() {
            let mut pipeline = if self.client.is_cluster() { Pipeline::default() } else { Pipeline::for_one() };
            let asked: Vec<usize> = rest
                .iter()
                .map(|group| {
                    let room = KEYS_PER_PIPELINE.saturating_sub(pipeline.len());
                    group.ask(&mut pipeline, room)
                })
                .collect();
            let replies = match self.client.try_execute(Purpose::Read, pipeline).await {
                Ok(replies) => replies,
                Err(Failure::TooLong) if rest.iter().any(ReadGroup::reads_whole) => {
                    rest.iter_mut().for_each(ReadGroup::fear_width);
                    continue;
                }
                Err(failure) => return Err(self.client.error(failure)),
            };
            let mut first = 0;
            for (group, asked) in rest.iter_mut().zip(asked) {
                let commands = first..first + asked;
                first = commands.end;
                let reply = |command| self.reply(&replies, command);
                let read = match group.reads_whole() {
                    true => group.read(
                        replies.kept(),
                        commands.map(|command| Ok((replies.kept_part(command), reply(command)?))),
                    ),
                    false => group
                        .read(replies.parts(), commands.map(|command| Ok((replies.part(command), reply(command)?)))),
                };
                read.map_err(|trouble| match trouble {
                    Trouble::Malformed => self.malformed(),
                    Trouble::Wrong(error) => error,
                })?;
            }
            let done = rest.iter().take_while(|group| group.is_done()).count();
            rest = &mut rest[done..];
        }
        let mut answers: Vec<Option<StoredRows>> = vec![None; reads.len()];
        for group in groups {
            for (position, rows) in group.finish()? {
                answers[position] = Some(rows);
            }
        }
        answers.into_iter().map(|answer| answer.ok_or_else(|| Error::internal("a read has no answer"))).collect()
    }

    /// Sends the rows of a write that count.
    async fn write_newest<R: Cells + Sync>(&self, write: &PreparedWrite<'_, R>) -> Result<()> {
        let rows = newest_rows(&write.rows);
        match rows.len() < MANY_ROWS {
            true => self.write_rows(write, &rows).await,
            false => Box::pin(self.write_many(write, &rows)).await,
        }
    }

    async fn write_many<R: Cells + Sync>(&self, write: &PreparedWrite<'_, R>, rows: &[usize]) -> Result<()> {
        let (mut rest, mut are_new) = (rows, false);
        if write.n_features() < dump::MOST_FIELDS
            && !self.config.skip_dedup
            && !self.refuses_whole.load(Ordering::Relaxed)
        {
            // A first load has new keys only, later ones hardly any: the first rows tell which it is.
            let (first, others) = rows.split_at(FIRST_ROWS);
            are_new = 2 * self.write_new_rows(write, first).await? < first.len();
            rest = others;
        }
        futures::stream::iter(rest.chunks(ROWS_PER_PIPELINE).map(Ok))
            .try_for_each_concurrent(PIPELINES, async |rows| match are_new {
                true => self.write_new_rows(write, rows).await.map(drop),
                false => self.write_rows(write, rows).await,
            })
            .await
    }

    /// Sends rows of a write, chosen by position.
    async fn write_rows<R: Cells>(&self, write: &PreparedWrite<'_, R>, rows: &[usize]) -> Result<()> {
        let (ttl, is_cluster) = (self.config.key_ttl_seconds, self.client.is_cluster());
        let pipeline = match self.config.skip_dedup {
            true => write.plain(rows, ttl, is_cluster),
            false => write.scripted(rows, ttl, is_cluster),
        };
        let commands = pipeline.len();
        let is_small = pipeline.bytes().len() <= SMALL_WRITE;
        let purpose = if is_small { Purpose::SmallWrite } else { Purpose::Write };
        let replies = self.client.execute(purpose, pipeline).await?;
        self.check_replies(&replies, commands)
    }

    /// Puts rows under keys that are not there, and sends the others as [`write_rows`](Self::write_rows); returns how many
    /// were refused.
    async fn write_new_rows<R: Cells>(&self, write: &PreparedWrite<'_, R>, rows: &[usize]) -> Result<usize> {
        let (tried, mut others): (Vec<usize>, Vec<usize>) = rows.iter().partition(|row| write.fits_whole(**row));
        let pipeline = write.whole(&tried, self.config.key_ttl_seconds, self.client.is_cluster());
        let replies = self.client.execute(Purpose::Write, pipeline).await?;
        let n_long = others.len();
        for (command, row) in tried.into_iter().enumerate() {
            if let Err(line) = replies.get(command) {
                if line.starts_with("ERR") || line.starts_with("NOPERM") {
                    self.refuses_whole.store(true, Ordering::Relaxed);
                }
                others.push(row);
            }
        }
        self.write_rows(write, &others).await?;
        Ok(others.len() - n_long)
    }

    /// Removes the rows of views that share project and join keys.
    async fn drop_rows(&self, space: &KeySpace, tables: &[&OnlineTable]) -> Result<()> {
        let mut fields: Vec<Vec<u8>> = Vec::new();
        for table in tables {
            fields.push(time_field(&table.view));
            fields.extend(table.columns.iter().map(|column| feature_field(&table.view, &column.name).to_vec()));
        }
        let pattern = space.pattern();
        for node in self.client.masters().await? {
            let mut cursor = b"0".to_vec();
            loop {
                let scan = Pipeline::of(&[b"SCAN", &cursor, b"MATCH", &pattern, b"COUNT", SCAN_STEP]);
                let replies = self.client.execute_on(Purpose::Write, &node, scan).await?;
                let (next, keys) = scanned(self.reply(&replies, 0)?).map_err(|_| self.malformed())?;
                let keys: Vec<&[u8]> = keys.into_iter().filter(|key| space.contains(key)).collect();
                self.drop_fields(&keys, &fields).await?;
                if next == b"0" {
                    break;
                }
                cursor = next.to_vec();
            }
        }
        Ok(())
    }

    async fn drop_fields(&self, keys: &[&[u8]], fields: &[Vec<u8>]) -> Result<()> {
        let mut pipeline = Pipeline::default();
        let per_call = if self.client.is_cluster() { 1 } else { KEYS_PER_CALL };
        for keys in keys.chunks(per_call) {
            pipeline.begin(3 + keys.len() + fields.len());
            pipeline.argument(b"EVALSHA");
            pipeline.argument(DELETE.sha1.as_bytes());
            pipeline.argument(keys.len().to_string().as_bytes());
            keys.iter().for_each(|key| pipeline.argument(key));
            fields.iter().for_each(|field| pipeline.argument(field));
            pipeline.end(Some(keys[0]));
        }
        let commands = pipeline.len();
        let replies = self.client.execute(Purpose::Write, pipeline).await?;
        self.check_replies(&replies, commands)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("config", &self.config).field("client", &self.client).finish_non_exhaustive()
    }
}

impl fmt::Display for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.client)
    }
}

#[async_trait]
impl OnlineStore for RedisStore {
    async fn read(&self, reads: &[OnlineRead<'_>]) -> Result<Vec<OnlineRows>> {
        let stored = self.read_cells(reads).await?;
        reads.iter().zip(stored).map(|(read, rows)| decoded(read, rows, &self.shapes)).collect()
    }

    fn read_stored<'a>(&'a self, reads: &'a [OnlineRead<'a>]) -> Option<Reading<'a, Vec<StoredRows>>> {
        Some(Box::pin(self.read_cells(reads)))
    }

    async fn write(&self, write: OnlineWrite<'_>) -> Result<()> {
        let (table, rows) = (write.table, Columns::of(write)?);
        self.write_newest(&PreparedWrite { table, rows, names: Arc::new(FieldNames::of(table)) }).await
    }

    fn write_serialized<'a>(&'a self, write: SerializedWrite<'a>) -> Option<Writing<'a>> {
        let names = FieldNames::remembered(write.table, write.memo);
        Some(Box::pin(async move {
            let write_rows = async |rows: &SerializedRows| {
                let rows = SerializedWrite { rows, ..write };
                self.write_newest(&PreparedWrite { table: write.table, rows, names: Arc::clone(&names) }).await
            };
            match self.together.join(&names, write.rows) {
                Joined::Alone => write_rows(write.rows).await,
                Joined::After(written) => match written.await {
                    Ok(()) => Ok(()),
                    // Whoever was to write them failed or was called off: each learns by itself what is wrong.
                    Err(_) => write_rows(write.rows).await,
                },
                Joined::First(turn) => {
                    // Until then, all who are ready have joined.
                    yield_now().await;
                    match turn.take() {
                        None => write_rows(write.rows).await,
                        Some((later, others)) => {
                            let mut rows = write.rows.clone();
                            rows.append(&later);
                            write_rows(&rows).await?;
                            for other in others {
                                // It may have been called off meanwhile.
                                let _told = other.send(());
                            }
                            Ok(())
                        }
                    }
                }
            }
        }))
    }

    async fn update(&self, changes: &[TableChange]) -> Result<()> {
        let mut drops: Vec<&OnlineTable> = Vec::new();
        for change in changes {
            match change {
                TableChange::Ensure(table) => {
                    check_fields(table)?;
                    // Changes apply in order: what was dropped before is dropped before.
                    self.drop_tables(&std::mem::take(&mut drops)).await?;
                }
                TableChange::Drop(table) => drops.push(table),
            }
        }
        self.drop_tables(&drops).await
    }

    async fn check(&self) -> Result<()> {
        for node in self.client.masters().await? {
            let replies = self.client.execute_on(Purpose::Read, &node, Pipeline::of(&[b"PING"])).await?;
            match replies.get(0) {
                // Whoever may not ping is let in all the same.
                Err(line) if !line.starts_with("NOPERM") => return Err(self.client.server_error(&line)),
                _ => {}
            }
        }
        Ok(())
    }

    fn preferred_batch_rows(&self) -> usize {
        16_384
    }
}

impl RedisStore {
    async fn drop_tables(&self, tables: &[&OnlineTable]) -> Result<()> {
        if !self.config.full_scan_for_deletion {
            if !tables.is_empty() {
                tracing::warn!("rows of dropped views stay in Redis, as `full_scan_for_deletion: false` says");
            }
            return Ok(());
        }
        let names = |table: &OnlineTable| {
            let mut names: Vec<String> = table.join_keys.iter().map(|key| key.name.clone()).collect();
            names.sort_unstable();
            (table.project.clone(), names)
        };
        let mut rest = tables.to_vec();
        while let Some(first) = rest.first().copied() {
            // One scan for all views with the same keys.
            let (same, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|table| names(table) == names(first));
            self.drop_rows(&KeySpace::of(&first.project, &first.join_keys)?, &same).await?;
            rest = others;
        }
        Ok(())
    }
}

/// The next cursor and the keys of a step of a scan.
fn scanned(mut reply: Reply<'_>) -> Result<(&[u8], Vec<&[u8]>), Malformed> {
    reply.array()?;
    let cursor = reply.text()?.ok_or(Malformed)?;
    let keys = (0..reply.array()?).map(|_| reply.text()?.ok_or(Malformed)).collect::<Result<_, _>>()?;
    Ok((cursor, keys))
}

#[cfg(test)]
mod tests;
