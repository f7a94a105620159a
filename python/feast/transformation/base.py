"""`Transformation`: a user's function with its source text and the language it is written in."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from typing import Any, TypeVar, Union

from feast._definition import declared_at
from feast.transformation.factory import (
    TRANSFORMATION_CLASS_FOR_TYPE,
    get_transformation_class_from_type,
)
from feast.transformation.mode import TransformationMode

__all__ = [
    "TRANSFORMATION_CLASS_FOR_TYPE",
    "Transformation",
    "source_text",
    "transformation",
]

_Self = TypeVar("_Self", bound="Transformation")


class Transformation(ABC):
    """A function that computes features. `Transformation(mode=…)` makes one of its subclasses.

    The registry keeps the *source text*. A transformation that was read from a registry has
    `udf = None`: reading a registry never runs code that is written in it.
    """

    _mode: TransformationMode | None = None

    def __new__(
        cls,
        mode: Union[TransformationMode, str],
        udf: Callable[..., Any],
        udf_string: str,
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> Transformation:
        if cls is Transformation:
            return object.__new__(get_transformation_class_from_type(mode_text(mode).lower()))
        return object.__new__(cls)

    def __init__(
        self,
        mode: Union[TransformationMode, str],
        udf: Callable[..., Any],
        udf_string: str,
        name: str | None = None,
        tags: dict[str, str] | None = None,
        description: str = "",
        owner: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if udf is not None and not callable(udf):
            raise TypeError(f"transformation `{name}`: `udf` must be a function, but is {udf!r}")
        self._declared_at = declared_at()
        self.mode = mode
        self.udf = udf
        self.udf_string = udf_string
        self.name = name or getattr(udf, "__name__", "")
        self.tags = tags or {}
        self.description = description
        self.owner = owner
        self._body = b""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return False
        if self.udf_string and other.udf_string:
            return self.udf_string == other.udf_string
        return _code(self.udf) == _code(other.udf)

    def __hash__(self) -> int:
        return hash((mode_text(self.mode), self.udf_string))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    def __deepcopy__(self: _Self, memo: dict[int, Any] | None = None) -> _Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __reduce__(self) -> Any:
        state = dict(self.__dict__)
        if getattr(self.udf, "__module__", None) == "feast_on_demand":
            # It was made of the text, and can be made again.
            state["udf"] = None
        return (_restore, (type(self), state))

    def to_proto(self) -> Any:
        """The message `feast.core.UserDefinedFunctionV2`."""
        from feast.protos.feast.core.Transformation_pb2 import UserDefinedFunctionV2

        return UserDefinedFunctionV2(
            name=function_name(self),
            body=pickled(self),
            body_text=self.udf_string or "",
            mode=mode_text(self.mode),
        )

    @classmethod
    def from_proto(cls, user_defined_function_proto: Any) -> Any:
        """Reads `feast.core.UserDefinedFunctionV2`: name and source text, without the function."""
        message = user_defined_function_proto
        kind = cls
        if kind is Transformation:
            kind = get_transformation_class_from_type(message.mode or "python")
        return restored(kind, message, message.mode)

    def function(self) -> Callable[..., Any]:
        """The function; that of a transformation from a registry is made of its code when it is first asked for."""
        if self.udf is None:
            from feast.transformation._functions import FunctionUnusable, load

            try:
                self.udf = load(self.name, self.name, self.udf_string or "", self._body)
            except FunctionUnusable as error:
                raise ValueError(
                    f"transformation `{self.name}` was read from a registry, and its code does not load: {error}"
                ) from None
        return self.udf

    def transform(self, *inputs: Any) -> Any:
        """Runs the function."""
        raise NotImplementedError(f"a {type(self).__name__} is run by its engine")

    def transform_arrow(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the function on an Arrow table."""
        raise NotImplementedError(f"a {type(self).__name__} does not run on Arrow tables")

    def transform_singleton(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the function on one row."""
        raise NotImplementedError(f"a {type(self).__name__} does not run on single rows")

    def infer_features(self, *args: Any, **kwargs: Any) -> Any:
        """The features the function returns for a sample."""
        raise NotImplementedError(f"the features of a {type(self).__name__} must be declared")


def mode_text(mode: Union[TransformationMode, str]) -> str:
    """A mode as text."""
    return mode.value if isinstance(mode, TransformationMode) else str(mode)


def function_name(one: Transformation) -> str:
    """The name of the function (not the one given to the transformation)."""
    return str(getattr(one.udf, "__name__", None) or one.name)


def pickled(one: Transformation) -> bytes:
    """The body beside the source text: as it was read, or made anew.

    It is the pickled function that old readers want, if dill is present, and behind that the source text of what the
    function uses from its module. Nothing here ever reads a pickle.
    """
    if one._body or one.udf is None:
        return one._body
    from feast.transformation._functions import HELPERS_MARK
    from feast.transformation._helpers import helpers_of

    helpers = helpers_of(one.udf, one.udf_string or "")
    behind = HELPERS_MARK + helpers.encode() if helpers else b""
    try:
        import dill
    except ImportError:
        return behind
    return bytes(dill.dumps(one.udf, recurse=True)) + behind


def restored(kind: type[Any], message: Any, mode: str) -> Any:
    """A transformation from its message, without running or unpickling anything."""
    one = object.__new__(kind)
    Transformation.__init__(
        one,
        mode=kind._mode or mode,
        udf=None,  # type: ignore[arg-type]
        udf_string=message.body_text,
        name=message.name,
    )
    one._body = message.body
    return one


def _restore(kind: type[Any], state: dict[str, Any]) -> Any:
    one = object.__new__(kind)
    one.__dict__.update(state)
    return one


def _code(function: Any) -> Any:
    return getattr(getattr(function, "__code__", None), "co_code", None)


def source_text(function: Callable[..., Any]) -> str:
    """The source text of a function, with its decorators: what the registry keeps of it."""
    import inspect

    try:
        return inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"the source of the function `{getattr(function, '__name__', function)}` cannot be "
            "read; define it in a file, or pass its text as `udf_string`"
        ) from error


def transformation(
    mode: Union[TransformationMode, str],
    name: str | None = None,
    tags: dict[str, str] | None = None,
    description: str | None = "",
    owner: str | None = "",
) -> Callable[[Callable[..., Any]], Any]:
    """Decorator that makes a function a transformation of a mode, named after it."""
    import functools

    def decorate(user_function: Callable[..., Any]) -> Any:
        one = Transformation(
            mode=mode,
            name=name or user_function.__name__,
            tags=tags,
            description=description or "",
            owner=owner or "",
            udf=user_function,
            udf_string=source_text(user_function),
        )
        functools.update_wrapper(wrapper=one, wrapped=user_function)  # type: ignore[arg-type]
        return one

    return decorate
