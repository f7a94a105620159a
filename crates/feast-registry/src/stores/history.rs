//! The history of a registry file, in a file beside it: one line of JSON per commit.
//!
//! Feast knows nothing of the file and is not disturbed by it. It is written under the lock of commits, after the
//! registry itself: a process that dies in between leaves a commit out, and nothing else. A line that was cut is
//! skipped. Beyond a size the older half is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use feast_core::{CommitRecord, Error, ErrorCode, ObjectKind, ObjectRef, ObjectRevision, Result};
use serde_json::{Value, json};

/// A larger file loses its older half.
const MOST_BYTES: u64 = 64 << 20;

/// What of the end of the file is read at a time to find its last line.
const TAIL: u64 = 64 << 10;

/// The bytes of one object before and after a commit.
#[derive(Debug)]
pub(super) struct RawRevision {
    pub(super) object: ObjectRef,
    pub(super) before: Option<Bytes>,
    pub(super) after: Option<Bytes>,
}

/// The history of the registry in this file.
pub(super) fn path_of(registry: &Path) -> PathBuf {
    let name = registry.file_name().unwrap_or_default().to_string_lossy();
    registry.with_file_name(format!("{name}.history"))
}

/// Adds a commit. Called under the lock of commits.
pub(super) fn append(registry: &Path, project: &str, author: &str, revisions: &[RawRevision]) -> io::Result<()> {
    if revisions.is_empty() {
        return Ok(());
    }
    let path = path_of(registry);
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
    let last = last_line(&mut file)?;
    let number = last.as_ref().and_then(|line| line["number"].as_u64()).unwrap_or_default() + 1;
    let line = line(number, project, author, revisions);
    // A line that was cut is ended first.
    let start = if ends_line(&mut file)? { "" } else { "\n" };
    file.write_all(format!("{start}{line}\n").as_bytes())?;
    if file.metadata()?.len() > MOST_BYTES {
        drop_older_half(&path)?;
    }
    Ok(())
}

/// A commit as it is written.
pub(super) fn line(number: u64, project: &str, author: &str, revisions: &[RawRevision]) -> Value {
    let bytes = |message: &Option<Bytes>| message.as_ref().map(|message| STANDARD.encode(message));
    let objects: Vec<Value> = revisions
        .iter()
        .map(|revision| {
            json!({
                "kind": revision.object.kind.identifier(),
                "name": revision.object.name,
                "before": bytes(&revision.before),
                "after": bytes(&revision.after),
            })
        })
        .collect();
    json!({
        "number": number,
        "project": project,
        "author": author,
        "time": Utc::now().timestamp_micros(),
        "objects": objects,
    })
}

/// The commits to a project with numbers above `after`, of them the newest `most`, oldest first.
pub(super) fn read(registry: &Path, project: &str, after: u64, most: usize) -> Result<Vec<CommitRecord>> {
    let path = path_of(registry);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Error::new(ErrorCode::CorruptRegistry, format!("history `{}` cannot be read", path.display()))
                .with_hint("make it readable, or remove it: the registry itself is another file")
                .with_source(error));
        }
    };
    let mut commits = Vec::new();
    for line in text.lines().rev() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let number = line["number"].as_u64().unwrap_or_default();
        if number <= after || commits.len() == most {
            break;
        }
        if line["project"] == project {
            commits.push(commit(&line, number)?);
        }
    }
    commits.reverse();
    Ok(commits)
}

/// A commit as it was written.
pub(super) fn commit(line: &Value, number: u64) -> Result<CommitRecord> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let bytes = |value: &Value| -> Result<Option<Vec<u8>>> {
        value.as_str().map(|text| STANDARD.decode(text)).transpose().map_err(|error| {
            Error::new(ErrorCode::CorruptRegistry, format!("commit {number} in the history of the registry is damaged"))
                .with_hint("remove the history file: the registry itself is another file")
                .with_source(error)
        })
    };
    let objects = line["objects"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(CommitRecord {
        number,
        project: text(&line["project"]),
        author: text(&line["author"]),
        time: line["time"].as_i64().and_then(DateTime::from_timestamp_micros).unwrap_or_default(),
        revisions: objects
            .iter()
            .map(|object| {
                let (before, after) = (bytes(&object["before"])?, bytes(&object["after"])?);
                revision(&text(&object["kind"]), &text(&object["name"]), before, after)
            })
            .collect::<Result<_>>()?,
    })
}

/// An object before and after, from its messages.
pub(super) fn revision(
    kind: &str,
    name: &str,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
) -> Result<ObjectRevision> {
    let kind: ObjectKind = kind.parse()?;
    let object =
        |message: Option<Vec<u8>>| message.map(|message| feast_proto::decode_object(kind, &message)).transpose();
    Ok(ObjectRevision { object: ObjectRef::new(kind, name), before: object(before)?, after: object(after)? })
}

/// The last line of the file that is one.
fn last_line(file: &mut File) -> io::Result<Option<Value>> {
    let length = file.metadata()?.len();
    let mut from = length;
    while from > 0 {
        from = from.saturating_sub(TAIL.max(length - from));
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        // The first line may have begun before.
        let whole = lines.iter().skip(usize::from(from > 0));
        if let Some(line) = whole.rev().find_map(|line| serde_json::from_str(line).ok()) {
            return Ok(Some(line));
        }
    }
    Ok(None)
}

fn ends_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

fn drop_older_half(path: &Path) -> io::Result<()> {
    let bytes = std::fs::read(path)?;
    let half = bytes.len() / 2;
    let cut = bytes[half..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| half + at + 1);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    std::fs::write(&temporary, &bytes[cut..])?;
    std::fs::rename(temporary, path)
}
