//! What the server and its Python workers say to each other: one request, one answer, in turn.
//!
//! Each message is its length as eight bytes, then the message. A request names one view and brings the rows of one or
//! more calls of its function, one after the other; its answer has what became of each call, in order. The function is
//! called once per call, whatever travels together. A worker that has spent its time on the first calls leaves out the
//! others, which then have not begun. Columns travel as messages of Arrow IPC, views as the messages in which the
//! registry keeps them; both sides remember schemas, so that they are taken apart once.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::convert::try_schema_from_flatbuffer_bytes;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use feast_core::{Error, ErrorCode, FeatureView, Field, Result, ValueType};
use serde_json::{Value, json};

/// Bytes of the length before a message.
pub(crate) const LENGTH: usize = 8;
/// What the columns of a small request take.
const ABOUT_A_ROW: usize = 4096;

const APPLY: u8 = 0;
const INFER: u8 = 1;
const EXPLAIN: u8 = 2;

const CALLS: u8 = 0;
const FIELDS: u8 = 1;
const FAILURE: u8 = 2;
const EXPRESSIONS: u8 = 3;

/// What is wanted of a view's function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Wanted {
    Rows,
    /// The types of the columns that it returns for a sample.
    Fields,
    /// What it computes, if that can be told from its source text.
    Expressions,
}

/// What a worker is asked to compute.
#[derive(Debug)]
pub struct WorkerRequest<'a> {
    /// What is wanted.
    pub wanted: Wanted,
    /// The view: a serialized `feast.core.OnDemandFeatureView`.
    pub view: &'a [u8],
    /// The schema of the rows, for [`WorkerRequest::schema_of`].
    pub schema: &'a [u8],
    /// How many rows each call has.
    pub calls: Vec<usize>,
    /// The rows of all calls.
    rows: &'a [u8],
}

impl<'a> WorkerRequest<'a> {
    /// The bytes of a request, behind room for their number. `schema` is that of `input`, as bytes.
    ///
    /// # Errors
    /// `Internal` when Arrow cannot write the columns.
    pub fn encode(wanted: Wanted, view: &[u8], schema: &[u8], calls: &[usize], input: &RecordBatch) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(LENGTH + view.len() + schema.len() + 8 * calls.len() + ABOUT_A_ROW);
        bytes.extend_from_slice(&[0; LENGTH]);
        bytes.push(match wanted {
            Wanted::Rows => APPLY,
            Wanted::Fields => INFER,
            Wanted::Expressions => EXPLAIN,
        });
        for part in [view, schema] {
            write_length(part.len(), &mut bytes);
            bytes.extend_from_slice(part);
        }
        write_length(calls.len(), &mut bytes);
        for rows in calls {
            write_length(*rows, &mut bytes);
        }
        write_batch(input, &mut bytes)?;
        Ok(bytes)
    }

    /// The request of these bytes.
    ///
    /// # Errors
    /// `Internal` for any others.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let (kind, mut rest) = bytes.split_first().ok_or_else(garbled)?;
        let view = read_part(&mut rest)?;
        let schema = read_part(&mut rest)?;
        let n_calls = read_length(&mut rest)?;
        let calls = (0..n_calls).map(|_| read_length(&mut rest)).collect::<Result<_>>()?;
        let wanted = match *kind {
            INFER => Wanted::Fields,
            EXPLAIN => Wanted::Expressions,
            _ => Wanted::Rows,
        };
        Ok(Self { wanted, view, schema, calls, rows: rest })
    }

    /// The rows of all calls, of the schema that [`schema`](Self::schema) describes.
    ///
    /// # Errors
    /// `Internal` when they are not what the request says.
    pub fn input(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let input = read_batch(self.rows, schema)?;
        let expected = self.calls.iter().try_fold(0_usize, |sum, rows| sum.checked_add(*rows));
        if expected == Some(input.num_rows()) { Ok(input) } else { Err(garbled()) }
    }

    /// A schema as bytes.
    pub fn schema_bytes(schema: &Schema) -> Vec<u8> {
        let mut tracker = DictionaryTracker::new(false);
        let options = IpcWriteOptions::default();
        IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, &options).ipc_message
    }

    /// The schema of these bytes.
    ///
    /// # Errors
    /// `Internal` for any others.
    pub fn schema_of(bytes: &[u8]) -> Result<SchemaRef> {
        try_schema_from_flatbuffer_bytes(bytes).map(Arc::new).map_err(|_| garbled())
    }
}

