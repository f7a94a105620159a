//! Functions of on-demand views that are plain arithmetic, computed on columns without calling Python.
//!
//! `feast.transformation._expressions` reads the source text of a function and, if it knows the meaning of all of it,
//! writes down one expression. It is computed row by row, as Python would. Where that would not be exactly what Python
//! does, [`Expressions::apply`] gives up, and the caller calls the function.

mod value;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{
    DataType, Field as ArrowField, Float32Type, Float64Type, Int32Type, Int64Type, Schema, SchemaRef,
};
use feast_core::{FeatureView, Field, OnDemandFeatures, UserDefinedFunction, ValueType};
use serde_json::Value as Json;

use crate::{EntityColumn, EntityRows, EntityValue, coerce_column};
use value::{Comparison, Operator, Value};

/// Deeper expressions are left to Python.
const DEEPEST: usize = 100;

/// What a function is given, which decides how its operators compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum FunctionMode {
    Columns,
    Rows,
    Frame,
}

impl FunctionMode {
    /// The mode of the function of an on-demand view.
    ///
    /// # Errors
    /// The name of a mode that calls no Python function.
    pub fn of<'a>(on_demand: &'a OnDemandFeatures, function: &'a UserDefinedFunction) -> Result<Self, &'a str> {
        let mode = [on_demand.mode.as_str(), function.mode.as_str()].into_iter().find(|mode| !mode.is_empty());
        match mode.unwrap_or("pandas") {
            "pandas" => Ok(Self::Frame),
            "python" if on_demand.singleton => Ok(Self::Rows),
            "python" => Ok(Self::Columns),
            other => Err(other),
        }
    }

    /// Its name in `feast.transformation._expressions`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Columns => "columns",
            Self::Rows => "rows",
            Self::Frame => "frame",
        }
    }
}

/// The expressions of one function.
#[derive(Debug)]
pub struct Expressions {
    mode: FunctionMode,
    root: Expression,
    inputs: Vec<String>,
    n_locals: usize,
    features: Vec<Field>,
    schema: SchemaRef,
}

#[derive(Debug)]
enum Expression {
    Input(usize),
    Local(usize),
    Constant(Value<'static>),
    Operate(Operator, Box<[Expression; 2]>),
    Compare(Comparison, Box<[Expression; 2]>),
    And(Box<[Expression; 2]>),
    Or(Box<[Expression; 2]>),
    Smaller(Box<[Expression; 2]>),
    Larger(Box<[Expression; 2]>),
    /// The first, unless it is a float that is none.
    Fill(Box<[Expression; 2]>),
    Negate(Box<Expression>),
    Not(Box<Expression>),
    IsNone(Box<Expression>),
    Absolute(Box<Expression>),
    ToFloat(Box<Expression>),
    ToInt(Box<Expression>),
    ToBool(Box<Expression>),
    If(Box<[Expression; 3]>),
    /// The first is computed for the second, which finds it in its place.
    Let(usize, Box<[Expression; 2]>),
    /// Results, each for a feature, or for nobody.
    Give(Vec<(Option<usize>, Expression)>),
}

impl Expressions {
    /// Reads what `_expressions.expressions_of` wrote for the function of a view; nothing for what is unknown here, or
    /// lacks a feature.
    pub fn parse(text: &str, mode: FunctionMode, view: &FeatureView) -> Option<Self> {
        if !view.features.iter().all(|feature| is_plain(feature.value_type)) {
            return None;
        }
        let json: Json = serde_json::from_str(text).ok()?;
        let mut reader = Reader { view, inputs: Vec::new(), n_locals: 0 };
        let root = reader.expression(&json, 0)?;
        let Reader { inputs, n_locals, .. } = reader;
        let fields: Vec<_> = view.features.iter().map(|field| field.value_type.arrow_field(&field.name)).collect();
        let schema = Arc::new(Schema::new(fields));
        Some(Self { mode, root, inputs, n_locals, features: view.features.clone(), schema })
    }

