"""From documents to searchable features: cut, embed, write to the online store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from feast.chunker import BaseChunker, TextChunker
from feast.embedder import BaseEmbedder, MultiModalEmbedder

if TYPE_CHECKING:
    import pandas

    from feast.feature_store import FeatureStore

_DEFAULT_LENGTH = 384
_OUTPUT = ("text", "text_embedding")

_DEFINITIONS = '''"""Passages of text with their embeddings, written by DocEmbedder."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, String

passage = Entity(name="passage_id", join_keys=["passage_id"], value_type=ValueType.STRING)

{name} = FeatureView(
    name="{name}",
    entities=[passage],
    ttl=timedelta(days=1),
    schema=[
        Field(name="text", dtype=String),
        Field(
            name="embedding",
            dtype=Array(Float32),
            vector_index=True,
            vector_length={length},
            vector_search_metric="COSINE",
        ),
        Field(name="source_id", dtype=String),
    ],
    source=FileSource(
        name="{name}_source", path="data/{name}.parquet", timestamp_field="event_timestamp"
    ),
)
'''


@runtime_checkable
class SchemaTransformFn(Protocol):
    """A function from the frame of pieces and vectors to the columns of the feature view."""

    def __call__(self, df: pandas.DataFrame) -> pandas.DataFrame:
        """The frame with the columns of the view."""
        ...


def default_schema_transform_fn(df: pandas.DataFrame) -> pandas.DataFrame:
    """The columns of the view that `DocEmbedder` declares by itself."""
    from datetime import datetime

    result = df[["chunk_id", "text", "text_embedding", "original_id"]].rename(
        columns={
            "chunk_id": "passage_id",
            "text_embedding": "embedding",
            "original_id": "source_id",
        }
    )
    result["event_timestamp"] = datetime.now(tz=UTC)
    return result


def generate_repo_file(
    repo_path: str,
    feature_view_name: str = "text_feature_view",
    vector_length: int = _DEFAULT_LENGTH,
) -> str:
    """Writes the definition of a view for passages into a repository; returns the path."""
    if not feature_view_name.isidentifier() or feature_view_name.startswith("_"):
        raise ValueError(
            f"`{feature_view_name}` cannot name the feature view: use letters, digits and `_`, "
            "starting with a letter"
        )
    path = Path(repo_path) / f"{feature_view_name}.py"
    path.write_text(_DEFINITIONS.format(name=feature_view_name, length=vector_length))
    return str(path)


class DocEmbedder:
    """Cuts documents, embeds the pieces and writes them to a feature view.

    By default it also declares that view in the repository, and applies the repository.
    """

    def __init__(
        self,
        repo_path: str,
        yaml_file: str = "feature_store.yaml",
        feature_view_name: str = "text_feature_view",
        chunker: BaseChunker | None = None,
        embedder: BaseEmbedder | None = None,
        schema_transform_fn: SchemaTransformFn = default_schema_transform_fn,
        create_feature_view: bool = True,
        vector_length: int | None = None,
        auto_apply_repo: bool = True,
    ) -> None:
        self.repo_path = repo_path
        self.yaml_path = str(Path(repo_path).resolve() / yaml_file)
        self.feature_view_name = feature_view_name
        self.chunker = chunker or TextChunker()
        self.embedder = embedder or MultiModalEmbedder()
        self.schema_transform_fn = schema_transform_fn
        self.store: FeatureStore | None = None
        if create_feature_view:
            length = vector_length or self.embedder.get_embedding_dim("text") or _DEFAULT_LENGTH
            generate_repo_file(repo_path, feature_view_name, length)
        if auto_apply_repo:
            self.apply_repo()

    def apply_repo(self) -> None:
        """Applies the repository, without looking at its sources."""
        from feast.repo_config import load_repo_config
        from feast.repo_operations import apply_total

        folder = Path(self.repo_path).resolve()
        config = load_repo_config(repo_path=folder, fs_yaml_file=Path(self.yaml_path))
        apply_total(repo_config=config, repo_path=folder, skip_source_validation=True)

    def embed_documents(
        self,
        documents: pandas.DataFrame,
        id_column: str,
        source_column: str,
        type_column: str | None = None,
        column_mapping: tuple[str, str] | None = None,
        custom_schema_transform_fn: Callable[..., Any] | None = None,
    ) -> pandas.DataFrame:
        """Embeds documents and writes them online; returns what was written.

        `column_mapping` is (modality, column of the vectors). Images are not cut.
        """
        modality, output = column_mapping or _OUTPUT
        transform = custom_schema_transform_fn or self.schema_transform_fn
        default = transform is default_schema_transform_fn
        if default and (modality != "text" or source_column != "text" or output != _OUTPUT[1]):
            raise ValueError(
                f"the column `{source_column}` with vectors in `{output}` does not fit the view that "
                "is declared by default (`text`, `text_embedding`); pass "
                "`custom_schema_transform_fn`"
            )
        pieces = documents
        if modality == "text":
            pieces = self.chunker.chunk_dataframe(
                df=documents,
                id_column=id_column,
                source_column=source_column,
                type_column=type_column,
            )
        embedded = self.embedder.embed_dataframe(pieces, {source_column: (modality, output)})
        result = transform(embedded)
        self.save_to_online_store(result, self.feature_view_name)
        return result

    def save_to_online_store(self, df: pandas.DataFrame, feature_view_name: str) -> None:
        """Writes rows to a feature view in the online store."""
        if self.store is None:
            from feast.feature_store import FeatureStore

            self.store = FeatureStore(repo_path=self.repo_path)
        self.store.write_to_online_store(feature_view_name=feature_view_name, df=df)
