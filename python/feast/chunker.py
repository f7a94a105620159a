"""Cutting documents into pieces that can be embedded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feast._definition import shown

if TYPE_CHECKING:
    import pandas


class ChunkingConfig:
    """Sizes in words, except `max_chunk_chars`, in characters. Shorter pieces are dropped."""

    def __init__(
        self,
        chunk_size: int = 100,
        chunk_overlap: int = 20,
        min_chunk_size: int = 20,
        max_chunk_chars: int | None = 500,
    ) -> None:
        self.chunk_size = chunk_size
        self.chunk_overlap = chunk_overlap
        self.min_chunk_size = min_chunk_size
        self.max_chunk_chars = max_chunk_chars

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChunkingConfig) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return shown(self)


class BaseChunker(ABC):
    """Base of chunkers: from a document to its pieces."""

    def __init__(self, config: ChunkingConfig | None = None) -> None:
        self.config = config or ChunkingConfig()

    @abstractmethod
    def load_parse_and_chunk(
        self, source: Any, source_id: str, source_column: str, source_type: str | None = None
    ) -> list[dict[str, Any]]:
        """The pieces of one document, with `chunk_id`, `original_id`, text and `chunk_index`."""

    def chunk_dataframe(
        self,
        df: pandas.DataFrame,
        id_column: str,
        source_column: str,
        type_column: str | None = None,
    ) -> pandas.DataFrame:
        """The pieces of all documents of a frame."""
        import pandas

        kinds = df[type_column] if type_column else [None] * len(df)
        pieces = [
            piece
            for name, source, kind in zip(df[id_column], df[source_column], kinds)
            for piece in self.load_parse_and_chunk(source, str(name), source_column, kind)
        ]
        columns = ["chunk_id", "original_id", source_column, "chunk_index"]
        return pandas.DataFrame(pieces) if pieces else pandas.DataFrame(columns=columns)


class TextChunker(BaseChunker):
    """Cuts plain text, or `.txt` files, every so many words."""

    def load_parse_and_chunk(
        self, source: Any, source_id: str, source_column: str, source_type: str | None = None
    ) -> list[dict[str, Any]]:
        """The pieces of one text; a path to a text file is read."""
        config = self.config
        step = config.chunk_size - config.chunk_overlap
        if step <= 0:
            raise ValueError(
                f"`chunk_overlap` ({config.chunk_overlap}) must be smaller than `chunk_size` "
                f"({config.chunk_size})"
            )
        is_file = isinstance(source, Path) or (isinstance(source, str) and source.endswith(".txt"))
        text = Path(source).read_text() if is_file and Path(source).exists() else str(source)
        words = text.split()
        cuts = [words[start : start + config.chunk_size] for start in range(0, len(words), step)]
        kept = [cut for cut in cuts if len(cut) >= config.min_chunk_size]
        return [
            {
                "chunk_id": f"{source_id}_{position}",
                "original_id": source_id,
                source_column: " ".join(cut)[: config.max_chunk_chars or None],
                "chunk_index": position,
            }
            for position, cut in enumerate(kept)
        ]
