//! Replies of the Redis protocol as they came, without a value per element.

use bytes::Bytes;
use feast_core::CellPlace;

use super::scanner::{Keeping, Malformed, header, is_same, short_text, text_end};

/// One element of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element<'a> {
    Nil,
    Status(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    Text(&'a [u8]),
    /// That many elements follow.
    Array(usize),
}

/// Walks over the elements of a whole reply.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the values of the wanted pairs were kept, if they were.
    kept: &'a [CellPlace],
}

/// The text of the element at a position, and where the next element starts.
#[inline(always)]
fn text_at(bytes: &[u8], at: usize) -> Result<(&[u8], usize), Malformed> {
    let (start, end, next) = match short_text(bytes, at) {
        Some((start, length)) => (start, start + length, start + length + 2),
        None => match header(bytes, at)? {
            Some((b'$', length @ 0.., _, start)) => {
                let (end, next) = text_end(start, length)?;
                (start, end, next)
            }
            _ => return Err(Malformed),
        },
    };
    Ok((bytes.get(start..end).ok_or(Malformed)?, next))
}

impl<'a> Reply<'a> {
    #[cfg(test)]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, kept: &[] }
    }

    pub(super) fn next(&mut self) -> Result<Element<'a>, Malformed> {
        let (kind, number, line, after) = header(self.bytes, self.at)?.ok_or(Malformed)?;
        self.at = after;
        match kind {
            b'+' => Ok(Element::Status(line)),
            b'-' => Ok(Element::Error(line)),
            b':' => Ok(Element::Integer(number)),
            _ if number < 0 => Ok(Element::Nil),
            b'$' => {
                let (end, next) = text_end(after, number)?;
                let text = self.bytes.get(after..end).ok_or(Malformed)?;
                self.at = next;
                Ok(Element::Text(text))
            }
            _ => Ok(Element::Array(usize::try_from(number).map_err(|_| Malformed)?)),
        }
    }

    /// The text of the next element, where it is one.
    pub(super) fn text(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.next()? {
            Element::Text(text) | Element::Status(text) => Ok(Some(text)),
            Element::Nil => Ok(None),
            _ => Err(Malformed),
        }
    }

    /// Where the text of the next element is, where it is one.
    #[inline]
    pub(super) fn place(&mut self) -> Result<CellPlace, Malformed> {
        if let Some((start, length)) = short_text(self.bytes, self.at) {
            self.at = start + length + 2;
            return CellPlace::new(start, length).ok_or(Malformed);
        }
        let before = self.at;
        match self.next()? {
            Element::Nil => Ok(CellPlace::NONE),
            Element::Text(text) => CellPlace::new(self.at - 2 - text.len(), text.len()).ok_or(Malformed),
            Element::Status(text) => CellPlace::new(before + 1, text.len()).ok_or(Malformed),
            _ => Err(Malformed),
        }
    }

    /// Where the values of the wanted pairs were kept, if they were.
    pub(super) fn kept(&self) -> &'a [CellPlace] {
        self.kept
    }

    /// Where the next elements begin, which are that many pairs of texts and all that is left.
    pub(super) fn starts_of_pairs(&mut self, n: usize, starts: &mut Vec<u32>) -> Result<(), Malformed> {
        starts.clear();
        // A reply is as long as the server says, which does not have to be true.
        starts.reserve(n.min(self.bytes.len()));
        for _ in 0..n {
            starts.push(u32::try_from(self.at).map_err(|_| Malformed)?);
            self.at = text_at(self.bytes, self.at)?.1;
            self.at = text_at(self.bytes, self.at)?.1;
        }
        Ok(())
    }

    /// The name of the pair that begins there.
    #[inline]
    pub(super) fn name_at(&self, start: u32) -> Option<&'a [u8]> {
        text_at(self.bytes, start as usize).ok().map(|(name, _)| name)
    }

    /// The value of the pair that begins there, if it has this name.
    pub(super) fn value_at(&self, start: u32, name: &[u8]) -> Option<&'a [u8]> {
        let (found, next) = text_at(self.bytes, start as usize).ok()?;
        if !is_same(found, name) {
            return None;
        }
        text_at(self.bytes, next).ok().map(|(value, _)| value)
    }

    /// The length of the next element, which is an array.
    pub(super) fn array(&mut self) -> Result<usize, Malformed> {
        match self.next()? {
            Element::Array(length) => Ok(length),
            _ => Err(Malformed),
        }
    }

    /// Passes over the next element and what is in it.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        let mut open = 1u64;
        while open > 0 {
            open -= 1;
            if let Element::Array(length) = self.next()? {
                open = open.checked_add(length as u64).ok_or(Malformed)?;
            }
        }
        Ok(())
    }
}

