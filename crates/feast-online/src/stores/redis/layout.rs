//! Feast's layout: the names of keys and fields, and the bytes of times.

use feast_core::{EntityKeyEncoder, Error, Field, OnlineTable, Result, ValueType};

/// What the names of fields with event times start with.
const TIME_PREFIX: &str = "_ts:";

/// The field that holds the event time of a view.
pub(super) fn time_field(view: &str) -> Vec<u8> {
    format!("{TIME_PREFIX}{view}").into_bytes()
}

/// The field that holds a feature of a view: a hash of both names, as a little-endian number.
pub(super) fn feature_field(view: &str, feature: &str) -> [u8; 4] {
    feature_fields(view)(feature)
}

/// [`feature_field`] for many features of one view.
pub(super) fn feature_fields(view: &str) -> impl FnMut(&str) -> [u8; 4] {
    let start = view.len() + 1;
    let mut name = Vec::with_capacity(start + 32);
    name.extend_from_slice(view.as_bytes());
    name.push(b':');
    move |feature| {
        name.truncate(start);
        name.extend_from_slice(feature.as_bytes());
        murmur3::murmur3_32(&mut name.as_slice(), 0).unwrap_or_default().to_le_bytes()
    }
}

/// Refuses a view of which two features would share a field.
pub(super) fn check_fields(table: &OnlineTable) -> Result<()> {
    let mut fields: Vec<([u8; 4], &str)> =
        table.columns.iter().map(|column| (feature_field(&table.view, &column.name), column.name.as_str())).collect();
    fields.sort_unstable();
    match fields.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        None => Ok(()),
        Some(pair) => Err(Error::invalid_definition(format!(
            "the features `{}` and `{}` of feature view `{}` have the same hash, under which Redis would keep both",
            pair[0].1, pair[1].1, table.view
        ))
        .with_hint("rename one of them")),
    }
}

/// Appends a `google.protobuf.Timestamp`; the epoch is zero bytes.
pub(super) fn put_time(out: &mut Vec<u8>, micros: i64) {
    let (seconds, nanos) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) * 1_000);
    if seconds != 0 {
        out.push(0x08);
        put_varint(out, seconds as u64);
    }
    if nanos != 0 {
        out.push(0x10);
        put_varint(out, nanos as u64);
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a `google.protobuf.Timestamp`, in microseconds; `None` when the bytes are something else.
pub(super) fn read_time(mut bytes: &[u8]) -> Option<i64> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    while let Some((tag, rest)) = bytes.split_first() {
        let (number, rest) = read_varint(rest)?;
        match tag {
            0x08 => seconds = number as i64,
            0x10 => nanos = number as i64,
            _ => return None,
        }
        bytes = rest;
    }
    seconds.checked_mul(1_000_000)?.checked_add(nanos.div_euclid(1_000))
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    for (position, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[position + 1..]));
        }
    }
    None
}

/// The keys of a project's entities with certain join keys, told from all other keys exactly.
#[derive(Debug)]
pub(super) struct KeySpace {
    project: String,
    /// What keys start with, in each version of the serialization.
    prefixes: Vec<Vec<u8>>,
    n_join_keys: usize,
    first_name: String,
}

impl KeySpace {
    pub(super) fn of(project: &str, join_keys: &[Field]) -> Result<Self> {
        // Types do not matter here.
        let fields: Vec<Field> = join_keys.iter().map(|key| Field::new(&key.name, ValueType::String)).collect();
        let prefixes = [3, 2].map(|version| Ok(EntityKeyEncoder::new(&fields, version)?.prefix().to_vec()));
        let first_name = fields.iter().map(|field| field.name.as_str()).min().unwrap_or_default().to_owned();
        Ok(Self {
            project: project.to_owned(),
            prefixes: prefixes.into_iter().collect::<Result<_>>()?,
            n_join_keys: fields.len(),
            first_name,
        })
    }

    /// A pattern for `SCAN` that matches all of these keys, and others.
    pub(super) fn pattern(&self) -> Vec<u8> {
        let mut pattern = vec![b'*'];
        put_escaped(&mut pattern, self.first_name.as_bytes());
        pattern.push(b'*');
        put_escaped(&mut pattern, self.project.as_bytes());
        pattern
    }

    /// Whether a key is one of these: names, as many values, and then the project and nothing else.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.prefixes.iter().any(|prefix| {
            let mut rest = key.strip_prefix(prefix.as_slice());
            for _ in 0..self.n_join_keys {
                rest = rest.and_then(after_value);
            }
            rest == Some(self.project.as_bytes())
        })
    }
}

/// What follows one value of an entity key: `u32 type · u32 length · payload`.
fn after_value(bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_at_checked(8)?;
    let length = u32::from_le_bytes(header[4..].try_into().ok()?);
    rest.get(length as usize..)
}

