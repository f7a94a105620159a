//! `plan` and `apply`: from the definitions of a repository to the registry and the online tables.
//!
//! Order of `apply`: create tables, commit the registry, drop tables. Nothing is dropped that a published snapshot
//! still names; what a process leaves that dies in between is a table that nobody reads.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::Utc;
use feast_core::{
    Action, DUMMY_ENTITY, DataSource, DataSourceOptions, Entity, Error, ErrorCode, FeatureView, ManagedTable,
    ObjectChange, ObjectKind, ObjectRef, OnlineTable, Problem, ProjectContents, RegistryChange, RegistryChanges,
    RegistryDiff, RegistryObject, RegistrySnapshot, RegistryVersion, Result, SourceSchemas, TableChange, ValueType,
    changed_fields, diff, infer, validate,
};
use feast_registry::{COMMIT_ATTEMPTS, pause};
use serde::Serialize;
use serde_json::Value;

use crate::check_online_store::{StoredTables, lacks_fractions_only};
use crate::delete::{tables_of, user_of};
use crate::try_on_demand_views::try_on_demand_views;
use crate::versions::{self, HeldBack, Recorded};
use crate::{Definitions, Event, FeatureStore, pins, problems_error};

/// What to do with definitions.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// Deletes objects of the registry that the definitions do not have.
    pub prune: bool,
    /// Deletes these objects.
    pub delete: Vec<ObjectRef>,
    /// Does not look at the data of sources, except where a definition leaves something open.
    pub skip_source_validation: bool,
    /// Does not check feature views against their sources.
    pub skip_feature_view_validation: bool,
    /// Records definitions that make new versions of views, and leaves the current ones in place.
    pub no_promote: bool,
    /// The only changes that may be applied, as [`ApplyPlan::outline`] tells them: those that somebody has approved.
    pub approved: Option<Value>,
}

/// What an `apply` will do, or has done.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ApplyPlan {
    /// Changes to the registry.
    #[serde(flatten)]
    pub diff: RegistryDiff,
    /// Changes to the online store.
    pub tables: Vec<TablePlan>,
    /// Definitions that are recorded as versions and do not become the current ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held_back: Vec<HeldBack>,
    /// What the user may want to know.
    pub warnings: Vec<String>,
    /// The version of the registry that the definitions were compared with; none for a registry that does not exist.
    #[serde(skip)]
    pub base: Option<RegistryVersion>,
    /// The definitions after inference.
    #[serde(skip)]
    pub inferred: ProjectContents,
    /// The tables that the definitions need.
    #[serde(skip)]
    needed: Vec<OnlineTable>,
}

/// A change to one table of the online store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TablePlan {
    /// What happens.
    pub action: TableAction,
    /// Name of the view.
    pub feature_view: String,
    /// Name of the table.
    pub table: String,
    /// Whether the current definitions need no change: the store has lost the table, has an older form of it, or the
    /// table is that of a version that is held back.
    #[serde(skip)]
    restored: bool,
    #[serde(skip)]
    change: TableChange,
}

/// What happens to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum TableAction {
    Create,
    Update,
    Drop,
}

/// When the tables of the online store are looked through for those that are gone: there may be thousands of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListsRestored {
    Always,
    /// When there is nothing else to do.
    WhenAlone,
}

impl TablePlan {
    fn new(action: TableAction, feature_view: &str, table: OnlineTable) -> Self {
        Self {
            action,
            feature_view: feature_view.to_owned(),
            table: table.name(),
            restored: false,
            change: match action {
                TableAction::Drop => TableChange::Drop(table),
                TableAction::Create | TableAction::Update => TableChange::Ensure(table),
            },
        }
    }
}

