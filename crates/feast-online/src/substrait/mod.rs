//! Plans of on-demand views in mode `substrait`, run on columns: no Python, no SQL engine.
//!
//! A view is computed row by row, so a plan may read its one table and compute columns, nothing else: what would leave
//! out, join or sort rows is refused with a sentence when the view is applied, and so are functions that are not in
//! [`functions`]. What the plan names as its input is found by name and brought to the type it expects.

mod functions;
mod messages;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch,
    RecordBatchOptions, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Field as ArrowField, Schema, TimeUnit};
use feast_core::{Error, ErrorCode, Result, list_names};
use prost::Message;

use functions::Function;
use messages::{Expression, Kind, Literal, LiteralKind, Plan, Rel, RelCommon, Rex, Type};

/// A plan, ready to run.
#[derive(Debug)]
pub struct SubstraitPlan {
    /// The columns that it reads, and the types in which it expects them.
    inputs: Vec<(String, Option<DataType>)>,
    /// One after the other, each on the columns that the one before gives.
    steps: Vec<Step>,
    names: Vec<String>,
}

/// Computes columns behind those that there are, and says which of them go on.
#[derive(Debug)]
struct Step {
    computed: Vec<Computed>,
    kept: Option<Vec<usize>>,
}

/// How a column is computed.
enum Computed {
    Column(usize),
    Literal(LiteralKind),
    Call { name: String, function: Function, arguments: Vec<Computed> },
    IfThen { cases: Vec<(Computed, Computed)>, otherwise: Box<Computed> },
    OneOf { value: Box<Computed>, options: Vec<Computed> },
    Cast { value: Box<Computed>, to: DataType, null_where_unfit: bool },
}

impl std::fmt::Debug for Computed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Column(column) => write!(f, "#{column}"),
            Self::Literal(literal) => write!(f, "{literal:?}"),
            Self::Call { name, arguments, .. } => write!(f, "{name}{arguments:?}"),
            Self::IfThen { cases, otherwise } => write!(f, "if {cases:?} else {otherwise:?}"),
            Self::OneOf { value, options } => write!(f, "{value:?} in {options:?}"),
            Self::Cast { value, to, .. } => write!(f, "{value:?} as {to}"),
        }
    }
}

/// A plan that cannot run here. Whose it is, the caller says.
fn refused(what: impl std::fmt::Display) -> Error {
    Error::invalid_definition(format!("its substrait plan {what}"))
        .with_hint("write the view in mode `python` or `pandas`, or without that")
}

