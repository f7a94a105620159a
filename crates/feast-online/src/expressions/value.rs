//! Values as Python and pandas compute with them, as far as plain arithmetic goes.
//!
//! `None` of a function means that the real thing would raise, or leave what is known exactly here: whole numbers beyond
//! 64 bits, quotients of whole numbers beyond 2^53, remainders of floats.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Whole numbers up to here are floats without loss.
const MOST_EXACT: u64 = 1 << 53;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
}

use Value::{Bool, Float, Int, Text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl<'a> Value<'a> {
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::None => false,
            Bool(value) => *value,
            Int(value) => *value != 0,
            Float(value) => *value != 0.0,
            Text(value) => !value.is_empty(),
        }
    }

    /// A truth value is a number there.
    fn as_number(&self) -> Option<Self> {
        match self {
            Bool(value) => Some(Int(i64::from(*value))),
            Int(value) => Some(Int(*value)),
            Float(value) => Some(Float(*value)),
            Self::None | Text(_) => None,
        }
    }

    pub(super) fn float(&self) -> Option<Self> {
        match self.as_number()? {
            Int(value) => Some(Float(value as f64)),
            other => Some(other),
        }
    }

    pub(super) fn int(&self) -> Option<Self> {
        match self.as_number()? {
            // The whole numbers beside the limits are floats themselves.
            Float(value) if (-9.2e18..9.2e18).contains(&value) => Some(Int(value.trunc() as i64)),
            Float(_) => None,
            other => Some(other),
        }
    }

    pub(super) fn negated(&self) -> Option<Self> {
        match self.as_number()? {
            Int(value) => value.checked_neg().map(Int),
            Float(value) => Some(Float(-value)),
            _ => None,
        }
    }

    pub(super) fn absolute(&self) -> Option<Self> {
        match self.as_number()? {
            Int(value) => value.checked_abs().map(Int),
            Float(value) => Some(Float(value.abs())),
            _ => None,
        }
    }

    /// What Python computes.
    pub(super) fn operated(self, operator: Operator, other: Self) -> Option<Self> {
        if let (Operator::Add, Text(left), Text(right)) = (operator, &self, &other) {
            return Some(Text(Cow::Owned([left.as_ref(), right.as_ref()].concat())));
        }
        match (self.as_number()?, other.as_number()?) {
            (Int(left), Int(right)) => match operator {
                Operator::Add => left.checked_add(right).map(Int),
                Operator::Subtract => left.checked_sub(right).map(Int),
                Operator::Multiply => left.checked_mul(right).map(Int),
                Operator::Divide => {
                    let exact = right != 0 && is_exact(left) && is_exact(right);
                    exact.then(|| Float(left as f64 / right as f64))
                }
                Operator::FloorDivide => {
                    let quotient = left.checked_div(right)?;
                    let is_rounded_up = left % right != 0 && (left < 0) != (right < 0);
                    Some(Int(quotient - i64::from(is_rounded_up)))
                }
                Operator::Modulo => {
                    let rest = left.checked_rem(right)?;
                    let has_other_sign = rest != 0 && (rest < 0) != (right < 0);
                    Some(Int(if has_other_sign { rest + right } else { rest }))
                }
            },
            (left, right) => {
                let (Float(left), Float(right)) = (left.float()?, right.float()?) else { return None };
                match operator {
                    Operator::Divide if right == 0.0 => None,
                    operator => floats(left, operator, right),
                }
            }
        }
    }

    /// What a column of pandas computes: missing values are floats that are none, and dividing by zero is no error.
    pub(super) fn operated_in_frame(self, operator: Operator, other: Self) -> Option<Self> {
        match (self, operator, other) {
            (Int(left), Operator::Divide, Int(right)) => Some(Float(left as f64 / right as f64)),
            (left @ Int(_), _, right @ Int(_)) => left.operated(operator, right),
            (left @ (Int(_) | Float(_)), _, right @ (Int(_) | Float(_))) => {
                let (Float(left), Float(right)) = (left.float()?, right.float()?) else { return None };
                floats(left, operator, right)
            }
            _ => None,
        }
    }

    /// What Python says; of a column of pandas, too.
    pub(super) fn compared(&self, comparison: Comparison, other: &Self) -> Option<Self> {
        let order = match (self, other) {
            (Text(left), Text(right)) => Some(left.cmp(right)),
            (left, right) => match (left.as_number(), right.as_number()) {
                (Some(Int(left)), Some(Int(right))) => Some(left.cmp(&right)),
                (Some(Float(left)), Some(Float(right))) => left.partial_cmp(&right),
                (Some(Int(left)), Some(Float(right))) if is_exact(left) => (left as f64).partial_cmp(&right),
                (Some(Float(left)), Some(Int(right))) if is_exact(right) => left.partial_cmp(&(right as f64)),
                (Some(_), Some(_)) => return None,
                // Values of other kinds are not equal, and have no order.
                _ => {
                    let same = *left == Self::None && *right == Self::None;
                    return match comparison {
                        Comparison::Equal => Some(Bool(same)),
                        Comparison::NotEqual => Some(Bool(!same)),
                        _ => None,
                    };
                }
            },
        };
        Some(Bool(match comparison {
            Comparison::Equal => order == Some(Ordering::Equal),
            Comparison::NotEqual => order != Some(Ordering::Equal),
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Greater => order == Some(Ordering::Greater),
            Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }))
    }
}

fn is_exact(value: i64) -> bool {
    value.unsigned_abs() <= MOST_EXACT
}

fn floats<'a>(left: f64, operator: Operator, right: f64) -> Option<Value<'a>> {
    match operator {
        Operator::Add => Some(Float(left + right)),
        Operator::Subtract => Some(Float(left - right)),
        Operator::Multiply => Some(Float(left * right)),
        Operator::Divide => Some(Float(left / right)),
        Operator::FloorDivide | Operator::Modulo => None,
    }
}
