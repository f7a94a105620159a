"""Operations on a whole repository, for scripts that do from Python what the `feast` command does."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from feast._objects import KINDS, kind_of
from feast._repository import Repository
from feast._settings import FeastConfigError
from feast.feature_store import FeatureStore
from feast.repo_config import RepoConfig
from feast.repo_contents import RepoContents

__all__ = [
    "apply_total",
    "apply_total_with_repo_instance",
    "get_repo_files",
    "parse_repo",
    "plan",
    "registry_dump",
    "teardown",
]


def get_repo_files(repo_root: Path) -> list[Path]:
    """The Python files of a repository that are imported, in order."""
    return Repository(Path(repo_root)).files()


def py_path_to_module(path: Path) -> str:
    """The name under which a file of the working directory is imported."""
    return ".".join(Path(path).resolve().relative_to(os.getcwd()).with_suffix("").parts)


def is_valid_name(name: str) -> bool:
    """Whether a project may have this name."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) is not None


def parse_repo(repo_root: Path) -> RepoContents:
    """The objects that a repository defines; raises when it has problems, naming all of them."""
    return _contents(Path(repo_root), None)


def plan(
    repo_config: RepoConfig,
    repo_path: Path,
    skip_source_validation: bool,
    skip_feature_view_validation: bool = False,
) -> None:
    """Prints what applying a repository would change."""
    contents = _contents(Path(repo_path), repo_config.project)
    store = FeatureStore(config=_located(repo_config, repo_path))
    registry_diff, infra_diff = store._plan(
        contents, skip_feature_view_validation, skip_source_validation
    )
    print(registry_diff.to_string())
    print(infra_diff.to_string())


def apply_total(
    repo_config: RepoConfig,
    repo_path: Path,
    skip_source_validation: bool,
    skip_feature_view_validation: bool = False,
    no_promote: bool = False,
    *,
    no_progress: bool = False,
) -> None:
    """Makes the registry and the stores what a repository defines; what it does not define any more is deleted."""
    contents = _contents(Path(repo_path), repo_config.project)
    store = FeatureStore(config=_located(repo_config, repo_path))
    apply_total_with_repo_instance(
        store,
        store.project,
        store.registry,
        contents,
        skip_source_validation,
        skip_feature_view_validation,
        no_promote,
    )


def apply_total_with_repo_instance(
    store: FeatureStore,
    project_name: str,
    registry: Any,
    repo: RepoContents,
    skip_source_validation: bool,
    skip_feature_view_validation: bool = False,
    no_promote: bool = False,
) -> None:
    """The same with objects that a program has made itself. Project and registry are those of the store."""
    import json

    if project_name != store.project:
        raise ValueError(
            f"the objects are for project `{project_name}`, and the store is of `{store.project}`"
        )
    options = {
        "prune": True,
        "delete": [],
        "skip_source_validation": skip_source_validation,
        "skip_feature_view_validation": skip_feature_view_validation,
        "no_promote": no_promote,
    }
    store._native.apply(repo.to_registry_proto().SerializeToString(), json.dumps(options))


def teardown(repo_config: RepoConfig, repo_path: Path | None) -> None:
    """Removes a project from the registry and the stores."""
    FeatureStore(config=_located(repo_config, repo_path)).teardown()


def registry_dump(repo_config: RepoConfig, repo_path: Path) -> str:
    """The objects of the registry as JSON."""
    import json

    store = FeatureStore(config=_located(repo_config, repo_path))
    return json.dumps(store.registry.to_dict(project=store.project), indent=2, sort_keys=True)


def _located(config: RepoConfig, repo_path: Path | None) -> RepoConfig:
    if repo_path is not None:
        config.repo_path = Path(repo_path)
    return config


def _contents(root: Path, project: str | None) -> RepoContents:
    repository = Repository(root)
    repository.load()
    if project is not None:
        repository.check_project(project)
    if repository.problems:
        lines = [
            f"{each['location']}: {each['object']} {each['message']}"
            + (f"; {each['hint']}" if each["hint"] else "")
            for each in repository.problems
        ]
        raise FeastConfigError("\n".join(lines))
    groups: dict[str, list[Any]] = {name: [] for name in RepoContents._fields}
    for obj in repository.objects:
        field = kind_of(obj).registry_field  # type: ignore[union-attr]
        if field in groups:
            groups[field].append(obj)
    assert groups.keys() <= {kind.registry_field for kind in KINDS.values()}
    return RepoContents(**groups)
