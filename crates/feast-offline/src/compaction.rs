//! Part files: what added rows become in a directory, and how many small ones become few.
//!
//! A part file is never written again once readers can see it, except by a merge: neighbours are written as one file
//! that takes the name of the last of them, and its footer says which files it stands for. From that moment readers
//! leave those out, whether or not they are still there; then they are deleted. So a reader finds each row once, also
//! after a process was killed in the middle. Programs other than this one may see rows twice for the moment in between.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::Utc;
use feast_core::{Error, ErrorCode, Result};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use crate::append::compression_of;
use crate::dataset::{ParquetFile, Staging, sync_directory};
use crate::sources::file::Files;
use crate::sources::parquet::{read_file, read_footer};

/// Key in the footer of a merged file: names of the files whose rows it holds, as a JSON list.
pub(crate) const REPLACES: &str = "feast.replaces";

/// So many files of a size become one.
const FAN_IN: usize = 8;
/// Sizes, in bytes, up to which files count as small; each is [`FAN_IN`] times the one before.
const SIZES: [u64; 4] = [1 << 20, 8 << 20, 64 << 20, 512 << 20];

/// A name no other file has, in the order of time.
pub(crate) fn part_stem() -> String {
    format!("rows-{:020}-{}", Utc::now().timestamp_micros(), uuid::Uuid::new_v4().simple())
}

/// Whether a file was named by [`part_stem`], whatever stands around it.
pub(crate) fn is_part(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.match_indices("rows-").any(|(at, _)| {
        let digits = |from: usize, to: usize, valid: fn(&u8) -> bool| {
            name.as_bytes().get(at + from..at + to).is_some_and(|bytes| bytes.iter().all(valid))
        };
        digits(5, 25, u8::is_ascii_digit)
            && name.as_bytes().get(at + 25) == Some(&b'-')
            && digits(26, 58, u8::is_ascii_hexdigit)
    })
}

/// A name that comes after the newest file in source order, so that a correction wins over what it corrects.
pub(crate) fn name_after(newest: Option<Cow<'_, str>>, name: &str) -> String {
    match newest {
        Some(newest) if *newest > *name => format!("{}~{name}", newest.split('~').next().unwrap_or_default()),
        _ => name.to_owned(),
    }
}

/// Files whose rows others hold, by their footers.
pub(crate) fn replaced<'a>(files: &Files, footers: impl Iterator<Item = (usize, &'a str)>) -> Result<Vec<PathBuf>> {
    let mut gone = BTreeSet::new();
    for (file, names) in footers {
        let folder = files.files[file].parent().unwrap_or(Path::new(""));
        let names: Vec<String> = serde_json::from_str(names).map_err(|error| {
            let file = files.files[file].display();
            Error::new(ErrorCode::InvalidRequest, format!("`{file}` does not say which files it replaces"))
                .with_hint(
                    "its footer was changed by another program; their rows would count twice: remove the file or them",
                )
                .with_source(error)
        })?;
        // Names, not paths: a footer has no say about other folders.
        gone.extend(names.iter().filter(|name| !name.contains(['/', '\\'])).map(|name| folder.join(name)));
    }
    Ok(files.files.iter().filter(|file| gone.contains(*file)).cloned().collect())
}

/// Merges the newest files of a folder while enough of them are small. The caller has the turn of the folder, and
/// `files` are those of the folder in source order.
pub(crate) fn compact(mut files: Vec<PathBuf>) -> Result<()> {
    for size in SIZES {
        let is_small = |file: &PathBuf| is_part(file) && fs::metadata(file).is_ok_and(|found| found.len() <= size);
        let n_small = files.iter().rev().take_while(|file| is_small(file)).count();
        if n_small < FAN_IN {
            continue;
        }
        let first = files.len() - n_small;
        if !merge(&files[first..])? {
            return Ok(());
        }
        files.drain(first..files.len() - 1);
    }
    Ok(())
}

/// Writes several files as one under the name of the last. Does nothing for files that differ in their columns.
fn merge(files: &[PathBuf]) -> Result<bool> {
    let Some((last, others)) = files.split_last() else { return Ok(false) };
    let footers: Vec<ArrowReaderMetadata> = files.iter().map(|file| read_footer(file)).collect::<Result<_>>()?;
    let schema = footers[footers.len() - 1].schema();
    if footers.iter().any(|footer| footer.schema().fields() != schema.fields()) {
        return Ok(false);
    }
    let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<String> = others.iter().map(name).collect();
    let staging = Staging::in_turn(last)?;
    // Footers repeat the metadata of the schema; what earlier merges wrote there is history.
    let mut metadata = schema.metadata().clone();
    metadata.remove(REPLACES);
    let schema = Arc::new(schema.as_ref().clone().with_metadata(metadata));
    let mut merged = ParquetFile::create(&staging.path, &schema, compression_of(&footers[footers.len() - 1]))?;
    merged.annotate(REPLACES, serde_json::json!(names).to_string());
    for file in files {
        read_file(file, &mut |batch| merged.write(&batch.with_schema(Arc::clone(&schema))?))?;
    }
    merged.finish()?;
    staging.publish(last)?;
    remove(others);
    Ok(true)
}

/// Removes files that a merge made superfluous. One that stays is left out by readers and tried again next time.
pub(crate) fn remove(files: &[PathBuf]) {
    for file in files {
        drop(fs::remove_file(file));
    }
    if let Some(folder) = files.first().and_then(|file| file.parent()) {
        sync_directory(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_files_are_known_by_their_names() {
        let stem = part_stem();
        for name in [format!("{stem}.parquet"), format!("part-9~{stem}.parquet"), format!("x-{stem}-y.parquet")] {
            assert!(is_part(Path::new(&name)), "{name}");
        }
        for name in ["rows-1.parquet", "rows-.parquet", "part-00000.parquet", &stem[..40]] {
            assert!(!is_part(Path::new(name)), "{name}");
        }
    }
}
