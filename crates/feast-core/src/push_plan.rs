//! What a push to a source writes: the same for all its pushes, as long as the registry does not change.

use std::sync::Arc;

use crate::{EntityKeyEncoder, FeatureView, Memo, OnlineTable};

/// The views that a push source feeds, in the order of the registry.
#[derive(Debug)]
pub struct PushPlan {
    /// The views.
    pub views: Vec<PushedView>,
    /// Whether functions of on-demand views run on the pushed rows.
    pub computes: bool,
    /// Whether columns of all views have the names of the pushed ones, and one type each.
    pub is_plain: bool,
}

/// A view that is fed.
#[derive(Debug)]
pub struct PushedView {
    /// The view.
    pub view: Arc<FeatureView>,
    /// Where its rows are served from; `None` where a push to the online store is refused.
    pub online: Option<PushedTable>,
}

/// The online table of a view that is fed.
#[derive(Debug)]
pub struct PushedTable {
    /// The table.
    pub table: OnlineTable,
    /// What makes its entity keys.
    pub encoder: EntityKeyEncoder,
    /// The column with the event time, as the view calls it.
    pub timestamp_field: String,
    /// The column with the created time, where the source has one.
    pub created_timestamp_field: Option<String>,
    /// What a store works out about the table and needs for each write.
    pub memo: Memo,
}
