//! Fresh values: into the online store, the offline store, or both.
//!
//! Of both, the online store is written first and the history last, after it was asked whether it takes the rows. A push
//! that failed may thus be sent again: what the online store has already it takes again without a change, and the history
//! has none of it. Only who was never told that a push succeeded, because the connection or the process ended in the
//! moment between, adds its rows to the history twice by sending them again.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, RwLock};

use arrow::array::RecordBatch;
use feast_core::{
    DataSource, EntityKeyEncoder, Error, ErrorCode, FeatureView, Memo, OnlineTable, ProjectContents, PushPlan,
    PushedTable, PushedView, Result, SerializedWrite, Timestamp, ValueType,
};
use feast_offline::Append;
use feast_online::{OwnedWrite, PlainRows, online_rows};

use crate::on_demand::is_fed_by;
use crate::{Event, FeatureStore};

/// Where pushed rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum PushTarget {
    Online,
    Offline,
    OnlineAndOffline,
}

impl FromStr for PushTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "online" => Ok(Self::Online),
            "offline" => Ok(Self::Offline),
            "online_and_offline" => Ok(Self::OnlineAndOffline),
            other => Err(Error::invalid_request(format!("`{other}` is not a target of a push"))
                .with_hint("use `online`, `offline` or `online_and_offline`")),
        }
    }
}

impl FeatureStore {
    /// Writes rows to every view that the push source feeds, and to the stored on-demand views that follow from them.
    ///
    /// # Errors
    /// As [`push_rows`](Self::push_rows).
    pub async fn push(&self, push_source: &str, rows: &RecordBatch, target: PushTarget) -> Result<()> {
        self.push_rows(push_source, rows, target, true).await
    }

    /// Writes rows to every view that the push source feeds; with `transform_on_write` also to the stored on-demand
    /// views that can be computed from them. All rows are checked, and all functions run, before the first is written.
    /// A call that failed may be repeated: rows that were written are written again without a change, and the history
    /// comes last.
    ///
    /// # Errors
    /// `PushSourceNotFound`; one push to both stores for a view whose rows are computed; missing columns and values that do not fit, naming column, row and value;
    /// `TransformationFailed`.
    pub async fn push_rows(
        &self,
        push_source: &str,
        rows: &RecordBatch,
        target: PushTarget,
        transform_on_write: bool,
    ) -> Result<()> {
        let checked = self.checked_push(push_source, rows, target, transform_on_write).await?;
        if target == PushTarget::Offline {
            for source in &checked.history {
                self.offline.append(source, rows.clone()).await?;
            }
            return Ok(());
        }
        for append in self.write_before_history(&checked, rows).await? {
            append.commit().await?;
        }
        Ok(())
    }

    /// [`push_rows`](Self::push_rows) without the history: it was asked whether it takes the rows, and the online store
    /// has them when this ends. Whoever calls this owes the history the rows, by a push to `Offline`.
    ///
    /// # Errors
    /// As [`push_rows`](Self::push_rows).
    pub async fn push_before_history(
        &self,
        push_source: &str,
        rows: &RecordBatch,
        target: PushTarget,
        transform_on_write: bool,
    ) -> Result<()> {
        let checked = self.checked_push(push_source, rows, target, transform_on_write).await?;
        self.write_before_history(&checked, rows).await.map(drop)
    }

