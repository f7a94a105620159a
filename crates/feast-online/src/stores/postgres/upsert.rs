//! The statement that writes rows unless newer ones are stored.

use std::fmt;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, Float64Type, Int32Type, Int64Type};
use feast_core::ValueType;
use tokio_postgres::types::{ToSql, Type};

use super::super::cells::{WriteColumn, python_float};
use super::tables::{Shape, literal};

/// Writes some features of rows, unless newer ones are stored.
pub(super) struct Upsert {
    pub(super) text: String,
    pub(super) types: Vec<Type>,
    kept: Vec<Kept>,
}

/// What is kept of a feature beside its bytes.
#[derive(Debug, Clone, Copy)]
struct Kept {
    text: bool,
    number: bool,
    vector: bool,
}

impl Kept {
    fn of(value_type: ValueType, shape: &Shape, vector_enabled: bool) -> Self {
        use ValueType as T;
        let number = matches!(value_type, T::Int32 | T::Int64 | T::Float | T::Double | T::Bool);
        let numbers = matches!(value_type, T::Int32List | T::Int64List | T::FloatList | T::DoubleList);
        Self {
            text: shape.value_text && (number || value_type == T::String),
            number: shape.value_num && number,
            vector: vector_enabled && shape.vector_value.is_some() && numbers,
        }
    }
}

impl Upsert {
    pub(super) fn of(table: &str, columns: &[WriteColumn<'_>], shape: &Shape, vector_enabled: bool) -> Self {
        let kept: Vec<Kept> =
            columns.iter().map(|column| Kept::of(column.field.value_type, shape, vector_enabled)).collect();
        let mut types = vec![Type::BYTEA_ARRAY, Type::TIMESTAMPTZ_ARRAY, Type::TIMESTAMPTZ_ARRAY, Type::TEXT_ARRAY];
        let mut parameters = vec!["$1".to_owned(), "$2".to_owned(), "$3".to_owned()];
        let mut names = vec!["key".to_owned(), "event_ts".to_owned(), "created_ts".to_owned()];
        let mut cells = Vec::new();
        for (column, kept) in columns.iter().zip(&kept) {
            // An array of values becomes a column of the rows, which is given here, or null.
            let mut array = |is_kept: bool, sql_type: Type, otherwise: String| {
                if !is_kept {
                    return otherwise;
                }
                types.push(sql_type);
                parameters.push(format!("${}", types.len()));
                names.push(format!("c{}", types.len()));
                format!("i.c{}", types.len())
            };
            let mut row = vec![literal(&column.field.name), array(true, Type::BYTEA_ARRAY, String::new())];
            if shape.value_text {
                row.push(array(kept.text, Type::TEXT_ARRAY, "NULL::text".to_owned()));
            }
            if shape.value_num {
                row.push(array(kept.number, Type::FLOAT8_ARRAY, "NULL::float8".to_owned()));
            }
            if let Some(vector) = &shape.vector_value {
                let text = array(kept.vector, Type::TEXT_ARRAY, "NULL::text".to_owned());
                // A table from before pgvector was switched on keeps the text as it is, like Feast.
                row.push(match vector.as_str() {
                    "bytea" => format!("convert_to({text}, 'UTF8')"),
                    vector => format!("{text}::{vector}"),
                });
            }
            cells.push(format!("({})", row.join(", ")));
        }
        let optional = [
            (shape.value_text, "value_text"),
            (shape.value_num, "value_num"),
            (shape.vector_value.is_some(), "vector_value"),
        ];
        let optional = optional.iter().filter(|(has, _)| *has).map(|(_, name)| *name);
        let kept_columns: Vec<&str> = ["feature_name", "value"].into_iter().chain(optional).collect();
        let kept_columns = kept_columns.join(", ");
        let updates: Vec<String> = kept_columns
            .split(", ")
            .skip(1)
            .chain(["event_ts", "created_ts"])
            .map(|name| format!("{name} = excluded.{name}"))
            .collect();
        let (parameters, names, cells, updates) =
            (parameters.join(", "), names.join(", "), cells.join(", "), updates.join(", "));
        let recency = |alias: &str| {
            format!("(coalesce({alias}.event_ts, '-infinity'), coalesce({alias}.created_ts, '-infinity'))")
        };
        let text = format!(
            "WITH incoming AS (\
             SELECT i.*, s.more FROM unnest({parameters}) AS i({names}) \
             CROSS JOIN LATERAL (\
             SELECT bool_or({stored} > {given}) AS newer, bool_or(s.feature_name <> ALL($4)) AS more \
             FROM {table} s WHERE s.entity_key = i.key) s \
             WHERE s.newer IS NOT TRUE\
             ), removed AS (\
             DELETE FROM {table} s USING incoming i \
             WHERE i.more AND s.entity_key = i.key AND s.feature_name <> ALL($4)\
             ) \
             INSERT INTO {table} AS s (entity_key, {kept_columns}, event_ts, created_ts) \
             SELECT i.key, f.*, i.event_ts, i.created_ts FROM incoming i \
             CROSS JOIN LATERAL (VALUES {cells}) AS f({kept_columns}) \
             ON CONFLICT (entity_key, feature_name) DO UPDATE SET {updates} WHERE {stored} <= {excluded}",
            stored = recency("s"),
            given = recency("i"),
            excluded = recency("excluded"),
        );
        Self { text, types, kept }
    }

    /// The parameters after the first four: the arrays of values, in the order of their columns.
    pub(super) fn arrays<'a>(
        &self,
        columns: &'a [WriteColumn<'a>],
        rows: &'a [usize],
    ) -> Vec<Box<dyn ToSql + Sync + Send + 'a>> {
        let mut arrays: Vec<Box<dyn ToSql + Sync + Send + 'a>> = Vec::with_capacity(self.types.len());
        for (column, kept) in columns.iter().zip(&self.kept) {
            arrays.push(Box::new(rows.iter().map(|row| column.cells.value(*row)).collect::<Vec<&[u8]>>()));
            if kept.text {
                let text = |row: &usize| Some(column.text(*row)?.replace('\0', ""));
                arrays.push(Box::new(rows.iter().map(text).collect::<Vec<Option<String>>>()));
            }
            if kept.number {
                arrays.push(Box::new(rows.iter().map(|row| column.number(*row)).collect::<Vec<Option<f64>>>()));
            }
            if kept.vector {
                arrays.push(Box::new(rows.iter().map(|row| vector(column, *row)).collect::<Vec<Option<String>>>()));
            }
        }
        arrays
    }
}

/// A list of numbers as Python prints it, which is how pgvector reads it. What cannot be a vector is none.
fn vector(column: &WriteColumn<'_>, row: usize) -> Option<String> {
    use fmt::Write;
    if column.array.is_null(row) {
        return None;
    }
    let items = column.array.as_list::<i32>().value(row);
    let mut text = "[".to_owned();
    for item in 0..items.len() {
        if item > 0 {
            text.push_str(", ");
        }
        let float = match column.field.value_type {
            ValueType::Int32List => {
                write!(text, "{}", items.as_primitive::<Int32Type>().value(item)).ok()?;
                continue;
            }
            ValueType::Int64List => {
                write!(text, "{}", items.as_primitive::<Int64Type>().value(item)).ok()?;
                continue;
            }
            ValueType::FloatList => f64::from(items.as_primitive::<Float32Type>().value(item)),
            _ => items.as_primitive::<Float64Type>().value(item),
        };
        python_float(&mut text, Some(float).filter(|float| float.is_finite())?).ok()?;
    }
    text.push(']');
    (!items.is_empty()).then_some(text)
}
