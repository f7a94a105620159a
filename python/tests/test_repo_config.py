"""The configuration as Python builds it: shapes, names and secrets, no values."""

from __future__ import annotations

import pickle

import pytest

from feast.errors import FeastError, FeastOnlineStoreInvalidName, FeastRegistryNotSetError
from feast.infra.online_stores.dynamodb import DynamoDBOnlineStoreConfig
from feast.infra.online_stores.postgres_online_store.postgres import PostgreSQLOnlineStoreConfig
from feast.infra.online_stores.redis import RedisOnlineStoreConfig, RedisType
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
from feast.infra.registry.sql import SqlRegistryConfig
from feast.repo_config import (
    BATCH_ENGINE_CLASS_FOR_TYPE,
    OFFLINE_STORE_CLASS_FOR_TYPE,
    ONLINE_STORE_CLASS_FOR_TYPE,
    REGISTRY_CLASS_FOR_TYPE,
    FeastConfigBaseModel,
    FeastConfigError,
    RegistryConfig,
    RepoConfig,
    get_batch_engine_config_from_type,
    get_offline_config_from_type,
    get_online_config_from_type,
    get_registry_config_from_type,
)


def test_the_configuration_of_an_airflow_task():
    config = RepoConfig(
        registry=RegistryConfig(path="s3://bucket/registry.pb"),
        project="feast_demo_aws",
        provider="aws",
        offline_store="file",
        online_store=DynamoDBOnlineStoreConfig(region="us-west-2"),
        entity_key_serialization_version=3,
    )

    assert config.registry.path == "s3://bucket/registry.pb"
    assert config.registry.cache_ttl_seconds == 600
    assert config.online_store.type == "dynamodb"
    assert config.online_store.batch_size == 100
    assert config.offline_store.type == "file"
    assert config.batch_engine.type == "local"
    assert config.auth_config.type == "no_auth"
    assert config.to_dict() == {
        "project": "feast_demo_aws",
        "provider": "aws",
        "entity_key_serialization_version": 3,
        "registry": {"registry_type": "file", "path": "s3://bucket/registry.pb"},
        "online_store": {"type": "dynamodb", "region": "us-west-2"},
        "offline_store": {"type": "file"},
    }


def test_defaults_are_those_of_the_file():
    config = RepoConfig(project="p", registry="data/registry.db")

    assert (config.online_store.type, config.online_store.path) == ("sqlite", "data/online.db")
    assert config.offline_store.type == "dask"
    assert config.provider == "local"
    assert config.entity_key_serialization_version == 3
    assert config.to_dict() == {"project": "p", "registry": "data/registry.db"}


@pytest.mark.parametrize("online_store", [None, "none", "Null"])
def test_a_feature_store_may_have_no_online_store(online_store):
    config = RepoConfig(project="p", registry="r.db", online_store=online_store)

    assert config.online_store is None
    assert config.to_dict()["online_store"] is None


def test_sections_come_as_names_mappings_or_settings():
    by_name = RepoConfig(project="p", registry="r.db", online_store="redis")
    by_mapping = RepoConfig(project="p", registry="r.db", online_store={"type": "redis"})
    by_settings = RepoConfig(project="p", registry="r.db", online_store=RedisOnlineStoreConfig())

    assert by_name == by_mapping == by_settings
    assert by_name.online_store.redis_type == RedisType.redis
    assert (
        RepoConfig(project="p", registry="r.db", online_store={"path": "x.db"}).online_store.type
        == "sqlite"
    )


def test_settings_can_be_changed_afterwards():
    config = RepoConfig(project="p", registry="r.db")
    config.online_store.path = "elsewhere.db"
    config.provider = "gcp"

    assert config.to_dict()["provider"] == "gcp"
    config.online_store = RedisOnlineStoreConfig(redis_type=RedisType.redis_cluster)
    assert config.to_dict()["online_store"] == {"type": "redis", "redis_type": "redis_cluster"}


def test_a_default_is_not_shared_between_settings():
    first, second = SqlRegistryConfig(path="a"), SqlRegistryConfig(path="b")
    first.sqlalchemy_config_kwargs["echo"] = True

    assert second.sqlalchemy_config_kwargs == {"echo": False}


