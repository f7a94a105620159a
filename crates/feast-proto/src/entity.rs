//! `feast.core.Entity`.

use feast_core::Entity;

use crate::core;
use crate::field;
use crate::malformed::Decoded;
use crate::time;

pub(crate) fn to_message(entity: &Entity, project: &str) -> core::Entity {
    core::Entity {
        spec: Some(core::EntitySpecV2 {
            name: entity.name.clone(),
            value_type: entity.value_type as i32,
            description: entity.description.clone(),
            join_key: entity.join_key.clone(),
            tags: entity.tags.clone(),
            project: project.to_owned(),
            owner: entity.owner.clone(),
        }),
        meta: Some(core::EntityMeta {
            created_timestamp: time::optional_timestamp_message(entity.meta.created),
            last_updated_timestamp: time::optional_timestamp_message(entity.meta.updated),
        }),
    }
}

pub(crate) fn from_message(message: core::Entity) -> Decoded<Entity> {
    let spec = message.spec.unwrap_or_default();
    let meta = message.meta.unwrap_or_default();
    Ok(Entity {
        value_type: field::value_type(spec.value_type, &spec.join_key)?,
        name: spec.name,
        project: spec.project,
        description: spec.description,
        join_key: spec.join_key,
        tags: spec.tags,
        owner: spec.owner,
        meta: time::meta(meta.created_timestamp, meta.last_updated_timestamp)?,
    })
}
