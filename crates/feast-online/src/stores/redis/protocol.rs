//! The Redis protocol, version 2: commands out, replies in, without a value per element.

use bytes::Bytes;

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
    /// About how many pairs the replies have, where their places are to be kept.
    n_pairs: usize,
}

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

    /// Says that the next replies are lists of pairs, about so many in all, of which few will be looked at: where they
    /// are is kept when the ends of the replies are found, so that nobody has to go through them again.
    pub(super) fn expect_pairs(&mut self, n_pairs: usize) {
        self.n_pairs += n_pairs;
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
        let Self { ends, slots, n_pairs, .. } = self;
        Commands { bytes: self.bytes.into(), ends, slots, most_elements, n_pairs }
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
}

impl Commands {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The most elements that a reply may have.
    pub(super) fn most_elements(&self) -> usize {
        self.most_elements
    }

    /// About how many pairs are to be kept.
    pub(super) fn n_pairs(&self) -> usize {
        self.n_pairs
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

/// Finds the ends of replies in bytes that arrive piece by piece.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    at: usize,
    /// Elements that the reply at hand still lacks.
    open: u64,
}

impl Scanner {
    /// The end of the next reply of at most so many elements, once all of it is in `bytes`, which may only have grown
    /// since the last call. Where pairs begin is added to `pairs`: in a list of pairs, an even number of elements is open
    /// before each of them.
    pub(super) fn next(
        &mut self,
        bytes: &[u8],
        most_elements: usize,
        mut pairs: Option<&mut Vec<u32>>,
    ) -> Result<Option<usize>, Unusable> {
        let mut keep = |at: usize, open: u64| {
            if let Some(pairs) = pairs.as_deref_mut().filter(|_| open.is_multiple_of(2)) {
                // What lies behind is not found again, and is malformed.
                pairs.push(u32::try_from(at).unwrap_or(u32::MAX));
            }
        };
        loop {
            // Nearly all elements are short texts in an array.
            while self.open > 0 {
                let Some((start, length)) = short_text(bytes, self.at) else { break };
                let end = start + length + 2;
                if end > bytes.len() {
                    return Ok(None);
                }
                keep(self.at, self.open);
                self.at = end;
                self.open -= 1;
                if self.open == 0 {
                    return Ok(Some(end));
                }
            }
            let Some((kind, number, _, mut end)) = header(bytes, self.at)? else { return Ok(None) };
            let open = self.open;
            if self.open == 0 {
                self.open = 1;
            }
            match kind {
                b'$' if number >= 0 => {
                    end = text_end(end, number)?.1;
                    if end > bytes.len() {
                        return Ok(None);
                    }
                }
                b'*' if number as usize > most_elements && number > 0 => return Err(Unusable::TooLong),
                b'*' if number > 0 => self.open = self.open.checked_add(number as u64).ok_or(Malformed)?,
                _ => {}
            }
            if open > 0 {
                keep(self.at, open);
            }
            self.at = end;
            self.open -= 1;
            if self.open == 0 {
                return Ok(Some(end));
            }
        }
    }

    /// Starts at the front again, after the bytes before the position were taken away.
    pub(super) fn taken(&mut self) {
        self.at = 0;
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
#[derive(Debug, Clone)]
pub(super) struct Reply<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where its pairs begin, as far as that was kept.
    pairs: &'a [u32],
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

/// A list of names and values, of which only those are read that somebody asks for.
#[derive(Debug, Clone, Default)]
pub(super) struct Pairs<'a> {
    bytes: &'a [u8],
    kept: &'a [u32],
    /// Where they begin, if that was not kept.
    found: Vec<u32>,
}

/// Nearly all names have four bytes, which are compared at once.
#[inline(always)]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    match (<&[u8; 4]>::try_from(a), <&[u8; 4]>::try_from(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

impl<'a> Pairs<'a> {
    fn starts(&self) -> &[u32] {
        if self.kept.is_empty() { &self.found } else { self.kept }
    }

    pub(super) fn len(&self) -> usize {
        self.starts().len()
    }

    /// The name at a position.
    #[inline]
    pub(super) fn name(&self, position: u32) -> Option<&'a [u8]> {
        text_at(self.bytes, *self.starts().get(position as usize)? as usize).ok().map(|(name, _)| name)
    }

    /// The value at a position, if it has this name.
    #[inline]
    pub(super) fn value(&self, position: u32, name: &[u8]) -> Option<&'a [u8]> {
        let (found, next) = text_at(self.bytes, *self.starts().get(position as usize)? as usize).ok()?;
        if !is_same(found, name) {
            return None;
        }
        text_at(self.bytes, next).ok().map(|(value, _)| value)
    }
}