impl ApplyPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.diff.is_empty() && self.tables.is_empty() && self.held_back.is_empty()
    }

    /// What happens to which object and table, without what is only worth knowing. Two plans with the same outline do
    /// the same: tables that come back are as the definitions say already, and who plans may not see the store.
    ///
    /// # Errors
    /// `Internal` when it cannot be told.
    pub fn outline(&self) -> Result<Value> {
        let tables: Vec<&TablePlan> = self.tables.iter().filter(|table| !table.restored).collect();
        let told = serde_json::to_value((&self.diff.project, &self.diff.changes, &tables));
        told.map_err(|error| Error::internal("a plan cannot be told").with_source(error))
    }
}

impl FeatureStore {
    /// Compares definitions with the registry; changes nothing.
    ///
    /// # Errors
    /// `InvalidDefinition` telling all problems of the definitions at once.
    pub async fn plan(&self, definitions: &Definitions, options: &ApplyOptions) -> Result<ApplyPlan> {
        let snapshot = self.registry.refresh().await?;
        self.plan_against(&snapshot, definitions, options, ListsRestored::Always).await
    }

    /// Brings the online store and the registry to the state that the definitions describe.
    ///
    /// # Errors
    /// As [`FeatureStore::plan`]; `Conflict` when others keep changing the same registry. Nothing is half applied: the
    /// registry is changed in one commit, and tables created before it are harmless.
    pub async fn apply(&self, definitions: &Definitions, options: &ApplyOptions) -> Result<ApplyPlan> {
        let mut first: Option<(Arc<RegistrySnapshot>, ApplyPlan)> = None;
        for attempt in 1..=COMMIT_ATTEMPTS {
            let snapshot = self.registry.refresh().await?;
            let plan = self.plan_against(&snapshot, definitions, options, ListsRestored::WhenAlone).await?;
            if let Some(approved) = &options.approved
                && plan.outline()? != *approved
            {
                return Err(Error::new(
                    ErrorCode::Conflict,
                    "the registry has changed since the plan was made: applying now would do something else",
                )
                .with_hint("look at `feast plan` again and save it anew"));
            }
            if let Some((before, planned)) = &first {
                let [before, now] = [before, &snapshot].map(|snapshot| snapshot.projects.get(self.project()));
                refuse_moved(before.map(Arc::as_ref), now.map(Arc::as_ref), planned, &plan)?;
            }
            let changes = self.changes(&snapshot, &plan)?;
            if !changes.changes.is_empty() {
                // No tables for objects that cannot be recorded.
                self.registry.store().check_writable().await?;
            }
            self.create_tables(&plan).await?;
            if !changes.changes.is_empty() {
                match self.registry.commit(snapshot.version.as_ref(), &changes).await {
                    Err(error) if error.code() == ErrorCode::Conflict => {
                        first.get_or_insert((snapshot, plan));
                        pause(attempt).await;
                        continue;
                    }
                    committed => committed?,
                };
            }
            self.drop_tables(&plan).await?;
            return Ok(plan);
        }
        Err(Error::new(ErrorCode::Conflict, "the registry kept changing while the definitions were applied")
            .with_hint("run `feast apply` again"))
    }