    async fn checked_push(
        &self,
        push_source: &str,
        rows: &RecordBatch,
        target: PushTarget,
        transform_on_write: bool,
    ) -> Result<CheckedPush> {
        let snapshot = self.registry.snapshot_checked().await?;
        let contents = self.project_of(&snapshot)?;
        let plan = self.plan_of_push(contents, push_source)?;
        if target == PushTarget::OnlineAndOffline
            && let Some(PushedView { view, .. }) = plan.views.iter().find(|pushed| pushed.view.is_computed())
        {
            let message = format!(
                "the rows of {} are computed: its history takes rows before that, the online store rows after it",
                view.reference()
            );
            return Err(Error::invalid_request(message)
                .with_hint("push to `offline` and materialize, or push rows that you computed to `online`"));
        }
        let online = target != PushTarget::Offline;
        let mut writes = Vec::new();
        for pushed in plan.views.iter().filter(|_| online) {
            let write = match &pushed.online {
                Some(table) => (table.table.clone(), checked_rows(&pushed.view, table, rows)?),
                // Says why there is none.
                None => self.checked_rows(&pushed.view, rows)?,
            };
            writes.push(write);
        }
        if online && transform_on_write && plan.computes {
            writes.extend(self.computed_rows(contents, &plan, rows).await?);
        }
        let mut history: Vec<DataSource> = Vec::new();
        if target != PushTarget::Online {
            for PushedView { view, .. } in &plan.views {
                let source = batch_source(view)?;
                check_history(view, source, rows)?;
                // Views of one push source share its batch source: the rows belong there once.
                if !history.iter().any(|known| known.name == source.name) {
                    history.push(source.clone());
                }
            }
        }
        Ok(CheckedPush { writes, history })
    }

    /// Asks the history, and writes to the online store. What the history refuses is not served either.
    async fn write_before_history(&self, checked: &CheckedPush, rows: &RecordBatch) -> Result<Vec<Append>> {
        let mut prepared = Vec::with_capacity(checked.history.len());
        for source in &checked.history {
            prepared.push(self.offline.prepare_append(source, rows.clone()).await?);
        }
        for (table, write) in &checked.writes {
            self.write_rows(table, write).await?;
        }
        Ok(prepared)
    }

    /// What a push to a source writes.
    ///
    /// # Errors
    /// `PushSourceNotFound`; `ProjectNotFound` before the first `apply`, and those of reading the registry.
    pub async fn push_plan(&self, push_source: &str) -> Result<Arc<PushPlan>> {
        let snapshot = self.registry.snapshot_checked().await?;
        self.plan_of_push(self.project_of(&snapshot)?, push_source)
    }

    /// Writes rows to the online store, and nothing when a value has to be converted, when functions have to run, or
    /// when something is wrong: gives whether they were written. [`push_rows`](Self::push_rows) does the rest.
    ///
    /// # Errors
    /// Those of the online store.
    pub async fn push_plain(&self, plan: &PushPlan, rows: &PlainRows<'_>) -> Result<bool> {
        if !plan.is_plain || plan.computes {
            return Ok(false);
        }
        let serialized = plan.views.iter().map(|pushed| {
            let table = pushed.online.as_ref()?;
            Some((table, rows.serialized(table)?))
        });
        let Some(writes) = serialized.collect::<Option<Vec<_>>>() else { return Ok(false) };
        let store = self.online_store()?;
        for (number, (of, rows)) in writes.iter().enumerate() {
            let PushedTable { table, memo, .. } = of;
            match store.write_serialized(SerializedWrite { table, rows, memo }) {
                Some(writing) => writing.await?,
                None if number == 0 => return Ok(false),
                None => return Err(Error::internal("a store takes serialized rows of some tables only")),
            }
            let newest = (0..rows.len()).map(|row| rows.event_timestamp(row)).max();
            self.tell_written(&table.view, newest);
        }
        Ok(true)
    }

    fn plan_of_push(&self, contents: &ProjectContents, push_source: &str) -> Result<Arc<PushPlan>> {
        let plans: Arc<PushPlans> = contents.memo.get(|| Ok::<_, Error>(PushPlans::default()))?;
        if let Some(plan) = plans.0.read().ok().and_then(|known| known.get(push_source).map(Arc::clone)) {
            return Ok(plan);
        }
        let views = contents.views_of_push_source(push_source)?;
        let mut others = contents.feature_views.values();
        let plan = Arc::new(PushPlan {
            computes: others.any(|view| view.on_demand().is_some_and(|on_demand| is_fed_by(view, on_demand, &views))),
            is_plain: takes_plain_rows(&views),
            views: views.into_iter().map(|view| PushedView { online: self.pushed_table(&view).ok(), view }).collect(),
        });
        if let Ok(mut known) = plans.0.write() {
            known.insert(push_source.to_owned(), Arc::clone(&plan));
        }
        Ok(plan)
    }

