//! The short name of an entity in stores whose keys are texts: a hash of its serialized key.

use std::fmt;

/// MurmurHash3 (x64, 128 bits) of a serialized entity key; prints as Feast's 32 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct EntityId(u128);

impl EntityId {
    /// The id of a serialized key.
    pub(super) fn of(key: &[u8]) -> Self {
        // Reading from memory does not fail.
        Self(murmur3::murmur3_x64_128(&mut &*key, 0).unwrap_or_default().swap_bytes())
    }

    /// The id that these digits are.
    pub(super) fn parse(digits: &str) -> Option<Self> {
        if digits.len() != 32 || digits.starts_with('+') {
            return None;
        }
        u128::from_str_radix(digits, 16).ok().map(Self)
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_feast() {
        let text = b"\x01\0\0\0\x02\0\0\0\x06\0\0\0driver\x02\0\0\0\x03\0\0\0abc";
        let number = b"\x01\0\0\0\x02\0\0\0\x09\0\0\0driver_id\x04\0\0\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff";
        for (key, id) in [
            (text.as_slice(), "5ba3405fd9ade0bd5a9be76bd835a3c4"),
            (number.as_slice(), "b1bc9ae33dfca351329851e177634c44"),
            (b"\0\0\0\0".as_slice(), "bc764cd8ddf7a0cff126f51c16239658"),
        ] {
            assert_eq!(EntityId::of(key).to_string(), id);
            assert_eq!(EntityId::parse(id), Some(EntityId::of(key)));
        }
        assert_eq!(EntityId::parse("5ba3"), None);
    }
}
