//! The answer of an online request as Feast's `GetOnlineFeaturesResponse` message.

use feast_core::{Error, Result};
use feast_online::OnlineFeatures;
use feast_proto::serving::get_online_features_response::FeatureVector;
use feast_proto::serving::{FeatureList, GetOnlineFeaturesResponse, GetOnlineFeaturesResponseMetadata};
use feast_proto::types::Value;
use feast_proto::value_codec::encode_column;
use prost::Message;
use prost_types::Timestamp;

/// The message: names in the metadata, one vector per column, in the same order.
///
/// # Errors
/// `Internal` when a column does not have the type it declares.
pub fn online_response(features: &OnlineFeatures) -> Result<GetOnlineFeaturesResponse> {
    let names = features.columns.iter().map(|column| column.name.to_string()).collect();
    let results: Result<Vec<FeatureVector>> = features
        .columns
        .iter()
        .map(|column| {
            let encoded = encode_column(column.values.as_ref(), column.value_type)?;
            let values: std::result::Result<Vec<Value>, _> =
                encoded.iter().map(|bytes| Value::decode(bytes.unwrap_or_default())).collect();
            Ok(FeatureVector {
                values: values.map_err(|error| Error::internal("a value is no message").with_source(error))?,
                statuses: column.statuses.iter().map(|status| *status as i32).collect(),
                event_timestamps: (0..features.n_rows)
                    .map(|row| timestamp(column.event_timestamp_micros(row)))
                    .collect(),
            })
        })
        .collect();
    Ok(GetOnlineFeaturesResponse {
        metadata: Some(GetOnlineFeaturesResponseMetadata {
            feature_names: Some(FeatureList { val: names }),
            feature_view_metadata: Vec::new(),
        }),
        results: results?,
        status: false,
    })
}

fn timestamp(micros: i64) -> Timestamp {
    let nanos = micros.rem_euclid(1_000_000) * 1000;
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos: i32::try_from(nanos).unwrap_or_default() }
}
