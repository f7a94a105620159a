//! One value as JSON has it, serialized as the declared type of its field.

use feast_core::{Scalar, ValueType};

use super::wire::tag_of;

/// Appends the `Value` message of a value. `None` unless the value is one of that type as it is, or a number that becomes
/// one as a cast of its column makes it: then [`encode_column`](super::encode_column) has to look at the column.
pub fn put_scalar(out: &mut Vec<u8>, value_type: ValueType, value: Scalar<'_>) -> Option<()> {
    use ValueType as T;
    let tag = tag_of(value_type);
    match (value_type, value) {
        (T::Int64, Scalar::Integer(number)) => tag.put_varint(out, number as u64),
        (T::Int32, Scalar::Integer(number)) => {
            i32::try_from(number).ok()?;
            tag.put_varint(out, number as u64);
        }
        (T::Double, Scalar::Float(number)) => tag.put_fixed(out, &number.to_le_bytes()),
        (T::Double, Scalar::Integer(number)) => tag.put_fixed(out, &(number as f64).to_le_bytes()),
        (T::Float, Scalar::Float(number)) => {
            let narrow = number as f32;
            narrow.is_finite().then_some(())?;
            tag.put_fixed(out, &narrow.to_le_bytes());
        }
        (T::Float, Scalar::Integer(number)) => tag.put_fixed(out, &(number as f32).to_le_bytes()),
        (T::Bool, Scalar::Truth(truth)) => tag.put_varint(out, u64::from(truth)),
        (T::String, Scalar::Text(text)) => tag.put_bytes(out, text.as_bytes()),
        _ => return None,
    }
    Some(())
}