    /// The features of each row, in the declared types and in the order of the view. Nothing where only the function
    /// itself can tell, be it the result or the error.
    pub fn apply(&self, input: &RecordBatch) -> Option<RecordBatch> {
        let n_rows = input.num_rows();
        if n_rows == 0 {
            return None;
        }
        let columns = self.inputs.iter().map(|name| self.column(input, name)).collect::<Option<Vec<_>>>()?;
        let mut row = Row {
            number: 0,
            columns: &columns,
            locals: vec![Value::None; self.n_locals],
            results: vec![None; self.features.len()],
            in_frame: self.mode == FunctionMode::Frame,
        };
        let mut results: Vec<Vec<Value<'_>>> = vec![Vec::with_capacity(n_rows); self.features.len()];
        for number in 0..n_rows {
            row.number = number;
            row.value(&self.root)?;
            for (result, column) in row.results.iter_mut().zip(&mut results) {
                column.push(result.take()?);
            }
        }
        let columns = results.into_iter().zip(&self.features).map(|(values, feature)| match self.mode {
            FunctionMode::Frame => frame_column(&values, feature),
            _ => list_column(values, feature),
        });
        RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Option<_>>()?).ok()
    }

    fn column<'a>(&self, input: &'a RecordBatch, name: &str) -> Option<Column<'a>> {
        let position = input.schema_ref().index_of(name).ok()?;
        let column = Column::of(input.schema_ref().field(position), input.column(position))?;
        match self.mode {
            FunctionMode::Frame => column.of_frame(),
            _ => Some(column),
        }
    }
}

/// A result in the type of its feature, as that of a function that returns lists.
fn list_column(values: Vec<Value<'_>>, feature: &Field) -> Option<ArrayRef> {
    if feature.value_type == ValueType::Double && values.iter().all(|one| matches!(one, Value::None | Value::Float(_)))
    {
        let float = |value: &Value<'_>| if let Value::Float(value) = value { Some(*value) } else { None };
        return Some(Arc::new(Float64Array::from_iter(values.iter().map(float))));
    }
    let loose = |value| match value {
        Value::None => EntityValue::Null,
        Value::Bool(value) => EntityValue::Bool(value),
        Value::Int(value) => EntityValue::Int(value),
        Value::Float(value) => EntityValue::Float(value),
        Value::Text(value) => EntityValue::String(value.into_owned()),
    };
    let values = EntityColumn::Values(values.into_iter().map(loose).collect());
    let rows = EntityRows::new(vec![(feature.name.clone(), values)]).ok()?;
    rows.column(0, feature.value_type).ok()
}

/// A result in the type of its feature, as that of a function that returns a frame.
fn frame_column(values: &[Value<'_>], feature: &Field) -> Option<ArrayRef> {
    let column: ArrayRef = match values.first()? {
        Value::Float(_) => {
            let float = |value: &Value<'_>| match value {
                Value::Float(value) => Some(Some(*value).filter(|value| !value.is_nan())),
                _ => None,
            };
            Arc::new(Float64Array::from(values.iter().map(float).collect::<Option<Vec<_>>>()?))
        }
        Value::Int(_) => {
            let int = |value: &Value<'_>| if let Value::Int(value) = value { Some(*value) } else { None };
            Arc::new(Int64Array::from(values.iter().map(int).collect::<Option<Vec<_>>>()?))
        }
        Value::Bool(_) => {
            let bool = |value: &Value<'_>| if let Value::Bool(value) = value { Some(*value) } else { None };
            Arc::new(BooleanArray::from(values.iter().map(bool).collect::<Option<Vec<_>>>()?))
        }
        _ => return None,
    };
    coerce_column(&column, feature.value_type, &feature.name).ok()
}

fn is_plain(value_type: ValueType) -> bool {
    use ValueType as T;
    matches!(value_type, T::Int32 | T::Int64 | T::Float | T::Double | T::Bool | T::String)
}

