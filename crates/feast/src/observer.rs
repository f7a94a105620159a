//! What long work tells those who watch it: progress bars, metrics, lineage.

use std::fmt;

use feast_core::Timestamp;

/// Something that happened. Events carry names, counts and times, never rows.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A view is about to be materialized.
    MaterializationStarted {
        /// Name of the view.
        view: String,
        /// First event time.
        start: Timestamp,
        /// Last event time.
        end: Timestamp,
    },
    /// Rows of a view were acknowledged by the online store.
    RowsWritten {
        /// Name of the view.
        view: String,
        /// Rows since the start.
        rows: u64,
        /// Rows there will be, once known.
        total: Option<u64>,
    },
    /// A view is materialized and its interval recorded.
    MaterializationFinished {
        /// Name of the view.
        view: String,
        /// Rows written.
        rows: u64,
    },
    /// A view had nothing to do.
    MaterializationSkipped {
        /// Name of the view.
        view: String,
        /// Why.
        reason: String,
    },
    /// Rows that a caller pushed or wrote are in the online store.
    FeaturesWritten {
        /// Name of the view.
        view: String,
        /// The greatest event time among them.
        newest: Timestamp,
    },
    /// A table of the online store is being created, brought up to date or dropped.
    TableChanged {
        /// Name of the view.
        view: String,
        /// Whether the table is dropped.
        dropped: bool,
    },
}

/// Watches work. Called from the working thread: it must not block, and it cannot fail the work.
pub trait Observer: fmt::Debug + Send + Sync {
    /// Something happened.
    fn on(&self, event: &Event);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on(&self, _: &Event) {}
}
