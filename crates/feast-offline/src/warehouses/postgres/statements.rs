//! The point-in-time rule and its companions as SQL.
//!
//! Two forms say the same. With an index on a join key and few entity rows, a lateral subquery looks up the one row per
//! entity row. Otherwise feature rows are numbered per key in the order in which they lead, and an entity row belongs to the row whose number
//! is how many came before it: two sorts, whatever the sizes. Only the lateral form can count rows from their created
//! time on. At equal times the later row of a table wins (the one stored behind the other); rows of a query have no
//! order, so there any of them does.

use chrono::{Datelike, TimeDelta};
use feast_core::Timestamp;

use super::connection::quoted;

/// The table of the entity rows: `feast_row` numbers them, `feast_time` is their time, `feast_key0` and so on their keys.
pub(super) const ENTITY_TABLE: &str = "feast_entity";

/// How a view is read.
#[derive(Debug)]
pub(super) struct ViewRows {
    /// What stands behind FROM, under the name `s`.
    pub(super) from: String,
    /// The join keys as expressions, and the numbers of the keys of the entity rows they are compared with.
    pub(super) keys: Vec<(String, usize)>,
    pub(super) event: String,
    pub(super) created: Option<String>,
    /// Whether rows of the relation know where they are stored.
    pub(super) stored: bool,
    pub(super) features: Vec<String>,
    pub(super) ttl: Option<TimeDelta>,
    /// Rows count from their created time on.
    pub(super) known_at_entity_time: bool,
    /// Rows that became true or were written later do not count at all.
    pub(super) as_of: Option<Timestamp>,
    /// Whether an index finds the rows of a key, and how many rows there are, where that is known.
    pub(super) index: Option<Option<f32>>,
    /// Whether rows are looked up one by one.
    pub(super) looked_up: bool,
}

impl ViewRows {
    /// Decides how the rows are found for so many entity rows. A lookup takes about as long as sorting this many rows.
    pub(super) fn choose(&mut self, n_entity_rows: usize) {
        const ROWS_OF_A_LOOKUP: f32 = 16.0;
        let few = |n_rows: f32| n_entity_rows as f32 * ROWS_OF_A_LOOKUP <= n_rows;
        self.looked_up = self.index.is_some_and(|n_rows| n_rows.is_none_or(few))
            || (self.known_at_entity_time && self.created.is_some());
    }
}

/// One row per entity row, in order: the columns of the entity rows, then those of each view.
pub(super) fn point_in_time(entity_columns: &[String], views: &[ViewRows]) -> String {
    let mut columns = entity_columns.to_vec();
    let mut joins = String::new();
    for (number, view) in views.iter().enumerate() {
        columns.extend((0..view.features.len()).map(|feature| format!("v{number}.f{feature}")));
        joins.push_str(&if view.looked_up {
            format!("\nLEFT JOIN LATERAL ({}) v{number} ON true", lateral(view))
        } else {
            format!("\nLEFT JOIN ({}) v{number} ON v{number}.feast_row = e.feast_row", ranked(view))
        });
    }
    format!("SELECT {}\nFROM {ENTITY_TABLE} e{joins}\nORDER BY e.feast_row", columns.join(", "))
}

fn named_features(view: &ViewRows) -> Vec<String> {
    view.features.iter().enumerate().map(|(number, feature)| format!("{feature} AS f{number}")).collect()
}

fn micros(span: TimeDelta) -> String {
    format!("interval '{} microseconds'", span.num_microseconds().unwrap_or(i64::MAX / 2))
}

fn lateral(view: &ViewRows) -> String {
    let features = named_features(view);
    let features = if features.is_empty() { "1".to_owned() } else { features.join(", ") };
    let mut conditions: Vec<String> =
        view.keys.iter().map(|(key, entity)| format!("{key} = e.feast_key{entity}")).collect();
    conditions.push(format!("{} <= e.feast_time", view.event));
    if let Some(ttl) = view.ttl {
        conditions.push(format!("{} >= e.feast_time - {}", view.event, micros(ttl)));
    }
    if let (true, Some(created)) = (view.known_at_entity_time, &view.created) {
        conditions.push(format!("{created} <= e.feast_time"));
    }
    conditions.extend(known(view));
    let order = leading_first(view).join(", ");
    format!("SELECT {features} FROM {} WHERE {} ORDER BY {order} LIMIT 1", view.from, conditions.join(" AND "))
}

/// What was known then.
fn known(view: &ViewRows) -> impl Iterator<Item = String> {
    let times = [Some(&view.event), view.created.as_ref()].into_iter().flatten();
    times.filter_map(|time| Some(format!("{time} <= {}", literal(view.as_of?))))
}

/// The order in which the row that counts is the first.
fn leading_first(view: &ViewRows) -> Vec<String> {
    let created = view.created.iter().map(|created| format!("{created} DESC NULLS LAST"));
    let stored = view.stored.then(|| "s.ctid DESC".to_owned());
    [format!("{} DESC", view.event)].into_iter().chain(created).chain(stored).collect()
}

