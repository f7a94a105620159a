//! `feast doctor`: what is wrong with a configuration and a registry without anybody having noticed yet.
//!
//! Everything here reads. What Feast does about a finding is said where it differs from what people expect.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use feast_core::{
    DataSource, DataSourceOptions, ErrorCode, FeatureView, FeatureViewKind, ObjectKind, ObjectRef, OnDemandSource,
    ProjectContents, Result, Transformation, UserDefinedFunction, merge_intervals,
};
use serde::Serialize;

use crate::FeatureStore;
use crate::check_online_store::{OnlineTableProblem, OnlineTableReport};
use crate::delete::online_tables;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Values are wrong, lost or public.
    Error,
    /// Something may become wrong.
    Warning,
    /// Worth knowing.
    Note,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// How serious it is.
    pub severity: Severity,
    /// Short name of the check.
    pub check: &'static str,
    /// Where it was found.
    pub object: String,
    /// What was found.
    pub evidence: String,
    /// What to do.
    pub fix: String,
}

impl Finding {
    fn new(
        severity: Severity,
        check: &'static str,
        object: impl ToString,
        evidence: impl Into<String>,
        fix: &str,
    ) -> Self {
        Self { severity, check, object: object.to_string(), evidence: evidence.into(), fix: fix.to_owned() }
    }
}

/// Secrets that stand in the text of a configuration. They are not shown.
pub fn secrets_in(text: &str) -> Vec<Finding> {
    const SECRET: &[&str] = &["password", "secret", "token", "api_key", "apikey", "access_key", "client_secret"];
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start_matches([' ', '-']);
        if content.starts_with('#') {
            continue;
        }
        let place = format!("feature_store.yaml, line {}", number + 1);
        let Some((key, value)) = content.split_once(':') else { continue };
        let key = key.trim().trim_matches(['"', '\'']).to_lowercase();
        let value = value.trim();
        let literal = !value.is_empty() && !value.contains('$') && value != "null" && value != "\"\"";
        let fix = "write `${NAME}` and give the value in the environment";
        if literal && SECRET.iter().any(|secret| key.ends_with(secret)) {
            findings.push(Finding::new(Severity::Error, "secret", place, format!("`{key}` is in plain text"), fix));
        } else if password_in_url(value) {
            let evidence = format!("the URL of `{key}` has a password in plain text");
            findings.push(Finding::new(Severity::Error, "secret", place, evidence, fix));
        }
    }
    findings
}

/// Whether there is a `scheme://user:password@`, and the password is no variable.
fn password_in_url(value: &str) -> bool {
    let account = value.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(account, _)| account);
    let password = account.and_then(|account| account.split_once(':')).map(|(_, password)| password);
    password.is_some_and(|password| !password.is_empty() && !password.starts_with('$') && !password.contains('/'))
}

impl FeatureStore {
    /// Examines the registry; changes nothing.
    ///
    /// # Errors
    /// Those of reading the registry.
    pub async fn examine(&self) -> Result<Vec<Finding>> {
        let snapshot = self.snapshot(true).await?;
        let contents = self.project_of(&snapshot)?;
        let mut findings = Vec::new();
        for view in contents.feature_views.values() {
            examine_view(view, &mut findings);
        }
        same_names(contents, &mut findings);
        same_features(contents, &mut findings);
        let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (project, contents) in &snapshot.projects {
            for table in online_tables(&snapshot, project, contents) {
                tables.entry(table.name().to_lowercase()).or_default().push(format!("{project}.{}", table.view));
            }
        }
        for (table, views) in tables.iter().filter(|(_, views)| views.len() > 1) {
            findings.push(Finding::new(
                Severity::Error,
                "shared table",
                format!("online table `{table}`"),
                format!("is that of {} in a common online store", views.join(" and ")),
                "rename one of the views or give its project an online store of its own",
            ));
        }
        let mut sources: BTreeMap<&str, &DataSource> = BTreeMap::new();
        let of_views = contents.feature_views.values().flat_map(|view| view.data_sources());
        for source in contents.data_sources.values().map(Arc::as_ref).chain(of_views).filter_map(DataSource::batch) {
            sources.entry(&source.name).or_insert(source);
        }
        for source in sources.values() {
            self.examine_source(source, &mut findings).await;
        }
        self.lost_rows(contents, &mut findings);
        self.examine_online_store(&mut findings).await;
        findings.sort_by(|a, b| (a.severity, a.check, &a.object).cmp(&(b.severity, b.check, &b.object)));
        Ok(findings)
    }

