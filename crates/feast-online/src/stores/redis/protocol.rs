//! The Redis protocol, version 2: commands out, replies in, without a value per element.

use std::sync::Arc;

use bytes::Bytes;
use feast_core::CellPlace;

/// Commands to be sent together.
#[derive(Debug, Default, Clone)]
pub(super) struct Pipeline {
    bytes: Vec<u8>,
    /// Where each command ends.
    ends: Vec<usize>,
    /// The hash slot of the key of each command.
    slots: Vec<u16>,
    /// Whether all commands go to one server, so that nobody asks for slots.
    is_for_one: bool,
    /// The most elements that a reply may have.
    most_elements: Option<usize>,
    /// About how many pairs the replies have.
    n_pairs: usize,
    wanted: Vec<(usize, WantedPairs)>,
}

/// A pair of a list of names and values that somebody wants.
#[derive(Debug)]
pub(super) struct WantedPair {
    /// Where it is, as a rule.
    pub(super) place: u32,
    pub(super) name: Box<[u8]>,
}

/// In the order of their places.
pub(super) type WantedPairs = Arc<[WantedPair]>;

impl Pipeline {
    pub(super) fn with_capacity(commands: usize, bytes: usize) -> Self {
        let mut pipeline = Self::default();
        pipeline.reserve(commands, bytes);
        pipeline
    }

    /// Commands for one server.
    pub(super) fn for_one() -> Self {
        Self { is_for_one: true, ..Self::default() }
    }

    /// Says how many elements a reply to the next commands may have, nested ones aside. Once all who add commands say
    /// it, a reply of more is not taken.
    pub(super) fn expect(&mut self, most_elements: usize) {
        self.most_elements = self.most_elements.max(Some(most_elements));
    }

    /// Says that the replies since the last call are lists of pairs, about so many in all, of which few are wanted: their
    /// values are kept when the ends of the replies are found, so that nobody has to go through them again.
    pub(super) fn expect_pairs(&mut self, n_pairs: usize, wanted: WantedPairs) {
        self.n_pairs += n_pairs;
        self.wanted.push((self.len(), wanted));
    }

    /// Makes room for more commands.
    pub(super) fn reserve(&mut self, commands: usize, bytes: usize) {
        self.bytes.reserve(bytes);
        self.ends.reserve(commands);
        if !self.is_for_one {
            self.slots.reserve(commands);
        }
    }

    /// A command without a key.
    pub(super) fn of(arguments: &[&[u8]]) -> Self {
        let mut pipeline = Self::default();
        pipeline.push(arguments);
        pipeline
    }

    pub(super) fn push(&mut self, arguments: &[&[u8]]) {
        self.begin(arguments.len());
        arguments.iter().for_each(|argument| self.argument(argument));
        self.end(None);
    }

    /// Starts a command of that many arguments, its name included.
    pub(super) fn begin(&mut self, n_arguments: usize) {
        put_length(&mut self.bytes, b'*', n_arguments);
    }

    pub(super) fn argument(&mut self, argument: &[u8]) {
        put_argument(&mut self.bytes, argument);
    }

    /// Appends arguments that were serialized before.
    pub(super) fn arguments(&mut self, serialized: &[u8]) {
        self.bytes.extend_from_slice(serialized);
    }