/// A column of the input.
enum Column<'a> {
    Int64(&'a arrow::array::Int64Array),
    Int32(&'a arrow::array::Int32Array),
    Float64(&'a Float64Array),
    Float32(&'a arrow::array::Float32Array),
    Bool(&'a BooleanArray),
    Text(&'a arrow::array::StringArray),
    /// A column of a frame: whole numbers among which one is missing are floats there.
    Floats(Vec<f64>),
}

impl<'a> Column<'a> {
    fn of(field: &ArrowField, column: &'a ArrayRef) -> Option<Self> {
        if !is_plain(ValueType::of_arrow_field(field)?) {
            return None;
        }
        Some(match column.data_type() {
            DataType::Int64 => Self::Int64(column.as_primitive::<Int64Type>()),
            DataType::Int32 => Self::Int32(column.as_primitive::<Int32Type>()),
            DataType::Float64 => Self::Float64(column.as_primitive::<Float64Type>()),
            DataType::Float32 => Self::Float32(column.as_primitive::<Float32Type>()),
            DataType::Boolean => Self::Bool(column.as_boolean()),
            DataType::Utf8 => Self::Text(column.as_string()),
            _ => return None,
        })
    }

    fn of_frame(self) -> Option<Self> {
        let or_none = |value: Option<f64>| value.unwrap_or(f64::NAN);
        Some(match self {
            Self::Int64(column) if column.null_count() > 0 => {
                Self::Floats(column.iter().map(|value| or_none(value.map(|value| value as f64))).collect())
            }
            Self::Int32(column) if column.null_count() > 0 => {
                Self::Floats(column.iter().map(|value| or_none(value.map(f64::from))).collect())
            }
            Self::Float64(column) if column.null_count() > 0 => Self::Floats(column.iter().map(or_none).collect()),
            Self::Float32(column) => Self::Floats(column.iter().map(|value| or_none(value.map(f64::from))).collect()),
            numbers @ (Self::Int64(_) | Self::Int32(_) | Self::Float64(_)) => numbers,
            _ => return None,
        })
    }

    fn value(&self, row: usize) -> Value<'a> {
        let is_null = match self {
            Self::Int64(column) => column.is_null(row),
            Self::Int32(column) => column.is_null(row),
            Self::Float64(column) => column.is_null(row),
            Self::Float32(column) => column.is_null(row),
            Self::Bool(column) => column.is_null(row),
            Self::Text(column) => column.is_null(row),
            Self::Floats(_) => false,
        };
        if is_null {
            return Value::None;
        }
        match self {
            Self::Int64(column) => Value::Int(column.value(row)),
            Self::Int32(column) => Value::Int(i64::from(column.value(row))),
            Self::Float64(column) => Value::Float(column.value(row)),
            Self::Float32(column) => Value::Float(f64::from(column.value(row))),
            Self::Bool(column) => Value::Bool(column.value(row)),
            Self::Text(column) => Value::Text(Cow::Borrowed(column.value(row))),
            Self::Floats(column) => Value::Float(column[row]),
        }
    }
}

/// One row while it is computed.
struct Row<'a> {
    number: usize,
    columns: &'a [Column<'a>],
    locals: Vec<Value<'a>>,
    results: Vec<Option<Value<'a>>>,
    in_frame: bool,
}

impl<'a> Row<'a> {
    fn value(&mut self, expression: &'a Expression) -> Option<Value<'a>> {
        Some(match expression {
            Expression::Input(column) => self.columns[*column].value(self.number),
            Expression::Local(local) => self.locals[*local].clone(),
            Expression::Constant(value) => value.clone(),
            Expression::Operate(operator, both) => {
                let [left, right] = [self.value(&both[0])?, self.value(&both[1])?];
                match self.in_frame {
                    true => left.operated_in_frame(*operator, right)?,
                    false => left.operated(*operator, right)?,
                }
            }
            Expression::Compare(comparison, both) => {
                let [left, right] = [self.value(&both[0])?, self.value(&both[1])?];
                left.compared(*comparison, &right)?
            }
            Expression::And(both) => match self.value(&both[0])? {
                left if left.is_true() => self.value(&both[1])?,
                left => left,
            },
            Expression::Or(both) => match self.value(&both[0])? {
                left if left.is_true() => left,
                _ => self.value(&both[1])?,
            },
            Expression::Smaller(both) => self.chosen(both, Comparison::Less)?,
            Expression::Larger(both) => self.chosen(both, Comparison::Greater)?,
            Expression::Fill(both) => match (self.value(&both[0])?, self.value(&both[1])?) {
                (Value::Float(value), filling) if value.is_nan() => filling.float()?,
                (value @ (Value::Float(_) | Value::Int(_)), _) => value,
                _ => return None,
            },
            Expression::Negate(inner) => match self.value(inner)? {
                // pandas has no negative truth.
                Value::Bool(_) if self.in_frame => return None,
                value => value.negated()?,
            },
            Expression::Not(inner) => Value::Bool(!self.value(inner)?.is_true()),
            Expression::IsNone(inner) => Value::Bool(self.value(inner)? == Value::None),
            Expression::Absolute(inner) => match self.value(inner)? {
                Value::Bool(_) if self.in_frame => return None,
                value => value.absolute()?,
            },
            Expression::ToFloat(inner) => self.value(inner)?.float()?,
            Expression::ToInt(inner) => self.value(inner)?.int()?,
            Expression::ToBool(inner) => Value::Bool(self.value(inner)?.is_true()),
            Expression::If(parts) => match self.value(&parts[0])?.is_true() {
                true => self.value(&parts[1])?,
                false => self.value(&parts[2])?,
            },
            Expression::Let(local, both) => {
                self.locals[*local] = self.value(&both[0])?;
                self.value(&both[1])?
            }
            Expression::Give(results) => {
                for (feature, result) in results {
                    let value = self.value(result)?;
                    if let Some(feature) = feature {
                        self.results[*feature] = Some(value);
                    }
                }
                Value::None
            }
        })
    }

    /// The second, if it is so compared to the first; else the first.
    fn chosen(&mut self, both: &'a [Expression; 2], comparison: Comparison) -> Option<Value<'a>> {
        let [first, second] = [self.value(&both[0])?, self.value(&both[1])?];
        Some(if second.compared(comparison, &first)?.is_true() { second } else { first })
    }
}

/// From JSON to an expression.
struct Reader<'a> {
    view: &'a FeatureView,
    inputs: Vec<String>,
    n_locals: usize,
}

impl Reader<'_> {
    fn expression(&mut self, json: &Json, depth: usize) -> Option<Expression> {
        let [kind, arguments @ ..] = json.as_array()?.as_slice() else { return None };
        if depth > DEEPEST {
            return None;
        }
        let constant = |value| Some(Expression::Constant(value));
        match (kind.as_str()?, arguments) {
            ("none", []) => return constant(Value::None),
            ("truth", [value]) => return constant(Value::Bool(value.as_bool()?)),
            ("whole", [value]) => return constant(Value::Int(value.as_i64()?)),
            ("number", [bits]) => return constant(Value::Float(f64::from_bits(bits.as_u64()?))),
            ("text", [text]) => return constant(Value::Text(Cow::Owned(text.as_str()?.to_owned()))),
            ("input", [name]) => {
                let name = name.as_str()?;
                let known = self.inputs.iter().position(|known| known == name);
                return Some(Expression::Input(known.unwrap_or_else(|| {
                    self.inputs.push(name.to_owned());
                    self.inputs.len() - 1
                })));
            }
            ("local", [number]) => {
                // Only what was given a value before has a place.
                let number = usize::try_from(number.as_u64()?).ok()?;
                return (number < self.n_locals).then_some(Expression::Local(number));
            }
            ("let", [number, value, inner]) => {
                let number = usize::try_from(number.as_u64()?).ok().filter(|number| *number < 1024)?;
                let value = self.expression(value, depth + 1)?;
                self.n_locals = self.n_locals.max(number + 1);
                return Some(Expression::Let(number, Box::new([value, self.expression(inner, depth + 1)?])));
            }
            ("give", [results]) => {
                let mut read = Vec::new();
                for result in results.as_array()? {
                    let [name, value] = result.as_array()?.as_slice() else { return None };
                    read.push((name.as_str()?, self.expression(value, depth + 1)?));
                }
                return self.give(read);
            }
            _ => {}
        }
        let arguments = arguments.iter().map(|one| self.expression(one, depth + 1)).collect::<Option<Vec<_>>>()?;
        operation(kind.as_str()?, arguments)
    }

    /// A feature is found by its own name first, then by its full one.
    fn give(&self, results: Vec<(&str, Expression)>) -> Option<Expression> {
        let features: Vec<Option<&str>> = self
            .view
            .features
            .iter()
            .map(|feature| {
                let full = format!("{}__{}", self.view.name, feature.name);
                let find = |name: &str| results.iter().map(|(given, _)| *given).find(|given| *given == name);
                find(&feature.name).or_else(|| find(&full))
            })
            .collect();
        let place = |name: &str| features.iter().position(|feature| *feature == Some(name));
        if features.contains(&None) {
            return None;
        }
        Some(Expression::Give(results.into_iter().map(|(name, result)| (place(name), result)).collect()))
    }
}

fn operation(kind: &str, arguments: Vec<Expression>) -> Option<Expression> {
    use Expression as E;
    let operator = match kind {
        "add" => Some(Operator::Add),
        "sub" => Some(Operator::Subtract),
        "mul" => Some(Operator::Multiply),
        "div" => Some(Operator::Divide),
        "floordiv" => Some(Operator::FloorDivide),
        "mod" => Some(Operator::Modulo),
        _ => None,
    };
    let comparison = match kind {
        "eq" => Some(Comparison::Equal),
        "ne" => Some(Comparison::NotEqual),
        "lt" => Some(Comparison::Less),
        "le" => Some(Comparison::LessOrEqual),
        "gt" => Some(Comparison::Greater),
        "ge" => Some(Comparison::GreaterOrEqual),
        _ => None,
    };
    match arguments.len() {
        1 => {
            let [inner] = <[_; 1]>::try_from(arguments).ok()?;
            let inner = Box::new(inner);
            Some(match kind {
                "neg" => E::Negate(inner),
                "not" => E::Not(inner),
                "is_none" => E::IsNone(inner),
                "abs" => E::Absolute(inner),
                "float" => E::ToFloat(inner),
                "int" => E::ToInt(inner),
                "bool" => E::ToBool(inner),
                _ => return None,
            })
        }
        2 => {
            let both = Box::new(<[_; 2]>::try_from(arguments).ok()?);
            Some(match (kind, operator, comparison) {
                (_, Some(operator), _) => E::Operate(operator, both),
                (_, _, Some(comparison)) => E::Compare(comparison, both),
                ("and", ..) => E::And(both),
                ("or", ..) => E::Or(both),
                ("min", ..) => E::Smaller(both),
                ("max", ..) => E::Larger(both),
                ("fill", ..) => E::Fill(both),
                _ => return None,
            })
        }
        3 if kind == "if" => Some(E::If(Box::new(<[_; 3]>::try_from(arguments).ok()?))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::StringArray;
    use feast_core::FeatureViewKind;

    use super::*;

    fn view(value_type: ValueType) -> FeatureView {
        let mut view = FeatureView::new("view", FeatureViewKind::OnDemand(OnDemandFeatures::default()));
        view.features = vec![Field::new("out", value_type)];
        view
    }

    fn input() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![Some(7), None, Some(i64::MAX)])) as ArrayRef),
            ("b", Arc::new(Int64Array::from(vec![-2, 3, 0]))),
            ("text", Arc::new(StringArray::from(vec!["x", "", "z"]))),
        ])
        .unwrap()
    }

    fn computed(expression: &str, mode: FunctionMode, value_type: ValueType) -> Option<ArrayRef> {
        let text = format!(r#"["give", [["out", {expression}]]]"#);
        let computed = Expressions::parse(&text, mode, &view(value_type)).unwrap().apply(&input())?;
        Some(Arc::clone(computed.column(0)))
    }

    #[test]
    fn rows_are_computed_as_python_would() {
        let or_zero = r#"["if", ["is_none", ["input", "a"]], ["whole", 0], ["input", "a"]]"#;
        let minimum = format!(r#"["min", {or_zero}, ["whole", 10]]"#);
        let found = computed(&minimum, FunctionMode::Columns, ValueType::Int64).unwrap();
        assert_eq!(found.as_primitive::<Int64Type>().values(), &[7, 0, 10]);
        let texts = r#"["add", ["input", "text"], ["text", "!"]]"#;
        let found = computed(texts, FunctionMode::Rows, ValueType::String).unwrap();
        assert_eq!(found.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["x!", "!", "z!"]);
        let kept = r#"["let", 0, ["mul", ["input", "b"], ["input", "b"]], ["sub", ["local", 0], ["whole", 1]]]"#;
        let found = computed(kept, FunctionMode::Columns, ValueType::Int32).unwrap();
        assert_eq!(found.as_primitive::<Int32Type>().values(), &[3, 8, -1]);
    }

    #[test]
    fn columns_of_frames_have_floats_where_numbers_are_missing() {
        let found = computed(r#"["div", ["whole", 1], ["input", "b"]]"#, FunctionMode::Frame, ValueType::Double);
        assert_eq!(found.unwrap().as_primitive::<Float64Type>().values(), &[-0.5, 1.0 / 3.0, f64::INFINITY]);
        let found = computed(r#"["add", ["input", "a"], ["whole", 1]]"#, FunctionMode::Frame, ValueType::Double);
        let found = found.unwrap();
        assert_eq!((found.null_count(), found.as_primitive::<Float64Type>().value(0)), (1, 8.0));
    }

    #[test]
    fn what_python_does_otherwise_is_left_to_it() {
        for expression in [
            // Raises for `None`, grows beyond 64 bits, raises for zero, is another type, is not there, gives no value.
            r#"["add", ["input", "a"], ["whole", 1]]"#,
            r#"["mul", ["if", ["input", "a"], ["input", "a"], ["whole", 0]], ["whole", 2]]"#,
            r#"["floordiv", ["whole", 1], ["input", "b"]]"#,
            r#"["mul", ["input", "text"], ["whole", 2]]"#,
            r#"["input", "absent"]"#,
            r#"["add", ["text", "a"], ["whole", 2]]"#,
        ] {
            assert!(computed(expression, FunctionMode::Columns, ValueType::Int64).is_none(), "{expression}");
        }
        assert!(computed(r#"["input", "text"]"#, FunctionMode::Columns, ValueType::Int64).is_none());
    }

    #[test]
    fn what_is_unknown_is_not_read() {
        for text in [
            "",
            "[]",
            "{}",
            r#"["give", []]"#,
            r#"["give", [["other", ["none"]]]]"#,
            r#"["give", [["out", ["pow", ["whole", 1], ["whole", 2]]]]]"#,
            r#"["give", [["out", ["local", 0]]]]"#,
            r#"["give", [["out", ["let", 100000, ["none"], ["none"]]]]]"#,
            r#"["give", [["out", ["whole", 1.5]]]]"#,
            r#"["give", [["out", ["add", ["whole", 1]]]]]"#,
        ] {
            assert!(Expressions::parse(text, FunctionMode::Columns, &view(ValueType::Int64)).is_none(), "{text}");
        }
        let deep = format!("{}{}{}", r#"["neg", "#.repeat(200), r#"["whole", 1]"#, "]".repeat(200));
        let deep = format!(r#"["give", [["out", {deep}]]]"#);
        assert!(Expressions::parse(&deep, FunctionMode::Columns, &view(ValueType::Int64)).is_none());
        let deep = "[".repeat(1 << 20);
        assert!(Expressions::parse(&deep, FunctionMode::Columns, &view(ValueType::Int64)).is_none());
    }
}
