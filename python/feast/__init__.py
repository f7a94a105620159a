"""A feature store: define features once, train on them point-in-time correctly, serve them fast.

    from feast import Entity, FeatureStore, FeatureView, Field, FileSource
    from feast.types import Float32

Names are imported on first use, so that `import feast` costs next to nothing and a program pays
only for what it touches.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from feast import _missing

if TYPE_CHECKING:
    from feast.aggregation import Aggregation
    from feast.batch_feature_view import BatchFeatureView
    from feast.chunker import BaseChunker, ChunkingConfig, TextChunker
    from feast.data_source import KafkaSource, KinesisSource, PushSource, RequestSource
    from feast.dataframe import DataFrameEngine, FeastDataFrame
    from feast.demos import copy_demo_notebooks
    from feast.doc_embedder import DocEmbedder, SchemaTransformFn
    from feast.embedder import (
        BaseEmbedder,
        EmbeddingConfig,
        EmbeddingProvider,
        MultiModalEmbedder,
        SentenceTransformersEmbeddingProvider,
        get_embedding_provider,
    )
    from feast.entity import Entity
    from feast.feature import Feature
    from feast.feature_service import FeatureService
    from feast.feature_store import FeatureStore
    from feast.feature_view import FeatureView, FeatureViewState
    from feast.field import Field
    from feast.filter_models import FilterTranslator
    from feast.infra.offline_stores.bigquery_source import BigQuerySource
    from feast.infra.offline_stores.contrib.athena_offline_store.athena_source import AthenaSource
    from feast.infra.offline_stores.contrib.chronon_offline_store.chronon_source import (
        ChrononSource,
    )
    from feast.infra.offline_stores.contrib.oracle_offline_store.oracle_source import OracleSource
    from feast.infra.offline_stores.file_source import FileSource
    from feast.infra.offline_stores.redshift_source import RedshiftSource
    from feast.infra.offline_stores.snowflake_source import SnowflakeSource
    from feast.labeling.conflict_policy import ConflictPolicy
    from feast.labeling.label_view import LabelView
    from feast.on_demand_feature_view import OnDemandFeatureView
    from feast.project import Project
    from feast.repo_config import RepoConfig
    from feast.stream_feature_view import StreamFeatureView
    from feast.value_type import ValueType
    from feast.vector_store import FeastVectorStore

    __version__: str

_STORES = "feast.infra.offline_stores"
_CONTRIB = f"{_STORES}.contrib"

# Exported name → the module that defines it.
_EXPORTS = {
    "Aggregation": "feast.aggregation",
    "AthenaSource": f"{_CONTRIB}.athena_offline_store.athena_source",
    "BaseChunker": "feast.chunker",
    "BaseEmbedder": "feast.embedder",
    "BatchFeatureView": "feast.batch_feature_view",
    "BigQuerySource": f"{_STORES}.bigquery_source",
    "ChrononSource": f"{_CONTRIB}.chronon_offline_store.chronon_source",
    "ChunkingConfig": "feast.chunker",
    "ConflictPolicy": "feast.labeling.conflict_policy",
    "DataFrameEngine": "feast.dataframe",
    "DocEmbedder": "feast.doc_embedder",
    "EmbeddingConfig": "feast.embedder",
    "EmbeddingProvider": "feast.embedder",
    "Entity": "feast.entity",
    "FeastDataFrame": "feast.dataframe",
    "FeastVectorStore": "feast.vector_store",
    "Feature": "feast.feature",
    "FeatureService": "feast.feature_service",
    "FeatureStore": "feast.feature_store",
    "FeatureView": "feast.feature_view",
    "FeatureViewState": "feast.feature_view",
    "Field": "feast.field",
    "FileSource": f"{_STORES}.file_source",
    "FilterTranslator": "feast.filter_models",
    "KafkaSource": "feast.data_source",
    "KinesisSource": "feast.data_source",
    "LabelView": "feast.labeling.label_view",
    "MultiModalEmbedder": "feast.embedder",
    "OnDemandFeatureView": "feast.on_demand_feature_view",
    "OracleSource": f"{_CONTRIB}.oracle_offline_store.oracle_source",
    "Project": "feast.project",
    "PushSource": "feast.data_source",
    "RedshiftSource": f"{_STORES}.redshift_source",
    "RepoConfig": "feast.repo_config",
    "RequestSource": "feast.data_source",
    "SchemaTransformFn": "feast.doc_embedder",
    "SentenceTransformersEmbeddingProvider": "feast.embedder",
    "SnowflakeSource": f"{_STORES}.snowflake_source",
    "StreamFeatureView": "feast.stream_feature_view",
    "TextChunker": "feast.chunker",
    "ValueType": "feast.value_type",
    "copy_demo_notebooks": "feast.demos",
    "get_embedding_provider": "feast.embedder",
}

__all__ = sorted(_EXPORTS)  # noqa: PLE0605

_missing.say_so()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("feast-rs")
    except PackageNotFoundError:
        return "0.1.0"


def _is_module(name: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(f"feast.{name}") is not None
    except ModuleNotFoundError:
        return False


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
    elif name == "__version__":
        value = _version()
    elif not name.startswith("__") and _is_module(name):
        # `import feast` followed by `feast.types` works as if all modules had been loaded.
        value = importlib.import_module(f"feast.{name}")
    else:
        raise AttributeError(f"module `feast` has no attribute `{name}`")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS, "__version__"})