    /// Ends a command; its key says where in a cluster it belongs.
    pub(super) fn end(&mut self, key: Option<&[u8]>) {
        self.ends.push(self.bytes.len());
        if !self.is_for_one {
            self.slots.push(key.map_or(0, hash_slot));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The commands, ready to be sent as a whole or one by one.
    pub(super) fn finish(self) -> Commands {
        let most_elements = self.most_elements.unwrap_or(usize::MAX);
        let Self { ends, slots, n_pairs, wanted, .. } = self;
        Commands { bytes: self.bytes.into(), ends, slots, most_elements, n_pairs, wanted }
    }
}

/// Commands that can be sent.
#[derive(Debug, Clone)]
pub(super) struct Commands {
    bytes: Bytes,
    ends: Vec<usize>,
    slots: Vec<u16>,
    most_elements: usize,
    n_pairs: usize,
    wanted: Vec<(usize, WantedPairs)>,
}

impl Commands {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The most elements that a reply may have.
    pub(super) fn most_elements(&self) -> usize {
        self.most_elements
    }

    /// About how many pairs the replies have.
    pub(super) fn n_pairs(&self) -> usize {
        self.n_pairs
    }

    /// Which pairs are wanted of the replies up to a number.
    pub(super) fn wanted(&self) -> &[(usize, WantedPairs)] {
        &self.wanted
    }

    /// The hash slot of a command's key.
    pub(super) fn slot(&self, command: usize) -> u16 {
        self.slots[command]
    }

    /// The bytes of one command.
    pub(super) fn command(&self, command: usize) -> &[u8] {
        let start = if command == 0 { 0 } else { self.ends[command - 1] };
        &self.bytes[start..self.ends[command]]
    }

    /// The bytes of all commands.
    pub(super) fn all(&self) -> Bytes {
        self.bytes.clone()
    }
}

/// Appends one argument of a command.
pub(super) fn put_argument(out: &mut Vec<u8>, argument: &[u8]) {
    put_length(out, b'$', argument.len());
    out.extend_from_slice(argument);
    out.extend_from_slice(b"\r\n");
}

fn put_length(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    if length < 10 {
        out.push(b'0' + length as u8);
    } else {
        let mut digits = [0; 20];
        let mut start = digits.len();
        let mut rest = length;
        while rest > 0 {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits[start..]);
    }
    out.extend_from_slice(b"\r\n");
}

/// The server sent what is not its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Why no more replies can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    Malformed,
    /// A reply has more elements than it may have.
    TooLong,
}

impl From<Malformed> for Unusable {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Kind, number or nothing, text, and where the next element starts.
type Header<'a> = (u8, i64, &'a [u8], usize);

/// What the element at a position begins with. `None`: its line has not arrived.
#[inline]
fn header(bytes: &[u8], at: usize) -> Result<Option<Header<'_>>, Malformed> {
    // Nearly all numbers are the lengths of names and values, with one digit.
    let line = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    if let Some([kind @ (b'$' | b'*' | b':'), digit @ b'0'..=b'9', b'\r', b'\n']) = line {
        return Ok(Some((*kind, i64::from(digit - b'0'), &[], at + 4)));
    }
    let Some(kind) = bytes.get(at).copied() else { return Ok(None) };
    if matches!(kind, b'+' | b'-') {
        let Some(length) = bytes[at + 1..].windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        return Ok(Some((kind, 0, &bytes[at + 1..at + 1 + length], at + length + 3)));
    }
    if !matches!(kind, b'$' | b'*' | b':') {
        return Err(Malformed);
    }
    let mut position = at + 1;
    let negative = bytes.get(position) == Some(&b'-');
    position += usize::from(negative);
    let mut number: i64 = 0;
    loop {
        match bytes.get(position) {
            None => return Ok(None),
            Some(digit @ b'0'..=b'9') => {
                let digit = i64::from(digit - b'0');
                number = number.checked_mul(10).and_then(|number| number.checked_add(digit)).ok_or(Malformed)?;
            }
            Some(b'\r') => match bytes.get(position + 1) {
                None => return Ok(None),
                Some(b'\n') => break,
                Some(_) => return Err(Malformed),
            },
            Some(_) => return Err(Malformed),
        }
        position += 1;
    }
    Ok(Some((kind, if negative { -number } else { number }, &[], position + 2)))
}

/// Where the text of a length starts and ends, and the next element starts.
fn text_end(start: usize, length: i64) -> Result<(usize, usize), Malformed> {
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let end = start.checked_add(length).ok_or(Malformed)?;
    Ok((end, end.checked_add(2).ok_or(Malformed)?))
}

/// Where a text of less than 100 bytes starts, and how long it is.
#[inline(always)]
fn short_text(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let head = bytes.get(at..)?.first_chunk::<5>()?;
    // The names of features. A processor guesses this and goes on, where it waits for a length that it has to compute.
    if head[..4] == *b"$4\r\n" {
        return Some((at + 4, 4));
    }
    match head {
        [b'$', ones @ b'0'..=b'9', b'\r', b'\n', _] => Some((at + 4, usize::from(ones - b'0'))),
        [b'$', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'\r', b'\n'] => {
            Some((at + 5, usize::from(10 * (tens - b'0') + (ones - b'0'))))
        }
        _ => None,
    }
}

