//! How the pairs of a list begin: as those did that were in their places in the list before, as a rule.
//!
//! A processor that has to compute how long a value is, to know where the next pair begins, waits for each of them. With
//! a guess it goes on, and only compares.

use super::scanner::short_text;

/// Pairs that are remembered; further ones are taken apart without a guess.
const MOST: usize = 2048;

/// Bytes of a pair that are looked at together: those before its value, and some of it.
const HEAD: usize = 16;

/// What the pairs were in the lists before, by their places.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    known: Vec<Guess>,
}

impl Guesses {
    /// The guesses for a list of so many pairs.
    #[inline]
    pub(super) fn of(&mut self, n_pairs: u64) -> &mut [Guess] {
        let n_pairs = usize::try_from(n_pairs).unwrap_or(MOST).min(MOST);
        if self.known.len() < n_pairs {
            self.known.resize(n_pairs, Guess::EMPTY);
        }
        &mut self.known
    }
}

/// How a pair of a name of four bytes and a value of less than 100 begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guess {
    /// The bytes from behind the name to the value, and which bytes those are.
    head: u64,
    mask: u64,
    /// Where in the pair the value starts.
    start: u8,
    length: u8,
}

/// What a pair was found to be.
pub(super) struct Pair {
    /// Where its value starts.
    pub(super) start: usize,
    pub(super) length: usize,
    /// Where the next one begins.
    pub(super) end: usize,
}

impl Guess {
    /// An empty value: as good a guess as any other.
    const EMPTY: Self =
        Self { head: u64::from_le_bytes(*b"\r\n$0\r\n\0\0"), mask: u64::MAX >> 16, start: 14, length: 0 };

    fn of(head: &[u8; HEAD]) -> Option<Self> {
        let (value, length) = short_text(head, 10)?;
        if head[..4] != *b"$4\r\n" || value >= HEAD {
            return None;
        }
        let mask = u64::MAX >> (8 * (HEAD - value));
        Some(Self { head: behind_name(head) & mask, mask, start: value as u8, length: length as u8 })
    }

    #[inline(always)]
    fn is_right(&self, head: &[u8; HEAD]) -> bool {
        head[..4] == *b"$4\r\n" && behind_name(head) & self.mask == self.head
    }

    /// The pair that begins there, after which this guess is right. `None`: it has another name or value, or has not
    /// arrived.
    #[inline(always)]
    pub(super) fn pair(&mut self, bytes: &[u8], at: usize) -> Option<Pair> {
        let head = bytes.get(at..)?.first_chunk()?;
        if !self.is_right(head) {
            *self = Self::of(head)?;
        }
        let (start, length) = (at + usize::from(self.start), usize::from(self.length));
        let end = start + length + 2;
        (end <= bytes.len()).then_some(Pair { start, length, end })
    }
}

#[inline(always)]
fn behind_name(head: &[u8; HEAD]) -> u64 {
    let [_, _, _, _, _, _, _, _, bytes @ ..] = *head;
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::super::commands::put_argument;
    use super::super::scanner::{Found, find_text};
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever was guessed before, and whatever comes now.
        #[test]
        fn guesses_find_what_is_there(
            pairs in prop::collection::vec((3..6usize, prop_oneof![0..20usize, 95..105usize]), 1..6),
            damage in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&b"$-0419\r\n"[..])), 0..3),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut guess = Guess::EMPTY;
            for (name, value) in pairs {
                let mut bytes = Vec::new();
                put_argument(&mut bytes, &b"nname"[..name]);
                put_argument(&mut bytes, &vec![b'0'; value]);
                let whole = bytes.len();
                bytes.extend_from_slice(b"$4\r\nmore\r\n$1\r\n");
                damage.iter().for_each(|(at, byte)| bytes[at.index(whole)] = *byte);
                bytes.truncate(if cut.index(4) == 0 { cut.index(bytes.len()) } else { bytes.len() });
                let found = guess.pair(&bytes, 0);
                let slow = match find_text(&bytes, 0) {
                    Ok(Found::Text(name, next)) => match find_text(&bytes, next) {
                        Ok(Found::Text(value, end)) => Some((name, value, end)),
                        _ => None,
                    },
                    _ => None,
                };
                match (found, slow) {
                    (Some(found), Some((name, value, end))) => {
                        prop_assert_eq!((name, found.end), (&bytes[4..8], end));
                        prop_assert_eq!(value, &bytes[found.start..found.start + found.length]);
                    }
                    (Some(_), None) => prop_assert!(false, "there is no such pair in {:?}", bytes),
                    // What is no short pair, or ends with what has arrived, is left to who looks closer; as is a length
                    // that is not written as servers do.
                    (None, Some((name, value, _))) => {
                        let is_left = name.len() != 4 || value.len() >= 100 || bytes.len() < HEAD;
                        prop_assert!(is_left || !damage.is_empty());
                    }
                    (None, None) => {}
                }
            }
        }
    }
}