    async fn write_rows(&self, table: &OnlineTable, write: &OwnedWrite) -> Result<()> {
        let write = write.as_write(table);
        self.online_store()?.write(write).await?;
        self.tell_written(&table.view, arrow::compute::max(write.event_timestamps));
        Ok(())
    }

    fn tell_written(&self, view: &str, newest: Option<i64>) {
        if let Some(newest) = newest.and_then(Timestamp::from_timestamp_micros) {
            self.observer.on(&Event::FeaturesWritten { view: view.to_owned(), newest });
        }
    }

    /// The rows of the stored on-demand views that follow from pushed rows alone.
    async fn computed_rows(
        &self,
        contents: &ProjectContents,
        plan: &PushPlan,
        rows: &RecordBatch,
    ) -> Result<Vec<(OnlineTable, OwnedWrite)>> {
        let pushed: Vec<Arc<FeatureView>> = plan.views.iter().map(|pushed| Arc::clone(&pushed.view)).collect();
        let mut writes = Vec::new();
        for view in contents.feature_views.values() {
            if !view.on_demand().is_some_and(|on_demand| is_fed_by(view, on_demand, &pushed)) {
                continue;
            }
            let Some(source) = pushed.iter().find_map(|view| view.batch_source().or(view.stream_source())) else {
                continue;
            };
            let renamed = rename(rows, source)?;
            let times = renamed.column_by_name(source.mapped(&source.timestamp_field)).cloned();
            writes.push(self.on_demand_rows(contents, view, &renamed, times, true).await?);
        }
        Ok(writes)
    }

    /// Writes rows of one view to the online store. On-demand views are computed from them with `transform_on_write`;
    /// without it, the rows hold their features.
    ///
    /// # Errors
    /// `FeatureViewNotFound`; missing columns and values that do not fit; `TransformationFailed`.
    pub async fn write_to_online_store(
        &self,
        feature_view: &str,
        rows: &RecordBatch,
        transform_on_write: bool,
    ) -> Result<()> {
        let snapshot = self.registry.snapshot_checked().await?;
        let contents = self.project_of(&snapshot)?;
        let view = contents.feature_view(feature_view)?;
        let (table, write) = match view.on_demand() {
            Some(_) => self.on_demand_rows(contents, view, rows, None, transform_on_write).await?,
            None => self.checked_rows(view, rows)?,
        };
        self.write_rows(&table, &write).await
    }

    /// Appends rows to the batch source of a view. A reader sees all of them or none.
    ///
    /// # Errors
    /// `FeatureViewNotFound`; columns that differ from those of the source.
    pub async fn write_to_offline_store(&self, feature_view: &str, rows: RecordBatch) -> Result<u64> {
        let snapshot = self.registry.snapshot_checked().await?;
        let view = self.project_of(&snapshot)?.feature_view(feature_view)?;
        let source = batch_source(view)?;
        check_history(view, source, &rows)?;
        self.offline.append(source, rows).await
    }

    fn checked_rows(&self, view: &FeatureView, rows: &RecordBatch) -> Result<(OnlineTable, OwnedWrite)> {
        let table = self.pushed_table(view)?;
        let write = checked_rows(view, &table, rows)?;
        Ok((table.table, write))
    }

    fn pushed_table(&self, view: &FeatureView) -> Result<PushedTable> {
        if !view.has_online_table() {
            return Err(Error::invalid_request(format!("{} is not served online", view.reference()))
                .with_hint("declare it with `online=True` and apply it"));
        }
        let source = view.batch_source().or(view.stream_source()).ok_or_else(|| no_source(view))?;
        let table = self.online_table(view);
        let created = Some(source.created_timestamp_column.as_str()).filter(|name| !name.is_empty());
        Ok(PushedTable {
            encoder: EntityKeyEncoder::new(&table.join_keys, self.config.entity_key_serialization_version)?,
            timestamp_field: source.mapped(&source.timestamp_field).to_owned(),
            created_timestamp_field: created.map(|created| source.mapped(created).to_owned()),
            table,
            memo: Memo::default(),
        })
    }
}

