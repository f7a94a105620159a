//! The functions that a plan may call, on columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Datum, Float64Array, Int64Array, StringArray};
use arrow::compute::kernels::{cmp, numeric};
use arrow::compute::{CastOptions, kernels::zip::zip};
use arrow::compute::{and_kleene, cast_with_options, interleave, is_not_null, is_null, not, nullif, or_kleene};
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;

type Computed = std::result::Result<ArrayRef, ArrowError>;

/// A function on columns of one length.
pub(super) type Function = fn(&[ArrayRef]) -> Computed;

/// The function that is none on columns: what follows the first value that is there is not computed.
pub(super) const FIRST_KNOWN: &str = "coalesce";

/// The function of a name, and how many arguments it takes: at least and at most.
pub(super) fn find(name: &str) -> Option<(Function, usize, usize)> {
    Some(match name {
        "add" => (|a| arithmetic(a, numeric::add), 2, 2),
        "subtract" => (|a| arithmetic(a, numeric::sub), 2, 2),
        "multiply" => (|a| arithmetic(a, numeric::mul), 2, 2),
        "divide" => (|a| arithmetic(a, numeric::div), 2, 2),
        "modulus" | "modulo" | "mod" => (|a| arithmetic(a, numeric::rem), 2, 2),
        "negate" => (|a| numeric::neg(&a[0]), 1, 1),
        "power" => (|a| floats2(a, f64::powf), 2, 2),
        "abs" => (absolute, 1, 1),
        "sqrt" => (|a| floats(a, f64::sqrt), 1, 1),
        "exp" => (|a| floats(a, f64::exp), 1, 1),
        "ln" => (|a| floats(a, f64::ln), 1, 1),
        "log10" => (|a| floats(a, f64::log10), 1, 1),
        "log2" => (|a| floats(a, f64::log2), 1, 1),
        "ceil" => (|a| floats(a, f64::ceil), 1, 1),
        "floor" => (|a| floats(a, f64::floor), 1, 1),
        "sin" => (|a| floats(a, f64::sin), 1, 1),
        "cos" => (|a| floats(a, f64::cos), 1, 1),
        "tan" => (|a| floats(a, f64::tan), 1, 1),
        "equal" => (|a| compare(a, cmp::eq, |x, y| x == y), 2, 2),
        "not_equal" => (|a| compare(a, cmp::neq, |x, y| x != y), 2, 2),
        "lt" => (|a| compare(a, cmp::lt, |x, y| x < y), 2, 2),
        "lte" => (|a| compare(a, cmp::lt_eq, |x, y| x <= y), 2, 2),
        "gt" => (|a| compare(a, cmp::gt, |x, y| x > y), 2, 2),
        "gte" => (|a| compare(a, cmp::gt_eq, |x, y| x >= y), 2, 2),
        "between" => (between, 3, 3),
        "is_null" => (|a| Ok(Arc::new(is_null(&a[0])?)), 1, 1),
        "is_not_null" => (|a| Ok(Arc::new(is_not_null(&a[0])?)), 1, 1),
        "is_nan" => (is_nan, 1, 1),
        "and" => (|a| fold(a, and_kleene), 1, usize::MAX),
        "or" => (|a| fold(a, or_kleene), 1, usize::MAX),
        "not" => (|a| Ok(Arc::new(not(boolean(&a[0])?)?)), 1, 1),
        "nullif" => (|a| nullif(&a[0], boolean(&compare(a, cmp::eq, |x, y| x == y)?)?), 2, 2),
        "lower" => (|a| texts(a, |text| text.to_lowercase()), 1, 1),
        "upper" => (|a| texts(a, |text| text.to_uppercase()), 1, 1),
        "trim" => (|a| texts(a, |text| text.trim_matches(' ').to_owned()), 1, 1),
        "char_length" => (length, 1, 1),
        "contains" => (|a| search(a, |text, part| text.contains(part)), 2, 2),
        "starts_with" => (|a| search(a, |text, part| text.starts_with(part)), 2, 2),
        "ends_with" => (|a| search(a, |text, part| text.ends_with(part)), 2, 2),
        _ => return None,
    })
}

/// A column as another type. Numbers lose their fraction; what does not fit is an error or null.
pub(super) fn cast_column(array: &ArrayRef, to: &DataType, null_where_unfit: bool) -> Computed {
    cast_with_options(array, to, &CastOptions { safe: null_where_unfit, ..CastOptions::default() })
}

/// A column as truth values.
pub(super) fn holds(condition: &ArrayRef) -> std::result::Result<BooleanArray, ArrowError> {
    boolean(condition).cloned()
}

/// The column whose rows are at these places: which part, and which row of it.
pub(super) fn pick(parts: &[ArrayRef], places: &[(usize, usize)]) -> Computed {
    let parts = common(parts)?;
    interleave(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>(), places)
}

/// Where the condition holds, the one, elsewhere, also where it is null, the other.
fn choose(condition: &ArrayRef, then: &ArrayRef, otherwise: &ArrayRef) -> Computed {
    let both = common(&[Arc::clone(then), Arc::clone(otherwise)])?;
    zip(boolean(condition)?, &both[0], &both[1])
}

/// Whether a value is one of the options.
pub(super) fn is_one_of(value: &ArrayRef, options: &[ArrayRef]) -> Computed {
    let equal = |option: &ArrayRef| compare(&[Arc::clone(value), Arc::clone(option)], cmp::eq, |x, y| x == y);
    fold(&options.iter().map(equal).collect::<std::result::Result<Vec<_>, _>>()?, or_kleene)
}