/// Passes over pairs of a name of four bytes and a value of less than 100, as nearly all of a hash are. Gives where the
/// next one begins that is not such a pair, or has not arrived, or comes after `most` of them, and how many there were.
#[inline]
fn pass_pairs(bytes: &[u8], mut at: usize, most: u64) -> (usize, u64) {
    let mut passed = 0;
    while passed < most {
        let Some(head) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) else { break };
        let (tens, ones) = (head[11].wrapping_sub(b'0'), head[12].wrapping_sub(b'0'));
        if head[..4] != *b"$4\r\n" || head[10] != b'$' || tens > 9 {
            break;
        }
        let length = if head[12..14] == *b"\r\n" {
            14 + usize::from(tens)
        } else if ones <= 9 && head[13..15] == *b"\r\n" {
            15 + 10 * usize::from(tens) + usize::from(ones)
        } else {
            break;
        };
        let end = at + length + 2;
        if end > bytes.len() {
            break;
        }
        at = end;
        passed += 1;
    }
    (at, passed)
}

/// What is found where a text should be.
enum Found<'a> {
    /// The text, and where the next element starts.
    Text(&'a [u8], usize),
    /// Not all of it has arrived.
    Later,
    Other,
}

#[inline(always)]
fn find_text(bytes: &[u8], at: usize) -> Result<Found<'_>, Malformed> {
    let (start, end, next) = match short_text(bytes, at) {
        Some((start, length)) => (start, start + length, start + length + 2),
        None => match header(bytes, at)? {
            None => return Ok(Found::Later),
            Some((b'$', length @ 0.., _, start)) => {
                let (end, next) = text_end(start, length)?;
                (start, end, next)
            }
            Some(_) => return Ok(Found::Other),
        },
    };
    Ok(if next <= bytes.len() { Found::Text(&bytes[start..end], next) } else { Found::Later })
}

/// What was kept of replies that are lists of pairs.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// The values, one after the other.
    pub(super) bytes: Vec<u8>,
    /// Where they are: for each reply one per wanted pair, none where another pair is in its place.
    pub(super) places: Vec<CellPlace>,
    /// How many places there are with each reply and the ones before.
    pub(super) ends: Vec<usize>,
}

/// How pairs end.
enum Pairs {
    WithTheList,
    /// The next one has not arrived.
    Later,
    /// With something that is no pair of texts.
    Other,
}

/// Finds the ends of replies in bytes that arrive piece by piece.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    at: usize,
    /// Elements that the reply at hand still lacks.
    open: u64,
    /// Elements of the reply at hand, which is a list.
    length: u64,
    /// How many wanted pairs of the reply at hand were kept, or are not where they should be.
    kept: usize,
}

impl Scanner {
    /// The end of the next reply of at most so many elements, once all of it is in `bytes`, which may only have grown
    /// since the last call.
    pub(super) fn next(
        &mut self,
        bytes: &[u8],
        most_elements: usize,
        mut keeping: Option<(&[WantedPair], &mut Keeping)>,
    ) -> Result<Option<usize>, Unusable> {
        loop {
            // Nearly all elements are short texts in an array.
            while self.open > 0 {
                if let Some((wanted, kept)) = &mut keeping
                    && self.open.is_multiple_of(2)
                {
                    match self.keep_pairs(bytes, wanted, kept)? {
                        Pairs::WithTheList => break,
                        Pairs::Later => return Ok(None),
                        Pairs::Other => {}
                    }
                }
                let Some((start, length)) = short_text(bytes, self.at) else { break };
                let end = start + length + 2;
                if end > bytes.len() {
                    return Ok(None);
                }
                self.at = end;
                self.open -= 1;
            }
            if self.open == 0 && self.length > 0 {
                return Ok(Some(self.end(keeping)));
            }
            let Some((kind, number, _, mut end)) = header(bytes, self.at)? else { return Ok(None) };
            match kind {
                b'$' if number >= 0 => {
                    end = text_end(end, number)?.1;
                    if end > bytes.len() {
                        return Ok(None);
                    }
                }
                b'*' if number as usize > most_elements && number > 0 => return Err(Unusable::TooLong),
                b'*' if number > 0 && self.open == 0 => {
                    (self.open, self.length) = (number as u64, number as u64);
                    self.at = end;
                    continue;
                }
                b'*' if number > 0 => self.open = self.open.checked_add(number as u64).ok_or(Malformed)?,
                _ => {}
            }
            self.at = end;
            self.open = self.open.saturating_sub(1);
            if self.open == 0 {
                return Ok(Some(self.end(keeping)));
            }
        }
    }

