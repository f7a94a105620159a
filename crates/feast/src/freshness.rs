//! How old the newest value of each feature view is, online and offline, and who says so.
//!
//! No two stores know that equally well, so every age names its witness. A store that can find the greatest event time
//! of a table is asked for it. Of the others only the registry tells something: until when the view was materialized;
//! what was pushed since is not counted there.

use std::collections::HashMap;

use chrono::Utc;
use feast_core::{DataSource, DataSourceOptions, Error, FeatureView, NewestValue, Result, Timestamp};
use feast_offline::{NewestRead, NewestRow};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::FeatureStore;

/// The newest values of one feature view.
#[derive(Debug, Clone, Serialize)]
pub struct Freshness {
    /// Name of the view.
    pub feature_view: String,
    /// In the online store; `None` for views that are not served from there.
    pub online: Option<Newest>,
    /// In the batch source; `None` for views without one.
    pub offline: Option<Newest>,
}

/// The newest value somewhere, and who says so.
#[derive(Debug, Clone)]
pub struct Newest {
    /// Its event time; `None` where there is no value, or nobody can say.
    pub time: Option<Timestamp>,
    /// How old it was when it was looked up, in seconds; less than nothing for times to come.
    pub age_seconds: Option<f64>,
    /// Who says so.
    pub told_by: ToldBy,
    /// Why nobody can say.
    pub problem: Option<String>,
}

/// Who knows the newest value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToldBy {
    /// The online store: the greatest event time in its table.
    Store,
    /// The registry: the end of the newest materialization. Values may be older, and pushed ones newer.
    Materialization,
    /// The statistics in the footers of the files.
    Statistics,
    /// The rows of the source, which were read.
    Rows,
    /// A statement that ran in the database.
    Statement,
    /// Nobody.
    Nobody,
}

impl ToldBy {
    /// The word for it in lists.
    pub fn word(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Materialization => "materialization",
            Self::Statistics => "statistics",
            Self::Rows => "rows",
            Self::Statement => "statement",
            Self::Nobody => "nobody",
        }
    }
}

impl Newest {
    fn at(time: Option<Timestamp>, told_by: ToldBy) -> Self {
        let age = |time| Utc::now().signed_duration_since(time).num_milliseconds() as f64 / 1000.0;
        Self { time, age_seconds: time.map(age), told_by, problem: None }
    }

    fn unknown(why: &Error) -> Self {
        Self { time: None, age_seconds: None, told_by: ToldBy::Nobody, problem: Some(why.to_string()) }
    }
}

impl Serialize for Newest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("newest", &self.time.map(|time| time.to_rfc3339()))?;
        map.serialize_entry("age_seconds", &self.age_seconds)?;
        map.serialize_entry("told_by", &self.told_by)?;
        if let Some(problem) = &self.problem {
            map.serialize_entry("problem", problem)?;
        }
        map.end()
    }
}

impl FeatureStore {
    /// The age of the newest value of every feature view that has a table or a source, in the order of their names.
    /// With `quick` no store reads rows for it: the registry tells what was materialized, files tell what their
    /// footers say.
    ///
    /// # Errors
    /// Those of reading the registry. What cannot be found out about a single view is said there.
    pub async fn freshness(&self, quick: bool) -> Result<Vec<Freshness>> {
        let contents = self.contents(true).await?;
        let mut sources = HashMap::new();
        let mut all = Vec::new();
        for view in contents.feature_views.values() {
            let online = match view.has_online_table() && self.online.is_some() {
                true => Some(self.newest_online(view, quick).await),
                false => None,
            };
            let offline = match history_of(view) {
                Some(source) => Some(self.newest_offline(source, quick, &mut sources).await),
                None => None,
            };
            if online.is_some() || offline.is_some() {
                all.push(Freshness { feature_view: view.name.clone(), online, offline });
            }
        }
        Ok(all)
    }

    /// The newest event time in the batch source of each view that has one, or why it is not known.
    ///
    /// # Errors
    /// Those of reading the registry.
    pub async fn offline_freshness(&self, quick: bool) -> Result<HashMap<String, Newest>> {
        let contents = self.contents(false).await?;
        let mut sources = HashMap::new();
        let mut all = HashMap::new();
        for view in contents.feature_views.values() {
            if let Some(source) = history_of(view) {
                all.insert(view.name.clone(), self.newest_offline(source, quick, &mut sources).await);
            }
        }
        Ok(all)
    }

    async fn newest_online(&self, view: &FeatureView, quick: bool) -> Newest {
        if !quick {
            let told = async { self.online_store()?.newest(&self.online_table(view)).await };
            match told.await {
                Ok(NewestValue::At(time)) => return Newest::at(Some(time), ToldBy::Store),
                Ok(NewestValue::Empty) => return Newest::at(None, ToldBy::Store),
                Ok(NewestValue::NotTold) => {}
                Err(error) => return Newest::unknown(&error),
            }
        }
        // On-demand views record nothing of their own.
        let told_by = if view.on_demand().is_some() { ToldBy::Nobody } else { ToldBy::Materialization };
        Newest::at(view.most_recent_end(), told_by)
    }

    /// Views of one source share its answer.
    async fn newest_offline<'a>(
        &self,
        source: &'a DataSource,
        quick: bool,
        known: &mut HashMap<(&'a str, &'a str), Newest>,
    ) -> Newest {
        let key = (source.name.as_str(), source.timestamp_field.as_str());
        if let Some(known) = known.get(&key) {
            return known.clone();
        }
        let newest = match self.offline.newest(source, quick).await {
            Ok(NewestRow { time: NewestValue::NotTold, .. }) => Newest::at(None, ToldBy::Nobody),
            Ok(NewestRow { time, read }) => {
                let time = if let NewestValue::At(time) = time { Some(time) } else { None };
                let told_by = match read {
                    NewestRead::Statistics => ToldBy::Statistics,
                    NewestRead::Rows => ToldBy::Rows,
                    NewestRead::Statement => ToldBy::Statement,
                };
                Newest::at(time, told_by)
            }
            Err(error) => Newest::unknown(&error),
        };
        known.insert(key, newest.clone());
        newest
    }
}

/// The source that holds the history of a view, with times of its own.
fn history_of(view: &FeatureView) -> Option<&DataSource> {
    let source = view.batch_source()?.batch()?;
    let has_rows = !matches!(source.options, DataSourceOptions::Request { .. } | DataSourceOptions::Push);
    (has_rows && !source.timestamp_field.is_empty()).then_some(source)
}