fn boolean(array: &ArrayRef) -> std::result::Result<&BooleanArray, ArrowError> {
    array
        .as_boolean_opt()
        .ok_or_else(|| ArrowError::InvalidArgumentError(format!("{} is no truth value", array.data_type())))
}

type Logic = fn(&BooleanArray, &BooleanArray) -> std::result::Result<BooleanArray, ArrowError>;

fn fold(arguments: &[ArrayRef], logic: Logic) -> Computed {
    let Some((first, rest)) = arguments.split_first() else {
        return Err(ArrowError::InvalidArgumentError("there is nothing to combine".to_owned()));
    };
    let mut all = boolean(first)?.clone();
    for one in rest {
        all = logic(&all, boolean(one)?)?;
    }
    Ok(Arc::new(all))
}

/// Columns as the least type that holds all of their values.
fn common(arrays: &[ArrayRef]) -> std::result::Result<Vec<ArrayRef>, ArrowError> {
    let mut to = DataType::Null;
    for array in arrays {
        to = wider(&to, array.data_type());
    }
    arrays.iter().map(|array| cast_column(array, &to, false)).collect()
}

fn wider(one: &DataType, other: &DataType) -> DataType {
    use DataType as T;
    match (one, other) {
        (T::Null, other) => other.clone(),
        (one, T::Null) => one.clone(),
        (one, other) if one == other => one.clone(),
        (T::Float32 | T::Float64, other) | (other, T::Float32 | T::Float64) if other.is_numeric() => T::Float64,
        (one, other) if one.is_integer() && other.is_integer() => T::Int64,
        _ => one.clone(),
    }
}

type Numeric = fn(&dyn Datum, &dyn Datum) -> Computed;

fn arithmetic(arguments: &[ArrayRef], compute: Numeric) -> Computed {
    let both = common(arguments)?;
    compute(&both[0], &both[1])
}

fn as_floats(array: &ArrayRef) -> std::result::Result<Float64Array, ArrowError> {
    Ok(cast_column(array, &DataType::Float64, false)?.as_primitive::<Float64Type>().clone())
}

fn floats(arguments: &[ArrayRef], compute: fn(f64) -> f64) -> Computed {
    Ok(Arc::new(as_floats(&arguments[0])?.unary::<_, Float64Type>(compute)))
}

fn floats2(arguments: &[ArrayRef], compute: fn(f64, f64) -> f64) -> Computed {
    let (one, other) = (as_floats(&arguments[0])?, as_floats(&arguments[1])?);
    let pairs = one.iter().zip(&other);
    Ok(Arc::new(pairs.map(|(one, other)| Some(compute(one?, other?))).collect::<Float64Array>()))
}

fn absolute(arguments: &[ArrayRef]) -> Computed {
    let value = &arguments[0];
    match value.data_type() {
        DataType::Float32 | DataType::Float64 => cast_column(&floats(arguments, f64::abs)?, value.data_type(), false),
        _ => {
            let zero: ArrayRef = Arc::new(Int64Array::from(vec![0; value.len()]));
            let negative = compare(&[Arc::clone(value), zero], cmp::lt, |x, y| x < y)?;
            choose(&negative, &numeric::neg(value)?, value)
        }
    }
}

type Comparison = fn(&dyn Datum, &dyn Datum) -> std::result::Result<BooleanArray, ArrowError>;

/// Floating point numbers compare as everywhere: nothing equals NaN, and zero has no sign.
fn compare(arguments: &[ArrayRef], compare: Comparison, floats: fn(f64, f64) -> bool) -> Computed {
    let both = common(arguments)?;
    if both[0].data_type().is_floating() {
        let (one, other) = (as_floats(&both[0])?, as_floats(&both[1])?);
        let pairs = one.iter().zip(&other);
        return Ok(Arc::new(pairs.map(|(one, other)| Some(floats(one?, other?))).collect::<BooleanArray>()));
    }
    Ok(Arc::new(compare(&both[0], &both[1])?))
}

fn between(arguments: &[ArrayRef]) -> Computed {
    let pair = |bound: usize| [Arc::clone(&arguments[0]), Arc::clone(&arguments[bound])];
    let least = compare(&pair(1), cmp::gt_eq, |x, y| x >= y)?;
    let greatest = compare(&pair(2), cmp::lt_eq, |x, y| x <= y)?;
    fold(&[least, greatest], and_kleene)
}

fn is_nan(arguments: &[ArrayRef]) -> Computed {
    let numbers = as_floats(&arguments[0])?;
    Ok(Arc::new(numbers.iter().map(|number| Some(number?.is_nan())).collect::<BooleanArray>()))
}

fn text(array: &ArrayRef) -> std::result::Result<&StringArray, ArrowError> {
    array
        .as_string_opt::<i32>()
        .ok_or_else(|| ArrowError::InvalidArgumentError(format!("{} is no text", array.data_type())))
}

fn texts(arguments: &[ArrayRef], compute: fn(&str) -> String) -> Computed {
    Ok(Arc::new(text(&arguments[0])?.iter().map(|text| text.map(compute)).collect::<StringArray>()))
}

fn length(arguments: &[ArrayRef]) -> Computed {
    let lengths = text(&arguments[0])?.iter().map(|text| text.map(|text| text.chars().count() as i64));
    Ok(Arc::new(lengths.collect::<Int64Array>()))
}

fn search(arguments: &[ArrayRef], found: fn(&str, &str) -> bool) -> Computed {
    let pairs = text(&arguments[0])?.iter().zip(text(&arguments[1])?);
    Ok(Arc::new(pairs.map(|(text, part)| Some(found(text?, part?))).collect::<BooleanArray>()))
}