    async fn plan_against(
        &self,
        snapshot: &RegistrySnapshot,
        definitions: &Definitions,
        options: &ApplyOptions,
        lists_restored: ListsRestored,
    ) -> Result<ApplyPlan> {
        let mut desired = definitions.contents.clone();
        let current = snapshot.projects.get(self.project()).map(Arc::as_ref);
        self.fill_project(&mut desired, current);
        let (schemas, mut problems) = self.schemas(&desired, options).await;
        let staying = current.map(|current| staying(current, &desired, options));
        let inferred = infer(&mut desired, staying.as_ref(), &schemas);
        problems.extend(inferred.problems);
        let mut warnings = self.config.warnings.clone();
        warnings.extend(inferred.left_out.into_iter().map(|mut left_out| {
            left_out.location = definitions.location(&left_out.object).cloned();
            left_out.to_string()
        }));
        if !options.skip_feature_view_validation {
            problems.extend(try_on_demand_views(&mut desired, staying.as_ref(), self.transformer.as_ref()).await);
        }
        problems.extend(pins::pin(&mut desired, current, snapshot));
        warnings.extend(pins::made_versions(&desired, current, snapshot));
        // Feast stores this entity in every project and would report it as missing.
        if !desired.entities.contains_key(DUMMY_ENTITY) {
            desired.put(RegistryObject::Entity(Arc::new(Entity::dummy())));
        }
        // A schema that is there only because something had to be looked up is none to check against.
        let is_checked = !options.skip_feature_view_validation && !options.skip_source_validation;
        let checked = if is_checked { schemas } else { SourceSchemas::new() };
        problems.extend(validate(&desired, staying.as_ref(), &checked));
        let held_back = match options.no_promote {
            true => versions::hold_back(&mut desired, current, snapshot)?,
            false => Vec::new(),
        };
        if !held_back.is_empty() {
            // What is left has to fit together without them, too.
            let problem = |problem: &Problem| problems.contains(problem);
            let more: Vec<Problem> = validate(&desired, staying.as_ref(), &checked);
            let more: Vec<Problem> = more.into_iter().filter(|more| !problem(more)).collect();
            problems.extend(more);
        }
        problems.extend(still_used(&desired, staying.as_ref(), current));
        problems.extend(self.shared_tables(&desired, snapshot));
        if !problems.is_empty() || !definitions.load_problems.is_empty() {
            return Err(problems_error(definitions, &problems));
        }
        let mut diff = diff(current, &desired, options.prune);
        add_deletes(&mut diff, current, &options.delete)?;
        let needed = self.needed_tables(&desired, current, snapshot)?;
        let mut tables = self.table_plans(current, &diff, &needed, snapshot);
        // A plan tells them; an apply brings them back while it makes the others, and tells them when it does nothing else.
        if lists_restored == ListsRestored::Always || diff.is_empty() && tables.is_empty() {
            match self.restored_tables(&needed, &tables).await {
                Ok(restored) => tables.extend(restored),
                Err(error) => warnings.push(format!(
                    "the online store does not tell which tables it has, so those that are missing are not listed: \
                     {error}"
                )),
            }
        }
        let mut needed: Vec<OnlineTable> = needed.into_values().collect();
        for held in held_back.iter().filter(|held| snapshot.versions_have_tables && held.view.has_online_table()) {
            let table = OnlineTable::of(self.project(), &held.view).in_version(held.version);
            tables.push(TablePlan { restored: true, ..TablePlan::new(TableAction::Create, &held.name, table.clone()) });
            needed.push(table);
        }
        Ok(ApplyPlan { diff, tables, held_back, warnings, base: snapshot.version.clone(), inferred: desired, needed })
    }

    /// A repository without a project object keeps the project as it is, or makes one from the configuration.
    fn fill_project(&self, desired: &mut ProjectContents, current: Option<&ProjectContents>) {
        if desired.project.name.is_empty() {
            desired.project = match current {
                Some(current) => current.project.clone(),
                None => feast_core::Project {
                    name: self.project().to_owned(),
                    description: self.config.project_description.clone(),
                    ..feast_core::Project::default()
                },
            };
        }
    }

    /// The schemas of all sources whose rows this store can read, and what was wrong with the others.
    async fn schemas(&self, desired: &ProjectContents, options: &ApplyOptions) -> (SourceSchemas, Vec<Problem>) {
        let mut sources: BTreeMap<&str, &DataSource> = BTreeMap::new();
        let of_views = desired.feature_views.values().flat_map(|view| view.data_sources());
        for source in desired.data_sources.values().map(Arc::as_ref).chain(of_views).filter_map(DataSource::batch) {
            sources.entry(&source.name).or_insert(source);
        }
        let mut schemas = SourceSchemas::new();
        let mut problems = Vec::new();
        for (name, source) in sources {
            let readable = matches!(source.options, DataSourceOptions::File { .. } | DataSourceOptions::Custom { .. });
            if !readable || (options.skip_source_validation && !leaves_something_open(desired, source)) {
                continue;
            }
            match self.offline.schema(source).await {
                Ok(schema) => {
                    schemas.insert(name.to_owned(), schema);
                }
                // What this product cannot read may still be defined and listed.
                Err(error) if error.code() == ErrorCode::Unsupported => {}
                // A sink comes into being when its view is materialized.
                Err(error) if error.code() == ErrorCode::FileNotFound && is_sink(desired, name) => {}
                Err(error) => problems.push(
                    Problem::new(
                        ObjectRef::new(ObjectKind::DataSource, name),
                        format!("cannot be read: {}", words(&error)),
                    )
                    .with_hint(format!(
                        "{}, or use `--skip-source-validation`",
                        error.hint().unwrap_or("correct the source")
                    )),
                ),
            }
        }
        (schemas, problems)
    }

