//! Batch views and data sources in the form in which nearly all are stored, read in one pass over their bytes.
//!
//! A registry has thousands of them, and reading it is reading them: messages as an intermediate step cost several times as
//! much. What is out of the ordinary (a field that is not known here, a nested message that comes twice, anything malformed)
//! is `None`: then the message is read in the general way, which also finds the words for an error.

use chrono::TimeDelta;
use feast_core::{
    BatchFeatures, DataSource, DataSourceOptions, FeatureView, FeatureViewKind, FeatureViewMeta, Field, Interval, Meta,
    ObjectKind, RegistryObject, Tags, Timestamp,
};
use prost::Message;

use crate::core;
use crate::{data_source, feature_view, field, time};

/// The object, if its message has the usual form.
pub(crate) fn read(kind: ObjectKind, bytes: &[u8]) -> Option<RegistryObject> {
    match kind {
        ObjectKind::FeatureView => Some(RegistryObject::FeatureView(batch_view(bytes)?.into())),
        ObjectKind::DataSource => Some(RegistryObject::DataSource(source(bytes)?.into())),
        _ => None,
    }
}

fn batch_view(bytes: &[u8]) -> Option<FeatureView> {
    let (mut spec, mut meta) = (None, None);
    let mut fields = Fields(bytes);
    while let Some((number, part)) = fields.next()? {
        match number {
            1 => once(&mut spec, part.message()?)?,
            2 => once(&mut meta, part.message()?)?,
            _ => return None,
        }
    }
    let mut view = spec_of(spec?)?;
    if let Some(meta) = meta {
        view.meta = meta_of(meta)?;
    }
    Some(view)
}

fn spec_of(bytes: &[u8]) -> Option<FeatureView> {
    let mut view = FeatureView::new("", FeatureViewKind::Batch(BatchFeatures::default()));
    (view.online, view.version) = (false, String::new());
    let mut batch = BatchFeatures::default();
    let (mut ttl, mut batch_source) = (None, None);
    let mut fields = Fields(bytes);
    while let Some((number, part)) = fields.next()? {
        match number {
            1 => view.name = part.text()?,
            2 => view.project = part.text()?,
            3 => view.entities.push(part.text()?),
            4 => view.features.push(column(part.message()?)?),
            5 => entry(&mut view.tags, part.message()?)?,
            6 => once(&mut ttl, duration(part.message()?)?)?,
            7 => once(&mut batch_source, source(part.message()?)?)?,
            8 => view.online = part.truth()?,
            10 => view.description = part.text()?,
            11 => view.owner = part.text()?,
            12 => view.entity_columns.push(column(part.message()?)?),
            13 => view.offline = part.truth()?,
            16 => batch.mode = part.text()?,
            17 => batch.enable_validation = part.truth()?,
            18 => view.version = part.text()?,
            19 => view.org = part.text()?,
            20 => view.disabled = part.truth()?,
            _ => return None,
        }
    }
    // Some tags are not the user's.
    if view.tags.keys().any(|key| key.starts_with("feast-rs.")) {
        return None;
    }
    // A registry has thousands of these lists, for as long as it is served.
    view.features.shrink_to_fit();
    view.entity_columns.shrink_to_fit();
    view.ttl = ttl;
    view.version = feature_view::version(view.version);
    batch.batch_source = batch_source;
    view.kind = FeatureViewKind::Batch(batch);
    Some(view)
}

fn meta_of(bytes: &[u8]) -> Option<FeatureViewMeta> {
    let mut meta = FeatureViewMeta::default();
    let mut state = 0;
    let mut fields = Fields(bytes);
    while let Some((number, part)) = fields.next()? {
        match number {
            1 => once(&mut meta.created, timestamp(part.message()?)?)?,
            2 => once(&mut meta.updated, timestamp(part.message()?)?)?,
            3 => meta.materialization_intervals.push(interval(part.message()?)?),
            4 => meta.current_version_number = part.number()?,
            5 => meta.version_id = part.text()?,
            6 => state = part.number()?,
            _ => return None,
        }
    }
    meta.state = feature_view::state(state).ok()?;
    Some(meta)
}

