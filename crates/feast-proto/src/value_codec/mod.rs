//! Columns as serialized `feast.types.Value` messages and back: the bytes that online stores keep per cell.
//!
//! The wire format is written and read by hand, because this is the hot path of every online read and write: a message
//! struct per cell would allocate for each text and list. A null is the message without a member, zero bytes.
//! Timestamps are whole seconds, rounded towards the past. Sets are lists. Types without an Arrow type of their own
//! ([`ValueType::is_opaque`]) stay serialized messages and are validated when they come in.

mod columns;
mod decode;
mod encode;
mod nested;
mod one;
mod scalar;
mod wire;

pub use decode::ColumnDecoder;
pub use encode::{encode_column, json_to_value};
pub use nested::{float_to_json, value_to_json};
pub use one::{bool_of, double_of, float_of, int32_of, int64_of, text_of};
pub use scalar::put_scalar;

/// What Feast writes for a missing timestamp inside a value.
const MISSING_TIMESTAMP: i64 = i64::MIN;

/// How many messages may be nested in each other, as in the protobuf libraries.
const MOST_NESTED: u32 = 100;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use arrow::array::{Array, ArrayRef, BinaryArray};
    use std::sync::Arc;

    use arrow::array::{
        AsArray, Float32Array, Int32Array, Int64Array, Int64Builder, ListArray, ListBuilder, MapBuilder, StringArray,
        StringBuilder, StructArray, TimestampMicrosecondArray,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{DataType, Field as ArrowField, Float64Type, Int64Type};
    use feast_core::{Result, ValueType};
    use proptest::prelude::*;
    use serde_json::json;

    use super::wire::{LENGTH, Tag, tag_of};
    use super::*;

    /// The column of a `Value` per row.
    fn decode_column(cells: &BinaryArray, value_type: ValueType) -> Result<ArrayRef> {
        let mut decoder = ColumnDecoder::new(value_type, cells.len());
        for row in 0..cells.len() {
            if cells.is_null(row) {
                decoder.push_null();
            } else {
                decoder.push(cells.value(row)).map_err(|error| error.with_context("row", row))?;
            }
        }
        decoder.finish()
    }

    fn unhex(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn decode(cell: &[u8], value_type: ValueType) -> Result<ArrayRef> {
        decode_column(&BinaryArray::from(vec![cell]), value_type)
    }

    /// Feast's bytes decode to a column that encodes to the same bytes, and their JSON is that of its server.
    #[test]
    fn values_are_feasts_bytes() {
        let mut seen = std::collections::HashSet::new();
        for line in include_str!("../../../../tests/formats/values/values.tsv").lines() {
            let [name, bytes, json] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let value_type: ValueType = name.parse().unwrap();
            let column = decode(&unhex(bytes), value_type).unwrap();
            assert_eq!(column.data_type(), &value_type.arrow_type());
            assert_eq!(hex(encode_column(&column, value_type).unwrap().value(0)), bytes, "{line}");
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(value_to_json(&unhex(bytes)).unwrap(), json, "{line}");
            seen.insert(value_type);
        }
        let without_values = [ValueType::Invalid, ValueType::Null];
        assert_eq!(seen.len() + without_values.len(), ValueType::ALL.len());
    }

    #[test]
    fn nulls_are_zero_bytes() {
        let cells = encode_column(&Int64Array::from(vec![Some(7), None]), ValueType::Int64).unwrap();
        assert_eq!((cells.value(0), cells.value(1), cells.null_count()), (&[0x20, 7][..], &[][..], 0));
        assert_eq!(decode_column(&cells, ValueType::Int64).unwrap().null_count(), 1);
        assert!(decode(&unhex("980100"), ValueType::Int64).unwrap().is_null(0), "the explicit null");
    }

    #[test]
    fn arrow_maps_and_structs_become_maps() {
        let structs = StructArray::from(vec![(
            Arc::new(ArrowField::new("a", DataType::Int64, true)),
            Arc::new(Int64Array::from(vec![1])) as ArrayRef,
        )]);
        let as_type = |value_type| hex(encode_column(&structs, value_type).unwrap().value(0));
        assert_eq!(as_type(ValueType::Struct), "9202090a070a016112022001");
        assert_eq!(as_type(ValueType::Map), "a201090a070a016112022001");

        let mut builder = MapBuilder::new(None, StringBuilder::new(), ListBuilder::new(Int64Builder::new()));
        builder.keys().append_value("l");
        builder.values().append_value([Some(1), Some(2)]);
        builder.append(true).unwrap();
        let cells = encode_column(&builder.finish(), ValueType::Map).unwrap();
        assert_eq!(hex(cells.value(0)), "a2010d0a0b0a016c120672040a020102");

        let item = Arc::new(ArrowField::new("item", DataType::Struct(structs.fields().clone()), true));
        let twice = arrow::compute::concat(&[&structs, &structs]).unwrap();
        let list = ListArray::new(item, OffsetBuffer::from_lengths([2]), twice, None);
        let cells = encode_column(&list, ValueType::StructList).unwrap();
        assert_eq!(value_to_json(cells.value(0)).unwrap(), json!([{"a": 1}, {"a": 1}]));
    }

    #[test]
    fn arrow_maps_with_other_keys_and_nested_lists() {
        let mut builder = MapBuilder::new(None, Int64Builder::new(), StringBuilder::new());
        builder.keys().append_value(1);
        builder.values().append_value("a");
        builder.append(true).unwrap();
        let map = builder.finish();
        let cells = encode_column(&map, ValueType::ScalarMap).unwrap();
        assert_eq!(hex(cells.value(0)), "fa020b0a090a0210011203120161");
        assert!(encode_column(&map, ValueType::Map).is_err());

        let mut builder = ListBuilder::new(ListBuilder::new(Int64Builder::new()));
        builder.values().append_value([Some(1), Some(2)]);
        builder.values().append_value([Some(3)]);
        builder.append(true);
        let cells = encode_column(&builder.finish(), ValueType::ValueList).unwrap();
        assert_eq!(hex(cells.value(0)), "d2020f0a0672040a0201020a0572030a0103");
    }

    #[test]
    fn zoned_timestamps_keep_their_zone() {
        let paris = TimestampMicrosecondArray::from(vec![1_795_176_000_000_000]).with_timezone("Europe/Paris");
        let cells = encode_column(&paris, ValueType::ZonedTimestamp).unwrap();
        assert_eq!(hex(cells.value(0)), "82031408c0ec80d806120c4575726f70652f5061726973");
    }

    #[test]
    fn json_becomes_the_value_feast_makes_of_it() {
        let cases = [
            (ValueType::Map, json!({"a": 1}), "a201090a070a016112022001"),
            (ValueType::Map, json!({"n": {"x": "y"}}), "a201140a120a016e120da2010a0a080a01781203120179"),
            (
                ValueType::Map,
                json!({"d": [{"k": 0.5}]}),
                "a2011c0a1a0a01641215aa01120a100a0e0a016b120929000000000000e03f",
            ),
            (ValueType::Map, json!({"z": null}), "a201070a050a017a1200"),
            (ValueType::StructList, json!([{"a": 1}, {"a": 2}]), "9a02160a090a070a0161120220010a090a070a016112022002"),
            (ValueType::ValueList, json!([[1, 2], [3]]), "d2020f0a0672040a0201020a0572030a0103"),
            (ValueType::ZonedTimestamp, json!("2026-11-20T17:30:00+05:30"), "82031108c0ec80d80612095554432b30353a3330"),
        ];
        for (value_type, json, bytes) in cases {
            assert_eq!(hex(&json_to_value(&json, value_type).unwrap()), bytes, "{json}");
        }
        let error = json_to_value(&json!([1]), ValueType::Map).unwrap_err();
        assert_eq!(error.to_string(), "[1] is not a value of type MAP");
    }

    #[test]
    fn related_types_convert_and_others_do_not() {
        let int32 = encode_column(&Int32Array::from(vec![-5]), ValueType::Int32).unwrap();
        let as_int64 = decode(int32.value(0), ValueType::Int64).unwrap();
        assert_eq!(as_int64.as_primitive::<Int64Type>().value(0), -5);
        let as_double = decode(int32.value(0), ValueType::Double).unwrap();
        assert_eq!(as_double.as_primitive::<Float64Type>().value(0), -5.0);
        let float = encode_column(&Float32Array::from(vec![0.5]), ValueType::Float).unwrap();
        let as_double = decode(float.value(0), ValueType::Double).unwrap();
        assert_eq!(as_double.as_primitive::<Float64Type>().value(0), 0.5);
        let error = decode(float.value(0), ValueType::String).unwrap_err();
        assert_eq!(error.message(), "a value of type FLOAT was found where STRING is declared");
        assert!(decode(&unhex("20ffffffffffffffff7f"), ValueType::Int32).is_err(), "does not fit");
        let set = decode(&unhex("ca01040a02ac02"), ValueType::Int64List).unwrap();
        assert_eq!(set.as_list::<i32>().value(0).as_primitive::<Int64Type>().value(0), 300);
        assert!(decode(&unhex("72050a0301ac02"), ValueType::Int32List).is_ok());
    }

    #[test]
    fn hostile_bytes_are_errors() {
        // A text that is not UTF-8, a length beyond the end, an unfinished number, a wire type of another member.
        for bytes in ["1201ff", "12ffffffff0f61", "20ff", "2101", "6205", "620301ff", "00"] {
            assert!(decode(&unhex(bytes), ValueType::String).is_err(), "{bytes}");
            assert!(value_to_json(&unhex(bytes)).is_err(), "{bytes}");
        }
        let mut deep = Vec::new();
        for _ in 0..200 {
            let inner = deep;
            deep = Vec::new();
            let list = |out: &mut Vec<u8>| {
                Tag::new(1, LENGTH).put_bytes(out, &inner);
                Ok(())
            };
            tag_of(ValueType::ValueList).put_message(&mut deep, list).unwrap();
        }
        assert!(decode(&deep, ValueType::ValueList).is_err());
    }

    #[test]
    fn nulls_in_lists() {
        let list = |items: ArrayRef| {
            let field = Arc::new(ArrowField::new("item", items.data_type().clone(), true));
            ListArray::new(field, OffsetBuffer::from_lengths([items.len()]), items, None)
        };
        let floats = list(Arc::new(Float32Array::from(vec![Some(1.0), None])));
        assert!(encode_column(&floats, ValueType::FloatList).is_ok());
        let ints = list(Arc::new(Int64Array::from(vec![Some(1), None])));
        assert_eq!(encode_column(&ints, ValueType::Int64List).unwrap_err().message(), "the list in row 0 holds a null");
        let times = TimestampMicrosecondArray::from(vec![Some(5_000_000), None]).with_timezone("UTC");
        let cells = encode_column(&list(Arc::new(times)), ValueType::UnixTimestampList).unwrap();
        let back = decode_column(&cells, ValueType::UnixTimestampList).unwrap();
        assert!(back.as_list::<i32>().value(0).is_null(1));
        let empty = ArrowField::new("item", DataType::Null, true);
        let none = arrow::array::new_empty_array(&DataType::Null);
        let empty = ListArray::new(Arc::new(empty), OffsetBuffer::from_lengths([0]), none, None);
        assert_eq!(encode_column(&empty, ValueType::Int64List).unwrap().value(0), [0x72, 0]);
        let wrong = encode_column(&StructArray::new_empty_fields(1, None), ValueType::Int64).unwrap_err();
        assert!(wrong.message().contains("cannot hold values of type INT64"), "{wrong}");
    }

    fn column(value_type: ValueType) -> BoxedStrategy<ArrayRef> {
        use ValueType as T;
        let rows = 0..6usize;
        let seconds = -1_000_000_000i64..1_000_000_000;
        match value_type {
            T::Bytes => prop::collection::vec(any::<Option<Vec<u8>>>(), rows)
                .prop_map(|rows| Arc::new(rows.iter().map(Option::as_deref).collect::<BinaryArray>()) as ArrayRef)
                .boxed(),
            T::String | T::Json | T::Uuid | T::TimeUuid | T::Decimal => {
                prop::collection::vec(any::<Option<String>>(), rows)
                    .prop_map(|rows| Arc::new(StringArray::from(rows)) as ArrayRef)
                    .boxed()
            }
            T::Int32 => prop::collection::vec(any::<Option<i32>>(), rows)
                .prop_map(|rows| Arc::new(Int32Array::from(rows)) as ArrayRef)
                .boxed(),
            T::Int64 => prop::collection::vec(any::<Option<i64>>(), rows)
                .prop_map(|rows| Arc::new(Int64Array::from(rows)) as ArrayRef)
                .boxed(),
            T::Double => prop::collection::vec(any::<Option<f64>>(), rows)
                .prop_map(|rows| Arc::new(arrow::array::Float64Array::from(rows)) as ArrayRef)
                .boxed(),
            T::Float => prop::collection::vec(any::<Option<f32>>(), rows)
                .prop_map(|rows| Arc::new(Float32Array::from(rows)) as ArrayRef)
                .boxed(),
            T::Bool => prop::collection::vec(any::<Option<bool>>(), rows)
                .prop_map(|rows| Arc::new(arrow::array::BooleanArray::from(rows)) as ArrayRef)
                .boxed(),
            T::UnixTimestamp => prop::collection::vec(prop::option::of(seconds), rows)
                .prop_map(|rows| {
                    let micros = rows.into_iter().map(|row| row.map(|seconds| seconds * 1_000_000));
                    let micros: TimestampMicrosecondArray = micros.collect();
                    Arc::new(micros.with_timezone("UTC")) as ArrayRef
                })
                .boxed(),
            _ => match value_type.item() {
                Some(item) => (column(item), prop::collection::vec((0..4usize, any::<bool>()), rows))
                    .prop_map(|(items, rows)| {
                        // Lists hold no nulls: keep the items that are there, then deal them out.
                        let kept: Vec<u32> = (0..items.len() as u32).filter(|i| items.is_valid(*i as usize)).collect();
                        let items = arrow::compute::take(&items, &arrow::array::UInt32Array::from(kept), None).unwrap();
                        let mut left = items.len();
                        let lengths: Vec<usize> = rows
                            .iter()
                            .map(|(length, valid)| {
                                let length = if *valid { (*length).min(left) } else { 0 };
                                left -= length;
                                length
                            })
                            .collect();
                        let items = items.slice(0, items.len() - left);
                        let field = Arc::new(ArrowField::new("item", items.data_type().clone(), true));
                        let valid: Vec<bool> = rows.into_iter().map(|(_, valid)| valid).collect();
                        let nulls = Some(arrow::buffer::NullBuffer::from(valid));
                        Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), items, nulls)) as ArrayRef
                    })
                    .boxed(),
                None => unreachable!("opaque types are in the table of Feast's bytes"),
            },
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn columns_survive(
            (value_type, column) in prop::sample::select(ValueType::ALL)
                .prop_filter("has a column type", |value_type| !value_type.is_opaque())
                .prop_flat_map(|value_type| (Just(value_type), column(value_type)))
        ) {
            let cells = encode_column(&column, value_type).unwrap();
            prop_assert_eq!(&decode_column(&cells, value_type).unwrap(), &column);
            for cell in cells.iter().flatten() {
                value_to_json(cell).unwrap();
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, value_type in prop::sample::select(ValueType::ALL)) {
            let _ = decode(&bytes, value_type);
            let _ = value_to_json(&bytes);
        }

        #[test]
        fn damaged_values_never_panic(
            line in prop::sample::select(include_str!("../../../../tests/formats/values/values.tsv").lines().collect::<Vec<_>>()),
            position: prop::sample::Index,
            byte: u8,
        ) {
            let mut fields = line.split('\t');
            let value_type: ValueType = fields.next().unwrap().parse().unwrap();
            let mut bytes = unhex(fields.next().unwrap());
            if !bytes.is_empty() {
                let position = position.index(bytes.len());
                bytes[position] = byte;
            }
            let _ = decode(&bytes, value_type);
            let _ = value_to_json(&bytes);
        }
    }
}