    /// The tables that the definitions need, by view.
    fn needed_tables(
        &self,
        desired: &ProjectContents,
        current: Option<&ProjectContents>,
        snapshot: &RegistrySnapshot,
    ) -> Result<BTreeMap<String, OnlineTable>> {
        let served = || desired.feature_views.values().filter(|view| view.has_online_table());
        let table = |view: &FeatureView| OnlineTable::of(self.project(), view);
        if !snapshot.versions_have_tables {
            return Ok(served().map(|view| (view.name.clone(), table(view))).collect());
        }
        let references: Vec<ObjectRef> = served().map(|view| view.reference()).collect();
        let recorded = Recorded::of(snapshot, self.project(), &references);
        let numbered = served().map(|view| {
            let old = current.and_then(|contents| contents.feature_views.get(&view.name));
            let number = versions::number_of(view, old, &recorded)?.number;
            Ok((view.name.clone(), table(view).in_version(number)))
        });
        numbered.collect()
    }

    fn table_plans(
        &self,
        current: Option<&ProjectContents>,
        diff: &RegistryDiff,
        needed: &BTreeMap<String, OnlineTable>,
        snapshot: &RegistrySnapshot,
    ) -> Vec<TablePlan> {
        if self.online.is_none() {
            return Vec::new();
        }
        let mut plans = Vec::new();
        for change in diff.changes.iter().filter(|change| change.object.kind.is_feature_view()) {
            let name = change.object.name.as_str();
            let before = current.and_then(|contents| contents.feature_views.get(name));
            let table = before.filter(|view| view.has_online_table()).map(|view| self.online_table(view));
            match (table, needed.get(name).filter(|_| change.definition.is_some())) {
                (Some(old), Some(new)) if old.view == new.view => {
                    if old.columns != new.columns || old.join_keys != new.join_keys {
                        plans.push(TablePlan::new(TableAction::Update, name, new.clone()));
                    }
                }
                // The tables of older versions stay, for whoever asks for them.
                (_, Some(new)) => plans.push(TablePlan::new(TableAction::Create, name, new.clone())),
                (_, None) => {
                    let tables = before.into_iter().flat_map(|view| tables_of(snapshot, self.project(), view));
                    plans.extend(tables.map(|table| TablePlan::new(TableAction::Drop, name, table)));
                }
            }
        }
        plans
    }

    /// Tables of views that do not change, which the store has lost or has in an older form: `apply` brings them back.
    async fn restored_tables(
        &self,
        needed: &BTreeMap<String, OnlineTable>,
        planned: &[TablePlan],
    ) -> Result<Vec<TablePlan>> {
        let Some(online) = &self.online else { return Ok(Vec::new()) };
        let Some(stored) = online.stored_tables(self.project()).await? else { return Ok(Vec::new()) };
        let stored = StoredTables::new(&stored);
        let planned: HashSet<&str> = planned.iter().map(|table| table.feature_view.as_str()).collect();
        let unchanged = needed.iter().filter(|(view, _)| !planned.contains(view.as_str()));
        let restored = unchanged.filter_map(|(view, table)| {
            let action = match stored.find(&table.name()) {
                None => TableAction::Create,
                Some(found) if !lacks_fractions_only(found) => TableAction::Update,
                Some(_) => return None,
            };
            Some(TablePlan { restored: true, ..TablePlan::new(action, view, table.clone()) })
        });
        Ok(restored.collect())
    }