fn interval(bytes: &[u8]) -> Option<Interval> {
    let (mut start, mut end) = (None, None);
    let mut fields = Fields(bytes);
    while let Some((number, part)) = fields.next()? {
        match number {
            1 => once(&mut start, timestamp(part.message()?)?)?,
            2 => once(&mut end, timestamp(part.message()?)?)?,
            _ => return None,
        }
    }
    Some(Interval { start: start.unwrap_or_default(), end: end.unwrap_or_default() })
}

fn column(bytes: &[u8]) -> Option<Field> {
    let mut column = Field::default();
    let mut value_type = 0;
    let mut fields = Fields(bytes);
    while let Some((number, part)) = fields.next()? {
        match number {
            1 => column.name = part.text()?,
            2 => value_type = part.number()?,
            3 => entry(&mut column.tags, part.message()?)?,
            4 => column.description = part.text()?,
            5 => column.vector_index = part.truth()?,
            6 => column.vector_search_metric = part.text()?,
            7 => column.vector_length = part.number()?,
            _ => return None,
        }
    }
    column.value_type = field::value_type(value_type, "").ok()?;
    Some(column)
}

fn source(bytes: &[u8]) -> Option<DataSource> {
    let mut source = DataSource::default();
    let (mut kind, mut options, mut times) = (0, None, None);
    let mut fields = Fields(bytes);
    while let Some((number, part)) = fields.next()? {
        match number {
            1 => kind = part.number()?,
            2 => entry(&mut source.field_mapping, part.message()?)?,
            3 => source.timestamp_field = part.text()?,
            4 => source.date_partition_column = part.text()?,
            5 => source.created_timestamp_column = part.text()?,
            11 => once(&mut options, file(part.message()?)?)?,
            17 => source.class_type = part.text()?,
            20 => source.name = part.text()?,
            21 => source.project = part.text()?,
            23 => source.description = part.text()?,
            24 => entry(&mut source.tags, part.message()?)?,
            25 => source.owner = part.text()?,
            28 => source.timestamp_field_type = part.text()?,
            50 => once(&mut times, part.message()?)?,
            _ => return None,
        }
    }
    source.options = options?;
    source.type_number = Some(kind).filter(|number| *number != data_source::kind_of(&source.options) as i32);
    let mut fields = Fields(times.unwrap_or_default());
    let mut meta = Meta::default();
    while let Some((number, part)) = fields.next()? {
        let time = match number {
            1 => &mut source.earliest_event_timestamp,
            2 => &mut source.latest_event_timestamp,
            3 => &mut meta.created,
            4 => &mut meta.updated,
            _ => return None,
        };
        once(time, timestamp(part.message()?)?)?;
    }
    source.meta = meta;
    Some(source)
}

fn file(bytes: &[u8]) -> Option<DataSourceOptions> {
    let (mut format, mut uri, mut s3_endpoint_override) = (None, String::new(), String::new());
    let mut fields = Fields(bytes);
    while let Some((number, part)) = fields.next()? {
        match number {
            1 => once(&mut format, core::FileFormat::decode(part.message()?).ok()?)?,
            2 => uri = part.text()?,
            3 => s3_endpoint_override = part.text()?,
            _ => return None,
        }
    }
    Some(DataSourceOptions::File { format: format.and_then(data_source::file_format), uri, s3_endpoint_override })
}

fn timestamp(bytes: &[u8]) -> Option<Timestamp> {
    let (seconds, nanos) = seconds_and_nanos(bytes)?;
    time::timestamp(Some(prost_types::Timestamp { seconds, nanos })).ok()?
}

fn duration(bytes: &[u8]) -> Option<TimeDelta> {
    let (seconds, nanos) = seconds_and_nanos(bytes)?;
    time::duration(Some(prost_types::Duration { seconds, nanos })).ok()?
}