/// What a worker answers.
#[derive(Debug)]
pub enum WorkerAnswer {
    /// The computed columns of each call, or why there are none. Calls at the end that are left out have not begun.
    Calls(Vec<Result<RecordBatch>>),
    /// Names and types of the columns.
    Fields(Vec<Field>),
    /// What the function computes, for `feast_online`; nothing where it has to be called.
    Expressions(Option<String>),
}

impl WorkerAnswer {
    /// The schema of the columns that are computed for a view.
    pub fn schema(view: &FeatureView) -> SchemaRef {
        let fields = view.features.iter().map(|feature| feature.value_type.arrow_field(&feature.name));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The bytes of an answer that tells why nothing was computed at all.
    pub fn failure(error: &Error) -> Vec<u8> {
        [vec![FAILURE], text_of(error).into_bytes()].concat()
    }

    /// The bytes of the answer, whose rows are of this schema.
    pub fn encode(&self, schema: &SchemaRef) -> Vec<u8> {
        match self {
            Self::Calls(calls) => Self::encode_calls(calls, schema).unwrap_or_else(|error| Self::failure(&error)),
            Self::Fields(fields) => {
                let fields = fields.iter().map(|field| json!([field.name, field.value_type as i32]));
                [vec![FIELDS], Value::from_iter(fields).to_string().into_bytes()].concat()
            }
            Self::Expressions(text) => [&[EXPRESSIONS], text.as_deref().unwrap_or_default().as_bytes()].concat(),
        }
    }

    fn encode_calls(calls: &[Result<RecordBatch>], schema: &SchemaRef) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(ABOUT_A_ROW);
        bytes.push(CALLS);
        write_length(calls.len(), &mut bytes);
        for call in calls {
            match call {
                Ok(rows) => {
                    bytes.push(1);
                    write_length(rows.num_rows(), &mut bytes);
                }
                Err(error) => {
                    let text = text_of(error);
                    bytes.push(0);
                    write_length(text.len(), &mut bytes);
                    bytes.extend_from_slice(text.as_bytes());
                }
            }
        }
        let mut computed = calls.iter().filter_map(|call| call.as_ref().ok());
        match (computed.next(), computed.next()) {
            (None, _) => {}
            (Some(only), None) => write_batch(only, &mut bytes)?,
            _ => write_batch(&concat_batches(schema, calls.iter().flatten())?, &mut bytes)?,
        }
        Ok(bytes)
    }