impl SubstraitPlan {
    /// Reads a serialized `substrait.Plan`.
    ///
    /// # Errors
    /// `InvalidDefinition` for bytes that are none, and for what does not run here.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let plan = Plan::decode(bytes).map_err(|error| refused("cannot be read").with_source(error))?;
        let functions: HashMap<u32, String> = plan
            .extensions
            .into_iter()
            .filter_map(|extension| extension.function)
            .map(|function| (function.anchor, function.name))
            .collect();
        let root = match <[_; 1]>::try_from(plan.relations) {
            Ok([relation]) => relation.root,
            Err(relations) => return Err(refused(format!("has {} relations, expected one", relations.len()))),
        };
        let root = root.ok_or_else(|| refused("has no root"))?;
        let mut parsed = Self { inputs: Vec::new(), steps: Vec::new(), names: root.names };
        let width = parsed.take(&root.input.ok_or_else(|| refused("has no root"))?, &functions)?;
        if width != parsed.names.len() {
            return Err(refused(format!("gives {width} columns and {} names", parsed.names.len())));
        }
        Ok(parsed)
    }

    /// Takes in a step, after those before it; returns how many columns it gives.
    fn take(&mut self, rel: &Rel, functions: &HashMap<u32, String>) -> Result<usize> {
        if let Some(read) = &rel.read {
            if read.filter.is_some() || read.projection.is_some() {
                return Err(refused("leaves out rows or columns while it reads"));
            }
            let schema = read.base_schema.as_ref().ok_or_else(|| refused("reads no columns"))?;
            let types = schema.r#struct.as_ref().map(|fields| fields.types.as_slice()).unwrap_or_default();
            if types.len() != schema.names.len() {
                return Err(refused("reads columns with parts, which have no names of their own"));
            }
            self.inputs = schema.names.iter().cloned().zip(types.iter().map(arrow_type)).collect();
            let kept = kept(read.common.as_ref(), self.inputs.len())?;
            let width = kept.as_ref().map_or(self.inputs.len(), Vec::len);
            self.steps.push(Step { computed: Vec::new(), kept });
            return Ok(width);
        }
        let Some(project) = &rel.project else {
            let known = [
                ("filters", &rel.filter),
                ("cuts off", &rel.fetch),
                ("aggregates", &rel.aggregate),
                ("sorts", &rel.sort),
                ("joins", &rel.join),
                ("combines", &rel.set),
            ];
            let what =
                known.iter().find(|(_, found)| found.is_some()).map_or("does something unknown to", |(what, _)| what);
            return Err(refused(format!("{what} rows, but an on-demand view has one row per row of its input")));
        };
        let width = self.take(project.input.as_ref().ok_or_else(|| refused("computes from nothing"))?, functions)?;
        let computed = project.expressions.iter().map(|one| compile(one, width, functions));
        let computed = computed.collect::<Result<Vec<_>>>()?;
        let all = width + computed.len();
        let kept = kept(project.common.as_ref(), all)?;
        let width = kept.as_ref().map_or(all, Vec::len);
        self.steps.push(Step { computed, kept });
        Ok(width)
    }

    /// The columns that the plan reads.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(|(name, _)| name.as_str())
    }

    /// Computes the columns of the plan: one row per input row, in order.
    ///
    /// # Errors
    /// `MissingColumns`; `TransformationFailed` for values that cannot be computed, such as a division of whole numbers
    /// by zero.
    pub fn run(&self, input: &RecordBatch) -> Result<RecordBatch> {
        let n_rows = input.num_rows();
        let failed = |error: arrow::error::ArrowError| {
            Error::new(ErrorCode::TransformationFailed, "its substrait plan cannot be computed").with_source(error)
        };
        let read = |(name, data_type): &(String, Option<DataType>)| -> Result<ArrayRef> {
            let column = input.column_by_name(name).ok_or_else(|| {
                let given: Vec<&str> = input.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
                Error::new(
                    ErrorCode::MissingColumns,
                    format!("its substrait plan reads `{name}`, which it is not given"),
                )
                .with_hint(format!("its inputs are {}", list_names(given)))
            })?;
            match data_type {
                Some(to) if to != column.data_type() => functions::cast_column(column, to, false).map_err(failed),
                _ => Ok(Arc::clone(column)),
            }
        };
        let mut columns = self.inputs.iter().map(read).collect::<Result<Vec<_>>>()?;
        for step in &self.steps {
            let computed = step.computed.iter().map(|one| one.run(&columns, n_rows));
            let computed = computed.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
            columns.extend(computed);
            if let Some(kept) = &step.kept {
                columns = kept.iter().map(|column| Arc::clone(&columns[*column])).collect();
            }
        }
        let fields: Vec<ArrowField> = self
            .names
            .iter()
            .zip(&columns)
            .map(|(name, column)| ArrowField::new(name, column.data_type().clone(), true))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }
}

/// The columns that go on; `None` for all.
fn kept(common: Option<&RelCommon>, width: usize) -> Result<Option<Vec<usize>>> {
    let Some(emit) = common.and_then(|common| common.emit.as_ref()) else { return Ok(None) };
    let column = |column: &i32| usize::try_from(*column).ok().filter(|column| *column < width);
    let kept: Option<Vec<usize>> = emit.output_mapping.iter().map(column).collect();
    kept.map(Some).ok_or_else(|| refused("gives columns that it does not have"))
}

