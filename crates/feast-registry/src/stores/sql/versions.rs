//! The table of older definitions: what changed in it, and what a commit writes to it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use feast_core::{Result, VersionRecord};
use feast_proto::core::FeatureViewVersionRecord;
use indexmap::IndexMap;

use super::database::{Dialect, Session, Value};
use super::state::{Stamp, State, Summary};
use super::tables::VERSIONS;
use super::{MOST_NAMES, commit, marks};

/// Project, view and number of an older definition.
pub(super) type VersionKey = (String, String, i32);

/// A row of the table.
#[derive(Debug, Clone)]
pub(super) struct StoredVersion {
    pub(super) stamp: Stamp,
    /// `None` for a kind of view that this version does not know.
    pub(super) record: Option<Arc<VersionRecord>>,
}

impl StoredVersion {
    fn read(message: FeatureViewVersionRecord) -> Result<(VersionKey, Self)> {
        let key = (message.project_id.clone(), message.feature_view_name.clone(), message.version_number);
        let time = message.created_timestamp.map_or(0, |created| created.seconds);
        let stamp = Stamp { time, length: message.feature_view_proto.len() as i64 };
        Ok((key, Self { stamp, record: feast_proto::version_from_message(message)?.map(Arc::new) }))
    }
}

/// Rows before and after, `None` where there is none.
pub(super) type ChangedVersions = Vec<(VersionKey, Option<StoredVersion>)>;

/// The rows that are gone, new or changed since `state` was read; `now` is what the table sums up to.
pub(super) async fn changed(session: &mut dyn Session, state: &State, now: Summary) -> Result<ChangedVersions> {
    let known = &state.versions;
    let some = |rows: Vec<(VersionKey, StoredVersion)>| rows.into_iter().map(|(key, row)| (key, Some(row)));
    if known.is_empty() {
        return Ok(some(rows_where(session, "", Vec::new()).await?).collect());
    }
    let since = vec![Value::Integer(state.read_at - 1)];
    let young = rows_where(session, " WHERE created_timestamp >= ?", since).await?;
    let mut summary = state.summaries.last().copied().unwrap_or_default();
    for (key, row) in &young {
        summary.replace(known.get(key).map(|known| known.stamp), Some(row.stamp));
    }
    if summary == now {
        return Ok(some(young).collect());
    }
    let all = rows_where(session, "", Vec::new()).await?;
    let present: HashSet<&VersionKey> = all.iter().map(|(key, _)| key).collect();
    let gone: ChangedVersions =
        known.keys().filter(|key| !present.contains(key)).map(|key| (key.clone(), None)).collect();
    Ok(some(all).chain(gone).collect())
}

async fn rows_where(
    session: &mut dyn Session,
    condition: &str,
    parameters: Vec<Value>,
) -> Result<Vec<(VersionKey, StoredVersion)>> {
    let sql = format!(
        "SELECT project_id, feature_view_name, version_number, feature_view_type, feature_view_proto, \
         created_timestamp, description, version_id FROM {VERSIONS}{condition}"
    );
    let mut rows = Vec::new();
    for mut row in session.query(&sql, parameters).await? {
        rows.push(StoredVersion::read(FeatureViewVersionRecord {
            project_id: row.text()?,
            feature_view_name: row.text()?,
            version_number: i32::try_from(row.integer()?).unwrap_or(i32::MAX),
            feature_view_type: row.text()?,
            feature_view_proto: row.bytes()?.into(),
            created_timestamp: Some(prost_types::Timestamp { seconds: row.integer()?, nanos: 0 }),
            description: row.optional_text()?,
            version_id: row.text()?,
        })?);
    }
    Ok(rows)
}

/// What a commit does to the older definitions of one view.
#[derive(Default)]
pub(super) struct VersionsOf {
    pub(super) delete: bool,
    pub(super) put: Vec<VersionRecord>,
}

