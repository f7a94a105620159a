"""Training data that is kept: rows in a storage, and a name for them in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feast import _frames
from feast._store.history import History
from feast._unavailable import NotAvailableYet
from feast.retrieval_job import RetrievalJob

if TYPE_CHECKING:
    import pandas as pd

    from feast.feature_service import FeatureService
    from feast.saved_dataset import SavedDataset, SavedDatasetStorage, ValidationReference


class SavedDatasets(History):
    """Saving the rows of a query, and reading them back."""

    def list_saved_datasets(
        self,
        allow_cache: bool = False,
        tags: dict[str, str] | None = None,
        namespace: str | None = None,
        collection: str | None = None,
    ) -> list[SavedDataset]:
        """The saved datasets, of one namespace and collection if these are given."""
        return [
            each
            for each in self._list("saved_dataset", allow_cache, tags)
            if namespace in (None, each.namespace) and collection in (None, each.collection)
        ]

    def get_validation_reference(self, name: str, allow_cache: bool = False) -> ValidationReference:
        """The validation reference of this name, with its dataset."""
        reference = self._get("validation_reference", name, allow_cache)
        reference._dataset = self.get_saved_dataset(reference.dataset_name)
        return reference

    def create_saved_dataset(
        self,
        from_: RetrievalJob,
        name: str,
        storage: SavedDatasetStorage,
        tags: dict[str, str] | None = None,
        feature_service: FeatureService | None = None,
        allow_overwrite: bool = False,
    ) -> SavedDataset:
        """Runs a query, writes its rows to a storage, and remembers them in the registry under a name."""
        from feast.saved_dataset import SavedDataset

        if not isinstance(from_, RetrievalJob):
            raise TypeError(
                f"saved dataset `{name}`: `from_` must be a retrieval job, but is of class {type(from_).__name__}; "
                "pass what `get_historical_features` returns"
            )
        metadata = from_.metadata
        if metadata is None:
            raise ValueError(
                f"saved dataset `{name}`: the job only reads back stored rows; "
                "pass one that comes from `get_historical_features`"
            )
        dataset = SavedDataset(
            name=name,
            features=metadata.features,
            join_keys=metadata.keys,
            full_feature_names=from_.full_feature_names,
            storage=storage,
            tags=tags,
            feature_service_name=feature_service.name if feature_service else None,
        )
        from_._save(dataset, allow_overwrite)
        return self.get_saved_dataset(name)

    def get_saved_dataset(self, name: str) -> SavedDataset:
        """The saved dataset of this name, with a job that reads its rows."""
        dataset = self._get("saved_dataset", name, False)
        return dataset.with_retrieval_job(self._stored_rows(dataset))

    def _stored_rows(self, dataset: SavedDataset) -> RetrievalJob:
        storage = dataset.storage.to_proto().SerializeToString()
        return RetrievalJob(
            _Stored(self._native, storage), full_feature_names=dataset.full_feature_names
        )

    def create_dataset_from_retrieval(
        self,
        name: str,
        entity_df: pd.DataFrame,
        features: list[str] | FeatureService,
        storage: SavedDatasetStorage,
        tags: dict[str, str] | None = None,
        allow_overwrite: bool = False,
    ) -> SavedDataset:
        """`get_historical_features` and `create_saved_dataset` in one."""
        job = self.get_historical_features(entity_df=entity_df, features=features)
        return self.create_saved_dataset(
            job, name, storage, tags=tags, allow_overwrite=allow_overwrite
        )

    def retrieve_dataset_data(self, name: str, limit: int = 10) -> pd.DataFrame:
        """The first rows of a saved dataset."""
        stored = self._stored_rows(self._get("saved_dataset", name, False))
        reader = stored.to_arrow_batches()
        batches, n_rows = [], 0
        for batch in reader:
            batches.append(batch.slice(0, limit - n_rows))
            n_rows += len(batches[-1])
            if n_rows >= limit:
                break
        return _frames.to_pandas(
            _frames._pyarrow("a table").Table.from_batches(batches, schema=reader.schema)
        )


class _Stored:
    """Stored rows, read anew by each use."""

    def __init__(self, native: Any, storage: bytes) -> None:
        self._native = native
        self._storage = storage

    def rows(self, timeout: float | None = None, kept: bool = False) -> Any:
        # Stored rows come batch by batch, whether they are kept or not.
        return self._native.read_storage(self._storage, timeout)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.rows().__arrow_c_stream__(requested_schema)

    def explain(self) -> str:
        raise NotAvailableYet("SQL of stored rows")

    def write(self, path: str, allow_overwrite: bool) -> list[str]:
        raise NotAvailableYet(
            "copying a saved dataset", "save the job of `get_historical_features` again"
        )
