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
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
    RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::take;
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
    FirstKnown(Vec<Computed>),
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
            Self::FirstKnown(values) => write!(f, "first of {values:?}"),
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
            let elsewhere = [
                ("rows that it brings along", &read.virtual_table),
                ("files", &read.local_files),
                ("a table of an extension", &read.extension_table),
            ];
            if let Some((what, _)) = elsewhere.iter().find(|(_, found)| found.is_some()) {
                return Err(refused(format!("reads {what}, but an on-demand view computes from its sources")));
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
            let roots = [&reference.of_expression, &reference.of_outer, &reference.of_lambda, &reference.masked];
            if roots.iter().any(|root| root.is_some()) {
                return Err(refused("refers to something else than a column of its row"));
            }
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
            let arguments = match call.arguments.is_empty() {
                true => call.args.iter().map(|one| inner(Some(one))).collect::<Result<Vec<_>>>()?,
                false => call.arguments.iter().map(|one| inner(one.value.as_ref())).collect::<Result<Vec<_>>>()?,
            };
            if name == functions::FIRST_KNOWN && !arguments.is_empty() {
                return Ok(Computed::FirstKnown(arguments));
            }
            let (function, least, most) =
                functions::find(name).ok_or_else(|| refused(format!("calls `{full}`, which does not run here")))?;
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
    /// Computes some of the rows: what the others hold may not be fit for it.
    fn run_on(&self, columns: &[ArrayRef], rows: &[u32]) -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
        let n_rows = columns.first().map_or(rows.len(), |column| column.len());
        if rows.len() == n_rows {
            return self.run(columns, n_rows);
        }
        let places = UInt32Array::from(rows.to_vec());
        let some = |(at, column): (usize, &ArrayRef)| match self.uses(at) {
            true => take(column, &places, None),
            false => Ok(new_null_array(&DataType::Null, rows.len())),
        };
        let some = columns.iter().enumerate().map(some).collect::<std::result::Result<Vec<_>, _>>()?;
        self.run(&some, rows.len())
    }

    fn uses(&self, column: usize) -> bool {
        let any = |many: &[Self]| many.iter().any(|one| one.uses(column));
        match self {
            Self::Column(own) => *own == column,
            Self::Literal(_) => false,
            Self::Call { arguments, .. } => any(arguments),
            Self::IfThen { cases, otherwise } => {
                otherwise.uses(column) || cases.iter().any(|(when, then)| when.uses(column) || then.uses(column))
            }
            Self::FirstKnown(values) => any(values),
            Self::OneOf { value, options } => value.uses(column) || any(options),
            Self::Cast { value, .. } => value.uses(column),
        }
    }

    fn run(&self, columns: &[ArrayRef], n_rows: usize) -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
        let all =
            |many: &[Self]| many.iter().map(|one| one.run(columns, n_rows)).collect::<std::result::Result<Vec<_>, _>>();
        match self {
            Self::Column(column) => Ok(Arc::clone(&columns[*column])),
            Self::Literal(literal) => Ok(repeated(literal, n_rows)),
            Self::Call { function, arguments, .. } => function(&all(arguments)?),
            Self::IfThen { cases, otherwise } => {
                let mut chosen = Chosen::among(n_rows);
                for (condition, then) in cases {
                    let holds = condition.run_on(columns, &chosen.open)?;
                    let (these, others) = chosen.split(&functions::holds(&holds)?);
                    chosen.put(then.run_on(columns, &these)?, &these);
                    chosen.open = others;
                }
                let rest = std::mem::take(&mut chosen.open);
                chosen.put(otherwise.run_on(columns, &rest)?, &rest);
                chosen.column()
            }
            Self::FirstKnown(values) => {
                let mut chosen = Chosen::among(n_rows);
                for value in values {
                    // The null of the last one is as good as any.
                    let open = std::mem::take(&mut chosen.open);
                    let found = value.run_on(columns, &open)?;
                    chosen.open =
                        open.iter().zip(0..).filter(|(_, at)| found.is_null(*at)).map(|(row, _)| *row).collect();
                    chosen.put(found, &open);
                }
                chosen.column()
            }
            Self::OneOf { value, options } => functions::is_one_of(&value.run(columns, n_rows)?, &all(options)?),
            Self::Cast { value, to, null_where_unfit } => {
                functions::cast_column(&value.run(columns, n_rows)?, to, *null_where_unfit)
            }
        }
    }
}

/// A column that comes from several: which row from where.
struct Chosen {
    /// Rows that nothing is chosen for yet.
    open: Vec<u32>,
    parts: Vec<ArrayRef>,
    places: Vec<(usize, usize)>,
}

impl Chosen {
    fn among(n_rows: usize) -> Self {
        Self { open: (0..n_rows as u32).collect(), parts: Vec::new(), places: vec![(0, 0); n_rows] }
    }