/// What a push writes, when nothing is wrong with it.
struct CheckedPush {
    /// The rows of each table of the online store.
    writes: Vec<(OnlineTable, OwnedWrite)>,
    /// The sources that get the rows as they are.
    history: Vec<DataSource>,
}

/// Plans by push source. The lock is held for a map access only, and there are no more than push sources.
#[derive(Debug, Default)]
struct PushPlans(RwLock<HashMap<String, Arc<PushPlan>>>);

/// Whether columns have one name and one type for all views, and none of them is a time: then a value means the same by
/// itself and by way of its column.
fn takes_plain_rows(views: &[Arc<FeatureView>]) -> bool {
    let mut times = Vec::new();
    for view in views {
        let Some(source) = view.batch_source().or(view.stream_source()) else { return false };
        if !source.field_mapping.is_empty() {
            return false;
        }
        times.extend([&source.timestamp_field, &source.created_timestamp_column]);
    }
    let mut types: HashMap<&str, ValueType> = HashMap::new();
    let mut fields = views.iter().flat_map(|view| view.features.iter().chain(&view.entity_columns));
    fields.all(|field| {
        let value_type = *types.entry(&field.name).or_insert(field.value_type);
        value_type == field.value_type && !times.contains(&&field.name)
    })
}

fn no_source(view: &FeatureView) -> Error {
    Error::invalid_request(format!("{} has no source, so its event time column is not known", view.reference()))
        .with_hint("give the feature view a `source`")
}

/// The rows for the table of a view.
fn checked_rows(view: &FeatureView, of: &PushedTable, rows: &RecordBatch) -> Result<OwnedWrite> {
    let source = view.batch_source().or(view.stream_source()).ok_or_else(|| no_source(view))?;
    let renamed = rename(rows, source)?;
    online_rows(&of.table, &of.encoder, &renamed, &of.timestamp_field, of.created_timestamp_field.as_deref())
        .map_err(|error| error.with_context("feature view", &view.name))
}

fn batch_source(view: &FeatureView) -> Result<&DataSource> {
    view.batch_source().ok_or_else(|| {
        Error::invalid_request(format!("{} has no batch source to append to", view.reference()))
            .with_hint("give its push source a `batch_source`, or push to `online` only")
    })
}

/// Rows without key or time would rest in the history, and no query would ever find them.
fn check_history(view: &FeatureView, source: &DataSource, rows: &RecordBatch) -> Result<()> {
    let null_in = |name: &str| {
        let column = rows.column_by_name(source.unmapped(name)).or_else(|| rows.column_by_name(name))?;
        let nulls = column.logical_nulls()?;
        (0..nulls.len()).find(|row| nulls.is_null(*row))
    };
    let keys = view.join_keys().filter(|_| !view.is_entity_less());
    if let Some((key, row)) = keys.filter_map(|key| Some((key, null_in(key)?))).next() {
        return Err(Error::new(ErrorCode::MissingJoinKey, format!("join key `{key}` is null in row {row}"))
            .with_context("feature view", &view.name)
            .with_hint("every row needs a value for each join key"));
    }
    let time = source.timestamp_field.as_str();
    if let Some(row) = null_in(time) {
        return Err(Error::new(ErrorCode::InvalidEventTimestamp, format!("column `{time}` is null in row {row}"))
            .with_context("feature view", &view.name)
            .with_hint("every row needs the time at which it became true"));
    }
    Ok(())
}

/// The rows with the names that the view uses instead of those of its source.
fn rename(rows: &RecordBatch, source: &DataSource) -> Result<RecordBatch> {
    if source.field_mapping.is_empty() {
        return Ok(rows.clone());
    }
    let fields: Vec<_> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_name(source.mapped(field.name())))
        .collect();
    Ok(RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), rows.columns().to_vec())?)
}
