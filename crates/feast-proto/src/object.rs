//! One message type per kind of object, and the way there and back.

use std::sync::Arc;

use feast_core::{
    DataSource, ErrorCode, ObjectKind, ObjectRef, RegistryObject, Result, SavedDatasetStorage, ValidationReference,
};
use prost::Message;

use crate::core;
use crate::feature_view::ViewMessage;
use crate::malformed::{Decoded, decode};
use crate::{data_source, entity, feature_service, feature_view, permission, plain, project, saved_dataset};

macro_rules! messages {
    ($($kind:ident: $full_name:literal;)*) => {
        /// The message of an object, by kind.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, clippy::large_enum_variant, reason = "the names say it; lives on the way only")]
        pub enum AnyMessage {
            $($kind(core::$kind),)*
        }

        impl AnyMessage {
            /// Kind of the object.
            pub fn kind(&self) -> ObjectKind {
                match self { $(Self::$kind(_) => ObjectKind::$kind,)* }
            }

            /// The serialized message.
            pub fn encode(&self) -> Vec<u8> {
                match self { $(Self::$kind(message) => message.encode_to_vec(),)* }
            }

            /// Reads the message of an object of this kind.
            ///
            /// # Errors
            /// `CorruptRegistry` when the bytes are not such a message.
            pub fn decode(kind: ObjectKind, bytes: &[u8]) -> Result<Self> {
                Ok(match kind { $(ObjectKind::$kind => Self::$kind(decode(bytes, kind)?),)* })
            }
        }

        /// Full name of the message of a kind of object, such as `feast.core.FeatureView`.
        pub fn message_name(kind: ObjectKind) -> &'static str {
            match kind { $(ObjectKind::$kind => $full_name,)* }
        }
    };
}

messages! {
    Project: "feast.core.Project";
    Entity: "feast.core.Entity";
    DataSource: "feast.core.DataSource";
    FeatureView: "feast.core.FeatureView";
    StreamFeatureView: "feast.core.StreamFeatureView";
    OnDemandFeatureView: "feast.core.OnDemandFeatureView";
    LabelView: "feast.core.LabelView";
    FeatureService: "feast.core.FeatureService";
    SavedDataset: "feast.core.SavedDataset";
    ValidationReference: "feast.core.ValidationReference";
    Permission: "feast.core.Permission";
}

/// The message of an object that belongs to `project`, which replaces the project that the object names.
pub fn to_message(object: &RegistryObject, project: &str) -> AnyMessage {
    match object {
        RegistryObject::Project(object) => AnyMessage::Project(project::to_message(object)),
        RegistryObject::Entity(object) => AnyMessage::Entity(entity::to_message(object, project)),
        RegistryObject::DataSource(object) => AnyMessage::DataSource(data_source::to_message(object, project)),
        RegistryObject::FeatureView(object) => match feature_view::to_message(object, project) {
            ViewMessage::Batch(message) => AnyMessage::FeatureView(message),
            ViewMessage::Stream(message) => AnyMessage::StreamFeatureView(message),
            ViewMessage::OnDemand(message) => AnyMessage::OnDemandFeatureView(message),
            ViewMessage::Label(message) => AnyMessage::LabelView(message),
        },
        RegistryObject::FeatureService(object) => {
            AnyMessage::FeatureService(feature_service::to_message(object, project))
        }
        RegistryObject::SavedDataset(object) => AnyMessage::SavedDataset(saved_dataset::to_message(object, project)),
        RegistryObject::ValidationReference(object) => {
            AnyMessage::ValidationReference(saved_dataset::reference_message(object, project))
        }
        RegistryObject::Permission(object) => AnyMessage::Permission(permission::to_message(object, project)),
    }
}

/// The object that a message describes.
///
/// # Errors
/// `CorruptRegistry`, naming the object, when the message says something that has no meaning, such as an unknown
/// value type.
pub fn from_message(message: AnyMessage) -> Result<RegistryObject> {
    from_message_or(ErrorCode::CorruptRegistry, message)
}

