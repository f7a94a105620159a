//! The files behind a path: one file, a directory, a glob, hive partitions or a Delta table, on a local disk or in a
//! bucket.
//!
//! Relative paths start at the feature repository. In directories, names that start with `.` or `_` are skipped, and
//! folders named `key=value` add a column `key`. Files are ordered by path.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Date32Type};
use chrono::NaiveDate;
use feast_core::{DataSource, Error, ErrorCode, Result, list_names};
use flate2::read::MultiGzDecoder;
use object_store::ObjectMeta;
use parquet::file::reader::ChunkReader;

use super::Place;
use super::bucket::{Bucket, is_in_bucket};
use super::csv::is_code;
use super::delta::{DataFile, DeltaTable, LOG, not_a_table, pinned};
use super::parquet::malformed;
use super::shared_file::SharedFile;
use crate::compaction::name_after;

/// Value of a hive partition that stands for null.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// How files are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Parquet,
    Csv { gzip: bool },
    Json { gzip: bool },
}

/// How a path names files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    File,
    Directory,
    Glob,
}

/// The files behind a path, in source order.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The absolute path, directory or glob.
    pub(crate) root: PathBuf,
    pub(crate) shape: Shape,
    pub(crate) encoding: Encoding,
    pub(crate) files: Vec<PathBuf>,
    /// Where they are in a bucket: it, and its objects in the order of `files`.
    pub(crate) bucket: Option<(Bucket, Vec<ObjectMeta>)>,
    /// What the log says, if it is a Delta table.
    pub(crate) delta: Option<Arc<DeltaTable>>,
    /// Name and type of each partition column.
    pub(crate) partitions: Vec<(String, DataType)>,
    /// Partition values by file, in the order of `partitions`.
    values: Vec<Vec<Option<String>>>,
}

impl Files {
    /// Finds the files of the batch side of a data source.
    pub(crate) fn of(source: &DataSource, base: &Path) -> Result<Self> {
        Self::find(Place::of(source)?, base).map_err(|error| error.with_context("data source", &source.name))
    }

    /// Finds the files behind a path of a definition.
    pub(crate) fn find(place: Place<'_>, base: &Path) -> Result<Self> {
        let path = place.path;
        if is_in_bucket(path) {
            return Self::find_objects(place, base);
        }
        let root = resolve(path, base)?;
        if let Some((table, version)) = pinned(path).filter(|_| !root.exists()) {
            let root = resolve(table, base)?;
            return match (root.join(LOG).is_dir(), root.exists()) {
                (true, _) => {
                    Self::of_table(root.clone(), None, DeltaTable::open(table, &root, Some(version), place.wanted)?)
                }
                (false, true) => Err(not_a_table(table)),
                (false, false) => Err(not_found(path, base)),
            };
        }
        if root.join(LOG).is_dir() {
            return Self::of_table(root.clone(), None, DeltaTable::open(path, &root, None, place.wanted)?);
        }
        if place.must_be_delta {
            return Err(if root.exists() { not_a_table(path) } else { not_found(path, base) });
        }
        let (shape, base_of_partitions, files) = if root.is_file() {
            (Shape::File, None, vec![root.clone()])
        } else if root.is_dir() {
            let mut files = Vec::new();
            walk(&root, &mut files).map_err(|error| unreadable(&root, error))?;
            (Shape::Directory, Some(root.clone()), files)
        } else if is_glob(path) {
            let (fixed, files) = expand(&root)?;
            (Shape::Glob, Some(fixed), files)
        } else {
            return Err(not_found(path, base));
        };
        Self::new(path, base, (root, shape, base_of_partitions), files, None)
    }

    /// The files that the log of a Delta table names.
    fn of_table(root: PathBuf, bucket: Option<Bucket>, (table, found): (DeltaTable, Vec<DataFile>)) -> Result<Self> {
        let (files, objects): (Vec<_>, Vec<_>) = found.into_iter().map(|file| (file.path, file.object)).unzip();
        Ok(Self {
            root,
            shape: Shape::Directory,
            encoding: Encoding::Parquet,
            values: vec![Vec::new(); files.len()],
            files,
            bucket: bucket.map(|bucket| (bucket, objects.into_iter().flatten().collect())),
            partitions: table.partitions(),
            delta: Some(Arc::new(table)),
        })
    }

