//! A materialization split by entity key over several processes: which key belongs to whom, and what all have done.
//!
//! Shard `i/n` has the keys whose hash is `i - 1` modulo `n`. The hash is FNV-1a with 64 bits over the serialized entity
//! key (version 3 or what the repository is configured for), followed by the finalizer of MurmurHash3, so that its low
//! bits are as good as its high ones. It never changes: processes of several versions may share a run.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Interval, Result, merge_intervals};

/// What is done is kept per shard, in the registry: this keeps it small.
const MOST_SHARDS: u32 = 1024;

/// One of several parts of a run; the parts are numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard {
    of: u32,
    number: u32,
}

impl Shard {
    /// The only part of a run that is not split.
    pub const WHOLE: Self = Self { of: 1, number: 1 };

    /// Part `number` of `of`.
    ///
    /// # Errors
    /// `InvalidRequest` when there is no such part.
    pub fn new(number: u32, of: u32) -> Result<Self> {
        if number == 0 || number > of || of > MOST_SHARDS {
            return Err(Error::invalid_request(format!("there is no shard {number}/{of}"))
                .with_hint(format!("shards are counted from 1: `1/4` to `4/4`; there can be up to {MOST_SHARDS}")));
        }
        Ok(Self { of, number })
    }

    /// Which one, from 1.
    pub fn number(self) -> u32 {
        self.number
    }

    /// How many there are.
    pub fn of(self) -> u32 {
        self.of
    }

    /// Whether a serialized entity key belongs to this shard.
    pub fn has(self, key: &[u8]) -> bool {
        self == Self::WHOLE || hash(key) % u64::from(self.of) == u64::from(self.number - 1)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        let (number, of) = numbers.ok_or_else(|| {
            Error::invalid_request(format!("`{text}` is not a shard"))
                .with_hint("write number and count of the shards: `1/4` to `4/4`")
        })?;
        Self::new(number, of)
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hash = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

/// What one shard has loaded and others of its run have not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardProgress {
    /// Which shard.
    pub shard: Shard,
    /// Disjoint, in order of time.
    pub intervals: Vec<Interval>,
}

/// Notes that a shard has loaded an interval, and returns which intervals are loaded by now: `recorded`, and what all
/// shards of one count have in common.
///
/// The windows of the shards need not be equal. A shard that loaded the newest rows of a window has served every part of
/// it, so what is in the window of every shard is served as if one run had loaded it. What is recorded needs no notes
/// any more and is dropped from `progress`.
pub fn complete_shard(
    progress: &mut Vec<ShardProgress>,
    recorded: &[Interval],
    shard: Shard,
    interval: Interval,
) -> Vec<Interval> {
    let index = progress.binary_search_by_key(&shard, |known| known.shard).unwrap_or_else(|index| {
        progress.insert(index, ShardProgress { shard, intervals: Vec::new() });
        index
    });
    let done = &mut progress[index].intervals;
    *done = merge_intervals(done.iter().copied().chain([interval]));
    let run = || progress.iter().filter(|known| known.shard.of == shard.of);
    let complete = match run().count() == shard.of as usize {
        true => run()
            .map(|known| known.intervals.clone())
            .reduce(|common, intervals| intersect_intervals(&common, &intervals))
            .unwrap_or_default(),
        false => Vec::new(),
    };
    let recorded = merge_intervals(recorded.iter().copied().chain(complete));
    for known in progress.iter_mut() {
        let is_recorded = |done: &Interval| recorded.iter().any(|r| r.start <= done.start && done.end <= r.end);
        known.intervals.retain(|done| !is_recorded(done));
    }
    progress.retain(|known| !known.intervals.is_empty());
    recorded
}

/// What two lists of disjoint intervals in order of time have in common, as such a list.
fn intersect_intervals(left: &[Interval], right: &[Interval]) -> Vec<Interval> {
    let mut common = Vec::new();
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let (start, end) = (a.start.max(b.start), a.end.min(b.end));
        if start <= end {
            common.push(Interval { start, end });
        }
        if a.end < b.end {
            left.next()
        } else {
            right.next()
        };
    }
    common
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;

    fn interval(start: i64, end: i64) -> Interval {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        Interval { start: at(start), end: at(end) }
    }

    #[test]
    fn shards_are_written_and_read() {
        assert_eq!("2/4".parse::<Shard>().unwrap().to_string(), "2/4");
        for wrong in ["0/4", "5/4", "1/0", "1/1025", "1", "a/b", "-1/4", "1/4/5", ""] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(b""), 0xefd0_1f60_ba99_2926);
        let prefix = b"\x01\0\0\0\x02\0\0\0\x02\0\0\0id\x04\0\0\0\x08\0\0\0";
        let key = |id: i64| [prefix.as_slice(), &id.to_le_bytes()].concat();
        let numbers = |of: u32| -> Vec<u32> {
            let shard_of = |id| (1..=of).find(|number| Shard { number: *number, of }.has(&key(id))).unwrap();
            (0..8).map(shard_of).collect()
        };
        assert_eq!(numbers(1), [1; 8]);
        assert_eq!(numbers(4), [2, 4, 3, 2, 1, 3, 1, 1]);
        let second = Shard { number: 2, of: 3 };
        let share = (0..30_000).filter(|id| second.has(&key(*id))).count();
        assert!((9_700..10_300).contains(&share), "{share} of 30000 keys");
    }

    proptest! {
        /// Against sets of instants: an instant is loaded when it was recorded, or when all shards of a count had it.
        #[test]
        fn what_all_shards_have_loaded_is_loaded(
            runs in prop::collection::vec((1u32..4, 0u32..3, 0i64..20, 0i64..8), 1..40)
        ) {
            let mut progress = Vec::new();
            let mut recorded = Vec::new();
            let mut loaded = [false; 30];
            let mut seen = std::collections::BTreeMap::<(u32, u32), [bool; 30]>::new();
            for (of, number, start, length) in runs {
                let number = number % of + 1;
                let (start, end) = (start as usize, (start + length) as usize);
                seen.entry((of, number)).or_insert([false; 30])[start..=end].fill(true);
                for (instant, loaded) in loaded.iter_mut().enumerate() {
                    *loaded |= (1..=of).all(|number| seen.get(&(of, number)).is_some_and(|seen| seen[instant]));
                }
                let shard = Shard::new(number, of).unwrap();
                recorded = complete_shard(&mut progress, &recorded, shard, interval(start as i64, end as i64));
                for (instant, loaded) in loaded.iter().enumerate() {
                    let at = interval(instant as i64, instant as i64).start;
                    prop_assert_eq!(*loaded, recorded.iter().any(|r| r.start <= at && at <= r.end), "at {}", instant);
                }
                prop_assert!(progress.iter().all(|known: &ShardProgress| known.shard.of > 1));
                prop_assert!(progress.is_sorted_by_key(|known| known.shard));
            }
        }
    }
}