    /// What Feast's default offline store does with entity rows that find nothing.
    fn lost_rows(&self, contents: &ProjectContents, findings: &mut Vec<Finding>) {
        let store = self.config.offline_store.0.as_str();
        if !["dask", "file"].contains(&store) {
            return;
        }
        let stored = contents.feature_views.values().filter(|view| view.on_demand().is_none());
        for (view, ttl) in stored.filter_map(|view| Some((view, view.time_to_live().limit()?))) {
            findings.push(Finding::new(
                Severity::Note,
                "lost rows",
                view.reference(),
                format!(
                    "training sets of Feast's offline store `{store}` lack the entity rows that find no row within the \
                     ttl of {} seconds; here they are, with nulls",
                    ttl.num_seconds()
                ),
                "compare the numbers of rows where a model was trained on Feast's",
            ));
        }
    }

    /// Whether the tables of the online store are those that the registry names.
    async fn examine_online_store(&self, findings: &mut Vec<Finding>) {
        const CHECK: &str = "online table";
        if self.online_store().is_err() {
            return;
        }
        let report = match Box::pin(self.check_online_store(1)).await {
            Ok(report) => report,
            Err(error) => {
                let fix = error.hint().unwrap_or("see whether the online store can be reached from here").to_owned();
                findings.push(Finding::new(Severity::Warning, CHECK, "online store", error.to_string(), &fix));
                return;
            }
        };
        for OnlineTableReport { table, feature_view, problem } in report.tables {
            let object = match feature_view {
                Some(view) => format!("online table `{table}` of feature view `{view}`"),
                None => format!("online table `{table}`"),
            };
            let apply = "run `feast apply`, then `feast materialize`";
            let (severity, evidence, fix) = match problem {
                None => continue,
                Some(OnlineTableProblem::Missing) => (Severity::Error, "is not there".to_owned(), apply.to_owned()),
                Some(OnlineTableProblem::MissingColumns(columns)) => {
                    let columns = feast_core::list_names(columns.iter().map(String::as_str));
                    (Severity::Error, format!("lacks the columns {columns}"), apply.to_owned())
                }
                Some(OnlineTableProblem::WholeSeconds) => (
                    Severity::Note,
                    "was made by Feast and keeps whole seconds only".to_owned(),
                    "run `feast apply`, where the order of events within a second matters".to_owned(),
                ),
                Some(OnlineTableProblem::Unreadable(error)) => {
                    (Severity::Error, error.to_string(), error.hint().unwrap_or("see what is in it").to_owned())
                }
                Some(OnlineTableProblem::Unknown) => (
                    Severity::Note,
                    "belongs to no feature view of this registry".to_owned(),
                    "drop it when no other registry names it".to_owned(),
                ),
            };
            findings.push(Finding::new(severity, CHECK, object, evidence, &fix));
        }
    }

    /// Whether the columns that a source names are there.
    async fn examine_source(&self, source: &DataSource, findings: &mut Vec<Finding>) {
        if matches!(source.options, DataSourceOptions::Request { .. } | DataSourceOptions::Push) {
            return;
        }
        let object = ObjectRef::new(ObjectKind::DataSource, &source.name);
        if source.timestamp_field.is_empty() {
            findings.push(Finding::new(
                Severity::Error,
                "timestamps",
                &object,
                "names no column of event times",
                "set `timestamp_field`",
            ));
        }
        if source.created_timestamp_column.is_empty() {
            findings.push(Finding::new(
                Severity::Note,
                "timestamps",
                &object,
                "names no column of creation times: of two rows of one key and event time either may be taken",
                "set `created_timestamp_column` where rows are corrected afterwards",
            ));
        }
        if !matches!(source.options, DataSourceOptions::File { .. }) {
            return;
        }
        match self.offline.schema(source).await {
            Ok(schema) => {
                let columns = [&source.timestamp_field, &source.created_timestamp_column];
                for column in columns.into_iter().filter(|column| !column.is_empty()) {
                    if schema.column_with_name(column).is_none() {
                        findings.push(Finding::new(
                            Severity::Error,
                            "timestamps",
                            &object,
                            format!("has no column `{column}`"),
                            "correct the definition of the source or its data",
                        ));
                    }
                }
            }
            Err(error) if error.code() == ErrorCode::Unsupported => {}
            Err(error) => findings.push(Finding::new(
                Severity::Error,
                "source",
                &object,
                error.message().to_owned(),
                error.hint().unwrap_or("correct the source"),
            )),
        }
    }
}