fn seconds_and_nanos(bytes: &[u8]) -> Option<(i64, i32)> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut fields = Fields(bytes);
    while let Some((number, part)) = fields.next()? {
        match (number, part) {
            (1, Part::Number(number)) => seconds = number as i64,
            (2, part) => nanos = part.number()?,
            _ => return None,
        }
    }
    Some((seconds, nanos))
}

fn entry(map: &mut Tags, bytes: &[u8]) -> Option<()> {
    let (mut key, mut value) = (String::new(), String::new());
    let mut fields = Fields(bytes);
    while let Some((number, part)) = fields.next()? {
        match number {
            1 => key = part.text()?,
            2 => value = part.text()?,
            _ => return None,
        }
    }
    map.insert(key, value);
    Some(())
}

/// Messages that come twice are merged, which is not done here.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// The fields of a message.
struct Fields<'a>(&'a [u8]);

/// What a field holds.
enum Part<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// The next field; `Some(None)` at the end.
    #[expect(clippy::option_option, reason = "the outer one says whether to go on in this way")]
    fn next(&mut self) -> Option<Option<(u32, Part<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let tag = self.varint()?;
        let part = match tag & 7 {
            0 => Part::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Part::Bytes(bytes)
            }
            _ => return None,
        };
        Some(Some((u32::try_from(tag >> 3).ok()?, part)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        // The tenth byte has one bit left, which no number here needs.
        for (position, byte) in self.0.iter().enumerate().take(9) {
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                self.0 = &self.0[position + 1..];
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Part<'a> {
    fn message(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Number(_) => None,
        }
    }

    fn text(self) -> Option<String> {
        str::from_utf8(self.message()?).ok().map(str::to_owned)
    }

    fn truth(self) -> Option<bool> {
        match self {
            Self::Number(number) => Some(number != 0),
            Self::Bytes(_) => None,
        }
    }

    fn number(self) -> Option<i32> {
        match self {
            Self::Number(number) => i32::try_from(number).ok(),
            Self::Bytes(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::object::{AnyMessage, from_message};

    const FEAST_REGISTRY: &[u8] = include_bytes!("../../../tests/formats/registry/feast-0.67.0.pb");

    /// The messages that Feast wrote, by kind.
    fn stored() -> Vec<(ObjectKind, Vec<u8>)> {
        let registry = core::Registry::decode(FEAST_REGISTRY).unwrap();
        let views = registry.feature_views.iter().map(|view| (ObjectKind::FeatureView, view.encode_to_vec()));
        let sources = registry.data_sources.iter().map(|source| (ObjectKind::DataSource, source.encode_to_vec()));
        views.chain(sources).collect()
    }

    fn in_general(kind: ObjectKind, bytes: &[u8]) -> Option<RegistryObject> {
        AnyMessage::decode(kind, bytes).and_then(from_message).ok()
    }

    #[test]
    fn what_feast_writes_for_files_is_plain() {
        let plain = stored().into_iter().filter_map(|(kind, bytes)| Some((kind, read(kind, &bytes)?)));
        let mut plain = plain.map(|(kind, _)| kind).collect::<Vec<_>>();
        plain.dedup();
        assert_eq!(plain, [ObjectKind::FeatureView, ObjectKind::DataSource]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Either the same object, or the other way is asked.
        #[test]
        fn both_ways_read_the_same(
            which in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
            doubled in any::<bool>(),
        ) {
            let stored = stored();
            let (kind, mut bytes) = which.get(&stored).clone();
            if let Some(cut) = cut {
                let length = cut.index(bytes.len());
                bytes.truncate(length);
            }
            if doubled {
                bytes = bytes.repeat(2);
            }
            let length = bytes.len();
            for (place, byte) in changes.iter().filter(|_| length > 0) {
                bytes[place.index(length)] = *byte;
            }
            if let Some(plain) = read(kind, &bytes) {
                prop_assert_eq!(Some(plain), in_general(kind, &bytes));
            }
        }
    }
}