    /// Creates what the plan creates, and also what the registry says exists: tables that were lost come back.
    async fn create_tables(&self, plan: &ApplyPlan) -> Result<()> {
        let Some(online) = &self.online else { return Ok(()) };
        for table in plan.tables.iter().filter(|table| table.action != TableAction::Drop) {
            self.observer.on(&Event::TableChanged { view: table.feature_view.clone(), dropped: false });
        }
        let ensures: Vec<TableChange> = plan.needed.iter().cloned().map(TableChange::Ensure).collect();
        online.update(&ensures).await
    }

    /// Drops what the plan drops, except what somebody else has applied again meanwhile.
    async fn drop_tables(&self, plan: &ApplyPlan) -> Result<()> {
        let Some(online) = &self.online else { return Ok(()) };
        let mut drops: Vec<&TablePlan> = plan.tables.iter().filter(|table| table.action == TableAction::Drop).collect();
        if drops.is_empty() {
            return Ok(());
        }
        let snapshot = self.registry.refresh().await?;
        let views = snapshot.projects.get(self.project()).map(|contents| &contents.feature_views);
        let named = |view: &str| views.and_then(|views| views.get(view)).is_some_and(|view| view.has_online_table());
        drops.retain(|table| !named(&table.feature_view));
        for table in &drops {
            self.observer.on(&Event::TableChanged { view: table.feature_view.clone(), dropped: true });
        }
        let changes: Vec<TableChange> = drops.into_iter().map(|table| table.change.clone()).collect();
        online.update(&changes).await
    }

    /// Views of two projects whose tables would be one: `a` with `b_c`, and `a_b` with `c`.
    fn shared_tables(&self, desired: &ProjectContents, snapshot: &RegistrySnapshot) -> Vec<Problem> {
        // Names of tables are compared as databases do, ignoring case.
        let served = || desired.feature_views.values().filter(|view| view.has_online_table());
        let named = |view: &FeatureView| OnlineTable::name_of(self.project(), &view.name);
        let wanted: HashSet<String> = served().map(|view| named(view).to_lowercase()).collect();
        let mut taken: BTreeMap<String, (&str, &str)> = BTreeMap::new();
        for (project, contents) in snapshot.projects.iter().filter(|(project, _)| *project != self.project()) {
            for view in contents.feature_views.values().filter(|view| view.has_online_table()) {
                let table = OnlineTable::name_of(project, &view.name);
                let name = table.to_lowercase();
                // Another project may have an online store of its own.
                let ours = |own: ManagedTable| snapshot.managed_tables.contains(&own);
                if wanted.contains(&name) && self.managed_table(&table).is_some_and(ours) {
                    taken.insert(name, (project, &view.name));
                }
            }
        }
        let shared = served().filter_map(|served| {
            let table = named(served);
            let (project, view) = taken.get(&table.to_lowercase())?;
            let message = format!(
                "would have the table `{table}` in the online store, which belongs to view `{view}` of project \
                 `{project}`"
            );
            let problem = Problem::new(served.reference(), message);
            Some(problem.with_hint("rename the view, or give the project its own online store"))
        });
        let mut problems: Vec<Problem> = shared.collect();
        if snapshot.versions_have_tables {
            let known = snapshot.projects.get(self.project()).map(|contents| &contents.feature_views);
            let is_view = |name: &str| {
                desired.feature_views.contains_key(name) || known.is_some_and(|known| known.contains_key(name))
            };
            problems.extend(served().filter_map(|served| {
                let (view, number) = served.name.rsplit_once("_v")?;
                let number: i32 = number.parse().ok().filter(|number| *number > 0)?;
                is_view(view).then(|| {
                    let message = format!("has the name of the table of version {number} of view `{view}`");
                    Problem::new(served.reference(), message).with_hint("rename it")
                })
            }));
        }
        problems
    }