fn examine_view(view: &FeatureView, findings: &mut Vec<Finding>) {
    let object = view.reference();
    if functions_of(view).iter().any(|function| !function.body.is_empty()) {
        findings.push(Finding::new(
            Severity::Warning,
            "pickled code",
            &object,
            "the registry holds a pickled Python function: Feast's clients run whatever somebody writes there",
            "let few people write the registry; feast-rs runs the text of a function and needs its pickle only where there is none",
        ));
    }
    if let Some(ttl) = view.time_to_live().limit()
        && view.online
    {
        findings.push(Finding::new(
            Severity::Note,
            "ttl",
            &object,
            format!("has a ttl of {} seconds, which Feast does not enforce in online reads", ttl.num_seconds()),
            "look at the event timestamps of the answer where old values must not be used",
        ));
    }
    let intervals = &view.meta.materialization_intervals;
    let merged = merge_intervals(intervals.iter().copied()).len();
    if merged < intervals.len() {
        findings.push(Finding::new(
            Severity::Warning,
            "growing intervals",
            &object,
            format!("has {} materialization intervals that together are {merged}", intervals.len()),
            "materialize once with feast-rs, which merges them",
        ));
    }
    let gap = merge_intervals(intervals.iter().copied());
    if gap.len() > 1 {
        findings.push(Finding::new(
            Severity::Warning,
            "gaps",
            &object,
            format!("was materialized with {} gaps, whose rows are not in the online store", gap.len() - 1),
            "run `feast materialize` over them",
        ));
    }
}

fn functions_of(view: &FeatureView) -> Vec<&UserDefinedFunction> {
    let (function, transformation) = match &view.kind {
        FeatureViewKind::Batch(batch) => (None, batch.transformation.as_ref()),
        FeatureViewKind::Stream(stream) => (stream.user_defined_function.as_ref(), stream.transformation.as_ref()),
        FeatureViewKind::OnDemand(on_demand) => {
            (on_demand.user_defined_function.as_ref(), on_demand.transformation.as_ref())
        }
        FeatureViewKind::Label(_) => (None, None),
    };
    let of_transformation = transformation.and_then(|transformation| match transformation {
        Transformation::UserDefinedFunction(function) => Some(function),
        Transformation::Substrait(_) => None,
    });
    function.into_iter().chain(of_transformation).collect()
}

/// Views that differ in case only: Feast refuses them, and databases that ignore case mix up their tables.
fn same_names(contents: &ProjectContents, findings: &mut Vec<Finding>) {
    let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in contents.feature_views.keys() {
        names.entry(name.to_lowercase()).or_default().push(name);
    }
    for names in names.values().filter(|names| names.len() > 1) {
        findings.push(Finding::new(
            Severity::Error,
            "names",
            format!("feature views {}", feast_core::list_names(names.iter().copied())),
            "differ in upper and lower case only",
            "rename all but one",
        ));
    }
}

/// Feature services that give two features of the same name.
fn same_features(contents: &ProjectContents, findings: &mut Vec<Finding>) {
    for service in contents.feature_services.values() {
        let mut givers: HashMap<&str, Vec<&str>> = HashMap::new();
        for projection in &service.projections {
            for feature in &projection.features {
                givers.entry(&feature.name).or_default().push(projection.name_to_use());
            }
        }
        let mut twice: Vec<_> = givers.into_iter().filter(|(_, views)| views.len() > 1).collect();
        twice.sort();
        for (feature, views) in twice {
            findings.push(Finding::new(
                Severity::Warning,
                "names",
                ObjectRef::new(ObjectKind::FeatureService, &service.name),
                format!("has a feature `{feature}` of {}", feast_core::list_names(views)),
                "ask with `full_feature_names`, or rename one of the features",
            ));
        }
    }
    for view in contents.feature_views.values() {
        let Some(on_demand) = view.on_demand() else { continue };
        let missing = on_demand.sources.values().filter_map(|source| match source {
            OnDemandSource::Projection(projection) => Some(&projection.feature_view_name),
            OnDemandSource::FeatureView(view) => Some(&view.name),
            OnDemandSource::Request(_) => None,
        });
        for name in missing.filter(|name| !contents.feature_views.contains_key(*name)) {
            findings.push(Finding::new(
                Severity::Error,
                "missing",
                view.reference(),
                format!("computes from feature view `{name}`, which is not there"),
                "apply that view, or change this one",
            ));
        }
    }
}