/// The replies to some commands, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) parts: Vec<Part>,
    /// Where replies end in their parts.
    pub(super) ends: Vec<usize>,
    pub(super) kept: Kept,
}

/// Some of the replies of an answer, as they came.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) bytes: Bytes,
    /// The number of the first reply behind it.
    pub(super) until: usize,
}

/// The values of wanted pairs; empty where nobody wants any.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    pub(super) bytes: Bytes,
    places: Vec<CellPlace>,
    ends: Vec<usize>,
}

impl From<Keeping> for Kept {
    fn from(keeping: Keeping) -> Self {
        Self { bytes: keeping.bytes.into(), places: keeping.places, ends: keeping.ends }
    }
}

impl Answer {
    /// Replies that are all in one part.
    pub(super) fn of(bytes: Bytes, ends: Vec<usize>) -> Self {
        Self { parts: vec![Part { bytes, until: ends.len() }], ends, kept: Kept::default() }
    }

    /// In which part a reply is.
    pub(super) fn part(&self, number: usize) -> usize {
        self.parts.partition_point(|part| part.until <= number)
    }

    /// The bytes of its part, where it starts in them and where it ends.
    fn place(&self, number: usize) -> (&[u8], usize, usize) {
        let part = self.part(number);
        let is_first = number == if part == 0 { 0 } else { self.parts[part - 1].until };
        (&self.parts[part].bytes, if is_first { 0 } else { self.ends[number - 1] }, self.ends[number])
    }

    /// The bytes of a reply.
    pub(super) fn bytes_of(&self, number: usize) -> &[u8] {
        let (bytes, start, end) = self.place(number);
        &bytes[start..end]
    }