    fn find_objects(place: Place<'_>, base: &Path) -> Result<Self> {
        let path = place.path;
        if let Some((table, version)) = pinned(path) {
            let (bucket, key) = Bucket::of(table, place.endpoint)?;
            if bucket.holds(&log_of(&key))? {
                let opened = DeltaTable::open_in(&bucket, &key, table, Some(version), place.wanted)?;
                return Self::of_table(bucket.url(&key), Some(bucket), opened);
            }
            if place.must_be_delta {
                return Err(not_a_table(table));
            }
        }
        let (bucket, key) = Bucket::of(path, place.endpoint)?;
        if place.must_be_delta {
            if !bucket.holds(&log_of(&key))? {
                return Err(not_a_table(path));
            }
            let opened = DeltaTable::open_in(&bucket, &key, path, None, place.wanted)?;
            return Self::of_table(bucket.url(&key), Some(bucket), opened);
        }
        let (shape, folder, mut objects) = if is_glob(&key) {
            let (folder, objects) = matching(&bucket, &key, path)?;
            (Shape::Glob, folder, objects)
        } else if let Some(object) = bucket.head(&key)?.filter(|object| object.size > 0) {
            (Shape::File, String::new(), vec![object])
        } else {
            (Shape::Directory, key.clone(), bucket.list(&key)?)
        };
        // A marker of a folder is not a file, and what is hidden is not data.
        let below = |object: &ObjectMeta| {
            let key = object.location.as_ref();
            key.strip_prefix(&folder).unwrap_or(key).trim_start_matches('/').to_owned()
        };
        if shape == Shape::Directory && objects.iter().any(|object| below(object).starts_with(&format!("{LOG}/"))) {
            let opened = DeltaTable::open_in(&bucket, &key, path, None, place.wanted)?;
            return Self::of_table(bucket.url(&key), Some(bucket), opened);
        }
        if shape != Shape::File {
            objects.retain(|object| {
                let below = below(object);
                !below.is_empty() && !below.split('/').any(|part| part.starts_with(['.', '_']))
            });
        }
        let files = objects.iter().map(|object| bucket.url(object.location.as_ref())).collect();
        let place = (bucket.url(&key), shape, (shape != Shape::File).then(|| bucket.url(&folder)));
        Self::new(path, base, place, files, Some((bucket, objects)))
    }

    /// Takes the files that hold rows, in order.
    fn new(
        path: &str,
        base: &Path,
        (root, shape, base_of_partitions): (PathBuf, Shape, Option<PathBuf>),
        mut files: Vec<PathBuf>,
        bucket: Option<(Bucket, Vec<ObjectMeta>)>,
    ) -> Result<Self> {
        let encoding = encoding_of(&files, shape, path, base)?;
        let bucket = bucket.map(|(bucket, objects)| {
            let mut paired: Vec<(PathBuf, ObjectMeta)> = files.drain(..).zip(objects).collect();
            paired.retain(|(file, _)| shape == Shape::File || encoding_by_name(file).is_some());
            paired.sort_by(|(one, _), (other, _)| one.cmp(other));
            let (sorted, objects) = paired.into_iter().unzip();
            files = sorted;
            (bucket, objects)
        });
        files.retain(|file| shape == Shape::File || encoding_by_name(file).is_some());
        files.sort();
        let values = vec![Vec::new(); files.len()];
        let mut found = Self { root, shape, encoding, delta: None, partitions: Vec::new(), values, files, bucket };
        if let Some(base) = base_of_partitions {
            found.read_partitions(&base);
        }
        Ok(found)
    }

    /// Opens a file for reading by position.
    pub(crate) fn open(&self, file: usize) -> Result<SharedFile> {
        let Some((bucket, objects)) = &self.bucket else { return SharedFile::open(&self.files[file]) };
        let object = bucket.object(&objects[file]);
        let object = if self.encoding == Encoding::Parquet { object.with_tail()? } else { object };
        Ok(SharedFile::of_object(object, objects[file].last_modified.into()))
    }

