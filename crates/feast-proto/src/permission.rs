//! `feast.core.Permission`.

use feast_core::{Permission, PermissionAction, Policy, ResourceType};

use crate::core;
use crate::core::policy::PolicyType;
use crate::malformed::{Decoded, from_number};
use crate::time;

pub(crate) fn to_message(permission: &Permission, project: &str) -> core::Permission {
    core::Permission {
        spec: Some(core::PermissionSpec {
            name: permission.name.clone(),
            project: project.to_owned(),
            types: permission.types.iter().map(|resource| *resource as i32).collect(),
            name_patterns: permission.name_patterns.clone(),
            required_tags: permission.required_tags.clone(),
            actions: permission.actions.iter().map(|action| *action as i32).collect(),
            policy: Some(policy_message(&permission.policy)),
            tags: permission.tags.clone(),
        }),
        meta: Some(core::PermissionMeta {
            created_timestamp: time::optional_timestamp_message(permission.meta.created),
            last_updated_timestamp: time::optional_timestamp_message(permission.meta.updated),
        }),
    }
}

pub(crate) fn from_message(message: core::Permission) -> Decoded<Permission> {
    let spec = message.spec.unwrap_or_default();
    let meta = message.meta.unwrap_or_default();
    Ok(Permission {
        name: spec.name,
        project: spec.project,
        types: spec
            .types
            .into_iter()
            .map(|number| from_number(&ResourceType::ALL, number, "resource type"))
            .collect::<Decoded<_>>()?,
        name_patterns: spec.name_patterns,
        required_tags: spec.required_tags,
        actions: spec
            .actions
            .into_iter()
            .map(|number| from_number(&PermissionAction::ALL, number, "action"))
            .collect::<Decoded<_>>()?,
        policy: policy(spec.policy.unwrap_or_default()),
        tags: spec.tags,
        meta: time::meta(meta.created_timestamp, meta.last_updated_timestamp)?,
    })
}

/// Feast stores "everybody" as a policy without a type.
fn policy_message(policy: &Policy) -> core::Policy {
    let policy_type = match policy.clone() {
        Policy::AllowAll => None,
        Policy::Roles(roles) => Some(PolicyType::RoleBasedPolicy(core::RoleBasedPolicy { roles })),
        Policy::Groups(groups) => Some(PolicyType::GroupBasedPolicy(core::GroupBasedPolicy { groups })),
        Policy::Namespaces(namespaces) => {
            Some(PolicyType::NamespaceBasedPolicy(core::NamespaceBasedPolicy { namespaces }))
        }
        Policy::GroupsAndNamespaces { groups, namespaces } => {
            Some(PolicyType::CombinedGroupNamespacePolicy(core::CombinedGroupNamespacePolicy { groups, namespaces }))
        }
    };
    core::Policy { policy_type, ..core::Policy::default() }
}

fn policy(message: core::Policy) -> Policy {
    match message.policy_type {
        None => Policy::AllowAll,
        Some(PolicyType::RoleBasedPolicy(policy)) => Policy::Roles(policy.roles),
        Some(PolicyType::GroupBasedPolicy(policy)) => Policy::Groups(policy.groups),
        Some(PolicyType::NamespaceBasedPolicy(policy)) => Policy::Namespaces(policy.namespaces),
        Some(PolicyType::CombinedGroupNamespacePolicy(policy)) => {
            Policy::GroupsAndNamespaces { groups: policy.groups, namespaces: policy.namespaces }
        }
    }
}