    /// Passes over pairs and keeps the values of the wanted ones, while their bytes are at hand.
    #[inline]
    fn keep_pairs(&mut self, bytes: &[u8], wanted: &[WantedPair], kept: &mut Keeping) -> Result<Pairs, Malformed> {
        while self.open > 0 {
            let place = self.length.saturating_sub(self.open) / 2;
            let next = wanted.get(self.kept).map(|wanted| u64::from(wanted.place));
            if next.is_none_or(|next| next > place) {
                let most = next.map_or(u64::MAX, |next| next - place).min(self.open / 2);
                let (at, passed) = pass_pairs(bytes, self.at, most);
                self.at = at;
                self.open -= 2 * passed;
                if passed == most {
                    continue;
                }
            }
            let (name, value, end) = match find_text(bytes, self.at)? {
                Found::Text(name, next) => match find_text(bytes, next)? {
                    Found::Text(value, end) => (name, value, end),
                    Found::Later => return Ok(Pairs::Later),
                    Found::Other => return Ok(Pairs::Other),
                },
                Found::Later => return Ok(Pairs::Later),
                Found::Other => return Ok(Pairs::Other),
            };
            let place = self.length.saturating_sub(self.open) / 2;
            while let Some(next) = wanted.get(self.kept).filter(|wanted| u64::from(wanted.place) <= place) {
                let is_it = u64::from(next.place) == place && is_same(&next.name, name);
                let kept_at = if is_it { CellPlace::new(kept.bytes.len(), value.len()) } else { None };
                if kept_at.is_some() {
                    kept.bytes.extend_from_slice(value);
                }
                kept.places.push(kept_at.unwrap_or(CellPlace::NONE));
                self.kept += 1;
            }
            self.at = end;
            self.open -= 2;
        }
        Ok(Pairs::WithTheList)
    }

    /// The reply at hand ends here.
    fn end(&mut self, keeping: Option<(&[WantedPair], &mut Keeping)>) -> usize {
        if let Some((wanted, kept)) = keeping {
            kept.places.extend(std::iter::repeat_n(CellPlace::NONE, wanted.len() - self.kept));
            kept.ends.push(kept.places.len());
        }
        *self = Self { at: self.at, ..Self::default() };
        self.at
    }

    /// So many bytes were taken away in front.
    pub(super) fn taken(&mut self, length: usize) {
        self.at = self.at.saturating_sub(length);
    }
}

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

/// Nearly all names have four bytes, which are compared at once.
#[inline(always)]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    match (<&[u8; 4]>::try_from(a), <&[u8; 4]>::try_from(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
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

/// The hash slot of a key in a cluster: of the part in braces, where there is one, else of the whole key.
pub(super) fn hash_slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|byte| *byte == b'}').filter(|length| *length > 0).map(|length| &rest[..length])
    });
    tag.unwrap_or(key).iter().fold(0u16, |crc, byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)]) % 16_384
}

/// CRC-16/XMODEM.
static CRC16: [u16; 256] = {
    let mut table = [0u16; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_arrays_of_texts() {
        let mut pipeline = Pipeline::of(&[b"PING"]);
        pipeline.push(&[b"GET", b"a key with spaces"]);
        assert_eq!(pipeline.bytes(), b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$17\r\na key with spaces\r\n");
        assert_eq!(pipeline.finish().command(0), b"*1\r\n$4\r\nPING\r\n");
    }

    #[test]
    fn slots_are_those_of_redis() {
        // CLUSTER KEYSLOT of Redis 7.
        for (key, slot) in [("foo", 12182), ("{foo}bar", 12182), ("a{}b{foo}", 976), ("", 0), ("123456789", 12739)] {
            assert_eq!(hash_slot(key.as_bytes()), slot, "{key}");
        }
    }

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
            let wanted = wanted.iter().map(|(place, name)| WantedPair { place: *place, name: name.as_bytes().into() });
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
            let wanted = [0, 0, 2].map(|place| WantedPair { place, name: (*b"*").into() });
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
