//! Materializations that are recorded at the same time, on every kind of registry.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, TimeDelta};
use feast_core::{
    BatchFeatures, FeatureView, FeatureViewKind, Interval, RegistryChange, RegistryChanges, RegistryObject,
    RegistrySnapshot, RegistryStore, merge_intervals,
};
use feast_registry::RegistryHandle;

fn changes(changes: Vec<RegistryChange>) -> RegistryChanges {
    RegistryChanges::new("rides", changes)
}

/// Fifty materializations of five views at the same time: every interval is recorded.
pub(crate) async fn lose_nothing(open: impl Fn() -> Arc<dyn RegistryStore>) {
    const VIEWS: usize = 5;
    const RECORDS: usize = 10;
    let at = |hour: usize| DateTime::from_timestamp(1_700_000_000, 0).unwrap() + TimeDelta::hours(hour as i64);
    let store = open();
    let view = |number: usize| {
        let kind = FeatureViewKind::Batch(BatchFeatures::default());
        RegistryChange::Put(RegistryObject::FeatureView(FeatureView::new(format!("view_{number}"), kind).into()))
    };
    store.commit(None, &changes((0..VIEWS).map(view).collect())).await.unwrap();
    let started = Instant::now();
    let records: Vec<_> = (0..VIEWS * RECORDS)
        .map(|number| {
            let handle = RegistryHandle::new(open(), None);
            tokio::spawn(async move {
                let name = format!("view_{}", number % VIEWS);
                let hour = number / VIEWS * 2;
                let record = |snapshot: &RegistrySnapshot| {
                    let mut view = FeatureView::clone(&snapshot.projects["rides"].feature_views[&name]);
                    let known = view.meta.materialization_intervals.iter().copied();
                    let new = Interval::new(at(hour), at(hour + 1));
                    view.meta.materialization_intervals = merge_intervals(known.chain([new]));
                    Ok(changes(vec![RegistryChange::Put(RegistryObject::FeatureView(view.into()))]))
                };
                handle.commit_with(record).await.map(drop)
            })
        })
        .collect();
    for record in records {
        record.await.unwrap().unwrap();
    }
    let took = started.elapsed().as_millis();
    let snapshot = store.load().await.unwrap();
    println!("{store}: {} records at the same time in {took} ms, none lost", VIEWS * RECORDS);
    for view in snapshot.projects["rides"].feature_views.values() {
        assert_eq!(view.meta.materialization_intervals.len(), RECORDS, "{}", view.name);
    }
}