    /// A reply.
    pub(super) fn reply(&self, number: usize) -> Reply<'_> {
        let Kept { places, ends, .. } = &self.kept;
        let kept = match ends.get(number) {
            Some(end) => &places[if number == 0 { 0 } else { ends[number - 1] }..*end],
            None => &[],
        };
        let (bytes, at, end) = self.place(number);
        Reply { bytes: &bytes[..end], at, kept }
    }

    /// Whether a reply is an error.
    pub(super) fn has_errors(&self) -> bool {
        (0..self.ends.len()).any(|number| self.error(number).is_some())
    }

    /// The error of a reply that is one.
    pub(super) fn error(&self, number: usize) -> Option<&[u8]> {
        match self.bytes_of(number) {
            [b'-', line @ ..] => Some(line.strip_suffix(b"\r\n").unwrap_or(line)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::super::commands::{WantedPair, WantedPairs, put_argument, put_length};
    use super::super::scanner::Scanner;
    use super::*;

    const REPLIES: &[u8] = b"+OK\r\n*3\r\n$3\r\na\r\n\r\n$-1\r\n*1\r\n:-5\r\n-ERR no\r\n*0\r\n$0\r\n\r\n*-1\r\n";
    const ENDS: [usize; 6] = [5, 32, 41, 45, 51, 56];

    #[test]
    fn replies_are_found_however_they_arrive() {
        for step in 1..REPLIES.len() {
            let (mut scanner, mut ends) = (Scanner::default(), Vec::new());
            for arrived in (0..=REPLIES.len()).step_by(step).chain([REPLIES.len()]) {
                while let Some(end) = scanner.next(&REPLIES[..arrived], 3, None).unwrap() {
                    ends.push(end);
                }
            }
            assert_eq!(ends, ENDS, "in steps of {step}");
        }
    }

    #[test]
    fn pairs_are_kept_however_they_arrive() {
        let long = "x".repeat(200);
        let lists: [&[(&str, &str)]; 5] = [
            &[("name", "7"), ("_ts:view", "12345678901")],
            &[],
            &[("", long.as_str()), (long.as_str(), "")],
            &[("a", "b")],
            &[
                ("abcd", "1"),
                ("efgh", "12345678901"),
                ("ijkl", ""),
                ("mnop", long.as_str()),
                ("qrst", "2"),
                ("uvwx", "3"),
            ],
        ];
        let mut bytes = b":3\r\n".to_vec();
        for list in lists {
            put_length(&mut bytes, b'*', 2 * list.len());
            for (name, value) in list {
                put_argument(&mut bytes, name.as_bytes());
                put_argument(&mut bytes, value.as_bytes());
            }
        }
        let wanted: [&[(u32, &str)]; 5] = [
            &[(0, "abcd"), (0, "name"), (1, "_ts:view"), (3, long.as_str()), (4, "qrst"), (5, "uvwx"), (9, "no")],
            &[],
            &[(1, long.as_str()), (1, "efgh")],
            &[(0, "a"), (4, "qrst")],
            &[(3, "mnop"), (5, "other")],
        ];
        for (step, wanted) in (1..bytes.len()).zip(wanted.iter().cycle()) {
            let wanted = wanted.iter().map(|(place, name)| WantedPair::new(*place, name.as_bytes()));
            let wanted: WantedPairs = wanted.collect();
            let (mut scanner, mut ends, mut kept) = (Scanner::default(), Vec::new(), Keeping::default());
            for arrived in (0..=bytes.len()).step_by(step).chain([bytes.len()]) {
                while let Some(end) = scanner.next(&bytes[..arrived], 12, Some((&wanted, &mut kept))).unwrap() {
                    ends.push(end);
                }
            }
            assert_eq!(ends.len(), 1 + lists.len(), "in steps of {step}");
            let answer = Answer { kept: kept.into(), ..Answer::of(bytes.clone().into(), ends) };
            assert!(answer.reply(0).kept().iter().all(|place| !place.is_some()));
            for (number, list) in (1..).zip(lists) {
                let (mut reply, mut starts) = (answer.reply(number), Vec::new());
                let kept = reply.kept().iter().map(|place| place.of(&answer.kept.bytes));
                let expected = wanted.iter().map(|wanted| {
                    let found = list.get(wanted.place as usize).filter(|(name, _)| name.as_bytes() == &*wanted.name);
                    found.map(|(_, value)| value.as_bytes())
                });
                assert!(kept.eq(expected), "in steps of {step}");
                assert_eq!(reply.array(), Ok(2 * list.len()));
                reply.starts_of_pairs(list.len(), &mut starts).unwrap();
                for (start, (name, value)) in starts.iter().zip(list) {
                    assert_eq!(reply.name_at(*start), Some(name.as_bytes()));
                    assert_eq!(reply.value_at(*start, name.as_bytes()), Some(value.as_bytes()));
                    assert_eq!(reply.value_at(*start, b"other"), None);
                }
                assert_eq!(reply.name_at(u32::MAX), None);
            }
        }
    }

    #[test]
    fn elements_are_read() {
        let answer = Answer::of(Bytes::from_static(REPLIES), ENDS.to_vec());
        assert_eq!(answer.reply(0).next(), Ok(Element::Status(b"OK")));
        let mut reply = answer.reply(1);
        assert_eq!(reply.array(), Ok(3));
        assert_eq!(reply.text(), Ok(Some(&b"a\r\n"[..])));
        assert_eq!(reply.text(), Ok(None));
        let mut nested = reply.clone();
        assert_eq!(nested.array(), Ok(1));
        assert_eq!(nested.next(), Ok(Element::Integer(-5)));
        reply.skip().unwrap();
        assert_eq!(reply.next(), Err(Malformed));
        assert_eq!((answer.error(1), answer.error(2)), (None, Some(&b"ERR no"[..])));
        assert_eq!(answer.reply(5).next(), Ok(Element::Nil));
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_panic(bytes in prop::collection::vec(prop::sample::select(&b"+-$*:019\r\n"[..]), 0..40)) {
            let mut scanner = Scanner::default();
            let (mut starts, mut kept) = (Vec::new(), Keeping::default());
            let wanted = [0, 0, 2].map(|place| WantedPair::new(place, b"*"));
            while let Ok(Some(_)) = scanner.next(&bytes, 9, Some((&wanted, &mut kept))) {}
            let mut reply = Reply::new(&bytes);
            while reply.next().is_ok() {}
            let _ = Reply::new(&bytes).starts_of_pairs(3, &mut starts);
            let mut reply = Reply::new(&bytes);
            while reply.place().is_ok() {}
            let _ = (reply.name_at(3), reply.value_at(1, b"*"));
            let _ = Reply::new(&bytes).skip();
        }
    }
}