    /// The one commit of an apply.
    fn changes(&self, snapshot: &RegistrySnapshot, plan: &ApplyPlan) -> Result<RegistryChanges> {
        let now = Utc::now();
        let current = snapshot.projects.get(self.project()).map(Arc::as_ref);
        let held: Vec<ObjectRef> = plan.held_back.iter().map(|held| held.view.reference()).collect();
        let changed = plan.diff.changes.iter().map(|change| &change.object);
        let recorded = Recorded::of(snapshot, self.project(), changed.chain(&held));
        let mut changes = Vec::new();
        for (object, held) in held.iter().zip(&plan.held_back) {
            let stored = current.and_then(|contents| contents.get(object));
            let definition = RegistryObject::FeatureView(Arc::clone(&held.view));
            let (_, records) = versions::stamp(&definition, stored.as_ref(), &recorded, now)?;
            changes.extend(records.into_iter().map(RegistryChange::PutVersion));
        }
        for change in &plan.diff.changes {
            match &change.definition {
                None => {
                    changes.push(RegistryChange::Delete(change.object.clone()));
                    if change.object.kind.is_feature_view() {
                        changes.push(RegistryChange::DeleteVersions(change.object.name.clone()));
                    }
                }
                Some(definition) => {
                    let stored = current.and_then(|contents| contents.get(&change.object));
                    let (object, records) = versions::stamp(definition, stored.as_ref(), &recorded, now)?;
                    changes.extend(records.into_iter().map(RegistryChange::PutVersion));
                    changes.push(RegistryChange::Put(object));
                }
            }
        }
        for table in plan.tables.iter().filter(|table| !table.restored) {
            if table.action == TableAction::Create
                && let Some(old) = current.and_then(|contents| contents.feature_views.get(&table.feature_view))
                && let Some(record) = self.managed_table(&self.online_table(old).name())
            {
                // Feast's `plan` expects the table of the current version only.
                changes.push(RegistryChange::DeleteManagedTable(record.name));
            }
            if let Some(record) = self.managed_table(&table.table) {
                changes.push(match table.action {
                    TableAction::Drop => RegistryChange::DeleteManagedTable(record.name),
                    TableAction::Create | TableAction::Update => RegistryChange::PutManagedTable(record),
                });
            }
        }
        Ok(RegistryChanges::new(self.project(), changes))
    }

    /// How the registry records a table of the online store, for the stores that have such a record.
    fn managed_table(&self, table: &str) -> Option<ManagedTable> {
        let (store, options) = self.config.online_store.as_ref()?;
        feast_online::managed_table(store, options, &self.config.repo_path, table)
    }
}

/// Somebody else committed in between. Where that concerned other objects, or did what this apply does, it goes on;
/// what would undo their change is for people to decide.
fn refuse_moved(
    before: Option<&ProjectContents>,
    now: Option<&ProjectContents>,
    planned: &ApplyPlan,
    plan: &ApplyPlan,
) -> Result<()> {
    let moved = |change: &&ObjectChange| {
        let of = |contents: Option<&ProjectContents>| contents.and_then(|contents| contents.get(&change.object));
        match (of(before), of(now)) {
            (Some(before), Some(now)) => !changed_fields(&before, &now).is_empty(),
            (before, now) => before.is_some() != now.is_some(),
        }
    };
    let still = |change: &&ObjectChange| plan.diff.changes.iter().any(|other| other.object == change.object);
    let moved: Vec<String> =
        planned.diff.changes.iter().filter(still).filter(moved).map(|change| change.object.to_string()).collect();
    if moved.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorCode::Conflict, format!("somebody else has just changed {}", moved.join(", ")))
        .with_hint("nothing was applied; see with `feast plan` what applying would change now"))
}

/// Message and cause: the name of the source, which errors have as context, is there already.
fn words(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{}: {source}", error.message()),
        None => error.message().to_owned(),
    }
}

