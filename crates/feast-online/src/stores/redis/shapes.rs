//! What is known of the hashes of a server: how many fields they have, how they are kept, and how to read them therefore.
//!
//! Redis keeps a hash of up to some hundred fields as a list. `HMGET` goes through that list for each field it is asked
//! for, as far as the field; `HGETALL` goes through it once, and its reply is longer. So hashes are read whole where that
//! costs less in all: see [`Shape::whole_costs_less`].

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use feast_core::OnlineRead;
use hashbrown::HashMap;

/// Requests for fewer fields ask for them one by one, whatever the hash holds.
pub(super) const FEW_FIELDS: usize = 8;

/// No hash of more fields is read whole: not on purpose, and not by mistake, see [`Pipeline::expect`](super::commands::Pipeline::expect).
pub(super) const WIDEST: usize = 2048;

/// What is known of the hashes of a project with certain join keys. All of it is a guess from a few of them: reads are
/// right whatever it says.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// The most fields; 0 as long as nobody knows.
    pub(super) width: AtomicUsize,
    pub(super) kept_as: AtomicU8,
    /// Requests that wondered how to read.
    pub(super) requests: AtomicU32,
}

/// How a server keeps a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeptAs {
    /// Nobody knows yet.
    Unknown = 0,
    List = 1,
    Table = 2,
    /// The server does not tell.
    Secret = 3,
}

impl Shape {
    pub(super) fn kept_as(&self) -> KeptAs {
        match self.kept_as.load(Relaxed) {
            1 => KeptAs::List,
            2 => KeptAs::Table,
            3 => KeptAs::Secret,
            _ => KeptAs::Unknown,
        }
    }

    /// Whether `HGETALL` costs less than `HMGET` of that many fields, which goes through so many places of a list.
    ///
    /// Nanoseconds of Redis 7.0 (`bench/online/hashes.py` measures them), and 30 per field of a whole hash for its bytes
    /// on the network and here.
    pub(super) fn whole_costs_less(&self, n_fields: usize, places: Option<usize>) -> bool {
        let width = self.width.load(Relaxed);
        if n_fields < FEW_FIELDS || !(1..=WIDEST).contains(&width) {
            return false;
        }
        match self.kept_as() {
            KeptAs::List => {
                let places = places.unwrap_or(n_fields * width / 2);
                width * (90 + 30) < n_fields * 110 + places * 8
            }
            KeptAs::Table => width * (125 + 30) < n_fields * 180,
            KeptAs::Unknown | KeptAs::Secret => width <= 2 * n_fields,
        }
    }
}

/// Project and join keys: what the hashes of a kind have in common.
type KindOfHash = (String, Vec<String>);

/// What is known of all hashes.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    known: Mutex<HashMap<KindOfHash, Arc<Shape>>>,
}

impl Shapes {
    pub(super) fn of(&self, read: &OnlineRead<'_>) -> Arc<Shape> {
        let join_keys = read.keys.columns.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry((read.wanted.table.project.clone(), join_keys)).or_default())
    }
}
