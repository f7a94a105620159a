//! A cell of an online store, as another program may have written it: read as a column of the type that the first byte
//! says, as JSON, and written again.

use feast_core::ValueType;
use feast_proto::value_codec::{ColumnDecoder, encode_column, json_to_value, value_to_json};

/// One input.
pub fn fuzz(bytes: &[u8]) {
    let Some((which, cell)) = bytes.split_first() else { return };
    let value_type = ValueType::ALL[usize::from(*which) % ValueType::ALL.len()];
    let mut column = ColumnDecoder::new(value_type, 1);
    if column.push(cell).is_ok() {
        // Texts are looked at all at once.
        let Ok(column) = column.finish() else { return };
        assert_eq!(column.len(), 1);
        // What was read can be written, and is then read as the same.
        if let Ok(written) = encode_column(&column, value_type) {
            let mut again = ColumnDecoder::new(value_type, 1);
            again.push(written.value(0)).expect("what we write, we read");
            let again = again.finish().expect("one cell makes a column");
            assert_eq!(format!("{again:?}"), format!("{column:?}"));
        }
    }
    if let Ok(json) = value_to_json(cell) {
        let _ = json_to_value(&json, value_type);
    }
}
