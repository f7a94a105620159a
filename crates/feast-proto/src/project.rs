//! `feast.core.Project`.

use feast_core::Project;

use crate::core;
use crate::malformed::Decoded;
use crate::time;

pub(crate) fn to_message(project: &Project) -> core::Project {
    core::Project {
        spec: Some(core::ProjectSpec {
            name: project.name.clone(),
            description: project.description.clone(),
            tags: project.tags.clone(),
            owner: project.owner.clone(),
        }),
        meta: Some(core::ProjectMeta {
            created_timestamp: time::optional_timestamp_message(project.meta.created),
            last_updated_timestamp: time::optional_timestamp_message(project.meta.updated),
        }),
    }
}

pub(crate) fn from_message(message: core::Project) -> Decoded<Project> {
    let spec = message.spec.unwrap_or_default();
    let meta = message.meta.unwrap_or_default();
    Ok(Project {
        name: spec.name,
        description: spec.description,
        tags: spec.tags,
        owner: spec.owner,
        meta: time::meta(meta.created_timestamp, meta.last_updated_timestamp)?,
    })
}
