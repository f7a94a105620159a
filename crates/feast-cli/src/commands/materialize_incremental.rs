//! `feast materialize-incremental`.

use clap::Args;
use feast::Window;
use feast_core::Timestamp;

use super::materialize::{Views, load};
use crate::exit::Outcome;
use crate::session::Session;
use crate::timestamp::parse_timestamp;

/// Load the newest values since the last run into the online store
#[derive(Debug, Args)]
pub(crate) struct MaterializeIncremental {
    /// Last event time, such as `2026-11-01` or `2026-11-01T06:00:00+01:00`; UTC without an offset
    #[arg(value_name = "END_TS", value_parser = parse_timestamp)]
    end: Timestamp,
    #[command(flatten)]
    views: Views,
}

impl MaterializeIncremental {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        load(session, Window::Until(self.end), self.views)
    }
}