    /// Reads a file from its start to its end, uncompressed.
    pub(crate) fn read(&self, file: usize) -> Result<Box<dyn Read>> {
        let from_start = self.open(file)?.get_read(0).map_err(|error| malformed(&self.files[file], error))?;
        Ok(match self.encoding {
            Encoding::Csv { gzip: true } | Encoding::Json { gzip: true } => Box::new(MultiGzDecoder::new(from_start)),
            _ => Box::new(from_start),
        })
    }

    /// Bytes of all files.
    pub(crate) fn size(&self) -> usize {
        match &self.bucket {
            Some((_, objects)) => objects.iter().map(|object| object.size as usize).sum(),
            None => self.files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len() as usize).sum(),
        }
    }

    /// Leaves some of the files out.
    pub(crate) fn remove(&mut self, removed: &[PathBuf]) {
        let kept: Vec<bool> = self.files.iter().map(|file| !removed.contains(file)).collect();
        fn keep<T>(all: &mut Vec<T>, kept: &[bool]) {
            let mut kept = kept.iter();
            all.retain(|_| kept.next() == Some(&true));
        }
        keep(&mut self.files, &kept);
        keep(&mut self.values, &kept);
        if let Some((_, objects)) = &mut self.bucket {
            keep(objects, &kept);
        }
    }

    /// A name for a new file beside those of a glob, made of `stem`, that the glob matches and that comes after `newest`.
    pub(crate) fn name_like(&self, newest: &str, stem: &str) -> Result<String> {
        let folder = self.files.last().and_then(|file| file.parent()).unwrap_or(&self.root);
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let glob = glob::Pattern::new(&self.root.to_string_lossy());
        let matched = |path: &Path| glob.as_ref().is_ok_and(|glob| glob.matches_path_with(path, options));
        if folder.ancestors().any(matched) {
            // A directory that the glob names stands for all files in it.
            return Ok(name_after(Some(newest.into()), &format!("{stem}.parquet")));
        }
        let pattern = self.root.file_name().unwrap_or_default().to_string_lossy();
        if let Some((before, after)) = pattern.split_once('*') {
            let taken = newest.strip_prefix(before).unwrap_or(newest);
            let taken = taken.split(['~', '.']).next().unwrap_or_default();
            let stem = if taken > stem { format!("{taken}~{stem}") } else { stem.to_owned() };
            let ending = if after.ends_with(".parquet") { "" } else { ".parquet" };
            let name = format!("{before}{stem}{}{ending}", after.replace('*', ""));
            if matched(&folder.join(&name)) && *name > *newest {
                return Ok(name);
            }
        }
        Err(Error::unsupported(format!("no new file fits the pattern `{}`", self.root.display()))
            .with_hint("name the directory, or let the pattern have a `*` for the name of a file"))
    }

    /// A partition column of `n_rows` rows of a file.
    pub(crate) fn partition_array(&self, file: usize, partition: usize, n_rows: usize) -> Result<ArrayRef> {
        if let Some(table) = &self.delta {
            return table.partition_array(file, partition, n_rows);
        }
        let value = self.values[file].get(partition).and_then(Option::as_deref);
        Ok(match self.partitions[partition].1 {
            DataType::Int64 => {
                Arc::new(Int64Array::from(vec![value.and_then(|text| i64::from_str(text).ok()); n_rows]))
            }
            DataType::Date32 => {
                Arc::new(Date32Array::from(vec![value.and_then(date).map(Date32Type::from_naive_date); n_rows]))
            }
            _ => Arc::new(StringArray::from(vec![value; n_rows])),
        })
    }

    fn read_partitions(&mut self, base: &Path) {
        let pairs: Vec<Vec<(String, Option<String>)>> =
            self.files.iter().map(|file| partition_pairs(file.strip_prefix(base).unwrap_or(file))).collect();
        let mut names: Vec<&String> = Vec::new();
        for (name, _) in pairs.iter().flatten() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        for name in names {
            let values: Vec<Option<String>> = pairs
                .iter()
                .map(|pairs| pairs.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.clone()))
                .collect();
            let present = || values.iter().flatten();
            let data_type = if present().all(|value| i64::from_str(value).is_ok() && !is_code(value)) {
                DataType::Int64
            } else if present().all(|value| date(value).is_some()) {
                DataType::Date32
            } else {
                DataType::Utf8
            };
            self.partitions.push((name.clone(), data_type));
            for (file, value) in values.into_iter().enumerate() {
                self.values[file].push(value);
            }
        }
    }
}

