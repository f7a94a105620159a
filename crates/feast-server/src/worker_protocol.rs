//! What the server and its Python workers say to each other: one request, one answer, in turn.
//!
//! Each message is its length as eight bytes, then the message. Columns travel as Arrow IPC streams, views as the
//! messages in which the registry keeps them.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use feast_core::{Error, ErrorCode, Field, Result, ValueType};
use serde_json::{Value, json};

/// Bytes of the length before a message.
pub(crate) const LENGTH: usize = 8;
/// What the columns of a small request take.
const ABOUT_A_ROW: usize = 4096;

const APPLY: u8 = 0;
const INFER: u8 = 1;

const ROWS: u8 = 0;
const FIELDS: u8 = 1;
const FAILURE: u8 = 2;

/// What a worker is asked to compute.
#[derive(Debug)]
pub struct WorkerRequest<'a> {
    /// Whether only the types of the columns are wanted.
    pub infer: bool,
    /// The view: a serialized `feast.core.OnDemandFeatureView`.
    pub view: &'a [u8],
    /// The input of its function.
    pub input: RecordBatch,
}

impl<'a> WorkerRequest<'a> {
    /// The bytes of the request, behind room for their number.
    ///
    /// # Errors
    /// `Internal` when Arrow cannot write the columns.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(LENGTH + 9 + self.view.len() + ABOUT_A_ROW);
        bytes.extend_from_slice(&[0; LENGTH]);
        bytes.push(if self.infer { INFER } else { APPLY });
        bytes.extend_from_slice(&(self.view.len() as u64).to_le_bytes());
        bytes.extend_from_slice(self.view);
        write_batch(&self.input, &mut bytes)?;
        Ok(bytes)
    }

    /// The request of these bytes.
    ///
    /// # Errors
    /// `Internal` for any others.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let (kind, rest) = bytes.split_first().ok_or_else(garbled)?;
        let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(garbled)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| garbled())?;
        let (view, input) = rest.split_at_checked(length).ok_or_else(garbled)?;
        Ok(Self { infer: *kind == INFER, view, input: read_batch(input)? })
    }
}

/// What a worker answers.
#[derive(Debug)]
pub enum WorkerAnswer {
    /// The computed columns.
    Rows(RecordBatch),
    /// Names and types of the columns.
    Fields(Vec<Field>),
    /// Why there are none.
    Failure {
        /// Its cause.
        code: ErrorCode,
        /// What happened.
        message: String,
        /// What can be done about it.
        hint: Option<String>,
    },
}

impl WorkerAnswer {
    /// An answer that tells an error.
    pub fn failure(error: &Error) -> Self {
        Self::Failure { code: error.code(), message: error.to_string(), hint: error.hint().map(str::to_owned) }
    }

    /// The bytes of the answer.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Rows(rows) => {
                let mut bytes = vec![ROWS];
                match write_batch(rows, &mut bytes) {
                    Ok(()) => bytes,
                    Err(error) => Self::failure(&error).encode(),
                }
            }
            Self::Fields(fields) => {
                let fields = fields.iter().map(|field| json!([field.name, field.value_type as i32]));
                [vec![FIELDS], Value::from_iter(fields).to_string().into_bytes()].concat()
            }
            Self::Failure { code, message, hint } => {
                let code = match code {
                    ErrorCode::TransformationFailed => "failed",
                    ErrorCode::Unsupported => "unsupported",
                    _ => "internal",
                };
                let text = json!({"code": code, "message": message, "hint": hint}).to_string();
                [vec![FAILURE], text.into_bytes()].concat()
            }
        }
    }

    /// The answer of these bytes, its failure as an error.
    ///
    /// # Errors
    /// What the worker tells; `Internal` for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (kind, rest) = bytes.split_first().ok_or_else(garbled)?;
        match *kind {
            ROWS => read_batch(rest).map(Self::Rows),
            FIELDS => {
                let fields: Vec<(String, i32)> = serde_json::from_slice(rest).map_err(|_| garbled())?;
                let field = |(name, number)| Field::new(name, ValueType::from_number(number).unwrap_or_default());
                Ok(Self::Fields(fields.into_iter().map(field).collect()))
            }
            FAILURE => {
                let told: Value = serde_json::from_slice(rest).map_err(|_| garbled())?;
                let code = match told["code"].as_str() {
                    Some("failed") => ErrorCode::TransformationFailed,
                    Some("unsupported") => ErrorCode::Unsupported,
                    _ => ErrorCode::Internal,
                };
                let message = told["message"].as_str().unwrap_or_default().to_owned();
                Err(Error::new(code, message).with_hint_opt(told["hint"].as_str().map(str::to_owned)))
            }
            _ => Err(garbled()),
        }
    }
}

fn garbled() -> Error {
    Error::internal("the server and a Python worker do not understand each other")
        .with_hint("use the same version of feast-rs for both")
}

fn write_batch(batch: &RecordBatch, bytes: &mut Vec<u8>) -> Result<()> {
    let mut writer = StreamWriter::try_new(bytes, batch.schema_ref())?;
    writer.write(batch)?;
    Ok(writer.finish()?)
}

fn read_batch(bytes: &[u8]) -> Result<RecordBatch> {
    let reader = StreamReader::try_new(bytes, None)?;
    let schema = reader.schema();
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
    match <[RecordBatch; 1]>::try_from(batches) {
        Ok([batch]) => Ok(batch),
        Err(batches) => Ok(concat_batches(&schema, &batches)?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef)]).unwrap()
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let bytes = WorkerRequest { infer: true, view: b"view", input: batch() }.encode().unwrap();
        let request = WorkerRequest::decode(&bytes[LENGTH..]).unwrap();
        assert_eq!((request.infer, request.view, request.input), (true, b"view".as_slice(), batch()));

        let WorkerAnswer::Rows(rows) = WorkerAnswer::decode(&WorkerAnswer::Rows(batch()).encode()).unwrap() else {
            panic!("other answer")
        };
        assert_eq!(rows, batch());
        let fields = WorkerAnswer::Fields(vec![Field::new("n", ValueType::Int64)]);
        let WorkerAnswer::Fields(fields) = WorkerAnswer::decode(&fields.encode()).unwrap() else {
            panic!("other answer")
        };
        assert_eq!(fields, [Field::new("n", ValueType::Int64)]);
        let error = Error::new(ErrorCode::TransformationFailed, "it raised").with_hint("do not");
        let error = WorkerAnswer::decode(&WorkerAnswer::failure(&error).encode()).unwrap_err();
        assert_eq!(
            (error.code(), error.message(), error.hint()),
            (ErrorCode::TransformationFailed, "it raised", Some("do not"))
        );
    }

    #[test]
    fn other_bytes_are_an_error() {
        for bytes in [&b""[..], b"\x00", b"\x00\xff\xff\xff\xff\xff\xff\xff\xff", b"\x07abc", b"\x00\x00\x00"] {
            assert!(WorkerRequest::decode(bytes).is_err());
            assert!(WorkerAnswer::decode(bytes).is_err());
        }
    }
}
