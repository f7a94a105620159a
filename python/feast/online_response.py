"""The answer to a request for online features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feast import _frames

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
    from feast.value_type import ValueType

TIMESTAMP_POSTFIX = "__ts"


class OnlineResponse:
    """Feature values by name, one per entity row, in the order of the rows."""

    def __init__(
        self,
        online_response_proto: GetOnlineFeaturesResponse,
        feature_types: dict[str, ValueType] | None = None,
    ) -> None:
        self._proto: Any = online_response_proto
        self._feature_types = feature_types or {}
        self._native: Any = None

    @classmethod
    def _from_native(cls, native: Any) -> OnlineResponse:
        response = cls(None)  # type: ignore[arg-type]
        response._native = native
        return response

    @property
    def proto(self) -> GetOnlineFeaturesResponse:
        """The answer as the protobuf message of the serving API."""
        if self._proto is None:
            from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse

            self._proto = GetOnlineFeaturesResponse.FromString(self._native.to_proto())
        return self._proto

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, list[Any]]:
        """Lists of values by name; with times, also `<name>__ts` in seconds since 1970."""
        if self._native is not None:
            return self._native.to_dict(include_event_timestamps)
        from feast.type_map import feast_value_type_to_python_type

        result = {}
        for name, vector in zip(self._proto.metadata.feature_names.val, self._proto.results):
            kind = self._feature_types.get(name)
            result[name] = [feast_value_type_to_python_type(value, kind) for value in vector.values]
            if include_event_timestamps:
                result[name + TIMESTAMP_POSTFIX] = [
                    stamp.seconds for stamp in vector.event_timestamps
                ]
        return result

    def to_df(self, include_event_timestamps: bool = False) -> pd.DataFrame:
        """The values as a pandas DataFrame, one row per entity row."""
        try:
            import pandas
        except ImportError as error:
            from feast.errors import FeastExtrasDependencyImportError

            raise FeastExtrasDependencyImportError("pandas", str(error)) from None
        return pandas.DataFrame(self.to_dict(include_event_timestamps))

    def to_arrow(self, include_event_timestamps: bool = False) -> pa.Table:
        """The values as an Arrow table with the declared types."""
        if self._native is None or include_event_timestamps:
            pyarrow = _frames._pyarrow("a table")
            return pyarrow.table(
                {
                    name: pyarrow.array(
                        [sorted(value) if isinstance(value, set) else value for value in values]
                    )
                    for name, values in _text_uuids(self.to_dict(include_event_timestamps)).items()
                }
            )
        return _frames.to_table(self._native)

    def to_tensor(self, kind: str = "torch", default_value: Any = float("nan")) -> dict[str, Any]:
        """Features that are numbers as tensors, missing values replaced; others as lists."""
        return _frames.to_tensors(self.to_dict(), kind, default_value)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        if self._native is None:
            return self.to_arrow().__arrow_c_stream__(requested_schema)
        return self._native.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"OnlineResponse({self.to_dict()!r})"


def _text_uuids(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    import uuid

    def text(value: Any) -> Any:
        if isinstance(value, uuid.UUID):
            return str(value)
        if isinstance(value, (list, set)):
            return type(value)(text(item) for item in value)
        return value

    return {name: [text(value) for value in values] for name, values in columns.items()}
