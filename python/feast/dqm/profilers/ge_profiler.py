"""Rules written with Great Expectations.

The package is imported when rules are computed or checked; declaring a profiler, and reading one
from a registry, do without it. A profiler read from a registry keeps its pickled function as bytes
and never loads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from feast.dqm.profilers.profiler import Profile, Profiler, ValidationError, ValidationReport

if TYPE_CHECKING:
    import pandas

_NOT_FOUND = 3
_PRESENT = 1


def _great_expectations() -> Any:
    try:
        import great_expectations
    except ImportError as error:
        from feast.errors import FeastExtrasDependencyImportError

        raise FeastExtrasDependencyImportError("ge", str(error)) from error
    return great_expectations


def _prepared(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The frame in types that expectations can be written as JSON for; missing features as null."""
    import pandas

    result = frame.copy()
    for name in frame.columns:
        if pandas.api.types.is_datetime64_any_dtype(frame[name]):
            result[name] = frame[name].dt.strftime("%Y-%m-%dT%H:%M:%S")
        elif frame[name].dtype == "float32":
            result[name] = frame[name].astype("float64")
        status = f"{name}__status"
        if status in frame.columns:
            result[name] = result[name].mask(frame[status] == _NOT_FOUND)
    return result


def _with_metadata(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The frame with a time and a status beside each feature, as logs of served features have."""
    for name in [one for one in frame.columns if "__" in one]:
        if "event_timestamp" in frame.columns:
            frame[f"{name}__timestamp"] = frame["event_timestamp"]
        frame[f"{name}__status"] = frame[name].isna().map({True: _NOT_FOUND, False: _PRESENT})
    return frame


class GEProfile(Profile):
    """A suite of expectations."""

    def __init__(self, expectation_suite: Any) -> None:
        self.expectation_suite = expectation_suite

    def _suite_json(self) -> dict[str, Any]:
        suite = self.expectation_suite
        return suite if isinstance(suite, dict) else suite.to_json_dict()

    def validate(self, df: pandas.DataFrame) -> GEValidationReport:
        """Checks a frame against the suite (needs great_expectations)."""
        package = _great_expectations()
        suite = self.expectation_suite
        if isinstance(suite, dict):
            suite = package.core.ExpectationSuite(**suite)
        frame = package.dataset.PandasDataset(_prepared(df))
        return GEValidationReport(
            package.validate(frame, expectation_suite=suite, result_format="COMPLETE")
        )

    def to_proto(self) -> Any:
        """The message `feast.core.GEValidationProfile`."""
        import json

        from feast.protos.feast.core.ValidationProfile_pb2 import GEValidationProfile

        return GEValidationProfile(expectation_suite=json.dumps(self._suite_json()).encode())

    @classmethod
    def from_proto(cls, proto: Any) -> GEProfile:
        """Reads `feast.core.GEValidationProfile`; the suite stays JSON until it is needed."""
        import json

        return cls(expectation_suite=json.loads(proto.expectation_suite))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GEProfile) and self._suite_json() == other._suite_json()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        import json

        return (
            f"<GEProfile with expectations: {json.dumps(self._suite_json().get('expectations'))}>"
        )


class GEProfiler(Profiler):
    """A function from a frame to a suite of expectations."""

    def __init__(
        self, user_defined_profiler: Callable[..., Any], with_feature_metadata: bool = False
    ) -> None:
        self.user_defined_profiler = user_defined_profiler
        self.with_feature_metadata = with_feature_metadata
        self._body = b""

    def analyze_dataset(self, df: pandas.DataFrame) -> GEProfile:
        """The suite the function makes of a frame (needs great_expectations)."""
        if self.user_defined_profiler is None:
            raise ValueError(
                "this profiler was read from a registry, which keeps no source text of it; import "
                "the module that declares it"
            )
        frame = _great_expectations().dataset.PandasDataset(_prepared(df))
        if self.with_feature_metadata:
            frame = _with_metadata(frame)
        return GEProfile(expectation_suite=self.user_defined_profiler(frame))

    def to_proto(self) -> Any:
        """The message `feast.core.GEValidationProfiler`; the function is pickled if dill is there."""
        from types import FunctionType

        from feast.protos.feast.core.ValidationProfile_pb2 import GEValidationProfiler

        body = self._body
        if not body and self.user_defined_profiler is not None:
            try:
                import dill

                bare = FunctionType(self.user_defined_profiler.__code__, {})
                body = dill.dumps(bare, recurse=False)
            except ImportError:
                body = b""
        message = GEValidationProfiler()
        message.profiler.body = body
        return message

    @classmethod
    def from_proto(cls, proto: Any) -> GEProfiler:
        """Reads `feast.core.GEValidationProfiler`, without its function."""
        one = cls(user_defined_profiler=None)  # type: ignore[arg-type]
        one._body = proto.profiler.body
        return one

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GEProfiler):
            return False
        mine, theirs = self.user_defined_profiler, other.user_defined_profiler
        return mine is theirs or getattr(mine, "__code__", 0) == getattr(theirs, "__code__", 1)

    __hash__ = None  # type: ignore[assignment]


class GEValidationReport(ValidationReport):
    """The outcome of a check with Great Expectations."""

    def __init__(self, validation_result: dict[Any, Any]) -> None:
        self._validation_result = validation_result

    def _failed(self) -> list[Any]:
        return [one for one in self._validation_result["results"] if not one["success"]]

    @property
    def is_success(self) -> bool:
        """Whether every expectation was met."""
        return bool(self._validation_result["success"])

    @property
    def errors(self) -> list[ValidationError]:
        """The expectations that were not met."""
        counts = ("missing_count", "missing_percent", "unexpected_count", "unexpected_percent")
        return [
            ValidationError(
                check_name=one.expectation_config.expectation_type,
                column_name=one.expectation_config.kwargs["column"],
                check_config=one.expectation_config.kwargs,
                **{name: one["result"].get(name) for name in counts},
            )
            for one in self._failed()
        ]

    def __repr__(self) -> str:
        import json

        return json.dumps([one.to_json_dict() for one in self._failed()], indent=2)


def ge_profiler(*args: Any, with_feature_metadata: bool = False) -> Any:
    """Decorator that makes a function a profiler; usable with and without parentheses."""

    def decorate(function: Callable[..., Any]) -> GEProfiler:
        return GEProfiler(function, with_feature_metadata=with_feature_metadata)

    return decorate(args[0]) if args else decorate
