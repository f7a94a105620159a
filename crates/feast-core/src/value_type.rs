//! The types a feature or a join key can have, and their Arrow types.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField};
use serde::{Serialize, Serializer};

use crate::{Error, ErrorCode, did_you_mean, timestamp_type};

/// Key of the Arrow field metadata that names the [`ValueType`] of a column.
///
/// Needed where the Arrow type alone does not tell, such as `UUID` (stored as `Utf8`) or `MAP` (stored as `Binary`).
pub const OPAQUE_VALUE_KEY: &str = "feast.value_type";

macro_rules! value_types {
    ($($variant:ident = $number:literal, $name:literal;)*) => {
        /// The type of a value. Numbers and names are those of Feast's `ValueType.Enum`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        #[allow(missing_docs, reason = "the names say it")]
        #[repr(i32)]
        pub enum ValueType {
            #[default]
            $($variant = $number,)*
        }

        impl ValueType {
            /// All types, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Feast's name, such as `INT64`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The type with this number, if there is one.
            pub fn from_number(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

// The first variant is the default: an unset type.
value_types! {
    Invalid = 0, "INVALID";
    Bytes = 1, "BYTES";
    String = 2, "STRING";
    Int32 = 3, "INT32";
    Int64 = 4, "INT64";
    Double = 5, "DOUBLE";
    Float = 6, "FLOAT";
    Bool = 7, "BOOL";
    UnixTimestamp = 8, "UNIX_TIMESTAMP";
    BytesList = 11, "BYTES_LIST";
    StringList = 12, "STRING_LIST";
    Int32List = 13, "INT32_LIST";
    Int64List = 14, "INT64_LIST";
    DoubleList = 15, "DOUBLE_LIST";
    FloatList = 16, "FLOAT_LIST";
    BoolList = 17, "BOOL_LIST";
    UnixTimestampList = 18, "UNIX_TIMESTAMP_LIST";
    Null = 19, "NULL";
    Map = 20, "MAP";
    MapList = 21, "MAP_LIST";
    BytesSet = 22, "BYTES_SET";
    StringSet = 23, "STRING_SET";
    Int32Set = 24, "INT32_SET";
    Int64Set = 25, "INT64_SET";
    DoubleSet = 26, "DOUBLE_SET";
    FloatSet = 27, "FLOAT_SET";
    BoolSet = 28, "BOOL_SET";
    UnixTimestampSet = 29, "UNIX_TIMESTAMP_SET";
    Json = 32, "JSON";
    JsonList = 33, "JSON_LIST";
    Struct = 34, "STRUCT";
    StructList = 35, "STRUCT_LIST";
    Uuid = 36, "UUID";
    TimeUuid = 37, "TIME_UUID";
    UuidList = 38, "UUID_LIST";
    TimeUuidList = 39, "TIME_UUID_LIST";
    UuidSet = 40, "UUID_SET";
    TimeUuidSet = 41, "TIME_UUID_SET";
    ValueList = 42, "VALUE_LIST";
    ValueSet = 43, "VALUE_SET";
    Decimal = 44, "DECIMAL";
    DecimalList = 45, "DECIMAL_LIST";
    DecimalSet = 46, "DECIMAL_SET";
    ScalarMap = 47, "SCALAR_MAP";
    ZonedTimestamp = 48, "ZONED_TIMESTAMP";
}

impl ValueType {
    /// The element type of a list or set of scalars.
    pub fn item(self) -> Option<Self> {
        use ValueType as T;
        Some(match self {
            T::BytesList | T::BytesSet => T::Bytes,
            T::StringList | T::StringSet => T::String,
            T::Int32List | T::Int32Set => T::Int32,
            T::Int64List | T::Int64Set => T::Int64,
            T::DoubleList | T::DoubleSet => T::Double,
            T::FloatList | T::FloatSet => T::Float,
            T::BoolList | T::BoolSet => T::Bool,
            T::UnixTimestampList | T::UnixTimestampSet => T::UnixTimestamp,
            T::JsonList => T::Json,
            T::UuidList | T::UuidSet => T::Uuid,
            T::TimeUuidList | T::TimeUuidSet => T::TimeUuid,
            T::DecimalList | T::DecimalSet => T::Decimal,
            _ => return None,
        })
    }

    /// The list type whose elements are of this type.
    pub fn list(self) -> Option<Self> {
        Self::ALL.iter().copied().find(|list| list.item() == Some(self) && !list.is_set())
    }

    /// As definitions in Python write it, such as `Array(Float32)`.
    pub fn declared_name(self) -> String {
        use ValueType as T;
        let scalar = match self {
            T::Invalid => "Invalid",
            T::Bytes => "Bytes",
            T::String => "String",
            T::Int32 => "Int32",
            T::Int64 => "Int64",
            T::Double => "Float64",
            T::Float => "Float32",
            T::Bool => "Bool",
            T::UnixTimestamp => "UnixTimestamp",
            T::Json => "Json",
            T::Map => "Map",
            T::Struct => "Struct",
            T::Uuid => "Uuid",
            T::TimeUuid => "TimeUuid",
            T::Decimal => "Decimal",
            T::ScalarMap => "ScalarMap",
            T::ZonedTimestamp => "ZonedTimestamp",
            T::MapList => "Array(Map)",
            T::StructList => "Array(Struct)",
            T::ValueList => "Array",
            T::ValueSet => "Set",
            other => match other.item() {
                Some(item) if other.is_set() => return format!("Set({})", item.declared_name()),
                Some(item) => return format!("Array({})", item.declared_name()),
                None => other.name(),
            },
        };
        scalar.to_owned()
    }

    /// Whether this is a set of scalars.
    pub fn is_set(self) -> bool {
        self.name().ends_with("_SET")
    }

    /// Whether values of this type have no column type of their own and travel as serialized `Value` messages.
    pub fn is_opaque(self) -> bool {
        use ValueType as T;
        matches!(
            self,
            T::Invalid
                | T::Null
                | T::Map
                | T::MapList
                | T::Struct
                | T::StructList
                | T::ValueList
                | T::ValueSet
                | T::ScalarMap
                | T::ZonedTimestamp
        )
    }

    /// The Arrow type of a column of this type, on every path.
    ///
    /// Timestamps are microseconds in UTC; sets are lists; opaque types are `Binary` with one serialized `Value`
    /// message per row.
    pub fn arrow_type(self) -> DataType {
        use ValueType as T;
        match self {
            T::Bytes => DataType::Binary,
            T::String | T::Json | T::Uuid | T::TimeUuid | T::Decimal => DataType::Utf8,
            T::Int32 => DataType::Int32,
            T::Int64 => DataType::Int64,
            T::Double => DataType::Float64,
            T::Float => DataType::Float32,
            T::Bool => DataType::Boolean,
            T::UnixTimestamp => timestamp_type(),
            other => match other.item() {
                Some(item) => DataType::List(Arc::new(ArrowField::new("item", item.arrow_type(), true))),
                None => DataType::Binary,
            },
        }
    }

    /// A nullable Arrow field of this type, its metadata naming the type.
    pub fn arrow_field(self, name: &str) -> ArrowField {
        ArrowField::new(name, self.arrow_type(), true)
            .with_metadata([(OPAQUE_VALUE_KEY.to_owned(), self.name().to_owned())].into())
    }

    /// The type that an Arrow field names in its metadata, or that its values get when it names none.
    pub fn of_arrow_field(field: &ArrowField) -> Option<Self> {
        let named = field.metadata().get(OPAQUE_VALUE_KEY).and_then(|name| name.parse().ok());
        named.or_else(|| Self::from_arrow(field.data_type()))
    }

    /// The type that values of an Arrow column get when nobody declared one; `None` where there is none.
    pub fn from_arrow(data_type: &DataType) -> Option<Self> {
        use ValueType as T;
        Some(match data_type {
            DataType::Null => T::Null,
            DataType::Boolean => T::Bool,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => T::Int32,
            DataType::Int64 | DataType::UInt32 | DataType::UInt64 => T::Int64,
            DataType::Float16 | DataType::Float32 => T::Float,
            DataType::Float64 => T::Double,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => T::String,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => T::Bytes,
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => T::UnixTimestamp,
            DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
                T::Decimal
            }
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                match item.data_type() {
                    DataType::Struct(_) => T::StructList,
                    DataType::Map(..) => T::MapList,
                    scalar => Self::from_arrow(scalar)?.list().unwrap_or(T::ValueList),
                }
            }
            DataType::Map(..) => T::Map,
            DataType::Struct(_) => T::Struct,
            DataType::Dictionary(_, value) => Self::from_arrow(value)?,
            _ => return None,
        })
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ValueType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|known| known.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            Error::new(ErrorCode::InvalidDefinition, format!("`{text}` is not a value type"))
                .with_hint_opt(did_you_mean(text, Self::ALL.iter().map(|known| known.name())))
        })
    }
}

impl Serialize for ValueType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalar_types_survive_arrow() {
        for value_type in
            [ValueType::Int32, ValueType::Int64, ValueType::Float, ValueType::Double, ValueType::StringList]
        {
            assert_eq!(ValueType::from_arrow(&value_type.arrow_type()), Some(value_type));
        }
    }

    #[test]
    fn numbers_are_feasts() {
        assert_eq!(ValueType::from_number(18), Some(ValueType::UnixTimestampList));
        assert_eq!(ValueType::from_number(9), None);
        assert_eq!(ValueType::Uuid.list(), Some(ValueType::UuidList));
    }
}