fn ranked(view: &ViewRows) -> String {
    let keys: Vec<String> = (0..view.keys.len()).map(|key| format!("k{key}")).collect();
    let own_keys: Vec<String> = view.keys.iter().map(|(key, _)| key.clone()).collect();
    let entity_keys = view.keys.iter().map(|(_, entity)| format!("e.feast_key{entity}"));
    let partition = |keys: &[String]| match keys {
        [] => String::new(),
        keys => format!("PARTITION BY {} ", keys.join(", ")),
    };
    let mut rows: Vec<String> =
        view.keys.iter().zip(&keys).map(|((key, _), name)| format!("{key} AS {name}")).collect();
    rows.push(format!("{} AS at", view.event));
    rows.extend(named_features(view));
    let created = view.created.iter().map(|created| format!("{created} NULLS FIRST"));
    let stored = view.stored.then(|| "s.ctid".to_owned());
    let order: Vec<String> = [view.event.clone()].into_iter().chain(created).chain(stored).collect();
    rows.push(format!("row_number() OVER ({}ORDER BY {}) AS n", partition(&own_keys), order.join(", ")));
    let event = &view.event;
    let mut inside = vec![format!("{event} <= (SELECT max(feast_time) FROM {ENTITY_TABLE})")];
    inside.extend(own_keys.iter().map(|key| format!("{key} IS NOT NULL")));
    inside.extend(known(view));
    let mut matches: Vec<String> = keys.iter().map(|key| format!("f.{key} = b.{key}")).collect();
    matches.push("f.n = b.n".to_owned());
    if let Some(ttl) = view.ttl {
        inside.push(format!("{event} >= (SELECT min(feast_time) FROM {ENTITY_TABLE}) - {}", micros(ttl)));
        matches.push(format!("f.at >= b.at - {}", micros(ttl)));
    }
    let list = |columns: Vec<String>| columns.into_iter().map(|column| format!("{column}, ")).collect::<String>();
    let of_rows = list(keys.clone());
    let of_entity: String = list(entity_keys.collect());
    let features: String = (0..view.features.len()).map(|feature| format!(", f.f{feature}")).collect();
    format!(
        "WITH f AS (SELECT {} FROM {} WHERE {}), \
         b AS (SELECT *, count(*) FILTER (WHERE feast_row IS NULL) \
         OVER ({}ORDER BY at, feast_row IS NOT NULL ROWS UNBOUNDED PRECEDING) AS n \
         FROM (SELECT {of_rows}at, NULL::int8 AS feast_row FROM f \
         UNION ALL SELECT {of_entity}e.feast_time, e.feast_row FROM {ENTITY_TABLE} e \
         WHERE e.feast_time IS NOT NULL) u) \
         SELECT b.feast_row{features} FROM b JOIN f ON {} WHERE b.feast_row IS NOT NULL",
        rows.join(", "),
        view.from,
        inside.join(" AND "),
        partition(&keys),
        matches.join(" AND "),
    )
}

/// The latest row of each key with an event time in the window, both ends included.
pub(super) fn latest(view: &ViewRows, first: Timestamp, last: Timestamp) -> String {
    let keys: Vec<String> = view.keys.iter().map(|(key, _)| key.clone()).collect();
    let mut columns = keys.clone();
    columns.extend(view.features.iter().cloned());
    columns.push(format!("({})::timestamptz", view.event));
    columns.push(
        view.created
            .as_ref()
            .map_or_else(|| "NULL::timestamptz".to_owned(), |created| format!("({created})::timestamptz")),
    );
    let mut conditions = vec![between(&view.event, first, last)];
    conditions.extend(keys.iter().map(|key| format!("{key} IS NOT NULL")));
    let distinct = if keys.is_empty() { String::new() } else { format!("DISTINCT ON ({}) ", keys.join(", ")) };
    let limit = if keys.is_empty() { " LIMIT 1" } else { "" };
    let order: Vec<String> = keys.into_iter().chain(leading_first(view)).collect();
    format!(
        "SELECT {distinct}{} FROM {} WHERE {} ORDER BY {}{limit}",
        columns.join(", "),
        view.from,
        conditions.join(" AND "),
        order.join(", ")
    )
}

/// All rows with an event time in the window, both ends included, in the order in which they are stored.
pub(super) fn window(
    columns: &[String],
    from: &str,
    event: &str,
    stored: bool,
    first: Timestamp,
    last: Timestamp,
) -> String {
    let order = if stored { " ORDER BY s.ctid" } else { "" };
    format!("SELECT {} FROM {from} WHERE {}{order}", columns.join(", "), between(event, first, last))
}

/// The keys and times of a view between two instants. `keys` are expressions, null where the view lacks the key.
pub(super) fn keys_and_times(view: &ViewRows, keys: &[Option<String>], first: Timestamp, last: Timestamp) -> String {
    let mut columns = vec![format!("({})::timestamptz", view.event)];
    columns.extend(keys.iter().map(|key| key.clone().unwrap_or_else(|| "NULL".to_owned())));
    let mut conditions = vec![between(&view.event, first, last)];
    conditions.extend(keys.iter().flatten().map(|key| format!("{key} IS NOT NULL")));
    format!("SELECT {} FROM {} WHERE {}", columns.join(", "), view.from, conditions.join(" AND "))
}

fn between(event: &str, first: Timestamp, last: Timestamp) -> String {
    format!("{event} BETWEEN {} AND {}", literal(first), literal(last))
}

/// An instant; those that PostgreSQL does not reach are infinite.
fn literal(instant: Timestamp) -> String {
    let text = match instant.year() {
        ..1 => "-infinity".to_owned(),
        10_000.. => "infinity".to_owned(),
        _ => instant.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string(),
    };
    format!("'{text}'::timestamptz")
}

/// Names as a list of identifiers.
pub(super) fn identifiers<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}