def test_an_unknown_key_is_refused_with_the_valid_ones():
    with pytest.raises(
        FeastConfigError, match=r"no key `regoin` \(did you mean `region`\?\); its keys are `type`"
    ):
        DynamoDBOnlineStoreConfig(regoin="us-west-2")


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="`DynamoDBOnlineStoreConfig` needs `region`"):
        DynamoDBOnlineStoreConfig()


def test_registry_settings_take_other_keys():
    assert RegistryConfig(path="r.db", custom=1).custom == 1


def test_what_every_configuration_needs():
    with pytest.raises(FeastRegistryNotSetError):
        RepoConfig(project="p")
    with pytest.raises(FeastConfigError, match="needs a `project`"):
        RepoConfig(registry="r.db")


def test_an_unknown_store_is_an_error_of_feast():
    with pytest.raises(FeastOnlineStoreInvalidName, match="rediss"):
        RepoConfig(project="p", registry="r.db", online_store="rediss")
    with pytest.raises(FeastError, match="sparc.engine"):
        RepoConfig(project="p", registry="r.db", batch_engine="sparc.engine")
    with pytest.raises(FeastConfigError, match="`oidc`"):
        RepoConfig(project="p", registry="r.db", auth={"type": "oidk"})


@pytest.mark.parametrize(
    ("known", "settings_of"),
    [
        (ONLINE_STORE_CLASS_FOR_TYPE, get_online_config_from_type),
        (OFFLINE_STORE_CLASS_FOR_TYPE, get_offline_config_from_type),
        (BATCH_ENGINE_CLASS_FOR_TYPE, get_batch_engine_config_from_type),
        (REGISTRY_CLASS_FOR_TYPE, get_registry_config_from_type),
    ],
)
def test_every_known_type_has_settings(known, settings_of):
    for kind, path in known.items():
        assert settings_of(kind).__name__ == path.rpartition(".")[2] + "Config"


def test_a_team_may_declare_its_own_store_settings():
    class MyOnlineStoreConfig(FeastConfigBaseModel):
        type: str = "my.module.MyOnlineStore"
        host: str

    config = RepoConfig(project="p", registry="r.db", online_store=MyOnlineStoreConfig(host="h"))

    assert config.to_dict()["online_store"] == {"type": "my.module.MyOnlineStore", "host": "h"}


def test_secrets_are_never_shown():
    config = RepoConfig(
        project="p",
        registry=SqlRegistryConfig(path="postgresql://user:h1dden@host/db"),
        online_store=PostgreSQLOnlineStoreConfig(
            host="h", database="d", user="u", password="h1dden"
        ),
        offline_store={"type": "redshift", "nested": {"api_key": "h1dden"}},
        auth={"type": "oidc", "client_secret": "h1dden", "token": "h1dden"},
    )
    redis = RedisOnlineStoreConfig(connection_string="host:6379,password=h1dden,ssl=true")

    for shown in (
        repr(config),
        str(config),
        repr(config.online_store),
        repr(config.registry),
        repr(redis),
    ):
        assert "h1dden" not in shown
    assert "h1dden" in config.to_yaml()
    assert "ssl=true" in repr(redis)


def test_the_text_says_the_same_as_the_configuration(tmp_path):
    config = RepoConfig(
        project="p",
        registry={
            "registry_type": "sql",
            "path": 'a "quoted": path',
            "extra": {"on": None, "list": [1, "x"]},
        },
        online_store={"type": "sqlite", "path": "$HOME/ünï.db"},
        coerce_tz_aware=False,
    )
    config.write_to_path(tmp_path)
    text = (tmp_path / "feature_store.yaml").read_text()

    assert text == config.to_yaml()
    assert text == (
        'project: "p"\n'
        "coerce_tz_aware: false\n"
        "registry:\n"
        '  registry_type: "sql"\n'
        '  path: "a \\"quoted\\": path"\n'
        "  extra:\n"
        '    "on": null\n'
        '    list: [1, "x"]\n'
        "online_store:\n"
        '  type: "sqlite"\n'
        '  path: "$HOME/ünï.db"\n'
    )


def test_settings_and_errors_can_be_pickled():
    config = RepoConfig(
        project="p", registry="r.db", online_store=SqliteOnlineStoreConfig(path="x")
    )

    assert pickle.loads(pickle.dumps(config)) == config
    assert (
        str(pickle.loads(pickle.dumps(FeastConfigError("wrong", "a.yaml")))) == "wrong\nat a.yaml"
    )
