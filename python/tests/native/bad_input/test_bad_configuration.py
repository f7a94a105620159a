"""Configurations that are wrong, in YAML and in Python."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from told import SECRET, contents, is_clear

from feast import FeatureStore, RepoConfig
from feast.errors import (
    FeastOnlineStoreInvalidName,
    FeastRegistryNotSetError,
)
from feast.repo_config import FeastConfigError

PLAIN = {"project": "proj", "registry": "registry.db"}


def keys(**changed: str) -> str:
    return "".join(f"{key}: {value}\n" for key, value in (PLAIN | changed).items())


CONFIGURATIONS: dict[str, tuple[str | bytes | None, str]] = {
    "missing": (None, "there is no configuration file"),
    "empty": ("", "the configuration is empty"),
    "only comments": ("# nothing\n", "the configuration is empty"),
    "list": ("- a\n", "the configuration is a list"),
    "text": ("hello", "the configuration is text"),
    "binary": (b"\x00\xff\xfePK", "is not UTF-8 text"),
    "UTF-16": ("project: p\n".encode("utf-16"), "is not UTF-8 text"),
    "open bracket": ("project: [\n", "not valid YAML"),
    "tab": ("project: p\n\tregistry: r\n", "not valid YAML: found a tab"),
    "key twice": ("project: p\nproject: q\nregistry: r\n", "not valid YAML: duplicate entry"),
    "two documents": ("project: p\n---\nproject: q\n", "more than one document"),
    "deep": ("project: " + "[" * 5000 + "]" * 5000, "recursion limit"),
    "no end of aliases": (
        "".join(f"k{i}: &k{i} [{','.join([f'*k{i - 1}'] * 9) if i else 'x'}]\n" for i in range(9)),
        "repetition limit",
    ),
    "NUL": (keys(registry='"a\\0b"'), "`registry` contains a NUL character"),
    "huge": ("#" * (2 << 20), "larger than 1 MiB"),
    "no project": ("registry: r\n", "`project` is missing"),
    "no registry": ("project: p\n", "`registry` is missing"),
    "misspelt key": (keys(onlinestore="x"), "did you mean `online_store`?"),
    "variable": (keys(registry="${NOT_SET_ANYWHERE}"), "environment variable `NOT_SET_ANYWHERE`"),
    "no variable": (keys(registry="${A B}"), "which is not the name of an environment variable"),
    "infinite": (keys(registry=".inf"), "expected a finite number"),
    "registry type": (
        keys(registry="{registry_type: fil, path: r}"),
        "there is no registry of type `fil`",
    ),
    "registry key": (
        keys(registry=f"{{path: r, password: {SECRET}, pth: 1}}"),
        "`registry.pth` is not a key",
    ),
    "registry path": (
        keys(registry="{path: 5}"),
        "`registry.path` is a number, expected text",
    ),
    "registry ttl": (
        keys(registry="{path: r, cache_ttl_seconds: -1}"),
        "`registry.cache_ttl_seconds` is -1, expected a whole number of seconds",
    ),
    "registry on a server": (
        keys(registry=f"postgresql://me:{SECRET}@host/db"),
        "there are no registry files in `postgresql://`",
    ),
    "registry is a folder": (keys(registry="."), "Is a directory"),
    "registry below a file": (keys(registry="/dev/null/r.db"), "Not a directory"),
    "registry is something else": (keys(registry="/etc/passwd"), "is not a registry file"),
    "online store": (keys(online_store="{type: sqllite}"), "did you mean `sqlite`?"),
    "online store later": (
        keys(online_store=f'{{type: bigtable, instance: "{SECRET}"}}'),
        "online store `bigtable` is not built yet",
    ),
    "online store key": (
        keys(online_store="{type: sqlite, pth: x}"),
        "`online_store.pth` is not a key",
    ),
    "online store path": (
        keys(online_store="{type: sqlite, path: 5}"),
        "`online_store.path` is wrong",
    ),
    "online store no path": (
        keys(online_store='{type: sqlite, path: ""}'),
        "`online_store.path` is empty",
    ),
    "online store switch": (
        keys(online_store="{vector_enabled: maybe}"),
        "`online_store.vector_enabled` is wrong",
    ),
    "offline store": (keys(offline_store="dusk"), "there is no offline store `dusk`"),
    "offline store later": (
        keys(offline_store=f"{{type: snowflake.offline, password: {SECRET}}}"),
        "the offline store `snowflake.offline` is not available yet",
    ),
    "offline store key": (
        keys(offline_store="{type: file, memory_limt: 1}"),
        "has no key `memory_limt`",
    ),
    "memory": (keys(offline_store="{type: file, memory_limit: lots}"), "a size such as `512MiB`"),
    "engine": (keys(batch_engine="sparc.engine"), "did you mean `spark.engine`?"),
    "authentication": (keys(auth="{type: oidk}"), "`auth` has the type `oidk`"),
    "server": (keys(feature_server="{type: x}"), "`feature_server` has the type `x`"),
    "key version": (keys(entity_key_serialization_version="9"), "expected a number up to 3"),
    "batch size": (
        keys(materialization="{online_write_batch_size: 0}"),
        "expected a positive number of rows",
    ),
    "materialization key": (keys(materialization="{a: 1}"), "`materialization.a` is not a key"),
    "materialization flag": (
        keys(materialization="{pull_latest_features: x}"),
        "expected true or false",
    ),
}
for _key, _kind in {
    "project": "expected text",
    "project_description": "expected text",
    "provider": "expected text",
    "repo_path": "expected text",
    "registry": "expected a path or a mapping",
    "online_store": "expected a name or a mapping",
    "offline_store": "expected a name or a mapping",
    "batch_engine": "expected a name or a mapping",
    "auth": "expected a name or a mapping",
    "feature_server": "expected a name or a mapping",
    "materialization": "expected a mapping",
    "openlineage": "expected a mapping",
    "mlflow": "expected a mapping",
    "data_quality_monitoring": "expected a mapping",
    "embedding_model": "expected a mapping",
    "entity_key_serialization_version": "expected a number",
    "coerce_tz_aware": "expected true or false",
}.items():
    CONFIGURATIONS[f"list as {_key}"] = (
        keys(**{_key: "[a, b]"}),
        f"`{_key}` is a list, {_kind}",
    )
    if "text" in _kind or "name" in _kind or "path" in _kind:
        CONFIGURATIONS[f"number as {_key}"] = (
            keys(**{_key: "3.5"}),
            f"`{_key}` is a number, {_kind}",
        )
for _name in ("a b", "-p", "ü", "a;drop", "a/b", "../x", "a:b", "", "'", "🙂"):
    CONFIGURATIONS[f"project {_name!r}"] = (
        keys(project=f'"{_name}"'),
        "which is not a valid project name",
    )


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_wrong_configuration_is_refused(name, feast, tmp_path):
    text, expected = CONFIGURATIONS[name]
    if text is not None:
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "feature_store.yaml").write_bytes(data)
    before = contents(tmp_path)

    feast.refuses(tmp_path, ["entities", "list"], expected)

    assert contents(tmp_path) == before
    with pytest.raises(Exception) as caught:
        FeatureStore(repo_path=str(tmp_path)).list_entities()
    is_clear(str(caught.value), *([expected] if text is not None else []))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"auth": "{type: oidc}"}, "`auth` of type `oidc` is not enforced yet"),
        ({"batch_engine": "spark.engine"}, "`batch_engine` `spark.engine` is not there yet"),
        (
            {"feature_server": "{type: mcp, mcp_enabled: true}"},
            "`feature_server.mcp_enabled` is not there yet",
        ),
        (
            {"feature_server": "{audit_logging: {enabled: true}}"},
            "`feature_server.audit_logging` is not there yet",
        ),
        ({"entity_key_serialization_version": "2"}, "version 2 is outdated"),
        ({"zzz": "1"}, "`zzz` is not a key of the configuration and is ignored"),
    ],
)
def test_what_a_configuration_says_in_vain_is_told(changed, expected, feast, tmp_path):
    (tmp_path / "feature_store.yaml").write_text(keys(**changed))
    code, text = feast.run(tmp_path, "configuration")
    assert code == 0, text
    is_clear(text, "warning: ", expected)
    with pytest.warns(UserWarning, match=re.escape(expected)):
        FeatureStore(repo_path=str(tmp_path))


CONFIGURATIONS_IN_PYTHON: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "nothing": (RepoConfig, FeastRegistryNotSetError, "registry: data/registry.db"),
    "no project": (lambda: RepoConfig(registry="r"), FeastConfigError, "needs a `project`"),
    "project": (
        lambda: FeatureStore(config=RepoConfig(project=5, registry="r")),
        FeastConfigError,
        "`project` is a number",
    ),
    "registry": (
        lambda: FeatureStore(config=RepoConfig(project="p", registry=5)),
        FeastConfigError,
        "`registry` is a number",
    ),
    "unknown key": (
        lambda: FeatureStore(config=RepoConfig(project="p", registry="r", provder="x")),
        FeastConfigError,
        "did you mean `provider`?",
    ),
    "online store": (
        lambda: RepoConfig(project="p", registry="r", online_store="nope"),
        FeastOnlineStoreInvalidName,
        "there is no online store `nope`",
    ),
    "a dictionary": (
        lambda: FeatureStore(config={"project": "p"}),
        TypeError,
        "must be a RepoConfig, but is of class dict",
    ),
    "a number as path": (
        lambda: FeatureStore(repo_path=5),
        TypeError,
        "`repo_path` must be a path, but is 5",
    ),
    "a folder as file": (
        lambda: FeatureStore(fs_yaml_file=Path(os.sep)),
        FeastConfigError,
        "the file cannot be read: Is a directory",
    ),
    "two configurations": (
        lambda: FeatureStore(config=RepoConfig(project="p", registry="r"), fs_yaml_file=Path("x")),
        ValueError,
        "not both",
    ),
}


@pytest.mark.parametrize("name", CONFIGURATIONS_IN_PYTHON)
def test_a_wrong_configuration_in_python_is_refused(name):
    make, kind, expected = CONFIGURATIONS_IN_PYTHON[name]
    with pytest.raises(kind) as caught:
        make()
    is_clear(str(caught.value), expected)