/// As [`from_message`], with the code of the error by the caller: messages do not always come from a registry.
pub(crate) fn from_message_or(code: ErrorCode, message: AnyMessage) -> Result<RegistryObject> {
    let reference = ObjectRef::new(message.kind(), message_object_name(&message));
    convert(message).map_err(|malformed| malformed.of(code, reference))
}

fn convert(message: AnyMessage) -> Decoded<RegistryObject> {
    let view = |message| feature_view::from_message(message).map(Arc::new).map(RegistryObject::FeatureView);
    Ok(match message {
        AnyMessage::Project(message) => RegistryObject::Project(Arc::new(project::from_message(message)?)),
        AnyMessage::Entity(message) => RegistryObject::Entity(Arc::new(entity::from_message(message)?)),
        AnyMessage::DataSource(message) => {
            RegistryObject::DataSource(Arc::<DataSource>::new(data_source::from_message(message)?))
        }
        AnyMessage::FeatureView(message) => view(ViewMessage::Batch(message))?,
        AnyMessage::StreamFeatureView(message) => view(ViewMessage::Stream(message))?,
        AnyMessage::OnDemandFeatureView(message) => view(ViewMessage::OnDemand(message))?,
        AnyMessage::LabelView(message) => view(ViewMessage::Label(message))?,
        AnyMessage::FeatureService(message) => {
            RegistryObject::FeatureService(Arc::new(feature_service::from_message(message)?))
        }
        AnyMessage::SavedDataset(message) => {
            RegistryObject::SavedDataset(Arc::new(saved_dataset::from_message(message)?))
        }
        AnyMessage::ValidationReference(message) => {
            RegistryObject::ValidationReference(Arc::<ValidationReference>::new(saved_dataset::reference(message)))
        }
        AnyMessage::Permission(message) => RegistryObject::Permission(Arc::new(permission::from_message(message)?)),
    })
}

fn message_object_name(message: &AnyMessage) -> String {
    macro_rules! of_spec {
        ($message:expr) => {
            $message.spec.as_ref().map(|spec| spec.name.clone()).unwrap_or_default()
        };
    }
    match message {
        AnyMessage::Project(message) => of_spec!(message),
        AnyMessage::Entity(message) => of_spec!(message),
        AnyMessage::DataSource(message) => message.name.clone(),
        AnyMessage::FeatureView(message) => of_spec!(message),
        AnyMessage::StreamFeatureView(message) => of_spec!(message),
        AnyMessage::OnDemandFeatureView(message) => of_spec!(message),
        AnyMessage::LabelView(message) => of_spec!(message),
        AnyMessage::FeatureService(message) => of_spec!(message),
        AnyMessage::SavedDataset(message) => of_spec!(message),
        AnyMessage::ValidationReference(message) => message.name.clone(),
        AnyMessage::Permission(message) => of_spec!(message),
    }
}

/// The serialized message of an object that belongs to `project`.
pub fn encode_object(object: &RegistryObject, project: &str) -> Vec<u8> {
    to_message(object, project).encode()
}

/// The object in the serialized message of a kind.
///
/// # Errors
/// `CorruptRegistry` when the bytes are not such a message or say something that has no meaning.
pub fn decode_object(kind: ObjectKind, bytes: &[u8]) -> Result<RegistryObject> {
    plain::read(kind, bytes).map_or_else(|| from_message(AnyMessage::decode(kind, bytes)?), Ok)
}

/// Reads a serialized `feast.core.SavedDatasetStorage`.
///
/// # Errors
/// `CorruptRegistry` when the bytes are not such a message.
pub fn decode_storage(bytes: &[u8]) -> Result<SavedDatasetStorage> {
    let what = "storage of a saved dataset";
    data_source::storage(decode(bytes, what)?).map_err(|malformed| malformed.of(ErrorCode::CorruptRegistry, what))
}