impl<'a> Reply<'a> {
    #[cfg(test)]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, pairs: &[] }
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

    /// The next elements, which are that many pairs of texts and all that is left.
    pub(super) fn pairs(&mut self, n: usize, pairs: &mut Pairs<'a>) -> Result<(), Malformed> {
        (pairs.bytes, pairs.kept) = (self.bytes, &[]);
        pairs.found.clear();
        if self.pairs.len() == n {
            pairs.kept = self.pairs;
            return Ok(());
        }
        // A reply is as long as the server says, which does not have to be true.
        pairs.found.reserve(n.min(self.bytes.len()));
        for _ in 0..n {
            pairs.found.push(u32::try_from(self.at).map_err(|_| Malformed)?);
            self.at = text_at(self.bytes, self.at)?.1;
            self.at = text_at(self.bytes, self.at)?.1;
        }
        Ok(())
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
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) bytes: Bytes,
    pub(super) ends: Vec<usize>,
    pub(super) pairs: KeptPairs,
}

/// Where in some replies pairs begin; empty where nobody wanted to know.
#[derive(Debug, Clone, Default)]
pub(super) struct KeptPairs {
    /// Those of all replies, one after the other.
    pub(super) starts: Vec<u32>,
    /// How many there are with each reply and the ones before.
    pub(super) ends: Vec<usize>,
}

impl Answer {
    fn start(&self, number: usize) -> usize {
        if number == 0 { 0 } else { self.ends[number - 1] }
    }

    /// The bytes of a reply.
    pub(super) fn bytes_of(&self, number: usize) -> &[u8] {
        &self.bytes[self.start(number)..self.ends[number]]
    }

    /// A reply.
    pub(super) fn reply(&self, number: usize) -> Reply<'_> {
        let KeptPairs { starts, ends } = &self.pairs;
        let pairs = match ends.get(number) {
            Some(end) => &starts[if number == 0 { 0 } else { ends[number - 1] }..*end],
            None => &[],
        };
        Reply { bytes: &self.bytes[..self.ends[number]], at: self.start(number), pairs }
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
        let lists: [&[(&str, &str)]; 4] = [
            &[("name", "7"), ("_ts:view", "12345678901")],
            &[],
            &[("", long.as_str()), (long.as_str(), "")],
            &[("a", "b")],
        ];
        let mut bytes = b":3\r\n".to_vec();
        for list in lists {
            put_length(&mut bytes, b'*', 2 * list.len());
            for (name, value) in list {
                put_argument(&mut bytes, name.as_bytes());
                put_argument(&mut bytes, value.as_bytes());
            }
        }
        for step in 1..bytes.len() {
            let (mut scanner, mut ends, mut pairs) = (Scanner::default(), Vec::new(), KeptPairs::default());
            for arrived in (0..=bytes.len()).step_by(step).chain([bytes.len()]) {
                while let Some(end) = scanner.next(&bytes[..arrived], 9, Some(&mut pairs.starts)).unwrap() {
                    ends.push(end);
                    pairs.ends.push(pairs.starts.len());
                }
            }
            assert_eq!(pairs.ends, [0, 2, 2, 4, 5], "in steps of {step}");
            let kept = Answer { bytes: bytes.clone().into(), ends, pairs };
            let walked = Answer { pairs: KeptPairs::default(), ..kept.clone() };
            for (number, list) in (1..).zip(lists) {
                for answer in [&kept, &walked] {
                    let (mut reply, mut pairs) = (answer.reply(number), Pairs::default());
                    assert_eq!(reply.array(), Ok(2 * list.len()));
                    reply.pairs(list.len(), &mut pairs).unwrap();
                    assert_eq!(pairs.len(), list.len());
                    for (position, (name, value)) in (0..).zip(list) {
                        assert_eq!(pairs.name(position), Some(name.as_bytes()));
                        assert_eq!(pairs.value(position, name.as_bytes()), Some(value.as_bytes()));
                        assert_eq!(pairs.value(position, b"other"), None);
                    }
                    assert_eq!(pairs.name(list.len() as u32), None);
                }
            }
        }
    }

    #[test]
    fn elements_are_read() {
        let answer = Answer { bytes: Bytes::from_static(REPLIES), ends: ENDS.to_vec(), pairs: KeptPairs::default() };
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
            while let Ok(Some(_)) = scanner.next(&bytes, 9, Some(&mut Vec::new())) {}
            let mut reply = Reply::new(&bytes);
            while reply.next().is_ok() {}
            let _ = Reply::new(&bytes).pairs(3, &mut Pairs::default());
            let _ = Reply::new(&bytes).skip();
        }
    }
}