fn compile(expression: &Expression, width: usize, functions: &HashMap<u32, String>) -> Result<Computed> {
    let inner = |expression: Option<&Expression>| match expression {
        Some(expression) => compile(expression, width, functions),
        None => Err(refused("has an expression without a part")),
    };
    match &expression.rex {
        Some(Rex::Literal(Literal { kind: Some(kind) })) => Ok(Computed::Literal(kind.clone())),
        Some(Rex::Selection(reference)) => {
            let field = reference.direct.as_ref().and_then(|segment| segment.struct_field.as_ref());
            let column =
                field.filter(|field| field.child.is_none()).and_then(|field| usize::try_from(field.field).ok());
            let column = column.filter(|column| *column < width);
            column.map(Computed::Column).ok_or_else(|| refused("refers to a part of a column"))
        }
        Some(Rex::ScalarFunction(call)) => {
            let full =
                functions.get(&call.reference).ok_or_else(|| refused("calls a function that it does not name"))?;
            let name = full.split(':').next().unwrap_or_default();
            let (function, least, most) =
                functions::find(name).ok_or_else(|| refused(format!("calls `{full}`, which does not run here")))?;
            let arguments = match call.arguments.is_empty() {
                true => call.args.iter().map(|one| inner(Some(one))).collect::<Result<Vec<_>>>()?,
                false => call.arguments.iter().map(|one| inner(one.value.as_ref())).collect::<Result<Vec<_>>>()?,
            };
            if arguments.len() < least || arguments.len() > most {
                return Err(refused(format!("calls `{full}` with {} arguments", arguments.len())));
            }
            Ok(Computed::Call { name: name.to_owned(), function, arguments })
        }
        Some(Rex::IfThen(choice)) => {
            let case = |clause: &messages::IfClause| Ok((inner(clause.r#if.as_ref())?, inner(clause.then.as_ref())?));
            let cases = choice.ifs.iter().map(case).collect::<Result<Vec<_>>>()?;
            let otherwise = match &choice.r#else {
                Some(otherwise) => compile(otherwise, width, functions)?,
                None => Computed::Literal(LiteralKind::Null(Type::default())),
            };
            Ok(Computed::IfThen { cases, otherwise: Box::new(otherwise) })
        }
        Some(Rex::SingularOrList(list)) => {
            let options = list.options.iter().map(|one| inner(Some(one))).collect::<Result<Vec<_>>>()?;
            Ok(Computed::OneOf { value: Box::new(inner(list.value.as_deref())?), options })
        }
        Some(Rex::Cast(cast)) => {
            let to = cast.r#type.as_ref().and_then(arrow_type).ok_or_else(|| refused("casts to an unknown type"))?;
            let value = Box::new(inner(cast.input.as_ref())?);
            Ok(Computed::Cast { value, to, null_where_unfit: cast.failure_behavior == 1 })
        }
        Some(Rex::Literal(_)) => Err(refused("has a literal of a type that does not run here")),
        None => Err(refused("has an expression that does not run here")),
    }
}

impl Computed {
    fn run(&self, columns: &[ArrayRef], n_rows: usize) -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
        let all =
            |many: &[Self]| many.iter().map(|one| one.run(columns, n_rows)).collect::<std::result::Result<Vec<_>, _>>();
        match self {
            Self::Column(column) => Ok(Arc::clone(&columns[*column])),
            Self::Literal(literal) => Ok(repeated(literal, n_rows)),
            Self::Call { function, arguments, .. } => function(&all(arguments)?),
            Self::IfThen { cases, otherwise } => {
                cases.iter().rev().try_fold(otherwise.run(columns, n_rows)?, |otherwise, (condition, then)| {
                    functions::choose(&condition.run(columns, n_rows)?, &then.run(columns, n_rows)?, &otherwise)
                })
            }
            Self::OneOf { value, options } => functions::is_one_of(&value.run(columns, n_rows)?, &all(options)?),
            Self::Cast { value, to, null_where_unfit } => {
                functions::cast_column(&value.run(columns, n_rows)?, to, *null_where_unfit)
            }
        }
    }
}

/// A column of one value.
fn repeated(literal: &LiteralKind, n_rows: usize) -> ArrayRef {
    match literal {
        LiteralKind::Boolean(value) => Arc::new(BooleanArray::from(vec![*value; n_rows])),
        LiteralKind::I8(value) => Arc::new(Int8Array::from(vec![*value as i8; n_rows])),
        LiteralKind::I16(value) => Arc::new(Int16Array::from(vec![*value as i16; n_rows])),
        LiteralKind::I32(value) => Arc::new(Int32Array::from(vec![*value; n_rows])),
        LiteralKind::I64(value) => Arc::new(Int64Array::from(vec![*value; n_rows])),
        LiteralKind::Fp32(value) => Arc::new(Float32Array::from(vec![*value; n_rows])),
        LiteralKind::Fp64(value) => Arc::new(Float64Array::from(vec![*value; n_rows])),
        LiteralKind::String(value) => Arc::new(StringArray::from(vec![value.as_str(); n_rows])),
        LiteralKind::Timestamp(value) => Arc::new(TimestampMicrosecondArray::from(vec![*value; n_rows])),
        LiteralKind::TimestampTz(value) => {
            Arc::new(TimestampMicrosecondArray::from(vec![*value; n_rows]).with_timezone("UTC"))
        }
        LiteralKind::Null(of) => new_null_array(&arrow_type(of).unwrap_or(DataType::Null), n_rows),
    }
}

fn arrow_type(of: &Type) -> Option<DataType> {
    Some(match of.kind.as_ref()? {
        Kind::Bool(_) => DataType::Boolean,
        Kind::I8(_) => DataType::Int8,
        Kind::I16(_) => DataType::Int16,
        Kind::I32(_) => DataType::Int32,
        Kind::I64(_) => DataType::Int64,
        Kind::Fp32(_) => DataType::Float32,
        Kind::Fp64(_) => DataType::Float64,
        Kind::String(_) => DataType::Utf8,
        Kind::Binary(_) => DataType::Binary,
        Kind::Timestamp(_) => DataType::Timestamp(TimeUnit::Microsecond, None),
        Kind::Date(_) => DataType::Date32,
        Kind::TimestampTz(_) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::util::display::array_value_to_string;

    use super::*;

    /// Plans that ibis-substrait wrote.
    macro_rules! plan {
        ($name:literal) => {
            SubstraitPlan::parse(include_bytes!(concat!("../../../../tests/formats/substrait/", $name, ".plan")))
        };
    }

    fn input() -> RecordBatch {
        let columns: [(&str, ArrayRef); 5] = [
            // Narrower than the plan expects, as features may be.
            ("rate", Arc::new(Float32Array::from(vec![Some(0.5), None, Some(f32::NAN)]))),
            ("trips", Arc::new(Int64Array::from(vec![Some(10), None, Some(20)]))),
            ("city", Arc::new(StringArray::from(vec![Some("Zürich"), None, Some("")]))),
            ("val", Arc::new(Int32Array::from(vec![1, 2, 3]))),
            ("known", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn lines(rows: &RecordBatch) -> Vec<String> {
        let line = |(field, column): (&Arc<ArrowField>, &ArrayRef)| {
            let values = (0..column.len()).map(|row| match column.is_null(row) {
                true => "null".to_owned(),
                false => array_value_to_string(column, row).unwrap(),
            });
            format!("{} {}", field.name(), values.collect::<Vec<_>>().join(" "))
        };
        rows.schema_ref().fields().iter().zip(rows.columns()).map(line).collect()
    }

    #[test]
    fn columns_are_computed_as_sql_computes_them() {
        let plan = plan!("computed").unwrap();
        assert_eq!(plan.inputs().collect::<Vec<_>>(), ["rate", "trips", "city", "val", "known"]);
        assert_eq!(
            lines(&plan.run(&input().slice(0, 2)).unwrap()),
            [
                "plus 1.5 null",
                "scaled 0.25 null",
                "busy false null",
                "level low low",
                "three 2 3",
                "both true null",
                "either true null",
                "opposite false null",
                "unknown false true",
                "ratio 3.3333333333333335 null",
                "whole 0 null",
                "text 10 null",
                "twice 20 null",
                "less -10 null",
                "listed true null",
                "nulled null null",
                "between true null",
                "lower zürich null",
                "length 6 null",
                "has true null",
            ]
        );
        let nothing = plan.run(&input().slice(0, 0)).unwrap();
        assert_eq!((nothing.num_rows(), nothing.num_columns()), (0, 20));
    }

    #[test]
    fn steps_follow_each_other() {
        assert_eq!(lines(&plan!("steps").unwrap().run(&input()).unwrap()), ["city Zürich null ", "b 22 null 42"]);
    }

    #[test]
    fn numbers_compare_as_everywhere() {
        let floats = |values: [f64; 3]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
        let columns = [floats([f64::NAN, -0.0, 1.0]), floats([f64::NAN, 0.0, f64::INFINITY])];
        for (name, expected) in
            [("equal", [false, true, false]), ("not_equal", [true, false, true]), ("lt", [false, false, true])]
        {
            let (function, ..) = functions::find(name).unwrap();
            let found = function(&columns).unwrap();
            let expected: ArrayRef = Arc::new(BooleanArray::from(expected.to_vec()));
            assert_eq!(found.as_ref(), expected.as_ref(), "{name}");
        }
    }

    #[test]
    fn what_does_not_run_here_is_one_sentence() {
        let told = |plan: Result<SubstraitPlan>| plan.unwrap_err().to_string();
        let rows = "rows, but an on-demand view has one row per row of its input";
        assert_eq!(told(plan!("filter")), format!("its substrait plan filters {rows}"));
        assert_eq!(told(plan!("aggregate")), format!("its substrait plan aggregates {rows}"));
        assert_eq!(told(plan!("unknown")), "its substrait plan calls `like:str_str`, which does not run here");
        let whole = include_bytes!("../../../../tests/formats/substrait/computed.plan");
        for end in 0..whole.len() {
            // Cut anywhere, a plan is refused or another one; it is never a panic.
            if let Ok(plan) = SubstraitPlan::parse(&whole[..end]) {
                drop(plan.run(&input()));
            }
        }
        let error = plan!("steps").unwrap().run(&input().project(&[0]).unwrap()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::MissingColumns);
        let most: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX]));
        let all = input().slice(0, 1);
        let columns = all
            .columns()
            .iter()
            .enumerate()
            .map(|(at, column)| if at == 1 { Arc::clone(&most) } else { Arc::clone(column) });
        let all = RecordBatch::try_new(all.schema(), columns.collect()).unwrap();
        let error = plan!("steps").unwrap().run(&all).unwrap_err();
        assert_eq!(error.code(), ErrorCode::TransformationFailed);
    }
}
