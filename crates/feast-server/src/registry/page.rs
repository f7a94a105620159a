//! Lists in pages and orders, as clients of a registry ask for them.

use std::cmp::Ordering;

use feast_core::{RegistryObject, Timestamp};
use feast_proto::registry::{PaginationMetadata, PaginationParams, SortingParams};
use serde_json::Value;

/// What a list is ordered by: first the texts, ignoring case, then the numbers. What has no value comes first.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum SortKey {
    #[default]
    Absent,
    Number(f64),
    Text(String),
}

impl SortKey {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_lowercase())
    }

    fn time(time: Option<Timestamp>) -> Self {
        time.map_or(Self::Absent, |time| Self::Number(time.timestamp_micros() as f64))
    }

    fn compare(&self, other: &Self) -> Ordering {
        let rank = |key: &Self| match key {
            Self::Absent => 0,
            Self::Number(_) => 1,
            Self::Text(_) => 2,
        };
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (a, b) => rank(a).cmp(&rank(b)),
        }
    }
}

/// What an object is ordered by under a name: those of Feast's Python objects.
pub(super) fn key_of(object: &RegistryObject, name: &str) -> SortKey {
    let (created, updated) = times(object);
    match name {
        "name" => SortKey::text(object.name()),
        "created_timestamp" => SortKey::time(created),
        "last_updated_timestamp" => SortKey::time(updated),
        _ => {
            let value = serde_json::to_value(object).unwrap_or(Value::Null);
            match value.pointer(&format!("/{}", name.replace('.', "/"))) {
                Some(Value::String(text)) => SortKey::text(text),
                Some(Value::Number(number)) => SortKey::Number(number.as_f64().unwrap_or_default()),
                Some(Value::Bool(flag)) => SortKey::Number(f64::from(u8::from(*flag))),
                _ => SortKey::Absent,
            }
        }
    }
}

/// When an object was created and last changed.
pub(super) fn times(object: &RegistryObject) -> (Option<Timestamp>, Option<Timestamp>) {
    match object {
        RegistryObject::Project(object) => (object.meta.created, object.meta.updated),
        RegistryObject::Entity(object) => (object.meta.created, object.meta.updated),
        RegistryObject::DataSource(object) => (object.meta.created, object.meta.updated),
        RegistryObject::FeatureView(object) => (object.meta.created, object.meta.updated),
        RegistryObject::FeatureService(object) => (object.meta.created, object.meta.updated),
        RegistryObject::SavedDataset(object) => (object.meta.created, object.meta.updated),
        RegistryObject::ValidationReference(_) => (None, None),
        RegistryObject::Permission(object) => (object.meta.created, object.meta.updated),
    }
}

/// Puts items into order and takes the page. Without a page number or a size, everything is one page.
pub(super) fn page<T>(
    mut items: Vec<T>,
    pagination: Option<&PaginationParams>,
    sorting: Option<&SortingParams>,
    key: impl Fn(&T, &str) -> SortKey,
) -> (Vec<T>, PaginationMetadata) {
    if items.is_empty() {
        return (items, PaginationMetadata::default());
    }
    if let Some(sorting) = sorting.filter(|sorting| !sorting.sort_by.trim().is_empty()) {
        let descending = sorting.sort_order.eq_ignore_ascii_case("desc");
        let mut keyed: Vec<(SortKey, T)> = items.into_iter().map(|item| (key(&item, &sorting.sort_by), item)).collect();
        keyed.sort_by(|(a, _), (b, _)| if descending { b.compare(a) } else { a.compare(b) });
        items = keyed.into_iter().map(|(_, item)| item).collect();
    }
    let total_count = i32::try_from(items.len()).unwrap_or(i32::MAX);
    let Some(&PaginationParams { page, limit }) = pagination.filter(|asked| asked.page > 0 && asked.limit > 0) else {
        return (items, PaginationMetadata { total_count, total_pages: 1, ..PaginationMetadata::default() });
    };
    let total_pages = (total_count - 1) / limit + 1;
    let metadata = PaginationMetadata {
        page,
        limit,
        total_count,
        total_pages,
        has_next: page < total_pages,
        has_previous: page > 1,
    };
    let (page, limit) = (page as usize, limit as usize);
    (items.into_iter().skip((page - 1).saturating_mul(limit)).take(limit).collect(), metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_counted_and_orders_ignore_case() {
        let key = |item: &&str, _: &str| SortKey::text(item);
        let sorting = SortingParams { sort_by: "name".to_owned(), sort_order: "desc".to_owned() };
        let asked = |page, limit| PaginationParams { page, limit };
        let (items, metadata) = page(vec!["b", "C", "a"], Some(&asked(2, 2)), Some(&sorting), key);
        assert_eq!(items, ["a"]);
        let expected = PaginationMetadata {
            page: 2,
            limit: 2,
            total_count: 3,
            total_pages: 2,
            has_next: false,
            has_previous: true,
        };
        assert_eq!(metadata, expected);
        let (items, metadata) = page(vec!["b", "C", "a"], None, None, key);
        assert_eq!((items.len(), metadata.total_pages, metadata.page), (3, 1, 0));
        let (items, _) = page(vec!["b"], Some(&asked(i32::MAX, i32::MAX)), None, key);
        assert!(items.is_empty());
        assert_eq!(page(Vec::<&str>::new(), Some(&asked(1, 1)), None, key).1, PaginationMetadata::default());
    }
}
