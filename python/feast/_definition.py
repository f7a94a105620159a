"""What every declared object has in common.

Declaring an object must cost nothing but memory: no protobuf, no pandas, no Arrow is imported
here. The helpers below therefore only look at plain Python values.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from types import FrameType

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def declared_at() -> str:
    """The place, as `path:line`, of the nearest caller outside this package (empty if none)."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith((_PACKAGE, "<frozen")):
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class Definition:
    """Base of declared objects: remembers its place, compares and prints by its content.

    Two objects are equal when they are of the same kind and the attributes named in `_compared`
    are equal. The place of declaration and the times kept by the registry never count.
    """

    _compared: ClassVar[tuple[str, ...]] = ("name",)
    _declared_at: str = ""

    name: str

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return False
        return all(getattr(self, one) == getattr(other, one) for one in self._compared)

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.name))

    def __lt__(self, other: Any) -> bool:
        return self.name < other.name

    def __repr__(self) -> str:
        return shown(self)

    def __str__(self) -> str:
        from feast._wire import as_json

        return as_json(self.to_proto())

    def to_proto(self) -> Any:
        """The protobuf message of this object."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is serialized")


def shown(value: Any) -> str:
    """`Kind(name='x', …)` with every public attribute that holds something."""
    parts = [
        f"{name}={attribute!r}"
        for name, attribute in vars(value).items()
        if not name.startswith("_") and not _is_empty(attribute)
    ]
    return f"{type(value).__name__}({', '.join(parts)})"


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, dict, tuple)) and not value)


def kind_of(value: Any) -> str:
    """How a message names a wrong value: its class, or the class itself when one was passed."""
    if isinstance(value, type):
        return f"the class `{value.__name__}`"
    if value is None or (isinstance(value, str) and not value):
        return "missing"
    short = isinstance(value, (str, int, float)) and len(str(value)) <= 60
    kind = type(value).__name__
    return f"`{value}` ({kind})" if short else f"a {kind}"


def check_text(where: str, parameter: str, value: Any) -> None:
    """Refuses anything but a text."""
    if not isinstance(value, str):
        raise TypeError(f"{where}: `{parameter}` must be a text, but is {kind_of(value)}")


def check_instance(where: str, parameter: str, value: Any, kind: type, example: str) -> None:
    """Refuses a value of another class; `example` shows what to write instead."""
    if not isinstance(value, kind):
        raise TypeError(
            f"{where}: `{parameter}` must be of class {kind.__name__}, but is {kind_of(value)}; "
            f"write for instance `{example}`"
        )


def checked_list(where: str, parameter: str, value: Any, kind: type, example: str) -> list[Any]:
    """The value as a new list, when each item is of one class; `None` counts as empty."""
    if value is None:
        return []
    if isinstance(value, (str, bytes, dict)) or not hasattr(value, "__iter__"):
        raise TypeError(
            f"{where}: `{parameter}` must be a list, but is {kind_of(value)}; "
            f"write for instance `[{example}]`"
        )
    items = list(value)
    for position, item in enumerate(items):
        if not isinstance(item, kind):
            raise TypeError(
                f"{where}: item {position + 1} of `{parameter}` must be of class "
                f"{kind.__name__}, but is {kind_of(item)}; write for instance `[{example}]`"
            )
    return items


def checked_texts(where: str, parameter: str, value: Any) -> dict[str, str]:
    """The value as a dictionary from text to text (tags, renamings); `None` counts as empty."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError(
            f"{where}: `{parameter}` must be a dictionary of texts, but is {kind_of(value)}; "
            'write for instance `{"team": "growth"}`'
        )
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise TypeError(
                f"{where}: `{parameter}` must map texts to texts, but has "
                f"{key!r}: {kind_of(item)}; put the value in quotation marks"
            )
    return value


def did_you_mean(name: str, known: Any) -> str:
    """`; did you mean …?` for a near miss, else the list of what exists, else nothing."""
    import difflib

    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean `{near[0]}`?"
    return "; there are: " + ", ".join(f"`{one}`" for one in names) if names else ""