    /// The answer of these bytes, whose rows are of this schema.
    ///
    /// # Errors
    /// Why nothing was computed; `Internal` for any other bytes.
    pub fn decode(bytes: &[u8], schema: &SchemaRef) -> Result<Self> {
        let (kind, mut rest) = bytes.split_first().ok_or_else(garbled)?;
        match *kind {
            CALLS => {
                let n_calls = read_length(&mut rest)?;
                let mut calls: Vec<Result<usize>> = Vec::new();
                for _ in 0..n_calls {
                    let (computed, more) = rest.split_first().ok_or_else(garbled)?;
                    rest = more;
                    calls.push(match computed {
                        1 => Ok(read_length(&mut rest)?),
                        _ => Err(error_of(read_part(&mut rest)?)?),
                    });
                }
                let expected = calls.iter().flatten().try_fold(0_usize, |sum, rows| sum.checked_add(*rows));
                let rows = match calls.iter().any(Result::is_ok) {
                    true => read_batch(rest, schema)?,
                    false => RecordBatch::new_empty(Arc::clone(schema)),
                };
                if expected != Some(rows.num_rows()) {
                    return Err(garbled());
                }
                let mut start = 0;
                let mut part = |n_rows| {
                    start += n_rows;
                    rows.slice(start - n_rows, n_rows)
                };
                Ok(Self::Calls(calls.into_iter().map(|call| call.map(&mut part)).collect()))
            }
            FIELDS => {
                let fields: Vec<(String, i32)> = serde_json::from_slice(rest).map_err(|_| garbled())?;
                let field = |(name, number)| Field::new(name, ValueType::from_number(number).unwrap_or_default());
                Ok(Self::Fields(fields.into_iter().map(field).collect()))
            }
            EXPRESSIONS => {
                let text = std::str::from_utf8(rest).map_err(|_| garbled())?;
                Ok(Self::Expressions(Some(text.to_owned()).filter(|text| !text.is_empty())))
            }
            FAILURE => Err(error_of(rest)?),
            _ => Err(garbled()),
        }
    }
}

/// An error, for the other side.
fn text_of(error: &Error) -> String {
    let code = match error.code() {
        ErrorCode::TransformationFailed => "failed",
        ErrorCode::Unsupported => "unsupported",
        _ => "internal",
    };
    json!({"code": code, "message": error.to_string(), "hint": error.hint()}).to_string()
}

fn error_of(text: &[u8]) -> Result<Error> {
    let told: Value = serde_json::from_slice(text).map_err(|_| garbled())?;
    let code = match told["code"].as_str() {
        Some("failed") => ErrorCode::TransformationFailed,
        Some("unsupported") => ErrorCode::Unsupported,
        _ => ErrorCode::Internal,
    };
    let message = told["message"].as_str().unwrap_or_default().to_owned();
    Ok(Error::new(code, message).with_hint_opt(told["hint"].as_str().map(str::to_owned)))
}

fn garbled() -> Error {
    Error::internal("the server and a Python worker do not understand each other")
        .with_hint("use the same version of feast-rs for both")
}

fn write_length(length: usize, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
}

fn read_length(bytes: &mut &[u8]) -> Result<usize> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(garbled)?;
    *bytes = rest;
    usize::try_from(u64::from_le_bytes(*length)).map_err(|_| garbled())
}

fn read_part<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = read_length(bytes)?;
    let (part, rest) = bytes.split_at_checked(length).ok_or_else(garbled)?;
    *bytes = rest;
    Ok(part)
}

/// Writes the rows without their schema.
fn write_batch(batch: &RecordBatch, bytes: &mut Vec<u8>) -> Result<()> {
    let mut tracker = DictionaryTracker::new(false);
    let options = IpcWriteOptions::default();
    let (_, encoded) = IpcDataGenerator::default().encode(batch, &mut tracker, &options, &mut Default::default())?;
    write_length(encoded.ipc_message.len(), bytes);
    bytes.extend_from_slice(&encoded.ipc_message);
    bytes.extend_from_slice(&encoded.arrow_data);
    Ok(())
}