/// Appends text in which the pattern characters of Redis stand for themselves.
fn put_escaped(pattern: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'^' | b'-') {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use proptest::prelude::*;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn fields_are_feasts() {
        let cases = [
            ("driver_hourly_stats", "conv_rate", "6160e3da"),
            ("fv", "f", "3a27cb89"),
            ("driver_stats", "conv_rate", "fa731014"),
            ("driver_stats", "trips", "426aa434"),
            ("driver_stats", "city", "d89d016b"),
            ("driver_push", "conv_rate", "86f423f7"),
            ("glob", "g", "09b1e9ae"),
        ];
        for (view, feature, expected) in cases {
            assert_eq!(hex(&feature_field(view, feature)), expected, "{view}:{feature}");
        }
        assert_eq!(time_field("driver_stats"), b"_ts:driver_stats");
    }

    #[test]
    fn times_are_feasts() {
        let bytes = |micros| {
            let mut out = Vec::new();
            put_time(&mut out, micros);
            hex(&out)
        };
        assert_eq!(bytes(1_795_176_000_000_000), "08c0ec80d806");
        assert_eq!(bytes(1_795_176_000_700_000), "08c0ec80d8061080cee4cd02");
        assert_eq!(bytes(0), "");
        assert_eq!(bytes(-1), "08ffffffffffffffffff0110988cebdc03");
        assert_eq!(read_time(b"\x1a\x01"), None);
        assert_eq!(read_time(b"\x08"), None);
    }

    proptest! {
        #[test]
        fn times_come_back(micros in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            let mut out = Vec::new();
            put_time(&mut out, micros);
            prop_assert_eq!(read_time(&out), Some(micros));
        }

        #[test]
        fn any_bytes_are_no_panic(bytes: Vec<u8>) {
            let _ = read_time(&bytes);
            let _ = KeySpace::of("p", &[Field::new("k", ValueType::Int64)]).unwrap().contains(&bytes);
        }
    }

    #[test]
    fn keys_are_told_apart_exactly() {
        let key = |names: &[&str], project: &str, version| {
            let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, ValueType::String)).collect();
            let columns = names.iter().map(|name| (*name, Arc::new(StringArray::from(vec!["x"])) as ArrayRef));
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let keys = EntityKeyEncoder::new(&fields, version).unwrap().encode(batch).unwrap();
            [keys.encoded.value(0), project.as_bytes()].concat()
        };
        let space = KeySpace::of("proj", &[Field::new("driver_id", ValueType::Int64)]).unwrap();
        assert!(space.contains(&key(&["driver_id"], "proj", 3)));
        assert!(space.contains(&key(&["driver_id"], "proj", 2)));
        for foreign in ["myproj", "proj2", "", "pro"] {
            assert!(!space.contains(&key(&["driver_id"], foreign, 3)), "{foreign}");
        }
        assert!(!space.contains(&key(&["driver_id", "zip"], "proj", 3)));
        assert!(!space.contains(&key(&["driver"], "proj", 3)));
        // A value that ends with the name of the project does not make its own project that one.
        let ids = Arc::new(Int64Array::from(vec![i64::from_le_bytes(*b"....proj")])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("driver_id", ids)]).unwrap();
        let encoder = EntityKeyEncoder::new(&[Field::new("driver_id", ValueType::Int64)], 3).unwrap();
        assert!(!space.contains(encoder.encode(batch).unwrap().encoded.value(0)));
        let both = KeySpace::of("proj", &[Field::new("zip", ValueType::Int64), Field::new("id", ValueType::Int64)]);
        assert!(both.unwrap().contains(&key(&["id", "zip"], "proj", 3)));
    }

    #[test]
    fn patterns_are_escaped() {
        let space = KeySpace::of("p*[a]?\\", &[Field::new("k^-", ValueType::Int64)]).unwrap();
        assert_eq!(String::from_utf8(space.pattern()).unwrap(), "*k\\^\\-*p\\*\\[a\\]\\?\\\\");
    }

    #[test]
    fn features_that_would_share_a_field_are_refused() {
        // Found by trying names.
        let (one, other) = colliding();
        let table = OnlineTable {
            project: "p".to_owned(),
            view: "v".to_owned(),
            join_keys: Vec::new(),
            columns: vec![Field::new(&one, ValueType::Int64), Field::new(&other, ValueType::Int64)],
            tags: feast_core::Tags::new(),
        };
        let error = check_fields(&table).unwrap_err();
        assert!(error.message().contains("have the same hash"), "{error}");
    }

    fn colliding() -> (String, String) {
        let mut known = hashbrown::HashMap::new();
        (0..1_000_000)
            .find_map(|number| {
                let name = format!("f{number}");
                known.insert(feature_field("v", &name), name.clone()).map(|other| (name, other))
            })
            .unwrap()
    }
}