/// What stays of the registry beside the desired objects.
fn staying(current: &ProjectContents, desired: &ProjectContents, options: &ApplyOptions) -> ProjectContents {
    let deleted = |kind: ObjectKind, name: &str| options.delete.iter().any(|o| o.kind == kind && o.name == name);
    let mut staying = current.clone();
    if !options.prune && options.delete.is_empty() {
        return staying;
    }
    staying.entities.retain(|name, _| {
        name == DUMMY_ENTITY
            || !(deleted(ObjectKind::Entity, name) || options.prune && !desired.entities.contains_key(name))
    });
    staying.feature_views.retain(|name, view| {
        !(deleted(view.object_kind(), name) || options.prune && !desired.feature_views.contains_key(name))
    });
    staying.feature_services.retain(|name, _| {
        !(deleted(ObjectKind::FeatureService, name) || options.prune && !desired.feature_services.contains_key(name))
    });
    staying
}

/// Entities and views that go although something that stays needs them. What the desired objects need is checked with
/// them.
fn still_used(
    desired: &ProjectContents,
    staying: Option<&ProjectContents>,
    current: Option<&ProjectContents>,
) -> Vec<Problem> {
    let (Some(staying), Some(current)) = (staying, current) else { return Vec::new() };
    let entities = current.entities.values().filter(|entity| !staying.entities.contains_key(&entity.name));
    let views = current.feature_views.values().filter(|view| !staying.feature_views.contains_key(&view.name));
    let going = entities
        .map(|entity| ObjectRef::new(ObjectKind::Entity, &entity.name))
        .chain(views.map(|view| view.reference()))
        .filter(|object| desired.get(object).is_none());
    let going: Vec<ObjectRef> = going.collect();
    if going.is_empty() {
        return Vec::new();
    }
    let mut unchanged = staying.clone();
    unchanged.feature_views.retain(|name, _| !desired.feature_views.contains_key(name));
    unchanged.feature_services.retain(|name, _| !desired.feature_services.contains_key(name));
    let used = going.into_iter().filter_map(|object| {
        let user = user_of(&unchanged, &object)?;
        Some(
            Problem::new(object, format!("is to be deleted, but is still used by {user}"))
                .with_hint(format!("delete or change {user} too")),
        )
    });
    used.collect()
}

/// Whether a schema is needed to fill the definitions in.
fn leaves_something_open(desired: &ProjectContents, source: &DataSource) -> bool {
    source.timestamp_field.is_empty()
        || desired.feature_views.values().any(|view| {
            let typed = |name: &String| {
                let entity = desired.entities.get(name);
                name == DUMMY_ENTITY
                    || entity.is_some_and(|entity| {
                        entity.value_type != ValueType::Invalid
                            || view
                                .entity_columns
                                .iter()
                                .chain(&view.features)
                                .any(|field| field.name == entity.join_key)
                    })
            };
            view.batch_source().is_some_and(|own| own.name == source.name)
                && (view.features.is_empty() || !view.entities.iter().all(typed))
        })
}

/// Whether a source is only there to keep the rows of views over views.
fn is_sink(desired: &ProjectContents, name: &str) -> bool {
    let mut users =
        desired.feature_views.values().filter(|view| view.data_sources().iter().any(|own| own.name == name));
    users.all(|view| view.sink().is_some())
}

/// Adds objects that the caller wants deleted.
fn add_deletes(diff: &mut RegistryDiff, current: Option<&ProjectContents>, delete: &[ObjectRef]) -> Result<()> {
    for object in delete.iter().filter(|object| object.name != DUMMY_ENTITY) {
        match current {
            Some(current) => drop(current.require(object)?),
            None => return Err(object.not_found(&diff.project)),
        }
        diff.undefined.retain(|undefined| undefined != object);
        diff.changes.retain(|change| change.object != *object);
        diff.changes.push(ObjectChange::new(Action::Delete, object.clone(), Vec::new(), None, current));
    }
    Ok(())
}
