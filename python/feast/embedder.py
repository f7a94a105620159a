"""Turning texts and images into vectors.

The models run in the libraries that bring them (`sentence-transformers`, `transformers`), which
are imported when something is embedded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from feast._definition import shown

if TYPE_CHECKING:
    import numpy
    import pandas

_TEXT_MODEL = "all-MiniLM-L6-v2"
_IMAGE_MODEL = "openai/clip-vit-base-patch32"


@runtime_checkable
class EmbeddingProvider(Protocol):
    """Anything that turns texts into vectors, also asynchronously."""

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One vector for each text."""
        ...

    async def aembed(self, texts: list[str]) -> list[list[float]]:
        """The same, awaited."""
        ...


def _sentence_model(name: str) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError(
            f"the embedding model `{name}` needs a package; install it with: "
            "pip install sentence-transformers"
        ) from error
    return SentenceTransformer(name)


class SentenceTransformersEmbeddingProvider:
    """Vectors by a model of sentence-transformers, loaded at first use."""

    def __init__(self, model: str = _TEXT_MODEL) -> None:
        self.model_name = model
        self._model: Any = None

    @classmethod
    def from_config(cls, config: Any) -> SentenceTransformersEmbeddingProvider:
        """The provider of a configured model."""
        return cls(model=config.model)

    def embed(self, texts: list[str]) -> list[list[float]]:
        """One vector for each text."""
        if self._model is None:
            self._model = _sentence_model(self.model_name)
        return [one.tolist() for one in self._model.encode(texts, convert_to_numpy=True)]

    async def aembed(self, texts: list[str]) -> list[list[float]]:
        """The same in another thread."""
        import asyncio

        return await asyncio.to_thread(self.embed, texts)


def get_embedding_provider(config: Any) -> EmbeddingProvider:
    """The provider that a configuration (`provider`, `model`) asks for."""
    name = (getattr(config, "provider", None) or "sentence_transformers").lower()
    if name != "sentence_transformers":
        raise ValueError(f"`{name}` is no embedding provider; use sentence_transformers")
    return SentenceTransformersEmbeddingProvider.from_config(config)


class EmbeddingConfig:
    """How many inputs go into the model at once, and whether progress is shown."""

    def __init__(self, batch_size: int = 64, show_progress: bool = True) -> None:
        self.batch_size = batch_size
        self.show_progress = show_progress

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EmbeddingConfig) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return shown(self)


class BaseEmbedder(ABC):
    """Base of embedders: a function for each modality (text, image, …)."""

    def __init__(self, config: EmbeddingConfig | None = None) -> None:
        self.config = config or EmbeddingConfig()
        self._modalities: dict[str, Callable[[list[Any]], numpy.ndarray]] = {}
        self._register_default_modalities()

    def _register_default_modalities(self) -> None:
        """Where a subclass registers what it can do."""

    def register_modality(
        self, modality: str, handler: Callable[[list[Any]], numpy.ndarray]
    ) -> None:
        """Makes a modality known."""
        self._modalities[modality] = handler

    @property
    def supported_modalities(self) -> list[str]:
        """The known modalities."""
        return list(self._modalities)

    def get_embedding_dim(self, modality: str) -> int | None:
        """Number of dimensions of a modality's vectors, if known."""
        return None

    @abstractmethod
    def embed(self, inputs: list[Any], modality: str) -> numpy.ndarray:
        """One vector for each input."""

    def embed_dataframe(
        self, df: pandas.DataFrame, column_mapping: dict[str, tuple[str, str]]
    ) -> pandas.DataFrame:
        """The frame with vectors; `{input column: (modality, output column)}`."""
        import pandas

        result = df.copy()
        for column, (modality, output) in column_mapping.items():
            vectors = [one.tolist() for one in self.embed(df[column].tolist(), modality)]
            result[output] = pandas.Series(vectors, dtype=object, index=df.index)
        return result


class MultiModalEmbedder(BaseEmbedder):
    """Texts by a model of sentence-transformers, images by a CLIP model of transformers."""

    def __init__(
        self,
        text_model: str = _TEXT_MODEL,
        image_model: str = _IMAGE_MODEL,
        config: EmbeddingConfig | None = None,
    ) -> None:
        self.text_model_name = text_model
        self.image_model_name = image_model
        self._loaded: dict[str, Any] = {}
        super().__init__(config)

    def _register_default_modalities(self) -> None:
        self.register_modality("text", self._embed_text)
        self.register_modality("image", self._embed_image)

    def _load(self, name: str, load: Callable[[], Any]) -> Any:
        if name not in self._loaded:
            self._loaded[name] = load()
        return self._loaded[name]

    def _clip(self, name: str, kind: str) -> Any:
        def load() -> Any:
            import transformers

            return getattr(transformers, kind).from_pretrained(self.image_model_name)

        return self._load(name, load)

    @property
    def text_model(self) -> Any:
        """The loaded model for texts."""
        return self._load("text", lambda: _sentence_model(self.text_model_name))

    @property
    def image_model(self) -> Any:
        """The loaded model for images."""
        return self._clip("image", "CLIPModel")

    @property
    def image_processor(self) -> Any:
        """What prepares images for the model."""
        return self._clip("processor", "CLIPProcessor")

    def embed(self, inputs: list[Any], modality: str) -> numpy.ndarray:
        """One vector for each input."""
        if modality not in self._modalities:
            raise ValueError(
                f"`{modality}` is no modality; known are {', '.join(self.supported_modalities)}"
            )
        return self._modalities[modality](inputs)

    def get_embedding_dim(self, modality: str) -> int | None:
        """Number of dimensions of a modality's vectors, if known."""
        if modality == "text":
            return int(self.text_model.get_sentence_embedding_dimension())
        if modality == "image":
            return int(self.image_model.config.projection_dim)
        return None

    def _embed_text(self, inputs: list[Any]) -> numpy.ndarray:
        return self.text_model.encode(
            inputs,
            batch_size=self.config.batch_size,
            show_progress_bar=self.config.show_progress,
        )

    def _embed_image(self, inputs: list[Any]) -> numpy.ndarray:
        import numpy
        from PIL import Image

        results = []
        size = self.config.batch_size
        for start in range(0, len(inputs), size):
            images = []
            for one in inputs[start : start + size]:
                if isinstance(one, Image.Image):
                    images.append(one)
                else:
                    with Image.open(one) as opened:
                        images.append(opened.convert("RGB"))
            prepared = self.image_processor(images=images, return_tensors="pt")
            vectors = self.image_model.get_image_features(**prepared)
            unit = vectors / vectors.norm(p=2, dim=-1, keepdim=True)
            results.append(unit.detach().numpy())
        return numpy.concatenate(results, axis=0)