/// Removes all rows of a project.
pub(super) async fn delete_project(
    session: &mut dyn Session,
    dialect: &Dialect,
    project: &str,
    summary: &mut Summary,
) -> Result<ChangedVersions> {
    let present = stamps_where(session, dialect, project, "", &[]).await?;
    session.execute(&format!("DELETE FROM {VERSIONS} WHERE project_id = ?"), vec![Value::text(project)]).await?;
    Ok(present
        .into_iter()
        .map(|(key, stamp)| {
            summary.replace(Some(stamp), None);
            (key, None)
        })
        .collect())
}

/// Writes what a commit says; tells what changed, also in the summary of the table.
pub(super) async fn write(
    session: &mut dyn Session,
    dialect: &Dialect,
    project: &str,
    views: IndexMap<String, VersionsOf>,
    summary: &mut Summary,
) -> Result<ChangedVersions> {
    let names: Vec<&String> = views.keys().collect();
    let mut present = BTreeMap::new();
    for names in names.chunks(MOST_NAMES) {
        let condition = format!(" AND feature_view_name IN ({})", marks(names.len()));
        present.extend(stamps_where(session, dialect, project, &condition, names).await?);
    }
    let mut changed = ChangedVersions::new();
    let deleted: Vec<&String> = views.iter().filter(|(_, of)| of.delete).map(|(view, _)| view).collect();
    for views in deleted.chunks(MOST_NAMES) {
        let sql =
            format!("DELETE FROM {VERSIONS} WHERE project_id = ? AND feature_view_name IN ({})", marks(views.len()));
        let parameters = std::iter::once(project).chain(views.iter().map(|view| view.as_str())).map(Value::text);
        session.execute(&sql, parameters.collect()).await?;
    }
    present.retain(|key, stamp| {
        let deleted = views.get(&key.1).is_some_and(|of| of.delete);
        if deleted {
            summary.replace(Some(*stamp), None);
            changed.push((key.clone(), None));
        }
        !deleted
    });
    let mut rows = Vec::new();
    for record in views.values().flat_map(|of| &of.put) {
        let mut message = feast_proto::version_message(record);
        project.clone_into(&mut message.project_id);
        // The table keeps whole seconds.
        let seconds = message.created_timestamp.map_or(0, |created| created.seconds);
        message.created_timestamp = Some(prost_types::Timestamp { seconds, nanos: 0 });
        rows.push([
            Value::text(&message.feature_view_name),
            Value::text(project),
            Value::Integer(message.version_number.into()),
            Value::text(&message.feature_view_type),
            Value::Bytes(message.feature_view_proto.to_vec()),
            Value::Integer(seconds),
            Value::text(&message.description),
            Value::text(&message.version_id),
        ]);
        let (key, row) = StoredVersion::read(message)?;
        summary.replace(present.remove(&key), Some(row.stamp));
        changed.push((key, Some(row)));
    }
    let head = format!(
        "INSERT INTO {VERSIONS} (feature_view_name, project_id, version_number, feature_view_type, \
         feature_view_proto, created_timestamp, description, version_id) VALUES "
    );
    let key = ["feature_view_name", "project_id", "version_number"];
    let columns = ["feature_view_type", "feature_view_proto", "created_timestamp", "description", "version_id"];
    commit::insert(session, dialect, &head, &dialect.or_update(&key, &columns), rows).await?;
    Ok(changed)
}

async fn stamps_where(
    session: &mut dyn Session,
    dialect: &Dialect,
    project: &str,
    condition: &str,
    names: &[&String],
) -> Result<BTreeMap<VersionKey, Stamp>> {
    let sql = format!(
        "SELECT feature_view_name, version_number, created_timestamp, CAST({}(feature_view_proto) AS {}) \
         FROM {VERSIONS} WHERE project_id = ?{condition}{}",
        dialect.length, dialect.integer, dialect.for_update
    );
    let parameters = std::iter::once(project).chain(names.iter().map(|name| name.as_str())).map(Value::text);
    let mut stamps = BTreeMap::new();
    for mut row in session.query(&sql, parameters.collect()).await? {
        let (view, number) = (row.text()?, i32::try_from(row.integer()?).unwrap_or(i32::MAX));
        let stamp = Stamp { time: row.integer()?, length: row.integer()? };
        stamps.insert((project.to_owned(), view, number), stamp);
    }
    Ok(stamps)
}
