//! The user's code, as text and as a plan. Nothing here runs it.

use bytes::Bytes;
use serde::Serialize;

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
    /// Pickled function as Feast writes it; never loaded by this product, kept as it was. Differences are judged by
    /// [`body_text`](Self::body_text).
    #[serde(skip)]
    pub body: Bytes,
    /// Source text.
    pub body_text: String,
    /// `pandas`, `python`, `sql`, ...; empty in messages written before the mode was stored here.
    pub mode: String,
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