/// The absolute path of a path in a definition. Relative paths start at `base`.
pub(crate) fn resolve(path: &str, base: &Path) -> Result<PathBuf> {
    if path.is_empty() {
        return Err(Error::invalid_definition("the path of the files is empty")
            .with_hint("name a file, a folder or a glob with `path=`"));
    }
    let local = match path.split_once("://") {
        Some(("file", _)) => url::Url::parse(path).ok().and_then(|url| url.to_file_path().ok()).ok_or_else(|| {
            Error::invalid_definition(format!("`{path}` is not the URL of a local file"))
                .with_hint("write `file:///folder/file.parquet`, or a plain path")
        })?,
        Some((scheme, _)) => {
            return Err(Error::unsupported(format!(
                "`{path}` is on `{scheme}://`, which is not a place for files here"
            ))
            .with_hint("use a local path, `s3://…` or `gs://…`"));
        }
        None => PathBuf::from(path),
    };
    let joined = base.join(local);
    // `./data` and `data` are one place; `..` is left to the file system, which knows symbolic links.
    Ok(joined.components().filter(|part| *part != Component::CurDir).collect())
}

/// The error for a path with nothing behind it.
pub(crate) fn not_found(path: &str, base: &Path) -> Error {
    Error::new(ErrorCode::FileNotFound, format!("there is no file at `{path}`"))
        .with_context("feature repository", base.display())
        .with_hint("relative paths start at the feature repository; check the path of the file source")
}

/// The error for a file that the system does not let us read.
pub(crate) fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::unavailable(format!("could not read `{}`", path.display()))
        .with_source(error)
        .with_hint("give this user the right to read it")
}

/// The folder of the log of a table in a bucket.
fn log_of(key: &str) -> String {
    if key.is_empty() { LOG.to_owned() } else { format!("{key}/{LOG}") }
}

/// The objects that a pattern names, and the folder before its first wildcard. Folders stand for their objects.
fn matching(bucket: &Bucket, pattern: &str, path: &str) -> Result<(String, Vec<ObjectMeta>)> {
    let glob = glob::Pattern::new(pattern).map_err(|error| {
        Error::invalid_definition(format!("`{path}` is not a valid pattern of paths: {error}"))
            .with_hint("write `*` for any name, `**` for any folders, and `[[]` for a bracket")
    })?;
    let fixed: Vec<&str> = pattern.split('/').take_while(|part| !is_glob(part)).collect();
    let folder = fixed.join("/");
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
    let mut objects = bucket.list(&folder)?;
    objects.retain(|object| {
        Path::new(object.location.as_ref()).ancestors().any(|path| glob.matches_path_with(path, options))
    });
    Ok((folder, objects))
}

fn is_glob(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(['.', '_']) {
            continue;
        }
        let path = entry.path();
        if path.is_dir() { walk(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// The files a glob names, and the part of its path before the first wildcard. Directories stand for their files.
fn expand(pattern: &Path) -> Result<(PathBuf, Vec<PathBuf>)> {
    let text = pattern.to_string_lossy();
    let invalid = |error: &dyn std::fmt::Display| {
        Error::invalid_definition(format!("`{text}` is not a valid pattern of paths: {error}"))
            .with_hint("write `*` for any name, `**` for any folders, and `[[]` for a bracket")
    };
    let fixed = pattern.components().take_while(|part| !is_glob(&part.as_os_str().to_string_lossy())).collect();
    let mut files = Vec::new();
    for path in glob::glob(&text).map_err(|error| invalid(&error))? {
        let path = path.map_err(|error| unreadable(pattern, error.into()))?;
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '_']));
        if path.is_dir() {
            walk(&path, &mut files).map_err(|error| unreadable(&path, error))?;
        } else if !hidden {
            files.push(path);
        }
    }
    Ok((fixed, files))
}

