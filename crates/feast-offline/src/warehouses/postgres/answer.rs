//! The rows of a statement as they arrive.

use std::pin::Pin;

use arrow::array::ArrayRef;
use feast_core::Result;
use futures::StreamExt;
use tokio_postgres::CopyOutStream;

use super::connection::Session;
use super::copy::{Decoder, Kind};

/// The rows of a statement, which runs when the first are wanted, as they arrive.
pub(super) struct Answer {
    session: Session,
    doing: &'static str,
    statement: String,
    rows: Option<Pin<Box<CopyOutStream>>>,
    decoder: Decoder,
    ended: bool,
}

impl Answer {
    pub(super) fn new(session: Session, doing: &'static str, statement: &str, kinds: &[Kind]) -> Self {
        let statement = format!("COPY ({statement}) TO STDOUT (FORMAT binary)");
        Self { session, doing, statement, rows: None, decoder: Decoder::new(kinds.iter()), ended: false }
    }

    /// The next rows, as many as there are up to `most`; fewer only at the end.
    pub(super) async fn next(&mut self, most: usize) -> Result<Option<(usize, Vec<ArrayRef>)>> {
        loop {
            let n_rows = self.decoder.decode(most)?;
            if n_rows == most && n_rows > 0 || self.ended {
                return Ok(if n_rows == 0 { None } else { Some((n_rows, self.decoder.take()?)) });
            }
            let Some(rows) = &mut self.rows else {
                let rows = self.session.client.copy_out(&self.statement).await;
                self.rows = Some(Box::pin(rows.map_err(|error| self.session.refused(self.doing, error))?));
                continue;
            };
            match rows.next().await {
                Some(Ok(bytes)) => self.decoder.feed(&bytes),
                Some(Err(error)) => return Err(self.session.refused(self.doing, error)),
                None => {
                    self.ended = true;
                    self.session.done();
                }
            }
        }
    }
}