fn read_batch(mut bytes: &[u8], schema: &SchemaRef) -> Result<RecordBatch> {
    let message = root_as_message(read_part(&mut bytes)?).map_err(|_| garbled())?;
    let rows = message.header_as_record_batch().ok_or_else(garbled)?;
    // Arrow takes it for granted that there are as many bytes as the message says.
    let inside = |buffer: &arrow::ipc::Buffer| {
        let end = buffer.offset().checked_add(buffer.length());
        buffer.offset() >= 0 && buffer.length() >= 0 && end.is_some_and(|end| end as usize <= bytes.len())
    };
    if rows.length() < 0 || !rows.buffers().is_none_or(|buffers| buffers.iter().all(inside)) {
        return Err(garbled());
    }
    Ok(read_record_batch(
        &Buffer::from(bytes),
        rows,
        Arc::clone(schema),
        &Default::default(),
        None,
        &message.version(),
    )?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn batch(values: &[Option<i64>]) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([("n", Arc::new(Int64Array::from(values.to_vec())) as ArrayRef, true)])
            .unwrap()
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let input = batch(&[Some(1), None, Some(3)]);
        let schema = WorkerRequest::schema_bytes(input.schema_ref());
        let bytes = WorkerRequest::encode(Wanted::Fields, b"view", &schema, &[2, 0, 1], &input.slice(0, 3)).unwrap();
        let request = WorkerRequest::decode(&bytes[LENGTH..]).unwrap();
        assert_eq!(
            (request.wanted, request.view, request.schema),
            (Wanted::Fields, b"view".as_slice(), schema.as_slice())
        );
        assert_eq!(request.calls, [2, 0, 1]);
        let known = WorkerRequest::schema_of(request.schema).unwrap();
        assert_eq!(request.input(&known).unwrap(), input);

        let fields = WorkerAnswer::Fields(vec![Field::new("n", ValueType::Int64)]);
        let WorkerAnswer::Fields(fields) = WorkerAnswer::decode(&fields.encode(&known), &known).unwrap() else {
            panic!("other answer")
        };
        assert_eq!(fields, [Field::new("n", ValueType::Int64)]);
        for text in [None, Some("[]".to_owned())] {
            let bytes = WorkerAnswer::Expressions(text.clone()).encode(&known);
            assert!(
                matches!(WorkerAnswer::decode(&bytes, &known), Ok(WorkerAnswer::Expressions(found)) if found == text)
            );
        }
    }

    #[test]
    fn each_call_has_an_answer_of_its_own() {
        let schema = batch(&[]).schema();
        let error = || Error::new(ErrorCode::TransformationFailed, "it raised").with_hint("do not");
        let answers = [
            vec![Ok(batch(&[Some(1), None]))],
            vec![Ok(batch(&[Some(1), None])), Err(error()), Ok(batch(&[])), Ok(batch(&[Some(3)]))],
            vec![Err(error())],
            vec![],
        ];
        for calls in answers {
            let bytes = WorkerAnswer::Calls(calls).encode(&schema);
            let WorkerAnswer::Calls(found) = WorkerAnswer::decode(&bytes, &schema).unwrap() else {
                panic!("other answer")
            };
            let again = WorkerAnswer::Calls(found).encode(&schema);
            assert_eq!(again, bytes);
        }
        let calls = vec![Err(error()), Ok(batch(&[Some(3)]))];
        let bytes = WorkerAnswer::Calls(calls).encode(&schema);
        let WorkerAnswer::Calls(found) = WorkerAnswer::decode(&bytes, &schema).unwrap() else { panic!("other answer") };
        let [Err(failed), Ok(rows)] = found.as_slice() else { panic!("other answer") };
        assert_eq!(rows, &batch(&[Some(3)]));
        for error in [failed, &WorkerAnswer::decode(&WorkerAnswer::failure(&error()), &schema).unwrap_err()] {
            assert_eq!(
                (error.code(), error.message(), error.hint()),
                (ErrorCode::TransformationFailed, "it raised", Some("do not"))
            );
        }
    }

    #[test]
    fn other_bytes_are_an_error() {
        let schema = batch(&[]).schema();
        for bytes in [&b""[..], b"\x00", b"\x00\xff\xff\xff\xff\xff\xff\xff\xff", b"\x07abc", b"\x00\x00\x00"] {
            assert!(WorkerRequest::decode(bytes).is_err());
            assert!(WorkerAnswer::decode(bytes, &schema).is_err());
        }
        // Whatever is cut off is missed.
        let bytes = WorkerAnswer::Calls(vec![Ok(batch(&[Some(1), None]))]).encode(&schema);
        for length in 0..bytes.len() - 64 {
            assert!(WorkerAnswer::decode(&bytes[..length], &schema).is_err(), "{length}");
        }
    }
}