/// How the names of files end.
pub(crate) const ENDINGS: [(&str, Encoding); 11] = [
    (".parquet", Encoding::Parquet),
    (".parq", Encoding::Parquet),
    (".pq", Encoding::Parquet),
    (".csv", Encoding::Csv { gzip: false }),
    (".csv.gz", Encoding::Csv { gzip: true }),
    (".json", Encoding::Json { gzip: false }),
    (".jsonl", Encoding::Json { gzip: false }),
    (".ndjson", Encoding::Json { gzip: false }),
    (".json.gz", Encoding::Json { gzip: true }),
    (".jsonl.gz", Encoding::Json { gzip: true }),
    (".ndjson.gz", Encoding::Json { gzip: true }),
];

fn encoding_by_name(path: &Path) -> Option<Encoding> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, encoding)| *encoding)
}

fn encoding_of(files: &[PathBuf], shape: Shape, path: &str, base: &Path) -> Result<Encoding> {
    let known: Vec<Encoding> = files.iter().filter_map(|file| encoding_by_name(file)).collect();
    match known.as_slice() {
        // A single file is what it contains, whatever its name.
        [] if shape == Shape::File => Ok(Encoding::Parquet),
        [] if files.is_empty() => Err(not_found(path, base)),
        [] => {
            let names: BTreeSet<String> =
                files.iter().filter_map(|f| f.file_name()).map(|f| f.to_string_lossy().into_owned()).collect();
            Err(Error::new(
                ErrorCode::FileNotFound,
                format!(
                    "`{path}` holds no Parquet, CSV or JSON lines file, only {}",
                    list_names(names.iter().map(String::as_str))
                ),
            )
            .with_context("feature repository", base.display())
            .with_hint("file names end in `.parquet`, `.csv` or `.jsonl`, the latter two also with `.gz`"))
        }
        [first, rest @ ..] if rest.iter().all(|other| other == first) => Ok(*first),
        _ => Err(Error::invalid_definition(format!("`{path}` mixes Parquet, CSV, JSON and compressed files"))
            .with_hint("keep files of one kind in a directory")),
    }
}

/// The `key=value` folders of a relative path.
fn partition_pairs(relative: &Path) -> Vec<(String, Option<String>)> {
    let folders = relative.parent().into_iter().flat_map(Path::components);
    folders
        .filter_map(|part| {
            let text = part.as_os_str().to_string_lossy().into_owned();
            let (name, value) = text.split_once('=')?;
            let value = percent_decoded(value);
            Some((percent_decoded(name), (value != HIVE_NULL).then_some(value)))
        })
        .collect()
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn date(text: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| text.len() == 10)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn relative_paths_start_at_the_repository() {
        let base = Path::new("/repo");
        assert_eq!(resolve("data/a.parquet", base).unwrap(), Path::new("/repo/data/a.parquet"));
        assert_eq!(resolve("./data", base).unwrap(), Path::new("/repo/data"));
        assert_eq!(resolve("file:///tmp/a%20b.parquet", base).unwrap(), Path::new("/tmp/a b.parquet"));
        assert_eq!(resolve("hdfs://host/key", base).unwrap_err().code(), ErrorCode::Unsupported);
    }

    #[test]
    fn a_missing_file_is_named_with_its_repository() {
        let error = Files::find(Place::new("data/none.parquet", ""), Path::new("/repo")).unwrap_err();
        assert_eq!(error.code(), ErrorCode::FileNotFound);
        assert_eq!(error.to_string(), "there is no file at `data/none.parquet` (feature repository: /repo)");
    }

    #[test]
    fn folders_become_typed_columns() {
        let folder = tempfile::tempdir().unwrap();
        for partition in ["day=2024-01-02/city=New%20York", "day=2024-01-01/city=__HIVE_DEFAULT_PARTITION__"] {
            let path = folder.path().join("year=2024").join(partition);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("part.parquet"), b"").unwrap();
            fs::write(path.join("_SUCCESS"), b"").unwrap();
        }
        let files = Files::find(Place::new(folder.path().to_str().unwrap(), ""), Path::new("/")).unwrap();
        let types: Vec<_> = files.partitions.iter().map(|(name, data_type)| (name.as_str(), data_type)).collect();
        assert_eq!(types, [("year", &DataType::Int64), ("day", &DataType::Date32), ("city", &DataType::Utf8)]);
        assert_eq!(files.values[0], [Some("2024".to_owned()), Some("2024-01-01".to_owned()), None]);
        assert_eq!(files.values[1][2].as_deref(), Some("New York"));
    }
}
