//! The body of a request that brings a data frame in one pass, for the bodies that are as nearly all are: the frame, texts
//! and flags, none of them twice, and the values of each column of one kind.
//!
//! What is out of the ordinary is left to [`Members`](super::body::Members), which tells what is wrong. Both give the same
//! for what this one understands.

use std::borrow::Cow;
use std::fmt;

use feast_online::PlainRows;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use super::body::Text;
use super::one_kind::ColumnsOfOneKind;

/// A data frame and what else is in its body; texts borrow from it.
#[derive(Debug)]
pub(super) struct FrameBody<'a> {
    pub(super) frame: PlainRows<'a>,
    members: Vec<(Cow<'a, str>, Member<'a>)>,
}

#[derive(Debug)]
enum Member<'a> {
    Text(Cow<'a, str>),
    Flag(bool),
}

/// The frame in member `df`, unless something about the body is out of the ordinary or it has more values than allowed.
pub(super) fn parse(text: &str, most_values: usize) -> Option<FrameBody<'_>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let body = deserializer.deserialize_map(BodyVisitor { most_values }).ok()?;
    deserializer.end().ok()?;
    Some(body)
}

impl FrameBody<'_> {
    /// A text that is there.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.text_or(name, None)
    }

    /// A text, or what stands for it; `None` for another kind of value.
    pub(super) fn text_or<'t>(&'t self, name: &str, default: impl Into<Option<&'t str>>) -> Option<&'t str> {
        match self.member(name) {
            Some(Member::Text(text)) => Some(text),
            Some(Member::Flag(_)) => None,
            None => default.into(),
        }
    }

    /// A flag, or what stands for it; `None` for another kind of value.
    pub(super) fn flag_or(&self, name: &str, default: bool) -> Option<bool> {
        match self.member(name) {
            Some(Member::Flag(flag)) => Some(*flag),
            Some(Member::Text(_)) => None,
            None => Some(default),
        }
    }

    fn member(&self, name: &str) -> Option<&Member<'_>> {
        self.members.iter().find(|(known, _)| known == name).map(|(_, member)| member)
    }
}

struct BodyVisitor {
    most_values: usize,
}

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = FrameBody<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut given: A) -> Result<Self::Value, A::Error> {
        let mut frame: Option<PlainRows<'de>> = None;
        let mut members: Vec<(Cow<'de, str>, Member<'de>)> = Vec::with_capacity(4);
        while let Some(name) = given.next_key_seed(Text)? {
            if name == "df" && frame.is_none() {
                let seed = ColumnsOfOneKind { most_values: self.most_values, nulls_allowed: true };
                let rows = given.next_value_seed(seed)?;
                let twice = |at: usize| rows.0[..at].iter().any(|(known, _)| *known == rows.0[at].0);
                if (0..rows.0.len()).any(twice) {
                    return Err(A::Error::custom("a column is given twice"));
                }
                frame = Some(rows);
            } else if name != "df" && members.iter().all(|(known, _)| *known != name) {
                members.push((name, given.next_value_seed(OneMember)?));
            } else {
                return Err(A::Error::custom("a member is given twice"));
            }
        }
        Ok(FrameBody { frame: frame.ok_or_else(|| A::Error::custom("no frame"))?, members })
    }
}

struct OneMember;

impl<'de> DeserializeSeed<'de> for OneMember {
    type Value = Member<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneMember {
    type Value = Member<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a flag")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Member::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Member::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Member::Flag(flag))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn ordinary_bodies_are_understood() {
        let text = r#"{"push_source_name": "p", "df": {"i": [null, 1, -2], "f": [0.5, null, 1.0], "t": ["a", "\n", null],
                       "b": [true, false, null]}, "transform_on_write": false}"#;
        let body = parse(text, 12).unwrap();
        assert_eq!((body.text("push_source_name"), body.text("to")), (Some("p"), None));
        assert_eq!((body.text_or("to", "online"), body.flag_or("allow", true)), (Some("online"), Some(true)));
        assert_eq!(
            (body.flag_or("transform_on_write", true), body.text_or("transform_on_write", "x")),
            (Some(false), None)
        );
        let arrays = body.frame.0.into_iter().map(|(name, column)| (name, column.into_array()));
        let types = arrays.map(|(name, array)| (name, array.data_type().clone(), array.len(), array.null_count()));
        let expected = [
            ("i", DataType::Int64, 3, 1),
            ("f", DataType::Float64, 3, 1),
            ("t", DataType::Utf8, 3, 1),
            ("b", DataType::Boolean, 3, 1),
        ];
        let expected = expected.map(|(name, data_type, rows, nulls)| (Cow::Borrowed(name), data_type, rows, nulls));
        assert!(types.eq(expected));
        assert!(parse(text, 11).is_none());
    }

    #[test]
    fn the_rest_is_left_to_others() {
        let others = [
            "{}",
            r#"{"df": {"a": []}}"#,
            r#"{"df": {"a": [null]}}"#,
            r#"{"df": {"a": [1, 0.5]}}"#,
            r#"{"df": {"a": [1, "x"]}}"#,
            r#"{"df": {"a": [true, 1]}}"#,
            r#"{"df": {"a": [[1]]}}"#,
            r#"{"df": {"a": [9223372036854775808]}}"#,
            r#"{"df": {"a": [1], "a": [1]}}"#,
            r#"{"df": {"a": [1]}, "df": {"a": [1]}}"#,
            r#"{"df": {"a": [1]}, "to": "online", "to": "online"}"#,
            r#"{"df": {"a": [1]}, "to": null}"#,
            r#"{"df": {"a": [1]}, "transform_on_write": 1}"#,
            r#"{"df": {"a": [NaN]}}"#,
            r#"{"df": {"a": [1]}} {}"#,
        ];
        for text in others {
            assert!(parse(text, 100).is_none(), "{text}");
        }
    }
}
