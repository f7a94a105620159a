//! What is wrong with a message, before it is known which object it belongs to.

use std::fmt;

use bytes::Buf;
use feast_core::{Error, ErrorCode, Result};

/// A message says something that has no meaning. Reads on from the name of an object: "has a ttl that ...".
#[derive(Debug)]
pub(crate) struct Malformed(String);

/// A converted message.
pub(crate) type Decoded<T> = std::result::Result<T, Malformed>;

impl Malformed {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// The error that says it of an object.
    pub(crate) fn of(self, code: ErrorCode, object: impl fmt::Display) -> Error {
        let error = Error::new(code, format!("{object} {}", self.0));
        if code == ErrorCode::CorruptRegistry { error.with_hint(CORRUPT_HINT) } else { error }
    }
}

pub(crate) const CORRUPT_HINT: &str =
    "restore the registry from a backup, or remove it and run `feast apply` in the feature repository";

/// Decodes the bytes of a message that an error calls `object`.
pub(crate) fn decode<M: prost::Message + Default>(bytes: impl Buf, object: impl fmt::Display) -> Result<M> {
    let length = bytes.remaining();
    M::decode(bytes).map_err(|error| {
        Error::new(
            ErrorCode::CorruptRegistry,
            format!("{object} cannot be read: its {length} bytes are not the message of one"),
        )
        .with_hint(CORRUPT_HINT)
        .with_source(error)
    })
}

/// The member of an enum with this number.
pub(crate) fn from_number<T: Copy>(members: &[T], number: i32, what: &str) -> Decoded<T> {
    usize::try_from(number)
        .ok()
        .and_then(|index| members.get(index).copied())
        .ok_or_else(|| Malformed::new(format!("has {what} number {number}, which this version does not know")))
}
