//! The user's code, as text and as a plan. Nothing here runs it.

use bytes::Bytes;
use serde::{Serialize, Serializer};

/// How a view computes its features.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Transformation {
    UserDefinedFunction(UserDefinedFunction),
    Substrait(Substrait),
}

/// A function of the user.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct UserDefinedFunction {
    /// Name of the function.
    pub name: String,
    /// Pickled function as Feast writes it, kept as it was; behind it, the source text of what the function uses from
    /// its module. Differences are judged by that and by [`body_text`](Self::body_text).
    #[serde(rename = "helpers", skip_serializing_if = "has_no_helpers", serialize_with = "helpers_text")]
    pub body: Bytes,
    /// Source text.
    pub body_text: String,
    /// `pandas`, `python`, `sql`, ...; empty in messages written before the mode was stored here.
    pub mode: String,
}

/// Stands in a body before the source text of helpers.
const HELPERS_MARK: &[u8] = b"\n# feast-rs helpers\n";

impl UserDefinedFunction {
    /// The source text of what the function uses from its module.
    pub fn helpers(&self) -> Option<&str> {
        helpers(&self.body)
    }
}

fn helpers(body: &[u8]) -> Option<&str> {
    let start = body.windows(HELPERS_MARK.len()).position(|window| window == HELPERS_MARK)?;
    std::str::from_utf8(&body[start + HELPERS_MARK.len()..]).ok()
}

fn has_no_helpers(body: &Bytes) -> bool {
    helpers(body).is_none()
}

fn helpers_text<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    helpers(body).serialize(serializer)
}

/// A Substrait plan.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[allow(missing_docs, reason = "the names are those of Feast's messages")]
pub struct Substrait {
    #[serde(serialize_with = "crate::data_source::text_or_length")]
    pub plan: Bytes,
    #[serde(serialize_with = "crate::data_source::text_or_length")]
    pub ibis_function: Bytes,
}
