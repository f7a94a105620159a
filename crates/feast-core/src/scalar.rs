//! A single value as JSON has it, before anyone said what type it should have.

/// A value that is no list and not null.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// A whole number.
    Integer(i64),
    /// A number with a fraction; never NaN or infinite.
    Float(f64),
    /// A truth value.
    Truth(bool),
    /// A text.
    Text(&'a str),
}
