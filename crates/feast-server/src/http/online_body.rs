//! The body of a request for online features in one pass, for the bodies that are as nearly all are.
//!
//! Whatever is out of the ordinary (a value of another kind, a member given twice, a mistake) is left to
//! [`Members`](super::body::Members), which takes several passes and tells what is wrong. Both give the same for what
//! this one understands.

use std::borrow::Cow;
use std::fmt;

use feast_online::EntityRows;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::body::Text;
use super::one_kind::ColumnsOfOneKind;

/// A request for online features; texts borrow from the body.
#[derive(Debug, Default)]
pub(super) struct OnlineBody<'a> {
    pub(super) entity_rows: EntityRows,
    pub(super) features: Vec<Cow<'a, str>>,
    pub(super) feature_service: Option<Cow<'a, str>>,
    pub(super) full_feature_names: bool,
    pub(super) with_versions: bool,
}

/// The request, unless something about the body is out of the ordinary or it has more values than allowed.
pub(super) fn parse(text: &str, most_values: usize) -> Option<OnlineBody<'_>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let body = deserializer.deserialize_map(BodyVisitor { most_values }).ok()?;
    deserializer.end().ok()?;
    Some(body)
}

struct BodyVisitor {
    most_values: usize,
}

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = OnlineBody<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut body = OnlineBody::default();
        let mut given = [false; 5];
        while let Some(name) = members.next_key_seed(Text)? {
            let number = match name.as_ref() {
                "entities" => {
                    let seed = ColumnsOfOneKind { most_values: self.most_values, nulls_allowed: false };
                    let columns = members.next_value_seed(seed)?.into_columns();
                    // An answer for nobody has its own words.
                    if columns.is_empty() {
                        return Err(A::Error::custom("no entities"));
                    }
                    body.entity_rows = EntityRows::from_json(columns).map_err(A::Error::custom)?;
                    0
                }
                "features" => {
                    body.features = members.next_value_seed(Texts)?;
                    1
                }
                "feature_service" => {
                    body.feature_service = members.next_value_seed(OptionalText)?;
                    2
                }
                "full_feature_names" => {
                    body.full_feature_names = members.next_value()?;
                    3
                }
                "include_feature_view_version_metadata" => {
                    body.with_versions = members.next_value()?;
                    4
                }
                _ => return Err(A::Error::custom("a member that nobody asks for")),
            };
            if std::mem::replace(&mut given[number], true) {
                return Err(A::Error::custom("a member is given twice"));
            }
        }
        if given[0] { Ok(body) } else { Err(A::Error::custom("no entities")) }
    }
}

struct Texts;

impl<'de> DeserializeSeed<'de> for Texts {
    type Value = Vec<Cow<'de, str>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = Vec<Cow<'de, str>>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::with_capacity(16);
        while let Some(text) = items.next_element_seed(Text)? {
            texts.push(text);
        }
        Ok(texts)
    }
}

struct OptionalText;

impl<'de> DeserializeSeed<'de> for OptionalText {
    type Value = Option<Cow<'de, str>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for OptionalText {
    type Value = Option<Cow<'de, str>>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or null")
    }
    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        Text.deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ordinary_bodies_are_understood() {
        let text = r#" {"features": ["v:a", "v:\u0062"], "entities": {"id": [1, -2], "name": ["x", "\n"]},
                        "full_feature_names": true, "feature_service": null} "#;
        let body = parse(text, 4).unwrap();
        assert_eq!(body.features, ["v:a", "v:b"]);
        assert_eq!((body.feature_service, body.full_feature_names, body.with_versions), (None, true, false));
        assert_eq!(body.entity_rows.len(), 2);
        assert!(body.entity_rows.names().eq(["id", "name"]));
        assert!(parse(text, 3).is_none());
    }

    #[test]
    fn the_rest_is_left_to_others() {
        let others = [
            "",
            "[]",
            "{}",
            r#"{"entities": {}}"#,
            r#"{"entities": {"id": []}}"#,
            r#"{"entities": {"id": [1, "a"]}}"#,
            r#"{"entities": {"id": ["a", 1]}}"#,
            r#"{"entities": {"id": [null]}}"#,
            r#"{"entities": {"id": [9223372036854775808]}}"#,
            r#"{"entities": {"id": [1], "id": [1]}}"#,
            r#"{"entities": {"id": [1], "name": [1, 2]}}"#,
            r#"{"entities": {"id": [1]}, "entities": {"id": [1]}}"#,
            r#"{"entities": {"id": [1]}, "features": null}"#,
            r#"{"entities": {"id": [1]}, "other": 1}"#,
            r#"{"entities": {"id": [1]}, "full_feature_names": "true"}"#,
            r#"{"entities": {"id": [1]}} {}"#,
        ];
        for text in others {
            assert!(parse(text, 100).is_none(), "{text}");
        }
    }
}
