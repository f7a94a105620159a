//! Commands of the Redis protocol, version 2, and which node of a cluster they are for.

use std::sync::Arc;

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
    /// The name once more, if it is as long as names of features are: it is compared for each pair that arrives.
    pub(super) short_name: Option<[u8; 4]>,
}

impl WantedPair {
    pub(super) fn new(place: u32, name: &[u8]) -> Self {
        Self { place, name: name.into(), short_name: name.try_into().ok() }
    }
}

/// In the order of their places.
pub(super) type WantedPairs = Arc<[WantedPair]>;

impl Pipeline {
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

    pub(super) fn number(&mut self, number: usize) {
        put_argument(&mut self.bytes, digits(number, &mut [0; 20]));
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

pub(super) fn put_length(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    if length < 10 {
        out.push(b'0' + length as u8);
    } else {
        out.extend_from_slice(digits(length, &mut [0; 20]));
    }
    out.extend_from_slice(b"\r\n");
}

fn digits(number: usize, room: &mut [u8; 20]) -> &[u8] {
    let (mut start, mut rest) = (room.len(), number);
    loop {
        start -= 1;
        room[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return &room[start..];
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
}
