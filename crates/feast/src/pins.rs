//! Views that are pinned to one of their versions: `version="v2"` brings the definition of snapshot 2 back.
//!
//! A pin whose snapshot does not exist yet names the number that the new definition gets.

use std::sync::Arc;

use feast_core::{
    Error, ErrorCode, FeatureView, Problem, ProjectContents, RegistryObject, RegistrySnapshot, Result, VersionRecord,
    list_names,
};

/// The number a view is pinned to; `None` for the latest.
///
/// # Errors
/// When the text is neither `latest` nor a version such as `v2`.
pub(crate) fn pinned(view: &FeatureView) -> std::result::Result<Option<i32>, Problem> {
    let text = view.version.as_str();
    number(text).ok_or_else(|| Problem::new(view.reference(), format!("has the version `{text}`")).with_hint(A_VERSION))
}

/// What a version is.
const A_VERSION: &str = "use `latest` or the number of a version, such as `v2`";

/// The number of a version such as `v2`, `Some(None)` for the latest, `None` when the text is neither.
#[allow(clippy::option_option, reason = "no version and no number are two things")]
fn number(text: &str) -> Option<Option<i32>> {
    match text {
        "" | "latest" => Some(None),
        text => {
            let number: i32 = text.strip_prefix(['v', 'V']).unwrap_or(text).parse().ok()?;
            (number >= 0).then_some(Some(number))
        }
    }
}

/// The number that somebody asks for; `None` for the latest.
///
/// # Errors
/// `InvalidRequest` for what is no version.
pub(crate) fn asked(text: &str) -> Result<Option<i32>> {
    number(text).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        Error::invalid_request(format!("`{shown}` is not a version")).with_hint(A_VERSION)
    })
}

/// The snapshot of a view with this number.
pub(crate) fn snapshot_of<'a>(
    snapshot: &'a RegistrySnapshot,
    project: &str,
    view: &str,
    number: i32,
) -> Option<&'a VersionRecord> {
    let mut records = snapshot.versions.iter().map(Arc::as_ref);
    records.find(|record| record.is_of(project, view) && record.version_number == number)
}

/// Gives pinned views the definitions of their snapshots. Pure.
pub(crate) fn pin(
    desired: &mut ProjectContents,
    current: Option<&ProjectContents>,
    snapshot: &RegistrySnapshot,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let views: Vec<Arc<FeatureView>> = desired.feature_views.values().cloned().collect();
    for view in views {
        let number = match pinned(&view) {
            Ok(Some(number)) => number,
            Ok(None) => continue,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let Some(record) = snapshot_of(snapshot, &desired.project.name, &view.name, number) else { continue };
        let snapshot = match record.view() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                let problem = Problem::new(view.reference(), format!("is pinned to `v{number}`: {error}"));
                problems.push(problem.with_hint_opt(error.hint().map(str::to_owned)));
                continue;
            }
        };
        let stored = current.and_then(|contents| contents.feature_views.get(&view.name));
        if !same(&view, &snapshot) && !stored.is_some_and(|stored| same(&view, stored)) {
            problems.push(
                Problem::new(view.reference(), format!("is pinned to `v{number}` and changed at the same time"))
                    .with_code(ErrorCode::FeatureViewPinConflict)
                    .with_hint("apply the pin first and change the view afterwards, with `version=\"latest\"`"),
            );
            continue;
        }
        let mut restored = FeatureView::clone(&snapshot);
        restored.version = view.version.clone();
        desired.put(RegistryObject::FeatureView(Arc::new(restored)));
    }
    problems
}

/// What to tell of views that are pinned to a version that there is not: their definition becomes it, as in Feast, which
/// is not what is wanted of a number that was misspelt.
pub(crate) fn made_versions(
    desired: &ProjectContents,
    current: Option<&ProjectContents>,
    snapshot: &RegistrySnapshot,
) -> Vec<String> {
    let of_view = |view: &Arc<FeatureView>| {
        let number = pinned(view).ok().flatten()?;
        let stored = current?.feature_views.get(&view.name)?;
        let mut known: Vec<i32> = vec![stored.meta.current_version_number];
        let project = desired.project.name.as_str();
        known.extend(snapshot.versions.iter().filter(|r| r.is_of(project, &view.name)).map(|r| r.version_number));
        known.sort_unstable();
        known.dedup();
        let known_names: Vec<String> = known.iter().map(|number| format!("v{number}")).collect();
        (!known.contains(&number)).then(|| {
            format!(
                "{} has no version v{number}, only {}: this definition becomes v{number}",
                view.reference(),
                list_names(known_names.iter().map(String::as_str)),
            )
        })
    };
    desired.feature_views.values().filter_map(of_view).collect()
}

/// Whether two views are defined alike, whatever version they name.
pub(crate) fn same(a: &FeatureView, b: &FeatureView) -> bool {
    let definition = |view: &FeatureView| {
        let view = FeatureView { version: String::new(), ..view.clone() };
        serde_json::to_value(view).ok()
    };
    definition(a) == definition(b)
}