    /// Of the open rows those that are marked, and the others.
    fn split(&self, marked: &BooleanArray) -> (Vec<u32>, Vec<u32>) {
        let (mut these, mut others) = (Vec::new(), Vec::new());
        for (row, marked) in self.open.iter().zip(marked) {
            if marked == Some(true) { these.push(*row) } else { others.push(*row) }
        }
        (these, others)
    }

    /// These rows have these values, until they are given others.
    fn put(&mut self, values: ArrayRef, rows: &[u32]) {
        for (at, row) in rows.iter().enumerate() {
            self.places[*row as usize] = (self.parts.len(), at);
        }
        self.parts.push(values);
    }

    fn column(self) -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
        functions::pick(&self.parts, &self.places)
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
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
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
    fn only_what_is_chosen_is_computed() {
        let call = |name: &str, arguments: Vec<Computed>| Computed::Call {
            name: name.to_owned(),
            function: functions::find(name).unwrap().0,
            arguments,
        };
        let number = |number| Computed::Literal(LiteralKind::I64(number));
        let ratio = || call("divide", vec![Computed::Column(0), Computed::Column(1)]);
        let zero = || call("equal", vec![Computed::Column(1), number(0)]);
        let columns: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(vec![6, 6, 6, 6])),
            Arc::new(Int64Array::from(vec![Some(2), Some(0), None, Some(3)])),
            Arc::new(Int64Array::from(vec![None, Some(7), Some(8), None])),
        ];
        let computed = |one: &Computed, rows: usize| {
            let columns: Vec<_> = columns.iter().map(|column| column.slice(0, rows)).collect();
            let column = one.run(&columns, rows).unwrap();
            column.as_primitive::<Int64Type>().iter().collect::<Vec<_>>()
        };
        assert!(ratio().run(&columns, 4).is_err());
        let guarded = Computed::IfThen { cases: vec![(zero(), number(-1))], otherwise: Box::new(ratio()) };
        assert_eq!(computed(&guarded, 4), [Some(3), Some(-1), None, Some(2)]);
        let known = call("is_not_null", vec![Computed::Column(2)]);
        let cases = vec![(known, Computed::Column(2)), (zero(), number(-1)), (call("not", vec![zero()]), ratio())];
        let nested =
            Computed::IfThen { cases, otherwise: Box::new(Computed::Literal(LiteralKind::Null(Type::default()))) };
        assert_eq!(computed(&nested, 4), [Some(3), Some(7), Some(8), Some(2)]);
        let first = Computed::FirstKnown(vec![Computed::Column(2), ratio()]);
        assert_eq!(computed(&first, 4), [Some(3), Some(7), Some(8), Some(2)]);
        let nothing = Computed::FirstKnown(vec![Computed::Column(1), Computed::Column(1)]);
        assert_eq!(computed(&nothing, 4), [Some(2), Some(0), None, Some(3)]);
        for one in [&guarded, &nested, &first, &nothing] {
            assert!(computed(one, 0).is_empty());
        }
    }

    #[test]
    fn what_is_no_column_of_the_row_is_refused() {
        let steps = include_bytes!("../../../../tests/formats/substrait/steps.plan");
        type Change = fn(&mut messages::ReadRel, &mut messages::ProjectRel);
        let changed = |change: Change| {
            let mut plan = Plan::decode(steps.as_slice()).unwrap();
            let mut rel = plan.relations[0].root.as_mut().unwrap().input.as_mut().unwrap();
            while rel.project.as_ref().unwrap().input.as_ref().unwrap().read.is_none() {
                rel = rel.project.as_mut().unwrap().input.as_mut().unwrap();
            }
            let project = rel.project.as_mut().unwrap();
            let mut read = project.input.as_mut().unwrap().read.take().unwrap();
            change(&mut read, project);
            project.input.as_mut().unwrap().read = Some(read);
            SubstraitPlan::parse(&plan.encode_to_vec()).map(drop).unwrap_err().to_string()
        };
        let from = changed(|read, _| read.virtual_table = Some(messages::Nothing {}));
        assert_eq!(
            from,
            "its substrait plan reads rows that it brings along, but an on-demand view computes from its sources"
        );
        assert!(changed(|read, _| read.local_files = Some(messages::Nothing {})).contains("reads files"));
        fn reference(project: &mut messages::ProjectRel) -> &mut messages::FieldReference {
            project
                .expressions
                .insert(0, Expression { rex: Some(Rex::Selection(messages::FieldReference::default())) });
            let Some(Rex::Selection(reference)) = &mut project.expressions[0].rex else { unreachable!() };
            let field = messages::StructField { field: 0, child: None };
            reference.direct = Some(messages::ReferenceSegment { struct_field: Some(field) });
            reference
        }
        let changes: [Change; 3] = [
            |_, project| reference(project).of_expression = Some(messages::Nothing {}),
            |_, project| reference(project).of_outer = Some(messages::Nothing {}),
            |_, project| reference(project).masked = Some(messages::Nothing {}),
        ];
        for change in changes {
            let told = changed(change);
            assert_eq!(told, "its substrait plan refers to something else than a column of its row");
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
